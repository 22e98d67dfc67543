"""What the rows of each check's query mean at a present: one function for each check."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ops_pipeline.domain import cost, ranges
from ops_pipeline.domain.acceptance import Level, Row
from ops_pipeline.domain.ranges import Present

CLOSED = "the market is closed"
Rows = Sequence[Row]


@dataclass(frozen=True)
class Found:
    """How bad it is, what was found, what it is judged by, and what was expected."""

    level: Level
    finding: str
    observed: dict[str, Any] = field(default_factory=dict)
    expected: str = ""


def backlog_state(present: Present, rows: Rows) -> Found:
    """Query 1: few PENDING rows. What is PROCESSING is a run at work, or query 2's to find."""
    counts = {str(row["status"]): int(row["count"]) for row in rows}
    pending, processing = counts.get("PENDING", 0), counts.get("PROCESSING", 0)
    limit = present.at_most(ranges.PENDING_MAX)
    level = Level.HIGH if pending > limit else Level.NORMAL
    found = f"{pending} PENDING, {processing or 'none'} PROCESSING"
    return Found(level, found, counts, f"PENDING 0-{limit}")


def stuck_processing(present: Present, rows: Rows) -> Found:
    """Query 2: nothing has been PROCESSING for more than ten minutes."""
    count = int(rows[0]["count"]) if rows else 0
    level = Level.HIGH if count else Level.NORMAL
    return Found(level, f"{count} stuck", {"count": count}, "0")


def duplicate_executions(present: Present, rows: Rows) -> Found:
    """Query 3: no recommendation was executed twice."""
    level = Level.CRITICAL if rows else Level.NORMAL
    observed = {"recommendation_ids": [int(row["recommendation_id"]) for row in rows]}
    return Found(level, f"{len(rows)} executed twice", observed, "no rows")


def recent_dispatcher_runs(present: Present, rows: Rows) -> Found:
    """Query 4: the last runs have finished, and in trading hours one of them is recent."""
    dead = timedelta(seconds=ranges.RUN_SECONDS)
    unfinished = sum(
        row["finished_at"] is None and present.now - row["started_at"] > dead for row in rows
    )
    newest = max((row["started_at"] for row in rows), default=None)
    seconds = max((_seconds(row) for row in rows), default=0.0)
    observed = {"runs": len(rows), "unfinished": unfinished, "longest_seconds": seconds}
    expected = f"all finished, one in the last {ranges.RUN_AGE_MINUTES} min while open"
    found = f"{len(rows)} runs, {unfinished} unfinished"
    if unfinished:
        return Found(Level.HIGH, found, observed, expected)
    since = max(newest or present.expected_since, present.expected_since)
    is_old = present.now - since > timedelta(minutes=ranges.RUN_AGE_MINUTES)
    if present.is_open and is_old:
        return Found(Level.HIGH, "no recent run", observed, expected)
    return Found(Level.NORMAL, found, observed, expected)


def _seconds(row: Row) -> float:
    finished = row["finished_at"]
    return float((finished - row["started_at"]).total_seconds()) if finished else 0.0


def execution_volume(present: Present, rows: Rows, since: Rows) -> Found:
    """Query 5: neither a runaway nor a stall; one trading day must have passed for the latter."""
    today = int(rows[0]["count"]) if rows else 0
    runaway = present.at_most(ranges.EXECUTIONS_RUNAWAY)
    last = since[0]["count"] if since[0]["is_old_enough"] else None
    observed = {"today": today, "since_the_session_before": last}
    expected = f"0-{present.at_most(ranges.EXECUTIONS_MAX)} a day, not 0 for 24 h"
    if today > runaway:
        return Found(Level.HIGH, f"{today} today: runaway", observed, expected)
    if not today and last == 0:
        return Found(Level.MEDIUM, "none for 24 h: stall", observed, expected)
    return Found(Level.NORMAL, f"{today} today", observed, expected)


def skip_reasons(present: Present, rows: Rows) -> Found:
    """Of what was decided in the last hour something trades, or has done so in this session."""
    row = rows[0]
    skipped, executed = int(row["skipped"]), int(row["executed"])
    observed = {"skipped": skipped, "executed_in_session": executed, "reason": row["reason"]}
    expected = f"an execution in the session, or fewer than {ranges.SKIPPED_MIN} skips in an hour"
    found = f"{skipped} skipped in an hour, {executed} executed in the session"
    is_long = present.is_open and present.open_for >= ranges.SKIPPED_FOR
    if is_long and not executed and skipped >= ranges.SKIPPED_MIN:
        return Found(Level.MEDIUM, f"{found}: mostly {row['reason']}", observed, expected)
    return Found(Level.NORMAL, found, observed, expected)


def execution_freshness(present: Present, rows: Rows) -> Found:
    """No execution of the last hour was priced by an old bar; without its bar it counts as old."""
    limit = ranges.BAR_AGE_SECONDS
    ages = {str(row["ticker"]): row["age_sec"] for row in rows}
    old = [name for name, age in ages.items() if age is None or age > limit]
    oldest = max((float(age) for age in ages.values() if age is not None), default=0.0)
    level = Level.HIGH if old else Level.NORMAL
    found = f"oldest bar {oldest:.0f} s" if rows else "no execution in the last hour"
    if old:
        found += f": {', '.join(old)}"
    return Found(level, found, {"old": old, "oldest_seconds": oldest}, f"<= {limit} s")


def services_are_running(present: Present, rows: Rows) -> Found:
    """Each service that is on has finished a minute lately; CRITICAL where none of them has."""
    limit = ranges.SERVICE_SECONDS
    expected = f"a finished minute within {limit} s of its end, each service that is on"
    if not present.is_watched:
        return Found(Level.NORMAL, CLOSED, {}, expected)
    awaited = (present.now - present.expected_since).total_seconds()
    seconds = {
        str(row["service"]): round(min(float(row["seconds"]), awaited), 1)
        for row in rows
        if row["service"] not in present.off
    }
    late = {service: lag for service, lag in seconds.items() if lag > limit}
    if not late:
        off = len(rows) - len(seconds)
        found = f"{len(seconds)} run" + (f", {off} off" if off else "")
        return Found(Level.NORMAL, found, seconds, expected)
    is_all = len(late) == len(seconds) > 1
    named = ", ".join(f"{service} for {lag:.0f} s" for service, lag in late.items())
    found = f"{'no service runs' if is_all else 'silent'}: {named}"
    return Found(Level.CRITICAL if is_all else Level.HIGH, found, seconds, expected)


def cost_per_day(present: Present, rows: Rows) -> Found:
    """The newest day that was measured would cost no more on AWS than it should."""
    normal, critical = cost.limits(present.minutes, ranges.RUNBOOK_MINUTES)
    expected = f"<= {normal:.2f} USD, at worst {critical:.2f} USD"
    if not rows:
        return Found(Level.NORMAL, "no day was measured yet", {}, expected)
    usd = float(rows[0]["usd"])
    level = cost.level_of(usd, normal, critical)
    found = f"{rows[0]['day']} would cost {usd:.2f} USD on AWS"
    return Found(level, found, {"usd": round(usd, 4)}, expected)


def config_drift(present: Present, rows: Rows) -> Found:
    """The newest version of the settings runs, and all that is set can be used."""
    expected = "the newest version runs"
    row = rows[0]
    observed = {"newest": row["version"], "ran": row["ran"]}
    late = float(row["overdue_seconds"] or 0)
    if row["invalid"]:
        return Found(Level.HIGH, f"the dispatcher stands: {row['invalid']}", observed, expected)
    if row["has_had_time"] and row["ran"] != row["version"]:
        found = f"version {row['ran'] or '-'} ran last, and {row['version']} is the newest"
        return Found(Level.MEDIUM, found, observed, expected)
    if late > ranges.SETTINGS_SECONDS:
        found = f"what was set for a time should have ended {late:.0f} s ago"
        return Found(Level.MEDIUM, found, observed, expected)
    if row["unread"]:
        return Found(Level.LOW, f"what is known holds: {row['unread']}", observed, expected)
    found = f"version {row['version']}" if row["version"] else "no version yet"
    return Found(Level.NORMAL, found, observed, expected)
