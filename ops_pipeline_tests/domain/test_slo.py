"""Which session is measured, which minutes are due, and what its numbers mean."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from ops_pipeline.domain.acceptance import Level
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.domain.session import ROUND_THE_CLOCK, Calendar, Timing
from ops_pipeline.domain.slo import (
    GROWTH,
    LATE,
    NAMES,
    PROMPT,
    SETTLE_TO_SIGNALS,
    SKIPPED,
    Growth,
    Measurement,
    Phase,
    Sizes,
    Turns,
    due_until,
    growth_of,
    measurement_is_due,
    session_to_measure,
    verdicts,
)
from ops_pipeline.domain.thresholds import SloRules
from ops_pipeline.settings import load, slo_rules_of
from ops_pipeline_tests.builders import DAY, NOON, SESSION, at

RULES = SloRules()
XNYS = Calendar("XNYS")
ALWAYS = Calendar(ROUND_THE_CLOCK)
MB = 1_000_000


def utc(day: int, hour: int, minute: int = 0) -> datetime:
    """An instant in November 2025."""
    return datetime(2025, 11, day, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("at_instant", "day"),
    [
        (utc(26, 15, 29), 25),  # open for 59 minutes
        (utc(26, 15, 30), 26),
        (utc(26, 21, 5), 26),
        (utc(28, 18, 5), 28),  # a half day, five minutes after its close
        (utc(30, 12), 28),  # a Sunday
        (utc(27, 18), 26),  # a holiday
    ],
)
def test_the_session_to_measure_has_been_open_for_an_hour(at_instant: datetime, day: int) -> None:
    assert session_to_measure(XNYS, at_instant).day == date(2025, 11, day)


@pytest.mark.parametrize(("at_instant", "day"), [(utc(26, 0, 5), 25), (utc(26, 1, 0), 26)])
def test_round_the_clock_a_day_is_measured_until_an_hour_after_midnight(
    at_instant: datetime, day: int
) -> None:
    assert session_to_measure(ALWAYS, at_instant).day == date(2025, 11, day)


@pytest.mark.parametrize(
    ("minutes", "due"),
    [
        (-5, 0),
        (2, 0),
        (139 / 60, 0),  # the second minute settles at 140 s
        (140 / 60, 1),
        (199 / 60, 1),
        (390, 388),
        (392, 390),
        (9_000, 390),
    ],
)
def test_a_minute_is_due_when_the_next_one_settles(minutes: float, due: int) -> None:
    assert due_until(SESSION, Timing(20), at(minutes)) == at(due)


def test_growth_of_a_session_is_that_of_its_minutes() -> None:
    today, before = Sizes(at(395), 9 * MB, 30 * MB), Sizes(at(395 - 1_440), 5 * MB, 31 * MB)
    assert growth_of(XNYS, SESSION, before, today) == Growth(9 * MB, 30 * MB, 4 * MB, -1 * MB)


def test_growth_over_a_part_of_the_session_is_told_for_the_whole() -> None:
    before, after = Sizes(at(30), 5 * MB, 0), Sizes(at(69), 6 * MB, 2)
    assert growth_of(XNYS, SESSION, before, after) == Growth(6 * MB, 2, 10 * MB, 20)


def test_growth_over_several_sessions_is_shared_between_them() -> None:
    before = Sizes(at(395) - timedelta(days=7), 0, 0)
    assert growth_of(XNYS, SESSION, before, Sizes(at(395), 50, 5)) == Growth(50, 5, 10, 1)


@pytest.mark.parametrize("since", [None, Sizes(at(40), 0, 0)])
def test_growth_is_not_told_before_half_an_hour_has_passed(since: Sizes | None) -> None:
    assert growth_of(XNYS, SESSION, since, Sizes(at(69), 7, 8)) == Growth(7, 8)


WHOLE, GROWN = Turns(390), Growth(1, 1, MB, MB)


def a_measurement(
    p95: float | None = 2.0, turns: Turns = WHOLE, growth: Growth = GROWN
) -> Measurement:
    phase = Phase(SETTLE_TO_SIGNALS, 0 if p95 is None else 390, p95, p95, p95, p95)
    return Measurement(DAY, NOON, turns, growth, (phase,))


def levels(measured: Measurement | None, rules: SloRules = RULES) -> dict[str, Level]:
    return {verdict.name: verdict.level for verdict in verdicts(measured, rules)}


def finding(measured: Measurement | None, name: str) -> str:
    return next(v.finding for v in verdicts(measured, RULES) if v.name == name)


def test_a_session_without_a_fault_is_normal() -> None:
    assert levels(a_measurement()) == dict.fromkeys(NAMES, Level.NORMAL)


def test_a_session_that_was_never_measured_passes_nothing() -> None:
    assert levels(None) == dict.fromkeys(NAMES, Level.HIGH)
    assert finding(None, PROMPT) == "no session was measured"


def test_a_session_without_a_minute_was_not_run() -> None:
    empty = a_measurement(None, Turns(0))
    assert levels(empty) == dict.fromkeys(NAMES, Level.UNMEASURED)
    assert finding(empty, SKIPPED) == "not run: 2025-02-12 has no minute that was due"


@pytest.mark.parametrize(
    ("p95", "level"),
    [
        (10.0, Level.NORMAL),
        (10.1, Level.LOW),
        (45.0, Level.LOW),
        (45.1, Level.HIGH),
        (None, Level.HIGH),
    ],
)
def test_signals_are_judged_by_their_p95(p95: float | None, level: Level) -> None:
    assert levels(a_measurement(p95))[PROMPT] is level


def test_minutes_of_which_none_was_in_turn_are_said_to_be_so() -> None:
    found = finding(a_measurement(None, Turns(90, 90, 0, NOON)), PROMPT)
    assert found == "no minute of 2025-02-12 was decided in its own turn"


def test_one_skipped_minute_is_an_error_and_is_named() -> None:
    measured = a_measurement(turns=Turns(390, 1, 0, NOON))
    assert levels(measured)[SKIPPED] is Level.HIGH
    expected = "1 of 390 minutes, the first at 2025-02-12 12:00 ET (17:00 UTC)"
    assert finding(measured, SKIPPED) == expected
    assert levels(measured)[LATE] is Level.NORMAL


def test_one_late_minute_is_a_warning() -> None:
    measured = a_measurement(turns=Turns(390, 0, 1, None, NOON))
    assert levels(measured)[LATE] is Level.LOW
    assert levels(measured)[SKIPPED] is Level.NORMAL


@pytest.mark.parametrize(
    ("growth", "level"),
    [
        (Growth(1, 1, round(RULES.max_event_log_mb_per_day * MB), 0), Level.NORMAL),
        (Growth(1, 1, round(RULES.max_event_log_mb_per_day * MB) + 1, 0), Level.LOW),
        (Growth(1, 1, -MB, 0), Level.NORMAL),
        (Growth(1, 1), Level.NORMAL),
        (Growth(), Level.LOW),
    ],
)
def test_growth_of_the_event_log_is_bounded(growth: Growth, level: Level) -> None:
    assert levels(a_measurement(growth=growth))[GROWTH] is level


def test_limits_are_those_of_the_rules() -> None:
    rules = SloRules(
        signals_warn_seconds=1,
        signals_error_seconds=1.5,
        max_skipped_minutes=3,
        max_late_minutes=4,
        max_event_log_mb_per_day=0.5,
    )
    measured = a_measurement(turns=Turns(390, 3, 4, NOON, NOON))
    assert levels(measured, rules) == {
        PROMPT: Level.HIGH,
        SKIPPED: Level.NORMAL,
        LATE: Level.NORMAL,
        GROWTH: Level.LOW,
    }
    worse = replace(measured, turns=Turns(390, 4, 5, NOON, NOON))
    assert levels(worse, rules)[SKIPPED] is Level.HIGH
    assert levels(worse, rules)[LATE] is Level.LOW


# Of each limit another value, a session that it judges otherwise, a value out of range and a type.
LIMITS: dict[str, tuple[float, Measurement, float, object]] = {
    "signals_warn_seconds": (1.0, a_measurement(2.0), 0, "10"),
    "signals_error_seconds": (15.0, a_measurement(20.0), 3_601, None),
    "max_skipped_minutes": (2, a_measurement(turns=Turns(390, 2, 0, NOON)), -1, 1.5),
    "max_late_minutes": (2, a_measurement(turns=Turns(390, 0, 2, None, NOON)), 1_441, True),
    "max_event_log_mb_per_day": (0.5, a_measurement(), 0, "500"),
}


def limits_of(key: str, value: object) -> SloRules:
    settings = load("replay", {"OPS_SLO": json.dumps({key: value})})
    return slo_rules_of(settings)


def test_every_limit_has_a_case() -> None:
    assert set(LIMITS) == set(SloRules.model_fields)


@pytest.mark.parametrize("key", LIMITS)
def test_a_limit_that_is_changed_changes_the_verdict(key: str) -> None:
    value, measured, _, _ = LIMITS[key]
    assert levels(measured, limits_of(key, value)) != levels(measured)


@pytest.mark.parametrize("key", LIMITS)
def test_a_bad_limit_is_refused_with_its_key_and_what_is_allowed(key: str) -> None:
    _, _, *wrong = LIMITS[key]
    for value in wrong:
        with pytest.raises(BadConfiguration, match=rf"^OPS_SLO: {key}: .*(should|must) be"):
            limits_of(key, value)


def test_before_a_session_was_due_nothing_is_judged() -> None:
    found = verdicts(None, RULES, is_due=False)
    assert {one.level for one in found} == {Level.UNMEASURED}
    assert all(one.finding.startswith("not measured yet") for one in found)


@pytest.mark.parametrize(("p95", "minutes"), [(900.0, 29), (None, 29), (900.0, 1)])
def test_a_percentile_of_few_minutes_is_not_judged(p95: float | None, minutes: int) -> None:
    young = a_measurement(p95, Turns(minutes))
    assert levels(young)[PROMPT] is Level.UNMEASURED
    assert finding(young, PROMPT) == f"not measured yet: {minutes} of the 30 minutes that it needs"


@pytest.mark.parametrize(
    ("installed", "now", "is_due"),
    [
        (at(0), at(120), False),
        (at(0), at(121), True),
        (at(300), at(390), False),
        (at(-10_000), at(60), True),
        (at(385), at(385 + 18 * 60), False),
    ],
)
def test_a_session_is_due_to_be_measured_two_hours_after_anything_could_be(
    installed: datetime, now: datetime, is_due: object
) -> None:
    assert measurement_is_due(XNYS, installed, now) is is_due


def test_what_an_operator_had_down_is_said() -> None:
    turns = Turns(385, operator_down="down from 10:00 to 10:05 in New York by ops")
    assert finding(a_measurement(turns=turns), SKIPPED).endswith(
        "0 of 385 minutes; down from 10:00 to 10:05 in New York by ops"
    )
