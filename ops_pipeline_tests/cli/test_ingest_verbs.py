"""The verbs around live data: what they print, what they refuse, and how they end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
from sqlalchemy import Engine, text

from ops_pipeline import __version__
from ops_pipeline.cli import market
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.session import Calendar
from ops_pipeline.domain.stream import Difference
from ops_pipeline.local.ports import free_port
from ops_pipeline.sandbox.live import UnfoldingMarket
from ops_pipeline.sandbox.market import DEFAULT_TICKERS
from ops_pipeline.sandbox.world import SandboxWorld
from ops_pipeline.settings import SANDBOX_KEY, SANDBOX_SECRET, Mode, Settings
from ops_pipeline.storage import quarantine
from ops_pipeline.storage.dispatch import ACCOUNT
from ops_pipeline.storage.engine import open_engine, opened, server_of
from ops_pipeline.storage.knowledge import clock, set_present
from ops_pipeline.storage.migrate import shipped
from ops_pipeline.storage.quarantine import OVERNIGHT_GAP, SPLIT, Quarantine
from ops_pipeline.storage.stream import Lease, keep_lease, keep_pass, leave_lease, take_lease
from ops_pipeline_tests.builders import DAY, NOON
from ops_pipeline_tests.cli.test_verbs import Answer, Run, held_port, run  # noqa: F401 - fixtures
from ops_pipeline_tests.dispatcher.world import World
from ops_pipeline_tests.sandbox.served import served
from ops_pipeline_tests.sandbox.worlds import HEADERS, WEB

KEY, SECRET = "PKWRONGKEY1234567890", "wr0ngS3cretOfTheAccount"
FOREIGN = ("OPS_", "DB_", "DAGSTER", "DATABASE_URL", "DBT_", "ALPACA_")
FEEDS = {"local/markets": "/feeds/markets.rss", "local/{ticker}": "/feeds/{ticker}.rss"}
SET_KEYS = "set ALPACA_API_KEY and ALPACA_API_SECRET"
NOT_OK = "FAILED"


def database_url(settings: Settings) -> str:
    """The address of these settings' databases."""
    server = server_of(settings)
    place = f"{server.host}:{server.port}/{server.base_name}"
    return f"postgresql://{server.user}:{server.password}@{place}"


@pytest.fixture
def alone(
    run: Run,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """The command line with an empty var folder, and nothing else from the environment."""
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OPS_DOTENV", "off")
    monkeypatch.setenv("OPS_VAR_DIR", str(tmp_path / "var"))
    return run


@pytest.fixture
def own(alone: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The same, on this test's database; its mode is replay."""
    monkeypatch.setenv("DATABASE_URL", database_url(settings))
    return alone


def ended(answer: Answer) -> tuple[int, int]:
    """The exit code, and how many lines of error a person has to read."""
    return answer.code, len(answer.error_lines)


def made_in(folder: Path) -> list[str]:
    """Return what lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


# doctor


@pytest.fixture(scope="module")
def sandbox_url() -> Iterator[str]:
    with served(SandboxWorld(UnfoldingMarket(clock), clock, requests_per_minute=10_000)) as url:
        yield url


@pytest.fixture(scope="module")
def live_databases(template: Settings) -> Settings:
    """Databases of both live modes, migrated, and one of simulated mode that is empty."""
    base_name = f"live{uuid4().hex[:8]}"
    engine = open_engine(template, "postgres")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name in (f"{base_name}_sandbox", f"{base_name}_simulated"):
            origin = template.pipeline_database
            connection.exec_driver_sql(f'create database "{name}" template "{origin}"')
        connection.exec_driver_sql(f'create database "{base_name}_empty_simulated"')
    engine.dispose()
    return named(template, base_name)


def named(settings: Settings, base_name: str) -> Settings:
    """The same server, and databases whose names begin so."""
    return replace(settings, server=replace(server_of(settings), base_name=base_name))


@pytest.fixture
def faults(sandbox_url: str) -> Iterator[Callable[..., None]]:
    """Order what goes wrong in the sandbox, until the test ends."""

    def order(**rule: Any) -> None:
        answer = WEB.post(f"{sandbox_url}/control/faults", json={"rules": [rule]})
        assert answer.status_code == 200, answer.text

    yield order
    WEB.delete(f"{sandbox_url}/control/faults")


def universe_yaml(folder: Path, url: str, feeds: dict[str, str]) -> str:
    """A universe file of one ticker whose feeds are served there."""
    path = folder / "mine.yaml"
    listed = [{"name": name, "url": url + place} for name, place in feeds.items()]
    # JSON is YAML, too.
    text = {"tracked": ["AAPL"], "tickers": {"AAPL": ["Apple"]}, "feeds": listed}
    path.write_text(json.dumps(text), encoding="utf-8")
    return str(path)


@pytest.fixture
def simulated(
    alone: Run,
    live_databases: Settings,
    sandbox_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """The command line in simulated mode, where all that it asks is the sandbox."""
    variables = {
        "OPS_MODE": "simulated",
        "OPS_SENTIMENT": "lexicon",
        "DATABASE_URL": database_url(live_databases),
        "ALPACA_DATA_URL": sandbox_url,
        "ALPACA_BASE_URL": f"{sandbox_url}/v2",
        "ALPACA_API_KEY": SANDBOX_KEY,
        "ALPACA_API_SECRET": SANDBOX_SECRET,
        "OPS_UNIVERSE_FILE": universe_yaml(tmp_path, sandbox_url, FEEDS),
        "OPS_ALLOW_PRIVATE_FEEDS": "true",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return alone


def lines(answer: Answer) -> dict[str, tuple[str, str]]:
    """Health and finding of each dependency, as a person reads them."""
    found = re.findall(r"^(.{22}) (ok|FAILED|unused) +(.*)$", answer.out, re.MULTILINE)
    return {name.strip(): (health, text) for name, health, text in found}


def healths(answer: Answer, *names: str) -> dict[str, str]:
    """The health of these dependencies."""
    found = lines(answer)
    return {name: found[name][0] for name in names}


def test_doctor_in_sandbox_mode_looks_at_everything_once(
    alone: Run, live_databases: Settings, sandbox_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url(live_databases))
    monkeypatch.setenv("OPS_SANDBOX_PORT", sandbox_url.rpartition(":")[2])
    answer = alone("doctor", "--mode", "sandbox")
    feeds = [f"feed sandbox/{name}" for name in ("markets", *sorted(DEFAULT_TICKERS))]
    good = ["database", "migrations", "alpaca bars", "alpaca clock", *feeds, "model", "disk"]
    good += ["alert channels", "guards", "universe"]
    down = ["keeper", "sandbox", "code", "daemon", "web", "stream", "alerts"]
    assert healths(answer, *good) == dict.fromkeys(good, "ok")
    silent = "trade stream"
    # Without a daemon nothing ticks, which its own line says.
    assert set(lines(answer)) == {*good, *down, silent}
    assert len(answer.out.splitlines()) == 1 + len(good) + len(down) + 1
    assert lines(answer)[silent][0] == NOT_OK
    assert lines(answer)[silent][1].startswith("the trade stream was never started")
    for name in down:
        assert lines(answer)[name] == (
            NOT_OK,
            "does not run (run: ops-pipeline up --mode sandbox)",
        )
    assert ended(answer) == (1, 0)


@pytest.fixture
def followed(
    alone: Run, live_databases: Settings, sandbox_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Run, Settings]]:
    """A sandbox's account that this test follows."""
    monkeypatch.setenv("DATABASE_URL", database_url(live_databases))
    monkeypatch.setenv("OPS_SANDBOX_PORT", sandbox_url.rpartition(":")[2])
    settings = replace(live_databases, mode=Mode.SANDBOX)
    with opened(settings) as engine:
        yield alone, settings
        with engine.begin() as connection:
            connection.execute(text("delete from stream_leases"))


def hear(settings: Settings, code_version: str = __version__) -> Lease:
    with opened(settings) as engine, engine.begin() as connection:
        lease = take_lease(connection, ACCOUNT, "host/1", code_version, 60)
        assert lease
        now = clock()
        keep_lease(connection, lease, 60, connected_at=now, alive_at=now, reason="")
        keep_pass(connection, lease, now, [])
    return lease


def test_doctor_says_who_follows_the_account(followed: tuple[Run, Settings]) -> None:
    call, settings = followed
    hear(settings)
    found = lines(call("doctor", "--mode", "sandbox"))["trade stream"]
    assert found == ("ok", "host/1 is heard, positions are what orders come to")
    assert "the trade stream is heard" in call("status", "--mode", "sandbox").out


def test_the_report_of_the_stream_ends_with_1_where_nobody_follows(
    followed: tuple[Run, Settings],
) -> None:
    call, settings = followed
    silent = call("trade-stream", "--report", "--mode", "sandbox")
    assert (silent.code, "the trade stream was never started" in silent.out) == (1, True)
    hear(settings)
    answer = call("trade-stream", "--report", "--mode", "sandbox", "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["is_live"], found["health"]["holder"]) == (0, True, "host/1")
    assert "looks at the whole account" in call("trade-stream", "--report", "--mode", "sandbox").out


def test_doctor_names_a_stream_of_other_code(followed: tuple[Run, Settings]) -> None:
    call, settings = followed
    hear(settings, code_version="0.0.9")
    health, told = lines(call("doctor", "--mode", "sandbox"))["trade stream"]
    assert (health, told.partition(",")[0]) == (NOT_OK, "it runs code 0.0.9")


def test_doctor_says_why_a_stream_ended(followed: tuple[Run, Settings]) -> None:
    call, settings = followed
    lease = hear(settings)
    with opened(settings) as engine, engine.begin() as connection:
        leave_lease(connection, lease, "Alpaca refuses the key PK...1")
    health, told = lines(call("doctor", "--mode", "sandbox"))["trade stream"]
    assert health == NOT_OK
    assert told.startswith("nobody follows the trade stream: Alpaca refuses the key PK...1")
    assert "stream.log" in told


def test_doctor_names_an_account_that_does_not_add_up(followed: tuple[Run, Settings]) -> None:
    call, settings = followed
    lease = hear(settings)
    found = Difference("AAPL", Decimal(3), Decimal(2), "")
    with opened(settings) as engine, engine.begin() as connection:
        keep_pass(connection, lease, clock(), [found])
    health, told = lines(call("doctor", "--mode", "sandbox"))["trade stream"]
    assert health == NOT_OK
    assert told.startswith("AAPL: 2 held, 3 by its orders")


def test_doctor_tells_programs_what_it_tells_people(simulated: Run) -> None:
    told, found = simulated("doctor"), simulated("doctor", "--json")
    assert found.code == told.code == 1
    findings = json.loads(found.out)
    assert [set(one) for one in findings] == [
        {"dependency", "health", "found", "hint"} for _ in findings
    ]
    # How far the clocks are apart is another number each time, and so is the room on the disk.
    moving = ("alpaca clock", "disk")
    people = {name: line for name, line in lines(told).items() if name not in moving}
    programs = {
        one["dependency"]: (
            one["health"],
            one["found"] + (f" ({one['hint']})" if one["hint"] else ""),
        )
        for one in findings
    }
    assert list(programs) == list(lines(told))
    assert {name: line for name, line in programs.items() if name not in moving} == people


def test_doctor_in_simulated_mode_with_the_right_keys_finds_nothing_wrong_outside(
    simulated: Run,
) -> None:
    answer = simulated("doctor")
    names = ("database", "migrations", "alpaca bars", "alpaca clock", "model", "disk")
    assert healths(answer, *names) == dict.fromkeys(names, "ok")
    assert lines(answer)["alpaca bars"][1] == "feed iex answers"
    assert lines(answer)["migrations"][1] == "none waits"
    feeds = [name for name in lines(answer) if name.startswith("feed")]
    assert len(feeds) == 8
    for name in feeds:
        assert re.fullmatch(r"\d+ entries, [\d,]+ bytes", lines(answer)[name][1])
    assert SANDBOX_SECRET not in answer.out + answer.err


@pytest.mark.parametrize("words", [(), ("--json",)])
@pytest.mark.parametrize("wrong", ["ALPACA_API_KEY", "ALPACA_API_SECRET", "both"])
def test_doctor_says_that_a_key_is_refused_and_tells_neither_key_nor_secret(
    simulated: Run, monkeypatch: pytest.MonkeyPatch, wrong: str, words: tuple[str, ...]
) -> None:
    for name, value in (("ALPACA_API_KEY", KEY), ("ALPACA_API_SECRET", SECRET)):
        if wrong in (name, "both"):
            monkeypatch.setenv(name, value)
    answer = simulated("doctor", *words)
    assert ended(answer) == (1, 0)
    assert answer.out.count("Alpaca refused the key (401)") == 2
    assert answer.out.count(SET_KEYS) == 2
    for secret in (KEY, SECRET, SANDBOX_KEY, SANDBOX_SECRET):
        assert secret not in answer.out + answer.err


def test_doctor_without_keys_says_what_to_set_and_looks_at_the_rest(
    simulated: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALPACA_API_SECRET")
    answer = simulated("doctor")
    assert answer.code == 1
    for name in ("alpaca bars", "alpaca clock"):
        assert lines(answer)[name] == (
            NOT_OK,
            f"mode simulated needs the keys of an Alpaca account ({SET_KEYS})",
        )
    assert lines(answer)["feed local/markets"][0] == "ok"


@pytest.mark.parametrize(("seconds", "health"), [(30, NOT_OK), (-30, NOT_OK), (1, "ok")])
def test_doctor_fails_on_a_clock_that_is_more_than_two_seconds_off(
    simulated: Run, faults: Callable[..., None], seconds: int, health: str
) -> None:
    faults(kind="clock_skew", seconds=seconds)
    found, told = lines(simulated("doctor"))["alpaca clock"]
    skew = re.search(r"its clock ([+-]\d+\.\d) s from ours", told)
    assert skew is not None
    assert float(skew[1]) == pytest.approx(seconds, abs=0.9)
    assert found == health
    assert ("set this machine's clock by NTP" in told) is (health == NOT_OK)


def test_doctor_names_the_feed_that_the_account_is_not_entitled_to(
    simulated: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_ALPACA_FEED", "sip")
    answer = simulated("doctor")
    health, told = lines(answer)["alpaca bars"]
    assert (answer.code, health) == (1, NOT_OK)
    assert "not entitled to feed sip (403" in told
    assert told.endswith("(set OPS_ALPACA_FEED=iex)")


def test_doctor_names_a_feed_that_fails_and_the_others_go_on(
    simulated: Run, sandbox_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feeds = {"local/absent": "/feeds/ZZZZ.rss", "local/markets": "/feeds/markets.rss"}
    monkeypatch.setenv("OPS_UNIVERSE_FILE", universe_yaml(tmp_path, sandbox_url, feeds))
    answer = simulated("doctor")
    told = "HTTP 404 (look at its address, or leave it out)"
    assert lines(answer)["feed local/absent"] == (NOT_OK, told)
    assert lines(answer)["feed local/markets"][0] == "ok"
    assert answer.code == 1


def test_doctor_refuses_private_feeds_where_they_are_not_allowed(
    simulated: Run, sandbox_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPS_ALLOW_PRIVATE_FEEDS")
    WEB.delete(f"{sandbox_url}/control/requests")
    answer = simulated("doctor")
    health, told = lines(answer)["feed local/markets"]
    assert (answer.code, health) == (1, NOT_OK)
    assert "not in the public internet" in told
    asked = json.dumps(WEB.get(f"{sandbox_url}/control/requests").json())
    assert "/v2/stocks/bars" in asked
    assert "/feeds/" not in asked


def test_doctor_names_what_is_wrong_in_the_universe_file(
    simulated: Run, sandbox_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_UNIVERSE_FILE", universe_yaml(tmp_path, sandbox_url, {"A b": "/"}))
    answer = simulated("doctor")
    assert lines(answer)["feeds"][0] == NOT_OK
    assert lines(answer)["feeds"][1].startswith("mine.yaml, feeds.0.name: ")
    assert lines(answer)["disk"][0] == "ok"


def test_doctor_of_an_installation_that_never_ran_says_to_init_and_looks_at_the_rest(
    alone: Run, sandbox_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_SANDBOX_PORT", sandbox_url.rpartition(":")[2])
    answer = alone("doctor", "--mode", "sandbox")
    assert ended(answer) == (1, 0)
    for name in ("database", "migrations"):
        assert lines(answer)[name] == (
            NOT_OK,
            "there is no database yet (run: ops-pipeline init)",
        )
    names = ("alpaca bars", "alpaca clock", "feed sandbox/markets", "feed sandbox/AAPL", "disk")
    assert healths(answer, *names) == dict.fromkeys(names, "ok")
    assert not (tmp_path / "var").exists()


def test_doctor_with_the_database_down_says_so_without_the_password(
    simulated: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("DATABASE_URL", f"postgresql://someone:s3cret-word@127.0.0.1:{port}/ops")
    answer = simulated("doctor")
    assert ended(answer) == (1, 0)
    for name in ("database", "migrations"):
        health, told = lines(answer)[name]
        assert health == NOT_OK
        assert f"PostgreSQL at 127.0.0.1:{port} does not answer" in told
        assert told.endswith("(check DATABASE_URL, and that the server runs)")
    # Without a database, the universe file says whose feeds to look at.
    feeds = [name for name in lines(answer) if name.startswith("feed")]
    assert feeds == ["feed local/markets", "feed local/AAPL"]
    assert healths(answer, *feeds) == dict.fromkeys(feeds, "ok")
    assert "s3cret-word" not in answer.out + answer.err


def test_doctor_names_the_migrations_that_did_not_run(
    simulated: Run, live_databases: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = named(live_databases, f"{server_of(live_databases).base_name}_empty")
    monkeypatch.setenv("DATABASE_URL", database_url(empty))
    answer = simulated("doctor")
    waiting = ", ".join(migration.name for migration in shipped())
    assert lines(answer)["migrations"] == (
        NOT_OK,
        f"{waiting} did not run (run: ops-pipeline init)",
    )
    assert healths(answer, "database", "feed local/AAPL") == dict.fromkeys(
        ("database", "feed local/AAPL"), "ok"
    )


def test_doctor_in_replay_mode_asks_nobody(own: Run) -> None:
    answer = own("doctor")
    for name in ("alpaca bars", "alpaca clock", "feeds"):
        assert lines(answer)[name] == ("unused", "mode replay asks nobody")


# up, of a live mode


def test_up_without_keys_starts_nothing(
    alone: Run, sandbox_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = universe_yaml(tmp_path, sandbox_url, FEEDS)
    monkeypatch.setenv("OPS_UNIVERSE_FILE", path)
    answer = alone("up", "--mode", "simulated", "--port", str(free_port()))
    assert ended(answer) == (4, 1)
    assert f"needs the keys of an Alpaca account ({SET_KEYS})" in answer.err
    assert made_in(tmp_path / "var") == ["lock"]


def test_up_with_a_universe_file_that_is_refused_starts_nothing(
    alone: Run, sandbox_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_UNIVERSE_FILE", universe_yaml(tmp_path, "ftp://wire.example", FEEDS))
    monkeypatch.setenv("OPS_SANDBOX_PORT", str(free_port()))
    answer = alone("up", "--mode", "sandbox", "--port", str(free_port()))
    assert ended(answer) == (4, 1)
    assert "mine.yaml, feeds.0.url" in answer.err
    assert made_in(tmp_path / "var") == ["lock"]


def test_up_with_the_port_of_the_sandbox_taken_starts_nothing(
    alone: Run,
    held_port: int,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPS_SANDBOX_PORT", str(held_port))
    answer = alone("up", "--mode", "sandbox", "--port", str(free_port()))
    assert ended(answer) == (4, 1)
    assert f"port {held_port} is taken by another program" in answer.err
    assert f"OPS_SANDBOX_PORT={held_port + 1} ops-pipeline up" in answer.err
    assert made_in(tmp_path / "var") == ["lock"]


# universe


def listed(own: Run) -> Any:
    """What the verb tells programs."""
    answer = own("universe", "list", "--json")
    assert ended(answer) == (0, 0)
    return json.loads(answer.out)


def test_universe_lists_tickers_with_what_news_call_them(own: Run) -> None:
    found = listed(own)
    assert [ticker["symbol"] for ticker in found["tickers"]] == [
        "AAPL", "AMZN", "GOOGL", "META", "MSFT", "NVDA", "TSLA",
    ]  # fmt: skip
    assert found["tickers"][0] == {"symbol": "AAPL", "aliases": ["Apple"]}
    assert (found["quarantines"], found["changes"]) == ([], [])
    answer = own("universe", "list")
    assert answer.code == 0
    assert re.search(r"AAPL +Apple +-", answer.out)
    assert "newest changes" not in answer.out


def test_universe_keeps_each_change_with_its_reason_newest_first(own: Run) -> None:
    added = own("universe", "add", "SPY", "--reason", "a benchmark")
    assert ended(added) == (0, 0)
    assert added.out == "SPY is tracked from the next minute on\n"
    removed = own("universe", "remove", "META", "--reason", "we [think] it is [/dear]")
    assert ended(removed) == (0, 0)
    assert removed.out == "META is tracked no longer; what is stored of it stays\n"
    found = listed(own)
    symbols = [ticker["symbol"] for ticker in found["tickers"]]
    assert "SPY" in symbols
    assert "META" not in symbols
    assert [(c["ticker"], c["change"], c["reason"]) for c in found["changes"]] == [
        ("META", "removed", "we [think] it is [/dear]"),
        ("SPY", "added", "a benchmark"),
    ]
    told = own("universe", "list").out
    assert re.search(r"META +removed +we \[think\] it is \[/dear\]", told)
    assert re.search(r"SPY +added +a benchmark", told)


def test_universe_adds_several_at_once_or_none(own: Run) -> None:
    assert own("universe", "add", "SPY", "QQQ", "--reason", "x").code == 0
    assert ended(own("universe", "add", "XOM", "AAPL")) == (2, 1)
    found = {ticker["symbol"] for ticker in listed(own)["tickers"]}
    assert {"SPY", "QQQ"} <= found
    assert "XOM" not in found


def test_universe_applies_a_changed_file_after_a_dry_run(
    own: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPS_UNIVERSE_FILE", universe_yaml(tmp_path, "http://x.example", FEEDS))
    planned = own("universe", "apply")
    assert planned.code == 0
    assert "mine.yaml would: remove AMZN, GOOGL" in planned.out
    assert len(listed(own)["tickers"]) == 7
    assert own("universe", "apply", "--apply").code == 0
    assert [ticker["symbol"] for ticker in listed(own)["tickers"]] == ["AAPL"]
    assert listed(own)["changes"][0]["reason"] == "as mine.yaml says"
    assert own("universe", "apply").out == "mine.yaml says what is tracked\n"


def test_universe_says_that_a_ticker_without_names_is_linked_by_its_symbol(own: Run) -> None:
    answer = own("universe", "add", "ZZZZ")
    assert answer.code == 0
    assert "the universe file has no names for it" in answer.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "AAPL"], "AAPL is tracked already"),
        (["add", "aapl"], "'aapl' is no symbol"),
        (["add", "A;drop"], "'A;drop' is no symbol"),
        (["add", ""], "'' is no symbol"),
        (["remove", "SPY"], "SPY is not tracked (run: ops-pipeline universe list)"),
        (["release", "AAPL", "--because", "x"], "AAPL is not quarantined (run: ops-pipeline"),
    ],
)
def test_universe_refuses_what_cannot_be_changed_in_one_line(
    own: Run, engine: Engine, words: list[str], said: str
) -> None:
    play(engine)
    before = listed(own)
    answer = own("universe", *words)
    assert ended(answer) == (2, 1)
    assert said in answer.err
    assert listed(own) == before


def test_universe_keeps_a_ticker_that_is_held(own: Run, engine: Engine) -> None:
    World(engine).hold("AAPL")
    answer = own("universe", "remove", "AAPL", "--reason", "dear")
    assert ended(answer) == (6, 1)
    assert "AAPL is held: 10 shares, since 2025-02-12 16:00 UTC" in answer.err
    assert "AAPL" in [ticker["symbol"] for ticker in listed(own)["tickers"]]
    assert listed(own)["changes"] == []


def test_universe_keeps_the_last_ticker(own: Run) -> None:
    symbols = [ticker["symbol"] for ticker in listed(own)["tickers"]]
    for symbol in symbols[1:]:
        assert own("universe", "remove", symbol).code == 0
    answer = own("universe", "remove", symbols[0])
    assert ended(answer) == (6, 1)
    assert "is the last ticker" in answer.err


def play(engine: Engine, minutes: int = 5) -> None:
    """Let the present of the replay be so many minutes after noon."""
    with engine.begin() as connection:
        set_present(connection, NOON + timedelta(minutes=minutes))


def test_universe_lists_a_quarantine_with_its_cause_until_it_is_released(
    own: Run, engine: Engine
) -> None:
    with engine.begin() as connection:
        for ticker, cause, observed in (("AAPL", OVERNIGHT_GAP, -0.4), ("MSFT", SPLIT, 2.0)):
            found = Quarantine(ticker, DAY, cause, observed, NOON)
            quarantine.insert_quarantine(connection, found)
    play(engine)
    told = own("universe", "list").out
    assert re.search(r"AAPL .*overnight_gap -40\.0% on 2025-02-12", told)
    assert re.search(r"MSFT .*split 2 for 1 on 2025-02-12", told)
    assert [found["ticker"] for found in listed(own)["quarantines"]] == ["AAPL", "MSFT"]

    released = own("universe", "release", "AAPL", "--because", "a real loss")
    assert ended(released) == (0, 0)
    assert released.out == "AAPL may be traded again\n"
    assert [found["ticker"] for found in listed(own)["quarantines"]] == ["MSFT"]
    with engine.connect() as connection:
        reason = connection.exec_driver_sql("select released_because from quarantines limit 2")
        assert set(reason.scalars()) == {"", "a real loss"}
    assert own("universe", "release", "AAPL", "--because", "again").code == 2


def test_universe_releases_nothing_without_a_reason(own: Run) -> None:
    assert own("universe", "release", "AAPL").code == 2


# sandbox


@pytest.mark.parametrize("way", ["option", "variable"])
def test_sandbox_on_a_port_that_is_taken_ends_in_one_line(
    alone: Run,
    held_port: int,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    monkeypatch.setenv("OPS_SANDBOX_PORT", str(held_port if way == "variable" else free_port()))
    answer = alone("sandbox", *(["--port", str(held_port)] if way == "option" else []))
    assert ended(answer) == (4, 1)
    assert f"port {held_port} is taken by another program" in answer.err


def recording(folder: Path, *tickers: str, day: str = "2025-02-12") -> Path:
    """A file with one bar of each ticker at the open."""
    rows = [f"{ticker},{day}T14:30:00Z,10,11,9,10,100" for ticker in tickers]
    path = folder / "bars.csv"
    path.write_text("\n".join(["ticker,ts,open,high,low,close,volume", *rows]), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("day", "said"),
    [
        ("2025-02-15", "has no bars of a session on 2025-02-15"),
        ("2025-02-13", "has no bars of a session on 2025-02-13"),
        ("yesterday", "--day must be a day like 2025-02-12, not 'yesterday'"),
    ],
    ids=["closed", "without bars", "no day"],
)
def test_sandbox_refuses_a_day_that_it_cannot_play(
    alone: Run, tmp_path: Path, day: str, said: str
) -> None:
    bars = str(recording(tmp_path, "AAPL"))
    answer = alone("sandbox", "--port", str(free_port()), "--bars", bars, "--day", day)
    assert ended(answer) == (2, 1)
    assert said in answer.err


@pytest.mark.parametrize("port", ["0", "-1", "65536"])
def test_sandbox_refuses_what_is_no_port(alone: Run, port: str) -> None:
    answer = alone("sandbox", "--port", port)
    assert answer.code == 2
    assert "--port" in answer.err


@pytest.mark.parametrize(
    ("sent", "codes"),
    [(signal.SIGINT, {0, 130}), (signal.SIGTERM, {0, 128 + signal.SIGTERM})],
    ids=["interrupted", "terminated"],
)
def test_sandbox_plays_a_recorded_day_until_it_is_told_to_end(
    tmp_path: Path, sent: signal.Signals, codes: set[int]
) -> None:
    port = free_port()
    words = ["--port", str(port), "--bars", str(recording(tmp_path, "AAPL", "ZZZZ"))]
    process = subprocess.Popen(
        [sys.executable, "-m", "ops_pipeline", "sandbox", *words],
        env={**os.environ, "OPS_VAR_DIR": str(tmp_path), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert answer_of(process, f"http://127.0.0.1:{port}/v2/clock")["is_open"] in (True, False)
        assert WEB.get(f"http://127.0.0.1:{port}/v2/clock").status_code == 401
        process.send_signal(sent)
        told, errors = process.communicate(timeout=15)
    finally:
        process.kill()
    assert process.returncode in codes
    assert f"sandbox at http://127.0.0.1:{port}, 2 tickers" in told
    assert "Traceback" not in errors
    assert not psutil.pid_exists(process.pid)


def answer_of(process: subprocess.Popen[str], url: str) -> Any:
    """What is answered there to one who has the key, as soon as anything is."""
    give_up = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < give_up:
        try:
            answer = WEB.get(url, headers=HEADERS)
        except httpx.TransportError:
            time.sleep(0.05)
            continue
        assert answer.status_code == 200, answer.text
        return answer.json()
    raise AssertionError(f"the sandbox did not answer: {process.poll()}")


# replay --universe


@pytest.fixture
def tracking_apple(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A universe file that tracks AAPL alone."""
    path = universe_yaml(tmp_path, "https://wire.example", {})
    monkeypatch.setenv("OPS_UNIVERSE_FILE", path)


def asked(
    calendar: Calendar, bars: Path, which: market.Universe, tickers: str | None = None
) -> market.Request:
    return market.requested(calendar, bars, None, tickers, (None, None), 7, which)


@pytest.mark.usefixtures("tracking_apple")
def test_replay_of_the_configured_universe_plays_only_what_is_tracked(
    tmp_path: Path, xnys: Calendar
) -> None:
    bars = recording(tmp_path, "AAPL", "ZZZZ")
    request = asked(xnys, bars, market.Universe.CONFIGURED)
    assert request.tickers == ["AAPL"]
    assert set(request.bars["ticker"]) == {"AAPL"}
    assert request.market.endswith("/AAPL")


@pytest.mark.usefixtures("tracking_apple")
def test_replay_plays_all_tickers_of_a_file_where_nothing_else_is_said(
    tmp_path: Path, xnys: Calendar
) -> None:
    bars = recording(tmp_path, "AAPL", "ZZZZ")
    request = market.requested(xnys, bars, None, None, (None, None), 7)
    assert request.tickers == ["AAPL", "ZZZZ"]
    assert set(request.bars["ticker"]) == {"AAPL", "ZZZZ"}
    assert request.market == asked(xnys, bars, market.Universe.FROM_FILE).market


@pytest.mark.usefixtures("tracking_apple")
def test_tickers_that_are_named_win_over_the_configured_universe(
    tmp_path: Path, xnys: Calendar
) -> None:
    bars = recording(tmp_path, "AAPL", "ZZZZ")
    assert asked(xnys, bars, market.Universe.CONFIGURED, "ZZZZ").tickers == ["ZZZZ"]


@pytest.mark.usefixtures("tracking_apple")
def test_replay_of_a_file_with_nothing_that_is_tracked_is_refused(
    tmp_path: Path, xnys: Calendar
) -> None:
    with pytest.raises(BadInput, match="has none of the tracked tickers: AAPL"):
        asked(xnys, recording(tmp_path, "ZZZZ"), market.Universe.CONFIGURED)


def test_replay_refuses_a_universe_without_bars_in_one_line(
    alone: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = universe_yaml(tmp_path, "https://wire.example", {})
    monkeypatch.setenv("OPS_UNIVERSE_FILE", path)
    bars = str(recording(tmp_path, "ZZZZ"))
    answer = alone("replay", "--bars", bars, "--universe", "configured")
    assert ended(answer) == (2, 1)
    assert "has none of the tracked tickers: AAPL" in answer.err
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("words", [("--day", "2025-02-12"), ("--news", "news.jsonl")])
def test_the_sandbox_has_no_day_without_a_recording(alone: Run, words: tuple[str, str]) -> None:
    answer = alone("sandbox", *words)
    assert (answer.code, len(answer.error_lines)) == (2, 1)
    assert "--bars FILE" in answer.err
