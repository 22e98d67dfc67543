"""The quick health check and a session's few numbers, counted from the rows."""

from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.session import Calendar
from ops_pipeline.domain.stages import BARS, DATA_STAGES, DISPATCH, SERVICES
from ops_pipeline.operations.status import SILENT_AFTER, ProcessStatus, ServiceStatus, read_status
from ops_pipeline.operations.summary import summarize
from ops_pipeline.settings import Mode
from ops_pipeline.storage import knowledge
from ops_pipeline.storage.alerts import observe
from ops_pipeline.storage.config import ConfigState, insert_version, update_state
from ops_pipeline.storage.services import Switch, upsert_switch
from ops_pipeline_tests.builders import DAY, NOON, SESSION, a_bar, at
from ops_pipeline_tests.dispatcher.world import TS, World
from ops_pipeline_tests.storage.rows import put_recommendation, put_run
from ops_pipeline_tests.storage.test_config import MADE


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def service(connection: Connection, calendar: Calendar, stage: object) -> ServiceStatus:
    status = read_status(connection, Mode.REPLAY, calendar)
    return next(s for s in status.services if s.switch.stage == stage)


def test_a_replay_that_never_ran_has_no_present(connection: Connection, xnys: Calendar) -> None:
    status = read_status(connection, Mode.REPLAY, xnys)
    assert (status.now, status.session, status.trading_state, status.backlog) == (
        None,
        None,
        "ACTIVE",
        {},
    )
    assert [s.switch.stage for s in status.services] == list(SERVICES)


def test_a_switch_that_is_off_until_an_instant_is_off_before_there_is_a_present(
    connection: Connection, xnys: Calendar
) -> None:
    upsert_switch(connection, Switch(BARS, is_enabled=False, disabled_until=NOON))
    assert not service(connection, xnys, BARS).switch.is_enabled


def test_the_status_is_that_of_the_present(connection: Connection, xnys: Calendar) -> None:
    knowledge.set_present(connection, TS)
    put_recommendation(connection)
    status = read_status(connection, Mode.REPLAY, xnys)
    assert (status.now, status.session, status.backlog) == (TS, SESSION, {"PENDING": 1})


def test_lag_is_counted_from_the_end_of_a_services_newest_minute(
    connection: Connection, xnys: Calendar
) -> None:
    knowledge.set_present(connection, TS)
    knowledge.insert_stage_minutes(connection, "bars", [(SESSION, NOON)], {}, "a")
    found = service(connection, xnys, BARS)
    assert (found.last_minute, found.lag_seconds) == (NOON, 20.0)


def test_the_dispatchers_progress_is_its_newest_run(connection: Connection, xnys: Calendar) -> None:
    knowledge.set_present(connection, TS + timedelta(seconds=5))
    put_run(connection)
    found = service(connection, xnys, DISPATCH)
    assert (found.last_minute, found.lag_seconds) == (TS, 5.0)


def test_a_service_that_never_ran_has_no_lag(connection: Connection, xnys: Calendar) -> None:
    knowledge.set_present(connection, TS)
    assert service(connection, xnys, BARS).lag_seconds is None


def test_a_live_mode_has_the_clocks_present(connection: Connection) -> None:
    before = knowledge.clock()
    status = read_status(connection, Mode.SANDBOX, Mode.SANDBOX.calendar)
    assert status.now is not None
    assert before <= status.now <= knowledge.clock()
    assert status.session is not None


def problems(connection: Connection, **parts: object) -> str:
    status = read_status(connection, Mode.SIMULATED, Mode.SANDBOX.calendar, **parts)  # type: ignore[arg-type]
    return "; ".join(status.problems)


def test_a_service_that_is_silent_in_trading_hours_needs_a_look(connection: Connection) -> None:
    now = knowledge.clock()
    session = Mode.SANDBOX.calendar.at(now)
    assert session is not None
    if now - session.opens_at < 2 * SILENT_AFTER:
        pytest.skip("the session has just begun")
    connection.exec_driver_sql("update installation set created_at = '2000-01-01Z'")
    for stage in DATA_STAGES:
        minute = now if stage != BARS else now - SILENT_AFTER - timedelta(minutes=3)
        knowledge.insert_stage_minutes(connection, stage.name, [(session, minute)], {}, "a")
    upsert_switch(connection, Switch(DISPATCH, is_enabled=False))
    assert problems(connection) == "telemetry-1m has finished no minute for 12 min"
    connection.exec_driver_sql("update installation set created_at = clock_timestamp()")
    assert problems(connection) == ""
    connection.exec_driver_sql("update installation set created_at = '2000-01-01Z'")
    upsert_switch(connection, Switch(BARS, is_enabled=False))
    assert problems(connection) == ""


def test_a_process_that_died_beside_others_needs_a_look(connection: Connection) -> None:
    for stage in SERVICES:
        upsert_switch(connection, Switch(stage, is_enabled=False))
    both = [ProcessStatus("keeper", 1), ProcessStatus("web", None)]
    assert problems(connection, processes=both) == "does not run: web"
    assert problems(connection, processes=both[1:]) == ""


def test_an_open_alert_that_is_an_error_needs_a_look(connection: Connection) -> None:
    now = knowledge.clock()
    for stage in SERVICES:
        upsert_switch(connection, Switch(stage, is_enabled=False))
    bad = [Verdict("disk_has_room", Level.HIGH, "full"), Verdict("volume", Level.LOW, "few")]
    observe(connection, now, "test", bad)
    status = read_status(connection, Mode.SIMULATED, Mode.SIMULATED.calendar)
    assert [alert.cause for alert in status.alerts] == ["disk_has_room", "volume"]
    assert status.problems == ["high: disk_has_room: full"]


def play_a_session(world: World) -> None:
    """One entry that reaches its stop, one that stays, one refusal, one row left over."""
    world.trade(a_bar(), a_bar(ticker="MSFT"))
    world.recommend()
    world.recommend(ticker="MSFT")
    world.recommend(ticker="TSLA", confidence=0.1)
    world.run()
    world.trade(a_bar(minute=at(170), open=190.0, high=190.0, low=190.0, close=190.0))
    world.feature("AAPL", at(170))
    world.run(at(171))
    world.recommend(ticker="NVDA", minute=at(171))


def test_a_session_is_counted_from_its_rows(world: World, xnys: Calendar) -> None:
    play_a_session(world)
    with world.engine.connect() as connection:
        found = summarize(connection, SESSION, xnys)
    assert (found.signals, found.entries, found.exits, found.executions) == (4, 2, 1, 3)
    assert (found.not_terminal, found.failed, found.positions_left) == (1, 0, 1)
    assert found.signals_by_action == {"BUY": 4}
    assert found.skips_by_gate == {"bar_freshness": 1}
    assert found.rows["bars"] == 3
    assert found.rows["features"] == 1


def test_profit_is_what_was_realised_and_what_is_open_at_the_last_close(
    world: World, xnys: Calendar
) -> None:
    play_a_session(world)
    fills = world.ask(
        "select sum(case side when 'buy' then -notional else notional end),"
        " sum(qty) filter (where ticker = 'MSFT') from dispatch_executions"
    )
    cash, held = fills[0]
    with world.engine.connect() as connection:
        profit = summarize(connection, SESSION, xnys).profit_usd
    assert profit == pytest.approx(cash + held * 200.0)


def test_profit_is_unknown_where_a_position_has_no_close(world: World, xnys: Calendar) -> None:
    world.hold()
    with world.engine.connect() as connection:
        assert summarize(connection, SESSION, xnys).profit_usd is None


def test_a_session_without_rows_is_all_zero(connection: Connection, xnys: Calendar) -> None:
    found = summarize(connection, SESSION, xnys)
    assert set(found.rows.values()) == {0}
    assert (found.signals, found.executions, found.profit_usd) == (0, 0, 0.0)


def test_another_sessions_rows_are_not_counted(world: World, xnys: Calendar) -> None:
    world.recommend(session_date=DAY - timedelta(days=1))
    with world.engine.connect() as connection:
        assert summarize(connection, SESSION, xnys).signals == 0


def test_the_newest_run_that_is_shown_is_the_last_one(world: World, xnys: Calendar) -> None:
    world.run(TS)
    world.run(TS + timedelta(minutes=1))
    with world.engine.begin() as connection:
        connection.execute(text("delete from replay_clock"))
        knowledge.set_present(connection, TS + timedelta(minutes=2))
        assert service(connection, xnys, DISPATCH).lag_seconds == 60.0


def test_the_settings_in_force_are_named_and_what_cannot_be_used_needs_a_look(
    connection: Connection, xnys: Calendar
) -> None:
    assert read_status(connection, Mode.REPLAY, xnys).settings_version == ""
    insert_version(connection, MADE)
    update_state(connection, ConfigState(invalid="tier: no"), TS)
    status = read_status(connection, Mode.REPLAY, xnys)
    assert status.settings_version == f"1, hash {MADE.config_hash}"
    assert status.problems == ["the dispatcher stands: tier: no"]
