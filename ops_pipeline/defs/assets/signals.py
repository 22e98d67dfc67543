"""Stage signals: what the rules say of each watched ticker."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import dagster as dg
from sqlalchemy import Connection

from ops_pipeline.defs.minutes import Minutes, result
from ops_pipeline.defs.recompute import (
    decide_sessions,
    known_late,
    require_equal,
    require_kept,
    unfinished,
)
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain import signals as rules
from ops_pipeline.domain.session import Session
from ops_pipeline.domain.stages import SIGNALS
from ops_pipeline.domain.values import FeatureRow, Signal
from ops_pipeline.storage import features, watchlist
from ops_pipeline.storage import signals as storage
from ops_pipeline.storage.signals import Decided


def materialize(minutes: Minutes, pipeline: Pipeline) -> dg.MaterializeResult[object]:
    """One row for each watched ticker and minute; deciding again compares, and may fail."""
    minutes, counts, actionable = decide_sessions(SIGNALS, minutes, pipeline, _decide)
    return result(minutes, sum(counts.values()), actionable=actionable)


def _decide(
    connection: Connection,
    pipeline: Pipeline,
    session: Session,
    own: Minutes,
    cutoffs: Mapping[datetime, datetime],
) -> tuple[dict[datetime, int], int]:
    """Decide minutes of one session. Returns their numbers of rows, and new recommendations."""
    rows = features.features_between(connection, own.start, own.end)
    new = unfinished(connection, SIGNALS, own)
    late = known_late(connection, SIGNALS, session, own, new, pipeline)
    decided = rules.fold(
        cutoffs,
        rows,
        watchlist.decisions_known(connection, session.day, own.start, own.end, before=own.end),
        storage.actionable_known(connection, session.day, own.start, own.end),
        pipeline.signal_rules,
        late,
    )
    stored = storage.signals_between(connection, session.day, own.start, own.end)
    if pipeline.mode.is_live:
        require_kept(connection, SIGNALS, own, stored)
    require_equal(SIGNALS, decided, stored, except_minutes=new)
    fresh = {minute: signals for minute, signals in decided.items() if minute in new}
    recommended = _insert(connection, pipeline, session, {**cutoffs, **late}, fresh, rows)
    return {minute: len(signals) for minute, signals in decided.items()}, recommended


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
