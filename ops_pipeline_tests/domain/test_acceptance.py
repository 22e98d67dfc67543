from datetime import datetime, timedelta
from typing import Any

import pytest

from ops_pipeline.domain.acceptance import (
    Level,
    Ranges,
    Verdict,
    backlog_state,
    duplicate_executions,
    execution_volume,
    recent_dispatcher_runs,
    stuck_processing,
)
from ops_pipeline_tests.builders import NOON

RANGES = Ranges()


def backlog(**counts: int) -> Verdict:
    return backlog_state([{"status": k, "count": v} for k, v in counts.items()], RANGES)


def a_run(minutes_ago: float, seconds: float | None = 2.0) -> dict[str, Any]:
    """A run that began so long ago; without seconds it has not finished."""
    started = NOON - timedelta(minutes=minutes_ago)
    finished = started + timedelta(seconds=seconds) if seconds is not None else None
    return {"started_at": started, "finished_at": finished}


def runs(*rows: dict[str, datetime | None], is_open: bool = True) -> Verdict:
    return recent_dispatcher_runs(rows, RANGES, NOON, is_open=is_open)


@pytest.mark.parametrize(
    ("counts", "level"),
    [
        ({}, Level.NORMAL),
        ({"PENDING": 20, "PROCESSING": 0, "SKIPPED": 9_000}, Level.NORMAL),
        ({"PENDING": 21}, Level.HIGH),
        ({"PENDING": 0, "PROCESSING": 1}, Level.HIGH),
    ],
)
def test_backlog_state_judges_the_backlog(counts: dict[str, int], level: Level) -> None:
    assert backlog(**counts).level is level


def test_backlog_state_when_both_are_wrong_then_names_what_is_processing() -> None:
    assert backlog(PENDING=50, PROCESSING=3).finding == "3 PROCESSING"


@pytest.mark.parametrize(
    ("rows", "level"),
    [
        ([], Level.NORMAL),
        ([{"count": 0}], Level.NORMAL),
        ([{"count": 1}], Level.HIGH),
    ],
)
def test_stuck_processing_wants_none(rows: list[dict[str, int]], level: Level) -> None:
    assert stuck_processing(rows, RANGES).level is level


def test_duplicate_executions_when_there_are_none_then_normal() -> None:
    assert duplicate_executions([], RANGES).level is Level.NORMAL


def test_duplicate_executions_when_there_is_one_then_critical_and_names_it() -> None:
    verdict = duplicate_executions([{"recommendation_id": 7, "count": 2}], RANGES)
    assert verdict.level is Level.CRITICAL
    assert verdict.observed == {"recommendation_ids": [7]}


@pytest.mark.parametrize(
    ("rows", "is_open", "level"),
    [
        ([a_run(1), a_run(2)], True, Level.NORMAL),
        ([a_run(5)], True, Level.NORMAL),
        ([a_run(5.1)], True, Level.HIGH),
        ([], True, Level.HIGH),
        ([a_run(600)], False, Level.NORMAL),
        ([], False, Level.NORMAL),
        ([a_run(1, seconds=None), a_run(2)], True, Level.HIGH),
        ([a_run(1, seconds=None)], False, Level.HIGH),
    ],
)
def test_recent_dispatcher_runs_wants_finished_and_recent_ones(
    rows: list[dict[str, Any]],
    is_open: bool,  # noqa: FBT001
    level: Level,
) -> None:
    assert runs(*rows, is_open=is_open).level is level


def test_recent_dispatcher_runs_looks_at_the_newest_one() -> None:
    assert runs(a_run(60), a_run(1), a_run(30)).is_normal


def test_recent_dispatcher_runs_reports_the_longest_run() -> None:
    assert runs(a_run(1, 2.0), a_run(2, 9.0)).observed["longest_seconds"] == 9.0


@pytest.mark.parametrize(
    ("rows", "last_24_hours", "level"),
    [
        ([{"count": 12}], 12, Level.NORMAL),
        ([{"count": 200}], 200, Level.NORMAL),
        ([{"count": 201}], 201, Level.HIGH),
        ([{"count": 0}], 3, Level.NORMAL),
        ([{"count": 0}], 0, Level.MEDIUM),
        ([], 0, Level.MEDIUM),
    ],
)
def test_execution_volume_wants_neither_runaway_nor_stall(
    rows: list[dict[str, int]], last_24_hours: int, level: Level
) -> None:
    assert execution_volume(rows, RANGES, last_24_hours=last_24_hours).level is level


@pytest.mark.parametrize(
    ("level", "is_normal"),
    [(Level.NORMAL, True), (Level.HIGH, False), (Level.CRITICAL, False)],
)
def test_only_a_normal_verdict_is_normal(level: Level, is_normal: bool) -> None:  # noqa: FBT001
    assert Verdict("any", level, "").is_normal is is_normal
