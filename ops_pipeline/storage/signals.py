"""Decisions of the rules, and the recommendations that some of them become."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Connection

from ops_pipeline.domain.signals import HOLD, Actionable, features_snapshot, sentiment_snapshot
from ops_pipeline.domain.values import FeatureRow, Signal
from ops_pipeline.storage.queries import query


@dataclass(frozen=True)
class Decided:
    """A signal with what it was decided on and when it could be known."""

    signal: Signal
    row: FeatureRow | None
    session_date: date
    available_at: datetime


def insert_signals(
    connection: Connection,
    decided: Sequence[Decided],
    ts: dict[datetime, datetime],
    expires_after: timedelta,
) -> int:
    """Keep decisions, and hand the actionable ones to the dispatcher. Returns how many those are.

    Args:
        connection: one transaction for both tables.
        decided: decisions of minutes that have none yet.
        ts: the nominal decision instant of each minute; a late minute's recommendation is born old.
        expires_after: how long after it a recommendation may trade.
    """
    actionable = [item for item in decided if item.signal.action != HOLD and item.row]
    if decided:
        connection.execute(query("signals", "insert_signal"), [_signal(item) for item in decided])
    if actionable:
        rows = [_recommendation(item, ts[item.signal.minute], expires_after) for item in actionable]
        connection.execute(query("signals", "insert_recommendation"), rows)
    return len(actionable)


def signals_between(
    connection: Connection, session_date: date, start: datetime, end: datetime
) -> dict[datetime, list[Signal]]:
    """The decisions of a session in [start, end), by minute and ticker."""
    rows = connection.execute(
        query("signals", "signals_between"),
        {"session_date": session_date, "start": start, "end": end},
    ).mappings()
    found: dict[datetime, list[Signal]] = {}
    for row in rows:
        signal = Signal(**{**row, "minute": row["minute"].astimezone(UTC)})
        found.setdefault(signal.minute, []).append(signal)
    return found


def actionable_known(
    connection: Connection, session_date: date, start: datetime, end: datetime
) -> dict[str, list[Actionable]]:
    """When each ticker was recommended in this session before `start`, in order.

    What became known after the last cut-off of the minutes in [start, end) is left out.
    """
    found: dict[str, list[Actionable]] = {}
    rows = connection.execute(
        query("signals", "actionable_known"),
        {"session_date": session_date, "start": start, "end": end},
    )
    for row in rows:
        known = Actionable(row[1].astimezone(UTC), row[2].astimezone(UTC))
        found.setdefault(row[0], []).append(known)
    return found


def _signal(item: Decided) -> dict[str, object]:
    return {
        "minute": item.signal.minute,
        "ticker": item.signal.ticker,
        "session_date": item.session_date,
        "action": item.signal.action,
        "rule": item.signal.rule,
        "confidence": item.signal.confidence,
        "reason": json.dumps(item.signal.reason, allow_nan=False),
        "available_at": item.available_at,
    }


def _recommendation(item: Decided, ts: datetime, expires_after: timedelta) -> dict[str, object]:
    assert item.row is not None  # noqa: S101 - only a HOLD is decided without features
    return {
        "ts": ts,
        "ticker": item.signal.ticker,
        "minute": item.signal.minute,
        "session_date": item.session_date,
        "action": item.signal.action,
        "confidence": item.signal.confidence,
        "reason": json.dumps(item.signal.reason, allow_nan=False),
        "features_snapshot": json.dumps(features_snapshot(item.row), allow_nan=False),
        "sentiment_snapshot": json.dumps(sentiment_snapshot(item.row), allow_nan=False),
        "expires_at": ts + expires_after,
        "available_at": item.available_at,
    }
