"""halt, reduce and resume say what stops and what goes on, and each change is kept."""

import getpass
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from sqlalchemy.exc import ProgrammingError

from ops_pipeline.cli.server import connected
from ops_pipeline.private_files import replace_private
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage.dispatch import read_trading_state, trading_state_changes
from ops_pipeline.storage.engine import open_engine
from ops_pipeline.storage.knowledge import find_now, insert_replay_session, set_present
from ops_pipeline.storage.services import switch_changes
from ops_pipeline_tests.cli.test_verbs import Run, ready, run  # noqa: F401 - fixtures
from ops_pipeline_tests.damage import DAMAGES
from ops_pipeline_tests.dispatcher.world import World

LONG_AGO = date(2020, 1, 2)


@pytest.fixture
def active(ready: Run) -> Run:  # noqa: F811 - the fixture
    assert ready("resume").code == 0
    return ready


def state(settings: Settings) -> str:
    engine = open_engine(settings)
    with engine.connect() as connection:
        found = read_trading_state(connection)
    engine.dispose()
    return found


@pytest.mark.parametrize(
    ("verb", "expected", "said"),
    [
        ("halt", "HALTED", "neither to open nor to close"),
        ("reduce", "REDUCING", "nothing is opened any more"),
        ("resume", "ACTIVE", "trade when they pass every gate"),
    ],
)
def test_a_verb_changes_the_state_and_says_what_that_means(
    active: Run, server: Settings, verb: str, expected: str, said: str
) -> None:
    answer = active(verb, "--reason", "a drill")
    assert (answer.code, state(server)) == (0, expected)
    assert said in answer.out
    assert "nothing is held" in answer.out
    assert f"trading {expected}" in active("status").out


def test_every_change_is_kept_with_who_and_why(
    active: Run, server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "night shift")
    active("halt", "--reason", "odd prices")
    active("resume")
    engine = open_engine(server)
    with engine.connect() as connection:
        newest, before = trading_state_changes(connection, 2)
    engine.dispose()
    assert (newest.state, newest.reason) == ("ACTIVE", "")
    told = (before.state, before.changed_by, before.reason)
    assert told == ("HALTED", "night shift", "odd prices")


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_trading_is_halted_whatever_became_of_the_files_beside_the_database(
    active: Run, server: Settings, damage: Callable[[Path], None]
) -> None:
    paths = [server.connection_file, server.window_file, server.mode_dir / "run" / "keeper.json"]
    before = {path: path.read_bytes() for path in paths if path.is_file()}
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            damage(path)
        halted = active("halt", "--reason", "a drill")
        assert (halted.code, state(server)) == (0, "HALTED"), halted.err
        assert "trading HALTED" in active("status").out
    finally:
        for path in paths:
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        for path, content in before.items():
            replace_private(path, content.decode())
        active("resume")


@pytest.fixture
def not_begun(active: Run, server: Settings) -> Iterator[Run]:
    """A replay whose session is known, and that has no present yet."""
    engine = open_engine(server)
    with engine.begin() as connection:
        present = find_now(connection, Mode.REPLAY)
        insert_replay_session(connection, LONG_AGO, "recorded")
        connection.exec_driver_sql("delete from replay_clock")
    yield active
    with engine.begin() as connection:
        if present:
            set_present(connection, present)
        connection.exec_driver_sql(
            "delete from replay_sessions where session_date = %s", (LONG_AGO,)
        )
    engine.dispose()


def test_a_replay_that_has_not_begun_can_be_halted(not_begun: Run, server: Settings) -> None:
    answer = not_begun("halt", "--reason", "a drill")
    assert (answer.code, state(server)) == (0, "HALTED")
    assert "nothing is held" in answer.out


@pytest.fixture
def holding(run: Run, server: Settings) -> Iterator[Settings]:  # noqa: F811 - the fixture
    """A sandbox that is empty but for ten shares of NVDA."""
    settings = replace(server, mode=Mode.SANDBOX)
    administrator = open_engine(settings, "postgres")
    with administrator.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        name = settings.pipeline_database
        connection.exec_driver_sql(f'drop database if exists "{name}" with (force)')
    administrator.dispose()
    assert run("init", "--mode", "sandbox").code == 0
    engine = open_engine(settings)
    World(engine).hold("NVDA")
    engine.dispose()
    yield settings
    assert run("resume", "--mode", "sandbox").code == 0


def test_what_is_held_is_named(run: Run, holding: Settings) -> None:  # noqa: F811 - the fixture
    assert state(holding) == "ACTIVE"
    assert "without stop or target: NVDA +10" in run("halt", "--mode", "sandbox").out
    assert "end of the session: NVDA +10" in run("reduce", "--mode", "sandbox").out
    assert "held: NVDA +10" in run("resume", "--mode", "sandbox").out


def test_a_halt_holds_where_what_is_held_cannot_be_read(
    run: Run,  # noqa: F811 - the fixture
    holding: Settings,
) -> None:
    engine = open_engine(holding)
    with engine.begin() as connection:
        connection.exec_driver_sql("alter view ledger_fills rename to lost")
    with pytest.raises(ProgrammingError, match="ledger_fills"):
        run("halt", "--mode", "sandbox")
    assert state(holding) == "HALTED"
    with engine.begin() as connection:
        connection.exec_driver_sql("alter view lost rename to ledger_fills")
    engine.dispose()


def closing(settings: Settings) -> list[tuple[str, str]]:
    engine = open_engine(settings)
    with engine.connect() as connection:
        found = connection.exec_driver_sql(
            "select ticker, reason ->> 'exit' from dispatch_recommendations where intent = 'close'"
        )
        rows = [(row[0], row[1]) for row in found]
    engine.dispose()
    return rows


def test_flatten_is_a_dry_run_until_it_is_told_to(run: Run, holding: Settings) -> None:  # noqa: F811
    engine = open_engine(holding)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "insert into broker_positions values ('paper', 'TSLA', -3.5, -3.5, 250, now())"
        )
    engine.dispose()
    answer = run("flatten", "--mode", "sandbox")
    assert (answer.code, state(holding), closing(holding)) == (0, "ACTIVE", [])
    assert "would close NVDA +10" in answer.out
    assert "never closed from here: TSLA -3.5\n" in answer.out
    assert "--apply" in answer.out


def test_flatten_opens_nothing_and_closes_all_with_the_next_run(
    run: Run,  # noqa: F811 - the fixture
    holding: Settings,
) -> None:
    answer = run("flatten", "--mode", "sandbox", "--reason", "drill", "--apply")
    assert (answer.code, state(holding)) == (0, "REDUCING")
    assert closing(holding) == [("NVDA", "flatten")]
    assert "closed by the next run of the dispatcher: NVDA +10" in answer.out
    again = run("flatten", "--mode", "sandbox", "--apply")
    assert closing(holding) == [("NVDA", "flatten")]
    assert "left, being closed already or in quarantine: NVDA +10" in again.out
    assert "REDUCING since" in run("status", "--mode", "sandbox").out


@pytest.mark.parametrize("apply", [(), ("--apply",)])
def test_flatten_promises_nothing_that_the_dispatcher_would_not_do(
    run: Run,  # noqa: F811 - the fixture
    holding: Settings,
    apply: tuple[str, ...],
) -> None:
    run("service", "disable", "dispatcher", "--mode", "sandbox")
    answer = run("flatten", "--mode", "sandbox", *apply)
    assert (answer.code, state(holding), closing(holding)) == (6, "ACTIVE", [])
    assert "ops-pipeline service enable dispatcher" in answer.err


def test_a_replay_is_not_flattened_by_hand(active: Run) -> None:
    answer = active("flatten", "--apply")
    assert (answer.code, answer.err.count("\n")) == (6, 1)


def test_a_service_is_not_switched_off_until_a_time_that_is_over(active: Run) -> None:
    answer = active("service", "disable", "rss-ingest", "--until", "2020-01-02T03:00Z")
    assert (answer.code, "is over already" in answer.err) == (2, True)


def test_every_switch_of_a_service_is_kept_with_who_and_why(
    active: Run, server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "night shift")
    assert active("service", "disable", "rss-ingest", "--reason", "upkeep").code == 0
    assert active("service", "enable", "rss-ingest", "--reason", "done").code == 0
    engine = open_engine(server)
    with engine.connect() as connection:
        newest, before = switch_changes(connection, 2)
    engine.dispose()
    assert (newest.is_enabled, newest.changed_by, newest.reason) == (True, "night shift", "done")
    told = (before.service, before.is_enabled, before.changed_by, before.reason)
    assert told == ("rss-ingest", False, "night shift", "upkeep")
    assert "night shift" in active("service", "list").out


def test_the_trade_stream_is_no_service_of_the_tick_and_says_what_stops_trading(
    active: Run,
) -> None:
    answer = active("service", "disable", "trade-stream")
    assert (answer.code, len(answer.error_lines)) == (2, 1)
    assert "ops-pipeline halt" in answer.err


def test_what_an_operator_was_told_is_on_disk_though_a_replay_does_without(
    active: Run, server: Settings
) -> None:
    engine = open_engine(server)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("show synchronous_commit").scalar() == "off"
    engine.dispose()
    with connected(server.mode) as (_, connection):
        assert connection.exec_driver_sql("show synchronous_commit").scalar() == "on"
    assert active("service", "enable", "rss-ingest").code == 0
