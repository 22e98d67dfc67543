"""What the environment may say of Alpaca, feeds and the universe, and what it never may."""

from pathlib import Path

import pytest

from ops_pipeline.domain.errors import BadConfiguration, OperatorError, Unsafe
from ops_pipeline.settings import (
    SANDBOX_KEY,
    SANDBOX_SECRET,
    AlpacaAccess,
    Settings,
    load,
)

KEY, SECRET = "PKTOPSECRETKEY123456", "s3cr3tOfTheAccount"
KEYS = {"ALPACA_API_KEY": KEY, "ALPACA_API_SECRET": SECRET}
URLS = {"ALPACA_BASE_URL": "trading_url", "ALPACA_DATA_URL": "data_url"}


def loaded(mode: str = "simulated", **variables: str) -> Settings:
    """Settings of an environment that holds these variables, and keys."""
    return load(mode, {"OPS_VAR_DIR": "/absent", **KEYS, **variables})


def access(**variables: str) -> AlpacaAccess:
    """The access that these variables give in simulated mode."""
    found = loaded(**variables).alpaca
    assert found is not None
    return found


def test_the_keys_go_to_the_paper_account_and_the_free_feed_where_nothing_else_is_said() -> None:
    assert access() == AlpacaAccess(
        KEY, SECRET, "https://data.alpaca.markets", "https://paper-api.alpaca.markets", "iex"
    )


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize(
    "url",
    [
        "https://api.alpaca.markets",
        "https://api.alpaca.markets/v2",
        "https://API.ALPACA.MARKETS",
        "https://broker-api.alpaca.markets",
        "https://paper-api.alpaca.markets.evil.example",
        "https://evil.example/paper-api.alpaca.markets",
        "https://paper-api.alpaca.markets@evil.example",
        "https://someone:word@paper-api.alpaca.markets",
        "http://:word@127.0.0.1:8600",
        "http://@127.0.0.1:8600",
        "http://evil.example",
        "http://paper-api.alpaca.markets",
        "http://127.0.0.2:8600",
        "http://127.0.0.1.evil.example",
        "ftp://127.0.0.1",
        "paper-api.alpaca.markets",
        "http://[",
        "http://127.0.0.1:port",
        "http://127.0.0.1:99999",
    ],
)
def test_keys_go_to_no_live_account_and_to_no_stranger(name: str, url: str) -> None:
    with pytest.raises(Unsafe, match=f"^{name} must be one of") as refused:
        loaded(**{name: url})
    assert refused.value.hint == f"unset {name}: the default is right"
    assert "word" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("https://paper-api.alpaca.markets", "https://paper-api.alpaca.markets"),
        ("https://paper-api.alpaca.markets/", "https://paper-api.alpaca.markets"),
        ("https://paper-api.alpaca.markets/v2", "https://paper-api.alpaca.markets"),
        ("https://paper-api.alpaca.markets/v2/", "https://paper-api.alpaca.markets"),
        ("https://data.sandbox.alpaca.markets", "https://data.sandbox.alpaca.markets"),
        ("http://127.0.0.1:8600/v2", "http://127.0.0.1:8600"),
        ("http://localhost:8600", "http://localhost:8600"),
        ("http://[::1]:8600", "http://[::1]:8600"),
    ],
)
@pytest.mark.parametrize(("name", "field"), URLS.items())
def test_hosts_of_paper_and_data_and_of_this_machine_are_taken_without_their_version(
    name: str, field: str, url: str, taken: str
) -> None:
    assert getattr(access(**{name: url}), field) == taken


def test_a_bad_host_is_refused_only_where_keys_would_go_there() -> None:
    live = {"ALPACA_BASE_URL": "https://api.alpaca.markets"}
    assert loaded("replay", **live).alpaca is None
    assert loaded("sandbox", **live).alpaca == loaded("sandbox").alpaca


def test_sandbox_mode_never_takes_the_keys_nor_the_hosts_of_the_environment() -> None:
    settings = loaded("sandbox", OPS_SANDBOX_PORT="8765", ALPACA_DATA_URL="http://localhost:1")
    url = "http://127.0.0.1:8765"
    assert settings.alpaca == AlpacaAccess(SANDBOX_KEY, SANDBOX_SECRET, url, url, "iex")
    assert settings.sandbox_url == url


def test_replay_mode_has_no_access_even_with_keys() -> None:
    assert loaded("replay").alpaca is None


@pytest.mark.parametrize("name", KEYS)
def test_half_a_pair_of_keys_is_none(name: str) -> None:
    assert loaded(**{name: ""}).alpaca is None
    assert loaded(**{name: "  "}).alpaca is None


@pytest.mark.parametrize("name", [*KEYS, "OPS_CONTACT"])
@pytest.mark.parametrize("text", ["two\nlines", "a\x00b", "a\r\nX-Header: b"])
def test_what_becomes_a_header_is_one_printable_line_and_is_not_told(name: str, text: str) -> None:
    with pytest.raises(BadConfiguration) as refused:
        loaded(**{name: text})
    assert str(refused.value) == f"{name} must be one line of printable text"


def test_blanks_around_a_key_are_no_part_of_it() -> None:
    assert access(ALPACA_API_KEY=f" {KEY}\n", ALPACA_API_SECRET=f"{SECRET} ") == access()


@pytest.mark.parametrize("mode", ["replay", "sandbox", "simulated"])
def test_no_text_of_the_settings_holds_a_key_or_a_secret(mode: str) -> None:
    settings = loaded(mode, DATABASE_URL="postgresql://someone:s3cr3t-word@127.0.0.1/ops")
    for thing in (settings, settings.alpaca, settings.server):
        told = f"{thing!r} {thing}"
        for secret in (KEY, SECRET, SANDBOX_KEY, SANDBOX_SECRET, "s3cr3t-word"):
            assert secret not in told


def test_a_masked_key_tells_two_apart_and_no_more() -> None:
    assert AlpacaAccess(KEY, SECRET).masked_key == "PK...56"
    assert AlpacaAccess("PK345678", SECRET).masked_key == "..."
    assert AlpacaAccess("", "").masked_key == "..."


@pytest.mark.parametrize("feed", ["iex", "sip"])
def test_a_known_feed_is_taken(feed: str) -> None:
    assert access(OPS_ALPACA_FEED=feed).feed == feed


@pytest.mark.parametrize("feed", ["otc", "IEX", "iex,sip"])
def test_an_unknown_feed_is_refused_by_name(feed: str) -> None:
    with pytest.raises(BadConfiguration, match=r"^OPS_ALPACA_FEED must be one of iex, sip, not"):
        loaded(OPS_ALPACA_FEED=feed)


@pytest.mark.parametrize(
    ("text", "taken"), [("true", True), ("TRUE", True), ("false", False), ("", False)]
)
def test_private_feeds_are_allowed_by_the_word_true(text: str, taken: bool) -> None:  # noqa: FBT001
    assert loaded(OPS_ALLOW_PRIVATE_FEEDS=text).allows_private_feeds is taken


@pytest.mark.parametrize("text", ["maybe", "1", "yes"])
def test_private_feeds_are_not_allowed_by_another_word(text: str) -> None:
    with pytest.raises(BadConfiguration, match="OPS_ALLOW_PRIVATE_FEEDS must be true or false"):
        loaded(OPS_ALLOW_PRIVATE_FEEDS=text)


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "\u00b2"])
def test_a_port_that_is_none_is_refused_by_name(text: str) -> None:
    with pytest.raises(OperatorError, match="OPS_SANDBOX_PORT must be a port"):
        loaded(OPS_SANDBOX_PORT=text)


def test_a_seed_that_is_no_number_is_refused_by_name() -> None:
    for text in ("-1", "x", "\u00b2"):
        with pytest.raises(BadConfiguration, match="OPS_SEED must be a whole number"):
            loaded(OPS_SEED=text)


def test_the_universe_file_is_a_path_of_its_own_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert loaded(OPS_UNIVERSE_FILE="mine.yaml").universe_file == tmp_path.resolve() / "mine.yaml"
    assert loaded(OPS_UNIVERSE_FILE="").universe_file is None


def test_a_contact_is_taken_without_the_blanks_around_it() -> None:
    assert loaded(OPS_CONTACT=" ops@example.org ").contact == "ops@example.org"
    assert loaded().contact == ""
