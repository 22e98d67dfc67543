"""Stage news: what the feeds tell."""

from datetime import datetime

import dagster as dg

from ops_pipeline.defs.minutes import Minutes, finish, result, wait_until_settled
from ops_pipeline.defs.resources import NEWS_DELAY, Pipeline
from ops_pipeline.domain.news import clean
from ops_pipeline.domain.stages import NEWS
from ops_pipeline.domain.values import NewsEntry
from ops_pipeline.storage import news as storage
from ops_pipeline.storage.knowledge import counts_by_minute
from ops_pipeline.storage.news import KnownEntry


def materialize(minutes: Minutes, pipeline: Pipeline) -> dg.MaterializeResult[object]:
    """One row for each story, and one for each feed that told it; telling it again adds nothing."""
    wait_until_settled(minutes, pipeline)
    entries = _fetch(minutes, pipeline)
    with pipeline.engine.begin() as connection:
        stamp = pipeline.stamp(connection)
        known = [KnownEntry(clean(entry), stamp or _known_at(entry)) for entry in entries]
        added = storage.insert_entries(connection, known, origin=pipeline.market.origin)
        counts = counts_by_minute(connection, NEWS.name, minutes.start, minutes.end)
        finish(connection, NEWS, minutes, counts)
    return result(minutes, added, told=len(entries))


def _fetch(minutes: Minutes, pipeline: Pipeline) -> list[NewsEntry]:
    """What came out since the session before closed, as far as it is known at the last minute."""
    if not minutes.pairs or minutes.last is None:
        return []
    start = pipeline.calendar.before(minutes.pairs[0][0].day).closes_at
    end = pipeline.timing.as_of(minutes.last)
    if pipeline.mode.is_live:
        return pipeline.market.news.fetch_news(start, pipeline.now())
    return pipeline.market.news.fetch_news(start, end - NEWS_DELAY)


def _known_at(entry: NewsEntry) -> datetime:
    if entry.published_at is None:
        raise ValueError("a recorded entry needs the time of its publication")
    return entry.published_at + NEWS_DELAY
