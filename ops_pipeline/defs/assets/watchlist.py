"""Stage watchlist: which tickers are worth watching."""

from collections.abc import Mapping
from datetime import datetime

import dagster as dg
from sqlalchemy import Connection

from ops_pipeline.defs.minutes import Minutes, result
from ops_pipeline.defs.recompute import decide_sessions, known_late, require_equal, unfinished
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain import watchlist as rules
from ops_pipeline.domain.session import Session
from ops_pipeline.domain.stages import WATCHLIST
from ops_pipeline.storage import features
from ops_pipeline.storage import watchlist as storage


def materialize(minutes: Minutes, pipeline: Pipeline) -> dg.MaterializeResult[object]:
    """One row for each ticker and decision; deciding again compares, and fails on a difference."""
    minutes, counts, rows = decide_sessions(WATCHLIST, minutes, pipeline, _decide)
    return result(minutes, rows, due=len(counts))


def _decide(
    connection: Connection,
    pipeline: Pipeline,
    session: Session,
    own: Minutes,
    cutoffs: Mapping[datetime, datetime],
) -> tuple[dict[datetime, int], int]:
    """Decide the due minutes of one session. Returns how many rows each has, and the new ones."""
    new = unfinished(connection, WATCHLIST, own)
    late = known_late(connection, WATCHLIST, session, own, new, pipeline)
    decided = rules.fold(
        cutoffs,
        session.opens_at,
        features.features_between(connection, own.start, own.end),
        storage.decisions_known(connection, session.day, own.start, own.end, before=own.start),
        pipeline.watchlist_rules,
        late,
    )
    stored = storage.entries_between(connection, session.day, own.start, own.end)
    require_equal(WATCHLIST, decided, stored, except_minutes=new)
    fresh = {minute: entries for minute, entries in decided.items() if minute in new}
    for minute, entries in fresh.items():
        available_at = late.get(minute, cutoffs[minute])
        storage.insert_entries(connection, entries, session.day, available_at)
    counts = {minute: len(entries) for minute, entries in decided.items()}
    return counts, sum(map(len, fresh.values()))
