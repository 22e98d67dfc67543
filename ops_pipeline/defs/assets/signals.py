"""Stage signals: what the rules say of each watched ticker."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import dagster as dg
from sqlalchemy import Connection

from ops_pipeline.defs.minutes import Minutes, finish, result, with_cutoffs
from ops_pipeline.defs.recompute import known_late, require_equal, unfinished
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain import signals as rules
from ops_pipeline.domain.session import MINUTE, Session
from ops_pipeline.domain.stages import SIGNALS
from ops_pipeline.domain.values import FeatureRow, Signal
from ops_pipeline.storage import features, watchlist
from ops_pipeline.storage import signals as storage
from ops_pipeline.storage.signals import Decided


def materialize(minutes: Minutes, pipeline: Pipeline) -> dg.MaterializeResult[object]:
    """One row for each watched ticker and minute; deciding again compares, and may fail."""
    counts: dict[datetime, int] = {}
    actionable = 0
    with pipeline.engine.begin() as connection:
        rows = features.features_between(connection, minutes.start, minutes.end)
        minutes, cutoffs = with_cutoffs(connection, minutes)
        new = unfinished(connection, SIGNALS, minutes)
        for session, own in minutes.by_session():
            asking = {minute: cutoffs[minute] for minute in own}
            late = known_late(connection, SIGNALS, session, own, new, pipeline)
            decided = _fold(connection, pipeline, session, asking, rows, late)
            stored = storage.signals_between(connection, session.day, own[0], minutes.end)
            require_equal(SIGNALS, decided, stored, except_minutes=new)
            fresh = {minute: decided[minute] for minute in own if minute in new}
            actionable += _insert(connection, pipeline, session, asking | late, fresh, rows)
            counts |= {minute: len(signals) for minute, signals in decided.items()}
        finish(connection, SIGNALS, minutes, counts)
    return result(minutes, sum(counts.values()), actionable=actionable)


def _fold(
    connection: Connection,
    pipeline: Pipeline,
    session: Session,
    cutoffs: Mapping[datetime, datetime],
    rows: Mapping[datetime, Sequence[FeatureRow]],
    late: Mapping[datetime, datetime],
) -> dict[datetime, list[Signal]]:
    start, end = min(cutoffs), max(cutoffs) + MINUTE
    decisions = watchlist.decisions_known(connection, session.day, start, end, before=end)
    actionable = storage.actionable_known(connection, session.day, start, end)
    return rules.fold(cutoffs, rows, decisions, actionable, pipeline.signal_rules, late)


def _insert(
    connection: Connection,
    pipeline: Pipeline,
    session: Session,
    known_at: Mapping[datetime, datetime],
    fresh: Mapping[datetime, Sequence[Signal]],
    rows: Mapping[datetime, Sequence[FeatureRow]],
) -> int:
    known = {(row.ticker, minute): row for minute, found in rows.items() for row in found}
    decided = [
        Decided(signal, known.get((signal.ticker, minute)), session.day, known_at[minute])
        for minute, signals in fresh.items()
        for signal in signals
    ]
    ts = {minute: pipeline.timing.as_of(minute) for minute in fresh}
    return storage.insert_signals(connection, decided, ts, pipeline.signal_rules.expires_after)
