"""What the environment may say of Alpaca, orders, feeds and the rules, and what it never may."""

import json
import os
import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ops_pipeline.domain.errors import BadConfiguration, OperatorError, Unsafe
from ops_pipeline.domain.retention import Retention
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.settings import (
    PROJECT_DIR,
    SANDBOX_KEY,
    SANDBOX_SECRET,
    AlpacaAccess,
    BrokerName,
    Mode,
    SentimentBackend,
    Settings,
    alert_channels_of,
    alert_quiet_of,
    dispatcher_config,
    dispatcher_overrides,
    load,
    require_consent,
    slo_rules_of,
)

KEY, SECRET = "PKTOPSECRETKEY123456", "s3cr3tOfTheAccount"
KEYS = {"ALPACA_API_KEY": KEY, "ALPACA_API_SECRET": SECRET}
ACCOUNT = "PA3NUMBER1X7Z"
PAPER, LOCAL = "https://paper-api.alpaca.markets", "http://127.0.0.1:8600"
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


@pytest.mark.parametrize("mode", list(Mode))
def test_no_text_of_the_settings_holds_a_key_or_a_secret(mode: str) -> None:
    settings = loaded(
        mode,
        DATABASE_URL="postgresql://someone:s3cr3t-word@127.0.0.1/ops",
        OPS_PAPER_CONSENT=ACCOUNT,
    )
    for thing in (settings, settings.alpaca, settings.server):
        told = f"{thing!r} {thing}"
        for secret in (KEY, SECRET, SANDBOX_KEY, SANDBOX_SECRET, "s3cr3t-word", ACCOUNT):
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


def test_days_of_retention_are_those_of_the_environment_or_the_defaults() -> None:
    assert loaded().retention == Retention() == Retention(14, 7, 14, 90)
    days = {"TICKS": "1", "LOGS": "2", "RUNS": "3", "SIGNALS": "3650"}
    given = loaded(**{f"OPS_KEEP_{name}_DAYS": text for name, text in days.items()})
    assert given.retention == Retention(1, 2, 3, 3_650)


@pytest.mark.parametrize("name", ["TICKS", "LOGS", "RUNS", "SIGNALS"])
@pytest.mark.parametrize("text", ["0", "-1", "3651", "1.5", "week", "\u00b2", "9" * 5_000])
def test_days_of_retention_that_are_none_are_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(BadConfiguration, match="must be a whole number of days from 1 to 3,650"):
        loaded(**{f"OPS_KEEP_{name}_DAYS": text})


def test_the_universe_file_is_a_path_of_its_own_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert loaded(OPS_UNIVERSE_FILE="mine.yaml").universe_file == tmp_path.resolve() / "mine.yaml"
    assert loaded(OPS_UNIVERSE_FILE="").universe_file is None


def test_a_contact_is_taken_without_the_blanks_around_it() -> None:
    assert loaded(OPS_CONTACT=" ops@example.org ").contact == "ops@example.org"
    assert loaded().contact == ""


def test_options_of_a_database_url_are_refused_and_not_dropped() -> None:
    with pytest.raises(BadConfiguration, match="options after a question mark"):
        loaded(DATABASE_URL="postgresql://db.example/ops?sslmode=verify-full")


def test_mode_alpaca_paper_is_live_on_the_exchanges_calendar_with_databases_of_its_own() -> None:
    settings = loaded("alpaca-paper", DATABASE_URL="postgresql://127.0.0.1/ops_pipeline")
    mode = settings.mode
    assert (mode, mode.is_live) == (Mode.ALPACA_PAPER, True)
    assert mode.processes == ("keeper", "code", "daemon", "web", "stream", "alerts")
    assert mode.calendar.name == "XNYS"
    assert settings.pipeline_database == "ops_pipeline_alpaca_paper"
    assert settings.dagster_database == "ops_pipeline_alpaca_paper_dagster"
    assert settings.mode_dir == Path("/absent/alpaca-paper")
    assert settings.alpaca == access()


def test_without_keys_mode_alpaca_paper_has_no_access() -> None:
    assert load("alpaca-paper", {"OPS_VAR_DIR": "/absent"}).alpaca is None


@pytest.mark.parametrize(
    "url", [PAPER, f"{PAPER}/v2", LOCAL, "https://[::1]:1", "http://localhost"]
)
def test_mode_alpaca_paper_trades_with_the_paper_host_or_with_this_machine(url: str) -> None:
    taken = loaded("alpaca-paper", ALPACA_BASE_URL=url).alpaca
    assert taken is not None
    assert taken.trading_url == url.removesuffix("/v2")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.alpaca.markets",
        "https://data.alpaca.markets",
        "https://data.sandbox.alpaca.markets",
        "http://paper-api.alpaca.markets",
        "https://paper-api.alpaca.markets.",
        "https://paper-api.alpaca.markets.evil.example",
        "https://paper-api.alpaca.markets@evil.example",
        "https://paper-api.alpaca.markets\\@evil.example",
        "https://xpaper-api.alpaca.markets",
        "https://p\u0430per-api.alpaca.markets",
        "http://127.0.0.1.evil.example",
        "http://127.1",
        "http://0.0.0.0",
    ],
)
def test_mode_alpaca_paper_trades_with_nobody_else(url: str) -> None:
    with pytest.raises(Unsafe) as refused:
        loaded("alpaca-paper", ALPACA_BASE_URL=url)
    told = "ALPACA_BASE_URL must be one of paper-api.alpaca.markets, or of this machine"
    assert str(refused.value) == told
    assert refused.value.hint == "unset ALPACA_BASE_URL: the default is right"


@pytest.mark.parametrize("key", ["AKLIVELIVELIVE123456", "akLIVELIVELIVE123456", " AKLIVE", "AK"])
@pytest.mark.parametrize("url", ["", PAPER, LOCAL])
def test_a_live_accounts_key_is_refused_wherever_it_would_go(key: str, url: str) -> None:
    with pytest.raises(Unsafe, match=r"^ALPACA_API_KEY begins with AK") as refused:
        loaded("alpaca-paper", ALPACA_API_KEY=key, ALPACA_BASE_URL=url)
    assert "LIVELIVE" not in f"{refused.value} {refused.value.hint}"


@pytest.mark.parametrize("key", ["CKBROKER123456", "pkpaper1234567", "P", "XPK12345", "\u0420K123"])
def test_alpaca_itself_is_asked_with_a_paper_accounts_key_only(key: str) -> None:
    for url in ("", PAPER, PAPER.replace("paper", "PAPER")):
        with pytest.raises(Unsafe, match=r"^ALPACA_API_KEY does not begin with PK"):
            loaded("alpaca-paper", ALPACA_API_KEY=key, ALPACA_BASE_URL=url)
    assert loaded("alpaca-paper", ALPACA_API_KEY=key, ALPACA_BASE_URL=LOCAL).alpaca is not None


def test_a_live_accounts_key_may_read_data_where_no_order_is_sent() -> None:
    assert loaded("simulated", ALPACA_API_KEY="AKLIVE123456").alpaca is not None


@pytest.mark.parametrize(
    ("mode", "text", "broker"),
    [
        ("replay", "", BrokerName.SIMULATED),
        ("replay", "simulated", BrokerName.SIMULATED),
        ("sandbox", "", BrokerName.SIMULATED),
        ("sandbox", "simulated", BrokerName.SIMULATED),
        ("sandbox", "alpaca", BrokerName.ALPACA),
        ("simulated", "", BrokerName.SIMULATED),
        ("simulated", "simulated", BrokerName.SIMULATED),
        ("alpaca-paper", "", BrokerName.ALPACA),
        ("alpaca-paper", "alpaca", BrokerName.ALPACA),
    ],
)
def test_a_mode_has_its_broker_and_the_sandbox_has_a_choice(
    mode: str, text: str, broker: BrokerName
) -> None:
    assert loaded(mode, OPS_BROKER=text).broker is broker


@pytest.mark.parametrize(
    ("mode", "text", "way_out"),
    [
        ("simulated", "alpaca", "unset OPS_BROKER, or use --mode alpaca-paper or --mode sandbox"),
        ("alpaca-paper", "simulated", "unset OPS_BROKER, or use --mode simulated"),
    ],
)
def test_a_broker_that_contradicts_the_mode_is_refused(mode: str, text: str, way_out: str) -> None:
    with pytest.raises(BadConfiguration, match=f"^OPS_BROKER={text} contradicts mode {mode}") as no:
        loaded(mode, OPS_BROKER=text)
    assert no.value.hint == way_out


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("text", ["ALPACA", "paper", " alpaca", "alpaca\n", "x" * 999])
def test_an_unknown_broker_is_refused_by_name(mode: str, text: str) -> None:
    with pytest.raises(
        BadConfiguration, match=r"^OPS_BROKER must be one of simulated, alpaca"
    ) as no:
        loaded(mode, OPS_BROKER=text)
    assert str(no.value).isprintable()
    assert len(str(no.value)) < 120


def consents(settings: Settings, account: str = ACCOUNT) -> bool:
    """Whether orders may go to this account."""
    try:
        require_consent(settings, account)
    except Unsafe:
        return False
    return True


BROKERS = ("", "simulated", "alpaca")
CONSENTS = ("", "PA3NUMBER1X7Y", ACCOUNT, f" {ACCOUNT} ", ACCOUNT[:-1])
SOME_KEYS = ("PKPAPER123456", "AKLIVE123456", "CKOTHER123456")
TRADING_URLS = ("", PAPER, "https://api.alpaca.markets", f"{PAPER}.evil.example", LOCAL)


def opens(mode: str, broker: str, consent: str, key: str, url: str) -> bool:
    """Whether an environment lets orders out, from reading it to asking for the consent."""
    try:
        settings = loaded(
            mode,
            OPS_BROKER=broker,
            OPS_PAPER_CONSENT=consent,
            ALPACA_API_KEY=key,
            ALPACA_BASE_URL=url,
        )
    except (BadConfiguration, Unsafe):
        return False
    return consents(settings)


def test_of_all_environments_exactly_the_intended_ones_let_orders_out() -> None:
    every = set(product(list(Mode), BROKERS, CONSENTS, SOME_KEYS, TRADING_URLS))
    sandbox = set(product(["sandbox"], ["alpaca"], CONSENTS, SOME_KEYS, TRADING_URLS))
    paper = {
        ("alpaca-paper", broker, ACCOUNT, key, url)
        for broker in ("", "alpaca")
        for key, url in [
            ("PKPAPER123456", ""),
            ("PKPAPER123456", PAPER),
            ("PKPAPER123456", LOCAL),
            ("CKOTHER123456", LOCAL),
        ]
    }
    assert len(every) == 900
    assert {case for case in every if opens(*case)} == sandbox | paper


def paper_settings(consent: str = ACCOUNT) -> Settings:
    """Settings that let orders out to the account, if its number is the consent."""
    return loaded("alpaca-paper", OPS_PAPER_CONSENT=consent)


@pytest.mark.parametrize(
    "consent",
    [
        "",
        " ",
        ACCOUNT.lower(),
        f"{ACCOUNT} ",
        f" {ACCOUNT}",
        ACCOUNT[:-1],
        ACCOUNT[-4:],
        f"{ACCOUNT}0",
        f"{ACCOUNT},OTHER",
        f"{ACCOUNT[:-1]}\u005a\u0301",
        "true",
        "*",
        "...1X7Z",
    ],
)
def test_a_consent_is_the_accounts_number_to_the_letter(consent: str) -> None:
    assert consents(paper_settings())
    with pytest.raises(Unsafe, match=r"^no consent to trade account") as refused:
        require_consent(paper_settings(consent), ACCOUNT)
    assert "...1X7Z: OPS_PAPER_CONSENT is " in str(refused.value)
    assert refused.value.hint == "set OPS_PAPER_CONSENT to exactly the number of your paper account"
    assert ACCOUNT[:-4] not in f"{refused.value} {refused.value.hint}"


@pytest.mark.parametrize("account", ["", " ", "\t"])
def test_an_account_without_a_number_has_no_consent(account: str) -> None:
    for consent in ("", " ", ACCOUNT):
        assert not consents(replace(paper_settings(), paper_consent=consent), account)
    assert not consents(replace(paper_settings(), paper_consent=account), account)


@pytest.mark.parametrize("account", ["12345678", "1"])
def test_of_a_short_number_nothing_is_shown(account: str) -> None:
    with pytest.raises(Unsafe) as refused:
        require_consent(paper_settings(), account)
    assert str(refused.value).startswith("no consent to trade account ...: OPS_PAPER_CONSENT is")


def test_a_number_that_the_broker_made_up_is_shown_on_one_line() -> None:
    with pytest.raises(Unsafe) as refused:
        require_consent(paper_settings(), "PA3NUMBER\n\x1b[31m")
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("text", ["PA3\nNUMBER", f"{ACCOUNT}\n", "PA3\x00"])
def test_a_consent_of_more_than_one_line_is_refused_and_not_told(text: str) -> None:
    with pytest.raises(BadConfiguration) as refused:
        paper_settings(text)
    assert str(refused.value) == "OPS_PAPER_CONSENT must be one line of printable text"


@pytest.mark.parametrize(
    "changes",
    [
        {"broker": BrokerName.SIMULATED},
        {"alpaca": None},
        {"mode": Mode.REPLAY},
        {"mode": Mode.SIMULATED},
        {"mode": Mode.SANDBOX},
        {"alpaca": AlpacaAccess(KEY, SECRET, trading_url="https://api.alpaca.markets")},
        {"alpaca": AlpacaAccess(KEY, SECRET, trading_url="https://data.alpaca.markets")},
        {"alpaca": AlpacaAccess("AKLIVE123456", SECRET)},
        {"alpaca": AlpacaAccess("AKLIVE123456", SECRET, trading_url=LOCAL)},
        {"alpaca": AlpacaAccess("CKOTHER123456", SECRET)},
    ],
)
def test_settings_that_were_changed_by_hand_are_judged_again(changes: dict[str, Any]) -> None:
    assert not consents(replace(paper_settings(), **changes))


def test_orders_of_the_sandbox_stay_on_this_machine() -> None:
    settings = loaded("sandbox", OPS_BROKER="alpaca")
    assert consents(settings)
    away = replace(settings, alpaca=AlpacaAccess(SANDBOX_KEY, SANDBOX_SECRET))
    with pytest.raises(Unsafe, match="orders of sandbox mode stay on this machine"):
        require_consent(away, ACCOUNT)


RUNBOOK = '{"confidence_min": 0.60}'


def dispatcher_config_of(settings: Settings) -> DispatcherConfig:
    return dispatcher_config(settings.mode, dispatcher_overrides(settings))


NAME, FILE = "OPS_DISPATCHER_CONFIG", "OPS_DISPATCHER_CONFIG_FILE"


@pytest.mark.parametrize("mode", list(Mode))
def test_the_runbooks_document_changes_its_one_key_above_the_modes_profile(mode: str) -> None:
    usual = dispatcher_config_of(loaded(mode))
    assert usual == dispatcher_config(Mode(mode))
    assert usual.confidence_min == (0.55 if mode in ("replay", "sandbox") else 0.70)
    config = dispatcher_config_of(loaded(mode, OPS_DISPATCHER_CONFIG=RUNBOOK))
    assert config == usual.model_copy(update={"confidence_min": 0.60})


def test_a_document_without_a_profiles_key_leaves_the_profile() -> None:
    config = dispatcher_config_of(loaded("replay", OPS_DISPATCHER_CONFIG='{"max_attempts": 2}'))
    assert (config.confidence_min, config.max_attempts) == (0.55, 2)


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_an_empty_document_means_the_defaults(text: str, tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    file.write_text(text, encoding="utf-8")
    usual = dispatcher_config_of(loaded())
    assert dispatcher_config_of(loaded(OPS_DISPATCHER_CONFIG=text)) == usual
    assert dispatcher_config_of(loaded(OPS_DISPATCHER_CONFIG_FILE=str(file))) == usual
    assert dispatcher_config_of(loaded(**{NAME: text, FILE: str(file)})) == usual


def test_the_answers_in_the_page_are_those_of_the_code() -> None:
    page = (PROJECT_DIR / "docs" / "live.md").read_text(encoding="utf-8")
    section = page.partition("## Settings of the dispatcher")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(.+)` \| `(.+)` \|$", section, re.MULTILINE)
    assert len(rows) == 5
    for document, answer in rows:
        with pytest.raises(BadConfiguration) as refused:
            dispatcher_config_of(loaded(OPS_DISPATCHER_CONFIG=document))
        assert str(refused.value) == answer


def test_a_file_is_read_when_the_dispatcher_runs(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    settings = loaded(OPS_DISPATCHER_CONFIG_FILE=str(file))
    for confidence in (0.6, 0.8):
        file.write_text(json.dumps({"confidence_min": confidence}), encoding="utf-8")
        assert dispatcher_config_of(settings).confidence_min == confidence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("confidence_min: 0.6", f"{NAME} is no JSON: expecting value, line 1, column 1"),
        ("[]", f"{NAME} must be one JSON object, not a list"),
        ('{"tier": "tiny", "tier": "tiny"}', f"{NAME} has the key tier twice"),
        ("[" * 60_000, f"{NAME} is nested too deeply"),
        ("x" * 65_537, f"{NAME} is longer than 64 kB"),
        (
            "{\udcff",
            f"{NAME} is no JSON: expecting property name enclosed in double quotes, line 1,",
        ),
    ],
)
def test_a_text_that_is_no_document_stops_the_dispatcher_and_no_one_else(
    text: str, sentence: str
) -> None:
    settings = loaded(OPS_DISPATCHER_CONFIG=text)
    with pytest.raises(BadConfiguration) as refused:
        dispatcher_config_of(settings)
    assert str(refused.value).startswith(sentence)
    assert refused.value.hint == f"it reads like {RUNBOOK}"
    assert refused.value.__suppress_context__
    assert text not in repr(settings)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"confidence_min": 7}', "confidence_min: must be between 0 and 1, not 7"),
        ('{"confidence": 0.6}', "confidence: no such key; did you mean confidence_min?"),
        (
            '{"max_recommendation_age_seconds": 59}',
            (
                "processing_ttl_minutes (1) must not be longer than"
                " max_recommendation_age_seconds (59)"
            ),
        ),
    ],
)
def test_a_value_that_is_refused_stops_the_dispatcher_and_no_one_else(
    text: str, sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "rules.json"
    file.write_text(text, encoding="utf-8")
    for given in ({NAME: text}, {FILE: str(file)}):
        with pytest.raises(BadConfiguration) as refused:
            dispatcher_config_of(loaded(**given))
        assert str(refused.value) == sentence
        assert NAME in refused.value.hint
        assert refused.value.__suppress_context__


def test_the_environment_holds_above_the_file_key_by_key(tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    file.write_text('{"confidence_min": 0.8, "max_attempts": 2}', encoding="utf-8")
    settings = loaded(**{NAME: RUNBOOK, FILE: str(file)})
    assert dispatcher_overrides(settings) == {"confidence_min": 0.6, "max_attempts": 2}


@pytest.mark.parametrize("mode", list(Mode))
def test_a_parameter_of_ssm_is_for_the_modes_that_ask_others(mode: Mode) -> None:
    name = "/ops-pipeline/dispatcher_config"
    found = loaded(mode, OPS_SSM_PARAMETER=name, AWS_REGION="us-west-2")
    assert found.ssm_parameter == (name if mode.is_live else "")
    assert found.aws_region == "us-west-2"
    assert loaded(mode).ssm_parameter == ""


@pytest.mark.parametrize("name", ["a b", "caf\u00e9", "name;drop", "x" * 1_100])
def test_a_parameter_with_another_name_is_refused(name: str) -> None:
    with pytest.raises(BadConfiguration, match=r"^OPS_SSM_PARAMETER must be a name"):
        loaded("sandbox", OPS_SSM_PARAMETER=name)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"tier": "\xff"}', f"{FILE} is no UTF-8 text: byte 10"),
        (RUNBOOK.encode("utf-16"), f"{FILE} is no UTF-8 text: byte 0"),
        (b"\xef\xbb\xbf{}", f"{FILE} is no JSON: unexpected utf-8 bom"),
        (b"\x00\x00", f"{FILE} is no JSON: expecting value, line 1, column 1"),
        (b" " * 65_537, f"{FILE} is longer than 64 kB"),
        ("\u20ac".encode() * 22_000, f"{FILE} is longer than 64 kB"),
        (b"confidence_min: 0.6\n", f"{FILE} is no JSON: expecting value, line 1, column 1"),
    ],
)
def test_a_file_that_is_no_document_is_refused(
    content: bytes, sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "rules.json"
    file.write_bytes(content)
    with pytest.raises(BadConfiguration) as refused:
        dispatcher_config_of(loaded(OPS_DISPATCHER_CONFIG_FILE=str(file)))
    assert str(refused.value).startswith(sentence)


def test_a_file_that_is_none_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("missing.json", "pipe", "loop", ".", "a\x00b", "line\nbreak", "x" * 200):
        with pytest.raises(BadConfiguration, match=f"^{FILE}: there is no file ") as refused:
            dispatcher_config_of(loaded(OPS_DISPATCHER_CONFIG_FILE=str(tmp_path / name)))
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) <= 200
    with pytest.raises(BadConfiguration, match=f"^{FILE} cannot be read: File name too long$"):
        dispatcher_config_of(loaded(OPS_DISPATCHER_CONFIG_FILE=str(tmp_path / ("x" * 999))))


@pytest.mark.parametrize("name", [FILE, "OPS_FINBERT_PATH", "OPS_UNIVERSE_FILE"])
def test_children_find_the_same_file_though_they_start_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    database = {"DATABASE_URL": "postgresql://127.0.0.1/ops_pipeline"}
    given = loaded(**database, **{name: "mine"}).environment()
    assert given[name] == str(tmp_path / "mine")
    assert name not in loaded(**database).environment()


@pytest.mark.parametrize("mode", list(Mode))
def test_what_children_are_handed_holds_no_key_and_no_consent(mode: str) -> None:
    database = "postgresql://127.0.0.1/ops_pipeline"
    given = loaded(mode, DATABASE_URL=database, OPS_PAPER_CONSENT=ACCOUNT).environment()
    assert not {KEY, SECRET, SANDBOX_KEY, SANDBOX_SECRET, ACCOUNT} & set(given.values())


# The limits of the minute loop.


def test_limits_of_the_loop_are_overridden_key_by_key() -> None:
    rules = slo_rules_of(loaded(OPS_SLO='{"max_late_minutes": 5, "signals_warn_seconds": 12}'))
    usual = slo_rules_of(loaded())
    assert (rules.max_late_minutes, rules.signals_warn_seconds) == (5, 12)
    assert rules.signals_error_seconds == usual.signals_error_seconds


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ('{"max_late": 5}', "max_late: extra inputs"),
        ('{"max_late_minutes": "5"}', "max_late_minutes: input should be a valid integer"),
        ('{"max_skipped_minutes": -1}', "max_skipped_minutes: input should be greater"),
        ('{"signals_warn_seconds": 60}', "must not be more than signals_error_seconds"),
        ("5", "must be one JSON object"),
        ("{", "is no JSON"),
    ],
)
def test_bad_limits_of_the_loop_are_refused_in_one_line_when_they_are_asked_for(
    document: str, named: str
) -> None:
    settings = loaded(OPS_SLO=document)
    with pytest.raises(BadConfiguration, match=named) as refused:
        slo_rules_of(settings)
    assert str(refused.value).startswith("OPS_SLO: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("mode", "backend"),
    [
        ("replay", "lexicon"),
        ("sandbox", "lexicon"),
        ("simulated", "finbert-onnx"),
        ("alpaca-paper", "finbert-onnx"),
    ],
)
def test_the_real_market_is_read_by_finbert_and_the_generated_one_by_the_lexicon(
    mode: str, backend: str
) -> None:
    assert loaded(mode).sentiment == backend
    assert loaded(mode, OPS_SENTIMENT="").sentiment == backend
    for named in SentimentBackend:
        assert loaded(mode, OPS_SENTIMENT=named.value).sentiment is named


@pytest.mark.parametrize("text", ["FinBERT", "vader", "finbert-onnx ", "lexicon\n"])
def test_another_sentiment_backend_is_refused(text: str) -> None:
    with pytest.raises(BadConfiguration, match="OPS_SENTIMENT must be one of lexicon, finbert-onn"):
        loaded(OPS_SENTIMENT=text)


# Of each variable a mode that reads it, a value, and what has to be set beside it.
URL = "postgresql://127.0.0.1/ops_pipeline"
DAYS = {"OPS_PARTITIONS_START": "2026-01-05"}
HOST = {"DB_HOST": "db.example"}
VARIABLES: dict[str, tuple[str, str, dict[str, str]]] = {
    "ALPACA_API_KEY": ("simulated", "PKANOTHERKEY123", {}),
    "ALPACA_API_SECRET": ("simulated", "another", {}),
    "ALPACA_BASE_URL": ("simulated", LOCAL, {}),
    "ALPACA_DATA_URL": ("simulated", LOCAL, {}),
    "AWS_DEFAULT_REGION": ("simulated", "us-west-2", {}),
    "AWS_REGION": ("simulated", "us-west-2", {"AWS_DEFAULT_REGION": "us-east-1"}),
    "DATABASE_URL": ("replay", URL, {}),
    "DB_HOST": ("replay", "db.example", {}),
    "DB_NAME": ("replay", "another", HOST),
    "DB_PASSWORD": ("replay", "another", HOST),
    "DB_PORT": ("replay", "5433", HOST),
    "DB_USER": ("replay", "another", HOST),
    "OPS_ALERT_QUIET": ("simulated", "22:00-07:00", {}),
    "OPS_ALERT_URLS": ("simulated", "desk=json://127.0.0.1", {}),
    "OPS_ALLOW_PRIVATE_FEEDS": ("replay", "true", {}),
    "OPS_ALPACA_FEED": ("simulated", "sip", {}),
    "OPS_BROKER": ("sandbox", "alpaca", {}),
    "OPS_CONTACT": ("simulated", "ops@example.com", {}),
    "OPS_DBT_AS_COMMAND": ("replay", "true", {}),
    "OPS_DEAD_MAN_URL": ("simulated", "http://127.0.0.1/alive", {}),
    "OPS_DISPATCHER_CONFIG": ("replay", RUNBOOK, {}),
    "OPS_DISPATCHER_CONFIG_FILE": ("replay", "rules.json", {}),
    "OPS_FINBERT_PATH": ("replay", "model", {}),
    "OPS_KEEP_ALERTS_DAYS": ("replay", "3", {}),
    "OPS_KEEP_LOGS_DAYS": ("replay", "3", {}),
    "OPS_KEEP_RUNS_DAYS": ("replay", "3", {}),
    "OPS_KEEP_SIGNALS_DAYS": ("replay", "3", {}),
    "OPS_KEEP_TICKS_DAYS": ("replay", "3", {}),
    "OPS_PAPER_CONSENT": ("alpaca-paper", ACCOUNT, {}),
    "OPS_PARTITIONS_END": ("replay", "2026-01-09", DAYS),
    "OPS_PARTITIONS_START": ("replay", "2026-01-05", {}),
    "OPS_PRICES": ("replay", "{}", {}),
    "OPS_RUNTIME_PASSWORD": ("replay", "another", HOST),
    "OPS_SANDBOX_PORT": ("sandbox", "8601", {}),
    "OPS_SEED": ("replay", "8", {}),
    "OPS_SENTIMENT": ("simulated", "lexicon", {}),
    "OPS_SLO": ("replay", "{}", {}),
    "OPS_SSM_PARAMETER": ("simulated", "/ops/config", {}),
    "OPS_UNIVERSE_FILE": ("replay", "universe.yaml", {}),
    "OPS_VAR_DIR": ("replay", "/elsewhere", {}),
    "OPS_WEB_PORT": ("replay", "3001", {}),
}
# Written for Dagster and dbt, and read by them; the mode is the first argument of `loaded`.
HANDED_DOWN = r"OPS_(DAGSTER|DBT)_(DB|DIR|HOST|PORT|NAME|USER)|OPS_MODE"


def test_every_variable_that_is_read_has_a_case() -> None:
    source = (PROJECT_DIR / "ops_pipeline" / "settings.py").read_text(encoding="utf-8")
    named = set(re.findall(r'"((?:OPS|DB|DATABASE|ALPACA|AWS)_[A-Z_]+[A-Z])"', source))
    read = {name for name in named if not re.match(HANDED_DOWN, name)}
    assert read <= set(VARIABLES)
    assert set(VARIABLES) - read == {"ALPACA_API_KEY", "ALPACA_API_SECRET"}


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_that_is_changed_changes_the_settings(name: str) -> None:
    mode, value, beside = VARIABLES[name]
    assert loaded(mode, **{**beside, name: value}) != loaded(mode, **beside)


def test_channels_of_alerts_have_names_levels_and_addresses_that_nothing_shows() -> None:
    urls = "desk=json://127.0.0.1/one?a=b pager@high=slack://token-a/token-b/token-c"
    settings = loaded("sandbox", OPS_ALERT_URLS=urls, OPS_DEAD_MAN_URL="http://127.0.0.1/token-d")
    desk, pager = alert_channels_of(settings)
    assert (desk.name, desk.least, desk.url) == ("desk", "low", "json://127.0.0.1/one?a=b")
    assert (pager.name, pager.least) == ("pager", "high")
    assert "token" not in repr([settings, desk, pager])
    assert alert_channels_of(loaded("sandbox")) == []


@pytest.mark.parametrize(
    "text",
    [
        "slack://token-a/token-b",
        "desk=token-a",
        "console=json://token-a",
        "Desk=json://token-a",
        "desk@normal=json://token-a",
        "desk=json://token-a desk=json://token-b",
    ],
)
def test_a_channel_that_reads_otherwise_is_refused_without_its_address(text: str) -> None:
    with pytest.raises(BadConfiguration, match="OPS_ALERT_URLS: channel") as refused:
        alert_channels_of(loaded("sandbox", OPS_ALERT_URLS=text))
    assert "token" not in str(refused.value)


def test_quiet_hours_are_two_times_of_the_day() -> None:
    assert alert_quiet_of(loaded("sandbox")) is None
    assert alert_quiet_of(loaded("sandbox", OPS_ALERT_QUIET="22:00-07:00"))
    with pytest.raises(BadConfiguration, match="OPS_ALERT_QUIET must read like 22:00-07:00"):
        alert_quiet_of(loaded("sandbox", OPS_ALERT_QUIET="at night"))
