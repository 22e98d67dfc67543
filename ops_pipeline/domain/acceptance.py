"""The runbook's normal ranges, and what an observation means against them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How bad it is: the words of the runbook's escalation, in order."""

    NORMAL = "normal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def is_error(self) -> bool:
        """Whether somebody has to act today."""
        return self in (Level.HIGH, Level.CRITICAL)


@dataclass(frozen=True)
class Verdict:
    """What one acceptance query found."""

    name: str
    level: Level
    finding: str
    observed: dict[str, Any] = field(default_factory=dict)
    expected: str = ""

    @property
    def is_normal(self) -> bool:
        """Whether there is nothing to do."""
        return self.level is Level.NORMAL


@dataclass(frozen=True)
class Ranges:
    """Where normal ends; counts unless the name says otherwise."""

    pending_max: int = 20
    executions_max: int = 100
    executions_runaway: int = 200
    run_age_max_minutes: int = 5


BACKLOG, STUCK, DUPLICATES = "backlog_state", "stuck_processing", "duplicate_executions"
RUNS, VOLUME = "recent_dispatcher_runs", "execution_volume"
NAMES = (BACKLOG, STUCK, DUPLICATES, RUNS, VOLUME)
Row = Mapping[str, Any]


def backlog_state(rows: Sequence[Row], ranges: Ranges) -> Verdict:
    """Query 1: few PENDING rows, none left in PROCESSING."""
    counts = {str(row["status"]): int(row["count"]) for row in rows}
    pending, processing = counts.get("PENDING", 0), counts.get("PROCESSING", 0)
    expected = f"PENDING 0-{ranges.pending_max}, PROCESSING 0"
    if processing:
        return Verdict(BACKLOG, Level.HIGH, f"{processing} PROCESSING", counts, expected)
    if pending > ranges.pending_max:
        return Verdict(BACKLOG, Level.HIGH, f"{pending} PENDING", counts, expected)
    return Verdict(BACKLOG, Level.NORMAL, f"{pending} PENDING, none PROCESSING", counts, expected)


def stuck_processing(rows: Sequence[Row], ranges: Ranges) -> Verdict:
    """Query 2: nothing has been PROCESSING for more than ten minutes."""
    count = int(rows[0]["count"]) if rows else 0
    level = Level.HIGH if count else Level.NORMAL
    return Verdict(STUCK, level, f"{count} stuck", {"count": count}, "0")


def duplicate_executions(rows: Sequence[Row], ranges: Ranges) -> Verdict:
    """Query 3: no recommendation was executed twice."""
    level = Level.CRITICAL if rows else Level.NORMAL
    observed = {"recommendation_ids": [int(row["recommendation_id"]) for row in rows]}
    return Verdict(DUPLICATES, level, f"{len(rows)} executed twice", observed, "no rows")


def recent_dispatcher_runs(
    rows: Sequence[Row], ranges: Ranges, now: datetime, *, is_open: bool
) -> Verdict:
    """Query 4: the last runs have finished, and in trading hours one of them is recent."""
    unfinished = sum(row["finished_at"] is None for row in rows)
    newest = max((row["started_at"] for row in rows), default=None)
    seconds = max((_seconds(row) for row in rows), default=0.0)
    observed = {"runs": len(rows), "unfinished": unfinished, "longest_seconds": seconds}
    expected = f"all finished, one in the last {ranges.run_age_max_minutes} min while open"
    finding = f"{len(rows)} runs, {unfinished} unfinished"
    if unfinished:
        return Verdict(RUNS, Level.HIGH, finding, observed, expected)
    limit = timedelta(minutes=ranges.run_age_max_minutes)
    if is_open and (newest is None or now - newest > limit):
        return Verdict(RUNS, Level.HIGH, "no recent run", observed, expected)
    return Verdict(RUNS, Level.NORMAL, finding, observed, expected)


def _seconds(row: Row) -> float:
    finished = row["finished_at"]
    return (finished - row["started_at"]).total_seconds() if finished else 0.0


def execution_volume(rows: Sequence[Row], ranges: Ranges, *, last_24_hours: int | None) -> Verdict:
    """Query 5: neither a runaway nor a stall; None for a pipeline that is younger than that."""
    today = int(rows[0]["count"]) if rows else 0
    observed = {"today": today, "last_24_hours": last_24_hours}
    expected = f"0-{ranges.executions_max} a day, not 0 for 24 h"
    if today > ranges.executions_runaway:
        return Verdict(VOLUME, Level.HIGH, f"{today} today: runaway", observed, expected)
    if not today and last_24_hours == 0:
        return Verdict(VOLUME, Level.MEDIUM, "none for 24 h: stall", observed, expected)
    return Verdict(VOLUME, Level.NORMAL, f"{today} today", observed, expected)
