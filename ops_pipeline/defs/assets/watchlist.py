"""Stage watchlist: which tickers are worth watching."""

from datetime import datetime

import dagster as dg

from ops_pipeline.defs.minutes import Minutes, finish, result, with_cutoffs
from ops_pipeline.defs.recompute import known_late, require_equal, unfinished
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain import watchlist as rules
from ops_pipeline.domain.stages import WATCHLIST
from ops_pipeline.storage import features
from ops_pipeline.storage import watchlist as storage


def materialize(minutes: Minutes, pipeline: Pipeline) -> dg.MaterializeResult[object]:
    """One row for each ticker and decision; deciding again compares, and fails on a difference."""
    rows = 0
    with pipeline.engine.begin() as connection:
        feature_rows = features.features_between(connection, minutes.start, minutes.end)
        minutes, cutoffs = with_cutoffs(connection, minutes)
        new = unfinished(connection, WATCHLIST, minutes)
        counts: dict[datetime, int] = {}
        for session, own in minutes.by_session():
            known = storage.decisions_known(
                connection, session.day, own[0], minutes.end, before=own[0]
            )
            late = known_late(connection, WATCHLIST, session, own, new, pipeline)
            decided = rules.fold(
                {minute: cutoffs[minute] for minute in own},
                session.opens_at,
                feature_rows,
                known,
                pipeline.watchlist_rules,
                late,
            )
            stored = storage.entries_between(connection, session.day, own[0], minutes.end)
            require_equal(WATCHLIST, decided, stored, except_minutes=new)
            for minute, entries in decided.items():
                counts[minute] = len(entries)
                if minute in new:
                    available_at = late.get(minute, cutoffs[minute])
                    storage.insert_entries(connection, entries, session.day, available_at)
                    rows += len(entries)
        finish(connection, WATCHLIST, minutes, counts)
    return result(minutes, rows, due=len(counts))
