"""A session's minutes against hand-computed seconds: in turn, late, skipped, caught up, closed."""

from datetime import date, datetime, timedelta

import pytest
from sqlalchemy import Connection, text

from ops_pipeline.domain.session import Calendar, Session
from ops_pipeline.domain.slo import (
    BARS_TO_FEATURES,
    CLOSE_TO_BARS,
    FEATURES_TO_SIGNALS,
    MINUTE_PHASES,
    RUN_LAUNCH,
    SETTLE_TO_SIGNALS,
    SIGNALS_TO_TERMINAL,
    Growth,
    Measurement,
    Phase,
    Sizes,
    Turns,
)
from ops_pipeline.storage import knowledge, machine, slo
from ops_pipeline_tests.builders import DAY, SESSION, at
from ops_pipeline_tests.storage.rows import insert, put_recommendation
from ops_pipeline_tests.storage.turns import IN_TIME, closes, take

SETTLE = 20


def measured(
    connection: Connection, minutes: float = 10, session: Session = SESSION
) -> tuple[Turns, dict[str, Phase]]:
    """What is measured when so many minutes of the session are due."""
    until = session.opens_at + timedelta(minutes=minutes)
    taken = slo.measure(connection, session, until, SETTLE)
    assert tuple(phase.phase for phase in taken.phases) == MINUTE_PHASES
    return taken.turns, {phase.phase: phase for phase in taken.phases}


def close(
    connection: Connection, minute: datetime, seconds: float | None, **changes: object
) -> None:
    """A recommendation of a minute, skipped so long after its bar has closed, or still waiting."""
    row = {"minute": minute, "ts": closes(minute, 20), **changes}
    if seconds is not None:
        closed = {"status": "SKIPPED", "failure_reason": "x"}
        row |= {**closed, "processed_at": closes(minute, seconds)}
    put_recommendation(connection, **row)


def test_a_session_that_no_run_ever_took_has_no_minutes(connection: Connection) -> None:
    turns, phases = measured(connection)
    assert turns == Turns(0)
    assert {phase.count for phase in phases.values()} == {0}
    assert phases[SETTLE_TO_SIGNALS].p95_seconds is None


def test_one_minute_is_every_percentile_of_its_phases(connection: Connection) -> None:
    take(connection, at(0))
    turns, phases = measured(connection, 1)
    assert turns == Turns(1)
    expected = {
        CLOSE_TO_BARS: 22,
        BARS_TO_FEATURES: 3,
        FEATURES_TO_SIGNALS: 2,
        SETTLE_TO_SIGNALS: 7,
    }
    assert phases == {
        SIGNALS_TO_TERMINAL: Phase(SIGNALS_TO_TERMINAL, 0),
        **{name: Phase(name, 1, took, took, took, took) for name, took in expected.items()},
    }


def test_percentiles_lie_between_the_minutes(connection: Connection) -> None:
    for number, signals in enumerate((23, 21, 40, 22, 24)):
        take(connection, at(number), bars=20, features=21, signals=signals)
    _, phases = measured(connection, 5)
    found = phases[SETTLE_TO_SIGNALS]
    # Of 1, 2, 3, 4 and 20 s: places 2, 3.8 and 3.96 of 0 to 4.
    assert (found.count, found.p50_seconds, found.max_seconds) == (5, 3, 20)
    assert found.p95_seconds == pytest.approx(4 + 0.8 * 16)
    assert found.p99_seconds == pytest.approx(4 + 0.96 * 16)


def test_a_minute_that_no_run_took_is_skipped(connection: Connection) -> None:
    take(connection, at(0))
    take(connection, at(2))
    turns, phases = measured(connection, 4)
    assert turns == Turns(4, skipped=2, first_skipped=at(1))
    assert phases[SETTLE_TO_SIGNALS].count == 2


def test_a_minute_without_signals_is_skipped_whatever_came_before_them(
    connection: Connection,
) -> None:
    take(connection, at(0))
    take(connection, at(1), bars=22, features=25)
    assert measured(connection, 2)[0] == Turns(2, skipped=1, first_skipped=at(1))


@pytest.mark.parametrize(("signals", "late"), [(80, 0), (80.001, 1)])
def test_a_minute_is_late_when_the_next_has_settled_before_its_signals(
    connection: Connection, signals: float, late: int
) -> None:
    take(connection, at(0))
    take(connection, at(1), bars=22, features=25, signals=signals)
    turns, phases = measured(connection, 2)
    assert turns == Turns(2, late=late, first_late=at(1) if late else None)
    assert phases[SETTLE_TO_SIGNALS].max_seconds == pytest.approx(signals - SETTLE)


def test_minutes_that_a_later_run_caught_up_are_skipped_and_give_no_seconds(
    connection: Connection,
) -> None:
    take(connection, at(0))
    take(connection, at(1), at(2), at(3))
    turns, phases = measured(connection, 4)
    assert turns == Turns(4, skipped=2, first_skipped=at(1))
    assert phases[CLOSE_TO_BARS].max_seconds == 22


@pytest.mark.parametrize("due", [2, 3])
def test_a_minute_that_the_next_ones_run_took_along_is_skipped_however_soon(
    connection: Connection, due: int
) -> None:
    take(connection, at(0))
    # News, which wait for nothing, are there 65 s after the first of the two has closed.
    take(connection, at(1), at(2), news=5, **IN_TIME)
    assert measured(connection, due)[0] == Turns(due, skipped=1, first_skipped=at(1))


def test_the_last_minute_is_skipped_when_the_next_sessions_run_caught_it_up(
    connection: Connection,
) -> None:
    last, tomorrow = SESSION.minutes()[-1], SESSION.opens_at + timedelta(days=1)
    take(connection, at(388))
    take(connection, last, tomorrow)
    assert measured(connection, 390)[0] == Turns(2, skipped=1, first_skipped=last)


def test_a_minute_that_was_backfilled_alone_is_skipped(connection: Connection) -> None:
    take(connection, at(0))
    take(connection, at(1), bars=7_200, features=7_201, signals=7_202)
    turns, phases = measured(connection, 2)
    assert turns == Turns(2, skipped=1, first_skipped=at(1))
    assert phases[SETTLE_TO_SIGNALS].max_seconds == 7


def test_a_minute_begun_in_time_and_finished_by_another_run_is_skipped(
    connection: Connection,
) -> None:
    take(connection, at(0))
    take(connection, at(1), run_id="failed", news=5)
    take(connection, at(1), run_id="by hand", bars=900, features=901, signals=902)
    assert measured(connection, 2)[0] == Turns(2, skipped=1, first_skipped=at(1))


def test_only_minutes_that_are_due_count(connection: Connection) -> None:
    for number in range(5):
        take(connection, at(number))
    assert measured(connection, 3)[0] == Turns(3)


def test_the_loop_is_expected_from_the_first_minute_that_was_decided_in_time(
    connection: Connection,
) -> None:
    backfilled = [at(number) for number in range(3)]
    take(connection, *backfilled, bars=9_000, features=9_001, signals=9_002)
    take(connection, at(5))
    assert measured(connection, 7)[0] == Turns(2, skipped=1, first_skipped=at(6))


def test_a_loop_that_ran_before_is_expected_from_the_open(connection: Connection) -> None:
    take(connection, SESSION.opens_at - timedelta(days=1))
    take(connection, at(3))
    assert measured(connection, 4)[0] == Turns(4, skipped=3, first_skipped=at(0))


def test_a_loop_that_ran_before_and_not_in_this_session_skipped_all_of_it(
    connection: Connection,
) -> None:
    take(connection, SESSION.opens_at - timedelta(days=1))
    assert measured(connection, 390)[0] == Turns(390, skipped=390, first_skipped=at(0))


def test_a_first_minute_that_is_late_is_late(connection: Connection) -> None:
    take(connection, at(0), bars=60, features=70, signals=90)
    assert measured(connection, 1)[0] == Turns(1, late=1, first_late=at(0))


def test_a_minute_is_terminal_when_the_last_of_its_recommendations_is(
    connection: Connection,
) -> None:
    take(connection, at(0))
    take(connection, at(1))
    close(connection, at(0), 30)
    close(connection, at(0), 45, ticker="MSFT")
    close(connection, at(1), 30)
    close(connection, at(1), None, ticker="MSFT")
    _, phases = measured(connection, 2)
    assert phases[SIGNALS_TO_TERMINAL] == Phase(SIGNALS_TO_TERMINAL, 1, 18, 18, 18, 18)


def test_exits_belong_to_no_minutes_decision(connection: Connection) -> None:
    take(connection, at(0))
    close(connection, at(0), 30)
    close(connection, at(0), 290, intent="close", action="SELL")
    assert measured(connection, 1)[1][SIGNALS_TO_TERMINAL].max_seconds == 3


@pytest.mark.parametrize(
    ("day", "minutes"),
    [
        (date(2025, 11, 28), 210),  # closes at 13:00
        (date(2025, 10, 31), 390),
        (date(2025, 11, 3), 390),  # the clocks went back the day before
        (date(2026, 3, 9), 390),  # and forward
    ],
)
def test_a_session_counts_its_own_minutes(
    connection: Connection, xnys: Calendar, day: date, minutes: int
) -> None:
    session = xnys.on(day)
    assert session is not None
    before = xnys.before(day)
    take(connection, before.minutes()[-1])
    for minute in session.minutes()[:-1]:
        take(connection, minute)
    last = session.minutes()[-1]
    turns, _ = measured(connection, minutes, session)
    assert turns == Turns(minutes, skipped=1, first_skipped=last)
    take(connection, last)
    assert measured(connection, minutes, session)[0] == Turns(minutes)


def test_going_over_a_minute_again_changes_nothing_that_was_measured(
    connection: Connection,
) -> None:
    take(connection, at(0))
    before = measured(connection, 1)
    for stage in IN_TIME:
        knowledge.insert_stage_minutes(connection, stage, [(SESSION, at(0))], {at(0): 9}, "again")
    assert measured(connection, 1) == before


def test_runs_are_those_that_took_minutes_in_their_own_turn(connection: Connection) -> None:
    take(connection, at(0), run_id="first")
    take(connection, at(1), at(2), run_id="second")
    take(connection, at(3), run_id="by hand", bars=900, features=901, signals=902)
    assert slo.measure(connection, SESSION, at(4), SETTLE).run_ids == ("first", "second")


def test_a_launch_goes_from_a_runs_creation_to_its_first_step(connection: Connection) -> None:
    connection.execute(
        text("create temporary table runs (run_id text, create_timestamp timestamp)")
    )
    connection.execute(
        text(
            "create temporary table event_logs"
            " (run_id text, dagster_event_type text, timestamp timestamp)"
        )
    )
    noon = datetime(2025, 2, 12, 17, 0)  # noqa: DTZ001 - as Dagster writes it
    for run_id, seconds in (("a", 2), ("b", 4), ("other", 60)):
        insert(connection, "runs", run_id=run_id, create_timestamp=noon)
        for kind, took in (("RUN_START", 0.5), ("STEP_START", seconds), ("STEP_START", 90)):
            told = {"run_id": run_id, "dagster_event_type": kind}
            insert(connection, "event_logs", **told, timestamp=noon + timedelta(seconds=took))
    found = slo.launches(connection, ["a", "b", "forgotten"])
    assert (found.phase, found.count, found.p50_seconds, found.max_seconds) == (RUN_LAUNCH, 2, 3, 4)
    assert slo.launches(connection, []) == Phase(RUN_LAUNCH, 0)


def a_measurement(day: date = DAY, **changes: object) -> Measurement:
    values: dict[str, object] = {
        "session_date": day,
        "measured_at": at(400),
        "turns": Turns(390, 1, 2, at(3), at(4)),
        "growth": Growth(5_000, 9_000, 500, 900),
        "phases": (Phase(SETTLE_TO_SIGNALS, 9, 1, 2, 3, 4), Phase(RUN_LAUNCH, 9, 1, 1, 1, 1)),
    }
    return Measurement(**(values | changes))  # type: ignore[arg-type]


SINCE = Sizes(at(10), 4_000, 8_000)


def test_what_is_kept_is_read_again(connection: Connection) -> None:
    slo.replace(connection, a_measurement(), SINCE)
    assert slo.read(connection, DAY) == slo.read(connection) == a_measurement()
    assert slo.sizes_since(connection, DAY) == SINCE
    assert slo.read(connection, DAY + timedelta(days=1)) is None


def test_measuring_again_replaces_what_was_kept(connection: Connection) -> None:
    slo.replace(connection, a_measurement(), SINCE)
    again = a_measurement(
        turns=Turns(390),
        phases=(Phase(SETTLE_TO_SIGNALS, 0), Phase(RUN_LAUNCH, 10, 2, 2, 2, 2)),
        growth=Growth(6_000, 9_500, 600, 950),
        measured_at=at(500),
    )
    for _ in range(2):
        slo.replace(connection, again, SINCE)
        assert slo.read(connection, DAY) == again


def test_sizes_and_launches_that_are_not_told_again_stay(connection: Connection) -> None:
    slo.replace(connection, a_measurement(), SINCE)
    forgotten = Phase(RUN_LAUNCH, 0)
    again = a_measurement(phases=(*a_measurement().phases[:1], forgotten), growth=Growth())
    slo.replace(connection, again, None)
    assert slo.read(connection, DAY) == a_measurement()
    assert slo.sizes_since(connection, DAY) == SINCE


def test_growth_is_counted_from_the_session_before(connection: Connection) -> None:
    assert slo.sizes_since(connection, DAY) is None
    slo.replace(connection, a_measurement(), SINCE)
    tomorrow = DAY + timedelta(days=1)
    assert slo.sizes_since(connection, tomorrow) == Sizes(at(400), 5_000, 9_000)
    assert slo.sizes_since(connection, DAY - timedelta(days=1)) is None


def test_only_the_newest_session_has_the_sizes_of_the_present(connection: Connection) -> None:
    assert slo.is_newest(connection, DAY)
    slo.replace(connection, a_measurement(), SINCE)
    assert slo.is_newest(connection, DAY)
    assert not slo.is_newest(connection, DAY - timedelta(days=1))


def test_without_a_day_the_session_that_was_measured_last_is_read(connection: Connection) -> None:
    slo.replace(connection, a_measurement(measured_at=at(900)), SINCE)
    slo.replace(connection, a_measurement(DAY + timedelta(days=1)), None)
    found = slo.read(connection)
    assert found is not None
    assert found.session_date == DAY


def test_minutes_that_an_operator_had_it_down_are_not_skipped_and_are_said(
    connection: Connection,
) -> None:
    take(connection, at(0))
    machine.begin_downtime(connection, at(2), "ops")
    machine.begin_downtime(connection, at(3), "another")
    assert measured(connection, 6)[0].skipped == 0
    machine.end_downtime(connection, at(5))
    take(connection, at(1), at(2), at(3), at(4), at(5))
    take(connection, at(8))
    turns, _ = measured(connection, 9)
    # Up to the minute after it came up; the one after that was missed.
    assert (turns.skipped, turns.first_skipped) == (1, at(7))
    assert turns.operator_down.startswith("down from ")
    assert turns.operator_down.endswith(" in New York by ops")


def test_minutes_that_a_crash_took_are_skipped(connection: Connection) -> None:
    take(connection, at(0))
    machine.begin_downtime(connection, at(20), "ops")
    take(connection, at(1), at(2), at(3), at(4))
    assert measured(connection, 5)[0].skipped == 3


def test_a_downtime_that_nobody_ended_ends_with_the_first_minute_after_it(
    connection: Connection,
) -> None:
    machine.begin_downtime(connection, at(2), "ops")
    for minute in (0, 6, 12):
        take(connection, at(minute))
    turns, _ = measured(connection, 13)
    assert turns.skipped > 0
    assert turns.first_skipped is not None
    assert turns.first_skipped > at(6)
