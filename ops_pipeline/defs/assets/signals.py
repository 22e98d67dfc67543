"""Stage signals: what the rules say of each watched ticker."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import dagster as dg
from sqlalchemy import Connection

from ops_pipeline.defs.minutes import Minutes, finish, minutes_of, result
from ops_pipeline.defs.recompute import require_equal, unfinished
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain import signals as rules
from ops_pipeline.domain.session import Session
from ops_pipeline.domain.stages import SIGNALS
from ops_pipeline.domain.values import FeatureRow, Signal
from ops_pipeline.storage import features, watchlist
from ops_pipeline.storage import signals as storage
from ops_pipeline.storage.knowledge import cutoffs_between
from ops_pipeline.storage.signals import Decided


def materialize(
    context: dg.AssetExecutionContext, pipeline: Pipeline
) -> dg.MaterializeResult[object]:
    """One row for each watched ticker and minute; deciding again compares, and may fail."""
    minutes = minutes_of(context, pipeline)
    counts: dict[datetime, int] = {}
    actionable = 0
    with pipeline.engine.begin() as connection:
        rows = features.features_between(connection, minutes.start, minutes.end)
        new = unfinished(connection, SIGNALS, minutes)
        for session, own in minutes.by_session():
            decided = _fold(connection, pipeline, session, own, rows)
            stored = storage.signals_between(connection, session.day, own[0], minutes.end)
            require_equal(SIGNALS, decided, stored, except_minutes=new)
            fresh = {minute: decided[minute] for minute in own if minute in new}
            actionable += _insert(connection, pipeline, session, minutes, fresh, rows)
            counts |= {minute: len(signals) for minute, signals in decided.items()}
        finish(connection, SIGNALS, minutes, counts, context)
    return result(minutes, sum(counts.values()), actionable=actionable)


def _fold(
    connection: Connection,
    pipeline: Pipeline,
    session: Session,
    minutes: Sequence[datetime],
    rows: Mapping[datetime, Sequence[FeatureRow]],
) -> dict[datetime, list[Signal]]:
    watched = _watched(connection, session, minutes)
    last = storage.last_actionable(connection, session.day, minutes[0])
    return rules.fold(minutes, rows, watched, last, pipeline.signal_rules)


def _watched(
    connection: Connection, session: Session, minutes: Sequence[datetime]
) -> dict[datetime, list[str]]:
    """Who is watched in each minute: the last decision of the session holds until the next."""
    decisions = watchlist.entries_between(
        connection, session.day, session.opens_at, session.closes_at
    )
    members: list[str] = []
    watched = {}
    for minute in session.minutes():
        if minute in decisions:
            members = [entry.ticker for entry in decisions[minute] if entry.in_watchlist]
        watched[minute] = members
    return {minute: watched[minute] for minute in minutes}


def _insert(
    connection: Connection,
    pipeline: Pipeline,
    session: Session,
    minutes: Minutes,
    fresh: Mapping[datetime, Sequence[Signal]],
    rows: Mapping[datetime, Sequence[FeatureRow]],
) -> int:
    cutoffs = {c.minute: c.cutoff for c in cutoffs_between(connection, minutes.start, minutes.end)}
    known = {(row.ticker, minute): row for minute, found in rows.items() for row in found}
    decided = [
        Decided(signal, known.get((signal.ticker, minute)), session.day, cutoffs[minute])
        for minute, signals in fresh.items()
        for signal in signals
    ]
    ts = {minute: pipeline.timing.as_of(minute) for minute in fresh}
    return storage.insert_signals(connection, decided, ts, pipeline.signal_rules.expires_after)
