"""What Dagster keeps of runs, read from its database without Dagster itself."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from ops_pipeline.domain.logs import Line, level_of
from ops_pipeline.domain.stages import DISPATCH, Stage
from ops_pipeline.storage.queries import query

MAX_ERROR_CHARS = 2_000
# The schedule and the sensor that tick most often: each minute, and each five seconds.
TICKING = ("minute_schedule", "dispatch_sensor")


@dataclass(frozen=True)
class Told:
    """Lines of runs, oldest first; whether there were more than were asked for."""

    lines: tuple[Line, ...]
    is_cut: bool


def steps_of(stage: Stage) -> list[str]:
    """Dagster's steps of a stage: its assets."""
    return ["executions"] if stage == DISPATCH else [stage.name]


def newest_ticks(dagster: Connection) -> dict[str, datetime | None]:
    """Return when each of TICKING last ticked; None where it never did, nothing where stopped."""
    rows = dagster.execute(query("runs", "newest_ticks"), {"names": list(TICKING)})
    return {row[0]: row[1] and row[1].replace(tzinfo=UTC) for row in rows}


def newest_starts(dagster: Connection, steps: Sequence[str]) -> dict[str, datetime]:
    """When each of these steps last began; one that did not lately is left out."""
    rows = dagster.execute(query("runs", "newest_starts"), {"steps": list(steps)})
    return {row[0]: row[1].replace(tzinfo=UTC) for row in rows}


def told(
    dagster: Connection, steps: Sequence[str], since: datetime, until: datetime, at_most: int
) -> Told:
    """What the runs with one of these steps told within [since, until], at most so many lines."""
    found: Sequence[Any] = dagster.execute(
        query("runs", "told"),
        {
            "steps": list(steps),
            "checks": [f"{step}\\_%" for step in steps],
            # Dagster keeps UTC without saying so.
            "since": since.astimezone(UTC).replace(tzinfo=None),
            "until": until.astimezone(UTC).replace(tzinfo=None),
            "at_most": at_most + 1,
        },
    ).all()
    lines = [_line(run_id, at, json.loads(event)) for run_id, at, event in found[:at_most]]
    spoken = [line for line in reversed(lines) if line.text]
    return Told(tuple(spoken), len(found) > at_most)


def _line(run_id: str, at: datetime, event: dict[str, object]) -> Line:
    message = str(event.get("user_message") or "")
    error = _error_of(event)
    text = f"{message}: {error}" if error and error not in message else message
    if counts := _counts_of(event):
        text = f"{text} {counts}"
    return Line(at.replace(tzinfo=UTC), level_of(event.get("level")), text.strip(), run_id)


def _error_of(event: dict[str, object]) -> str:
    """The error that an event tells of in one line, the cause of all others if it has one."""
    error = event.get("error_info") or _data_of(event).get("error")
    while isinstance(error, dict) and isinstance(error.get("cause"), dict):
        error = error["cause"]
    message = str(error.get("message") or "") if isinstance(error, dict) else ""
    return " ".join(message.split())[:MAX_ERROR_CHARS]


def _counts_of(event: dict[str, object]) -> str:
    """The whole numbers that a materialisation tells of itself."""
    found = _data_of(event).get("materialization")
    entries = found.get("metadata_entries") if isinstance(found, dict) else None
    values = {
        entry["label"]: entry["entry_data"].get("value")
        for entry in entries or ()
        if isinstance(entry.get("entry_data"), dict)
    }
    return " ".join(f"{k}={v}" for k, v in values.items() if isinstance(v, int))


def _data_of(event: dict[str, object]) -> dict[str, object]:
    dagster_event = event.get("dagster_event")
    data = dagster_event.get("event_specific_data") if isinstance(dagster_event, dict) else None
    return data if isinstance(data, dict) else {}
