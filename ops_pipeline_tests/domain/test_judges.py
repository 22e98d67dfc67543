from collections.abc import Callable
from datetime import datetime, timedelta
from math import inf
from typing import Any

import pytest

from ops_pipeline.domain import judges
from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.checks import CHECKS
from ops_pipeline.domain.judges import (
    Found,
    backlog_state,
    duplicate_executions,
    execution_volume,
    recent_dispatcher_runs,
    skip_reasons,
    stuck_processing,
    tickers_have_bars,
)
from ops_pipeline.domain.ranges import Present, present_at
from ops_pipeline.domain.session import Calendar
from ops_pipeline_tests.builders import NOON

XNYS = Calendar("XNYS")
RANGES = present_at(XNYS, NOON)
NIGHT = timedelta(hours=10)


def backlog(present: Present = RANGES, **counts: int) -> Found:
    return backlog_state(present, [{"status": k, "count": v} for k, v in counts.items()])


def a_run(minutes_ago: float, seconds: float | None = 2.0, at: datetime = NOON) -> dict[str, Any]:
    """A run that began so long ago; without seconds it has not finished."""
    started = at - timedelta(minutes=minutes_ago)
    finished = started + timedelta(seconds=seconds) if seconds is not None else None
    return {"started_at": started, "finished_at": finished}


def runs(*rows: dict[str, datetime | None], after: timedelta = timedelta()) -> Found:
    return recent_dispatcher_runs(present_at(XNYS, NOON + after), rows)


@pytest.mark.parametrize(
    ("counts", "level"),
    [
        ({}, Level.NORMAL),
        ({"PENDING": 20, "PROCESSING": 0, "SKIPPED": 9_000}, Level.NORMAL),
        ({"PENDING": 21}, Level.HIGH),
        ({"PENDING": 0, "PROCESSING": 1}, Level.NORMAL),
    ],
)
def test_backlog_state_judges_the_backlog(counts: dict[str, int], level: Level) -> None:
    assert backlog(**counts).level is level


@pytest.mark.parametrize(
    ("skipped", "executed", "minutes", "level"),
    [
        (5, 0, 60, Level.MEDIUM),
        (4, 0, 60, Level.NORMAL),
        (90, 1, 60, Level.NORMAL),
        # What was brought up a moment ago has not skipped for long.
        (90, 0, 59, Level.NORMAL),
    ],
)
def test_skips_are_a_problem_an_hour_after_the_first_decision_without_an_execution(
    skipped: int, executed: int, minutes: int, level: Level
) -> None:
    begun_at = NOON - timedelta(minutes=minutes)
    row = {"skipped": skipped, "executed": executed, "reason": "confidence", "begun_at": begun_at}
    assert skip_reasons(RANGES, [row]).level is level


def test_backlog_state_grows_with_the_universe() -> None:
    fifty = present_at(XNYS, NOON, tickers=14)
    assert backlog(fifty, PENDING=40).level is Level.NORMAL
    assert backlog(fifty, PENDING=41).level is Level.HIGH


@pytest.mark.parametrize(
    ("rows", "level"),
    [
        ([], Level.NORMAL),
        ([{"count": 0}], Level.NORMAL),
        ([{"count": 1}], Level.HIGH),
    ],
)
def test_stuck_processing_wants_none(rows: list[dict[str, int]], level: Level) -> None:
    assert stuck_processing(RANGES, rows).level is level


def test_duplicate_executions_when_there_are_none_then_normal() -> None:
    assert duplicate_executions(RANGES, []).level is Level.NORMAL


def test_duplicate_executions_when_there_is_one_then_critical_and_names_it() -> None:
    verdict = duplicate_executions(RANGES, [{"recommendation_id": 7, "count": 2}])
    assert verdict.level is Level.CRITICAL
    assert verdict.observed == {"recommendation_ids": [7]}


@pytest.mark.parametrize(
    ("rows", "after", "level"),
    [
        ([a_run(1), a_run(2)], timedelta(), Level.NORMAL),
        ([a_run(5)], timedelta(), Level.NORMAL),
        ([a_run(5.1)], timedelta(), Level.HIGH),
        ([], timedelta(), Level.HIGH),
        ([a_run(1)], NIGHT, Level.NORMAL),
        ([], NIGHT, Level.UNMEASURED),
        ([a_run(1, seconds=None), a_run(2)], timedelta(), Level.NORMAL),
        ([a_run(2.1, seconds=None), a_run(1)], timedelta(), Level.HIGH),
        ([a_run(1, seconds=None)], NIGHT, Level.HIGH),
    ],
)
def test_recent_dispatcher_runs_wants_finished_and_recent_ones(
    rows: list[dict[str, Any]], after: timedelta, level: Level
) -> None:
    assert runs(*rows, after=after).level is level


def test_recent_dispatcher_runs_looks_at_the_newest_one() -> None:
    assert runs(a_run(60), a_run(1), a_run(30)).level is Level.NORMAL


def test_recent_dispatcher_runs_reports_the_longest_run() -> None:
    assert runs(a_run(1, 2.0), a_run(2, 9.0)).observed["longest_seconds"] == 9.0


@pytest.mark.parametrize(
    ("rows", "since", "level"),
    [
        ([{"count": 12}], 12, Level.NORMAL),
        ([{"count": 200}], 200, Level.NORMAL),
        ([{"count": 201}], 201, Level.HIGH),
        ([{"count": 0}], 3, Level.NORMAL),
        ([{"count": 0}], 0, Level.MEDIUM),
        ([{"count": 0}], None, Level.NORMAL),
    ],
)
def test_execution_volume_wants_neither_runaway_nor_stall(
    rows: list[dict[str, int]], since: int | None, level: Level
) -> None:
    session_before = {"count": since or 0, "is_old_enough": since is not None}
    assert execution_volume(RANGES, rows, [session_before]).level is level


@pytest.mark.parametrize(
    ("level", "is_normal"),
    [(Level.NORMAL, True), (Level.HIGH, False), (Level.CRITICAL, False)],
)
def test_only_a_normal_verdict_is_normal(level: Level, is_normal: bool) -> None:  # noqa: FBT001
    assert Verdict("any", level, "").is_normal is is_normal


def bars_of(after: timedelta = timedelta(), **minutes_ago: float | None) -> Found:
    """What is found where the newest bar of each ticker is so old, or there is none."""
    rows = [
        {"ticker": name, "newest_at": None if ago is None else NOON - timedelta(minutes=ago)}
        for name, ago in minutes_ago.items()
    ]
    return tickers_have_bars(present_at(XNYS, NOON + after), rows)


@pytest.mark.parametrize(
    ("minutes_ago", "level", "finding"),
    [
        ({"AAPL": 1, "MSFT": 31}, Level.NORMAL, "all 2 have"),
        ({"AAPL": 1, "MSFT": 32}, Level.LOW, "none for 30 minutes: MSFT"),
        ({"AAPL": 1, "MSFT": None}, Level.MEDIUM, "no bars in this session: MSFT"),
        # An outage of all of them is another check's.
        ({"AAPL": 90, "MSFT": 91}, Level.NORMAL, "all 2 have"),
        ({"AAPL": None}, Level.NORMAL, "too early"),
        (
            {"AAPL": 1, **{f"T{n}": None for n in range(12)}},
            Level.MEDIUM,
            "no bars in this session: T0, T1, T2, T3, T4, T5, T6, T7, T8, T9, and 2 more",
        ),
    ],
)
def test_tickers_have_bars_names_those_that_have_none(
    minutes_ago: dict[str, float | None], level: Level, finding: str
) -> None:
    found = bars_of(**minutes_ago)
    assert (found.level, found.finding) == (level, finding)


def test_tickers_have_bars_says_nothing_at_night() -> None:
    assert bars_of(NIGHT, AAPL=1, MSFT=None).finding == "the market is closed"


UNMEASURED = [
    (judges.recent_dispatcher_runs, ([],)),
    (judges.services_are_running, ([{"service": "a", "seconds": inf}],)),
    (judges.bars_are_fresh, ([{"seconds": inf}],)),
    (judges.bar_volume, ([{"minutes": 0, "bars": 4100}],)),
    (judges.bar_volume, ([{"minutes": 29, "bars": 1}],)),
    (judges.feature_completeness, ([{"expected": 0, "found": 0, "incomplete": None}],)),
    (judges.watchlist_cadence, ([{"due": 0, "decided": 0}],)),
    (judges.news_volume, ([{"minutes": 194, "stories": 0}],)),
    (judges.sentiment_volume, ([{"minutes": 0, "scored": 0}],)),
    (judges.signal_volume, ([{"minutes": 2, "signals": 9_000}],)),
    (judges.decision_volume, ([{"minutes": 0, "executed": 0, "skipped": 0, "failed": 0}],)),
    (judges.news_are_scored, ([{"stories": 0, "scored": 0, "given_up": 0}],)),
    (judges.news_name_tickers, ([{"stories": 0, "linked": 0}],)),
    (judges.run_durations, ([{"service": "dispatcher", "count": 9, "p50_seconds": 99}],)),
    (judges.cost_per_day, ([],)),
    (judges.backlog_growth, ([{"hours_ago": ago, "pending": 9 - ago} for ago in range(3)],)),
]


@pytest.mark.parametrize(("judge", "rows"), UNMEASURED)
def test_what_has_nothing_to_go_by_says_so_and_judges_nothing(
    judge: Callable[..., Found], rows: tuple[list[dict[str, Any]], ...]
) -> None:
    """A pipeline that was installed a minute ago, in the middle of a session."""
    young = present_at(XNYS, NOON, installed_at=NOON - timedelta(minutes=1))
    found = judge(young, *rows)
    assert found.level is Level.UNMEASURED
    assert "not measured yet: " in found.finding
    assert "of 0" not in found.finding


def test_a_check_that_is_not_measured_is_silent() -> None:
    check = next(one for one in CHECKS if one.name == "bar_volume")
    assert check.verdict(RANGES, [{"minutes": 0, "bars": 4100}]).is_silent
    assert not check.verdict(RANGES, [{"minutes": 30, "bars": 210}]).is_silent


def test_after_an_operator_brought_it_up_again_nothing_was_due_before() -> None:
    late = [{"service": name, "seconds": 7_200.0} for name in ("a", "b")]
    assert judges.services_are_running(RANGES, late).level is Level.CRITICAL
    resumed = present_at(XNYS, NOON, resumed_at=NOON - timedelta(minutes=1))
    assert judges.services_are_running(resumed, late).level is Level.UNMEASURED
    assert judges.bars_are_fresh(resumed, [{"seconds": 7_200.0}]).level is Level.NORMAL
