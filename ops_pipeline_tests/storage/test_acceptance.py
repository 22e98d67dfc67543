"""The runbook's five queries, normal and with one violation each."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection, text

from ops_pipeline.domain.acceptance import QUERIES, Level, Verdict
from ops_pipeline.domain.cost import CostLine
from ops_pipeline.domain.session import Calendar
from ops_pipeline.storage import acceptance, cost, dispatch, machine
from ops_pipeline.storage.bars import insert_bars
from ops_pipeline_tests.builders import DAY, OPENS_AT, a_bar, at
from ops_pipeline_tests.storage.rows import (
    TS,
    claim,
    put_executed,
    put_execution,
    put_recommendation,
    put_run,
)
from ops_pipeline_tests.storage.turns import take

NIGHT = OPENS_AT + timedelta(hours=10)
YESTERDAY = OPENS_AT - timedelta(days=1)


def finish(connection: Connection, started_at: datetime, finished_at: datetime | None) -> None:
    run_id = put_run(connection)
    connection.execute(
        text("update dispatcher_runs set started_at = :at where run_id = :id"),
        {"at": started_at, "id": run_id},
    )
    if finished_at:
        dispatch.finish_run(connection, run_id, finished_at, released=0, expired=0)


def execute(connection: Connection, simulated_ts: datetime, number: int = 0) -> None:
    run_id = put_run(connection)
    dispatch.finish_run(connection, run_id, TS, released=0, expired=0)
    put_executed(
        connection,
        ticker="X",
        minute=at(number),
        simulated_ts=simulated_ts,
        dispatcher_run_id=run_id,
    )


def judge(connection: Connection, calendar: Calendar, now: datetime = TS) -> dict[str, Verdict]:
    found = acceptance.verdicts(connection, now, calendar, is_live=False, names=QUERIES)
    return {v.name: v for v in found}


@pytest.fixture
def healthy(connection: Connection) -> Connection:
    """Runs since the day before yesterday, and one execution today."""
    finish(connection, YESTERDAY - timedelta(days=1), YESTERDAY)
    finish(connection, TS - timedelta(minutes=1), TS)
    execute(connection, TS - timedelta(minutes=5), 300)
    return connection


def test_a_healthy_pipeline_is_normal_in_all_five_in_the_runbooks_order(
    healthy: Connection, xnys: Calendar
) -> None:
    found = judge(healthy, xnys)
    assert tuple(found) == QUERIES
    assert {verdict.level for verdict in found.values()} == {Level.NORMAL}


def abnormal(connection: Connection, calendar: Calendar, now: datetime = TS) -> dict[str, Level]:
    found = judge(connection, calendar, now)
    return {name: verdict.level for name, verdict in found.items() if not verdict.is_normal}


def test_twenty_rows_that_wait_are_normal(healthy: Connection, xnys: Calendar) -> None:
    for n in range(20):
        put_recommendation(healthy, minute=at(n))
    assert abnormal(healthy, xnys) == {}


def test_a_backlog_is_a_problem(healthy: Connection, xnys: Calendar) -> None:
    for n in range(21):
        put_recommendation(healthy, minute=at(n))
    assert abnormal(healthy, xnys) == {"backlog_state": Level.HIGH}


def test_a_row_that_a_run_is_at_work_on_is_normal(healthy: Connection, xnys: Calendar) -> None:
    put_recommendation(healthy)
    run_id = put_run(healthy)
    claim(healthy, run_id)
    dispatch.finish_run(healthy, run_id, TS, released=0, expired=0)
    assert abnormal(healthy, xnys) == {}


def test_a_row_that_is_stuck_for_ten_minutes_is_a_problem(
    healthy: Connection, xnys: Calendar
) -> None:
    put_recommendation(healthy)
    run_id = put_run(healthy)
    claim(healthy, run_id)
    dispatch.finish_run(healthy, run_id, TS, released=0, expired=0)
    later = TS + timedelta(minutes=10, seconds=1)
    finish(healthy, later, later)
    assert set(abnormal(healthy, xnys, later)) == {"stuck_processing"}


def test_an_execution_made_twice_is_critical(healthy: Connection, xnys: Calendar) -> None:
    healthy.execute(text("set constraints all immediate"))
    healthy.execute(
        text(
            "alter table dispatch_executions"
            " drop constraint dispatch_executions_recommendation_id_key"
        )
    )
    healthy.execute(text("set constraints all deferred"))
    row = put_recommendation(healthy)
    run_id = put_run(healthy)
    dispatch.finish_run(healthy, run_id, TS, released=0, expired=0)
    for _ in range(2):
        put_execution(healthy, row, dispatcher_run_id=run_id)
    assert abnormal(healthy, xnys) == {"duplicate_executions": Level.CRITICAL}


def test_a_run_that_never_finished_is_a_problem(healthy: Connection, xnys: Calendar) -> None:
    finish(healthy, TS, None)
    assert abnormal(healthy, xnys, TS + timedelta(seconds=120)) == {}
    late = TS + timedelta(seconds=121)
    assert abnormal(healthy, xnys, late) == {"recent_dispatcher_runs": Level.HIGH}


def test_no_run_for_five_minutes_is_a_problem_while_the_market_is_open(
    healthy: Connection, xnys: Calendar
) -> None:
    later = TS + timedelta(minutes=5, seconds=1)
    assert abnormal(healthy, xnys, later) == {"recent_dispatcher_runs": Level.HIGH}


def test_no_run_is_normal_while_the_market_is_closed(healthy: Connection, xnys: Calendar) -> None:
    assert abnormal(healthy, xnys, NIGHT) == {}


def test_more_than_two_hundred_executions_a_day_are_a_problem(
    healthy: Connection, xnys: Calendar
) -> None:
    for n in range(200):
        execute(healthy, TS, n)
    assert abnormal(healthy, xnys) == {"execution_volume": Level.HIGH}


def test_no_execution_since_the_session_before_is_a_problem(
    connection: Connection, xnys: Calendar
) -> None:
    finish(connection, YESTERDAY - timedelta(days=1), YESTERDAY)
    finish(connection, TS, TS)
    assert abnormal(connection, xnys) == {"execution_volume": Level.MEDIUM}


def test_no_execution_of_a_pipeline_that_began_today_is_normal(
    connection: Connection, xnys: Calendar
) -> None:
    finish(connection, TS, TS)
    assert abnormal(connection, xnys) == {}


@pytest.mark.parametrize(
    ("simulated_ts", "count"),
    [("2025-02-12T04:59:59+00:00", 0), ("2025-02-12T05:00:00+00:00", 1)],
)
def test_today_begins_at_midnight_in_new_york(
    connection: Connection, xnys: Calendar, simulated_ts: str, count: int
) -> None:
    execute(connection, datetime.fromisoformat(simulated_ts))
    observed = judge(connection, xnys)["execution_volume"].observed
    assert observed["today"] == count
    assert datetime.fromisoformat(simulated_ts).date() == DAY


@pytest.mark.parametrize(
    ("days_ago", "usd", "level"),
    [
        (0, 5.01, Level.CRITICAL),
        (1, 5.01, Level.CRITICAL),
        (0, 4.99, Level.LOW),
        (0, 2.0, Level.NORMAL),
        (-1, 9.0, Level.UNMEASURED),
    ],
)
def test_more_than_five_dollars_on_the_newest_measured_day_are_critical(
    connection: Connection, xnys: Calendar, days_ago: int, usd: float, level: Level
) -> None:
    halves = [CostLine(item, 1.0, "hours", usd / 2, is_standing=False) for item in ("a", "b")]
    cost.replace(connection, DAY - timedelta(days=days_ago), halves, TS)
    found = acceptance.verdicts(connection, TS, xnys, is_live=True, names=["cost_per_day"])
    assert [verdict.level for verdict in found] == [level]


def test_a_day_that_is_measured_again_is_counted_once(connection: Connection) -> None:
    dear, cheap = (CostLine("a", 1.0, "hours", usd, is_standing=True) for usd in (9.0, 1.0))
    for line in (dear, cheap):
        cost.replace(connection, DAY, [line], TS)
    assert cost.read(connection, DAY) == [cheap]


def cadence(connection: Connection, calendar: Calendar, now: datetime) -> Verdict:
    names = ["watchlist_cadence"]
    return acceptance.verdicts(connection, now, calendar, is_live=True, names=names)[0]


def test_a_backfill_by_hand_owes_no_decision_of_the_watchlist(
    connection: Connection, xnys: Calendar
) -> None:
    # Two single minutes of the morning, filled in by hand at noon.
    take(connection, at(130), watchlist=3_000.0)
    take(connection, at(140), watchlist=3_000.0)
    assert cadence(connection, xnys, TS).is_silent
    # The loop began at 11:50, and has decided nothing: features were there.
    take(connection, at(140 + 1), watchlist=30.0)
    found = cadence(connection, xnys, TS)
    assert (found.level, found.observed["due"] > 0) == (Level.MEDIUM, True)


def test_while_an_operator_has_it_down_no_decision_is_due(
    connection: Connection, xnys: Calendar
) -> None:
    take(connection, at(100), watchlist=30.0)
    before = cadence(connection, xnys, TS).observed["due"]
    machine.begin_downtime(connection, at(110), "ops")
    machine.end_downtime(connection, at(125))
    assert before - cadence(connection, xnys, TS).observed["due"] == 4


@pytest.mark.parametrize("name", ["news_volume", "sentiment_volume", "signal_volume"])
def test_minutes_that_were_filled_in_by_hand_are_no_basis_of_a_volume(
    connection: Connection, xnys: Calendar, name: str
) -> None:
    stage = {"news_volume": "news", "sentiment_volume": "sentiment"}.get(name, "signals")
    now = at(380)
    take(connection, *(at(number) for number in range(370)), **{stage: 30.0})
    (found,) = acceptance.verdicts(connection, now, xnys, is_live=True, names=[name])
    assert found.is_silent
    assert found.finding.startswith("not measured yet")


def test_bars_that_were_imported_stand_against_no_minute(
    connection: Connection, xnys: Calendar
) -> None:
    connection.execute(text("insert into universe (ticker) values ('AAPL') on conflict do nothing"))
    insert_bars(
        connection,
        [a_bar(minute=at(number)) for number in range(20)],
        {at(number): DAY for number in range(20)},
        lambda bar: bar.minute + timedelta(minutes=1),
        feed="test",
        origin="recorded",
    )
    (found,) = acceptance.verdicts(connection, TS, xnys, is_live=True, names=["bar_volume"])
    assert (found.is_silent, "of 0" in found.finding) == (True, False)
