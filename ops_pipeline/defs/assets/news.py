"""Stage news: what the feeds tell."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import dagster as dg
from sqlalchemy import Connection

from ops_pipeline.clients.protocols import FetchedNews
from ops_pipeline.defs.minutes import Minutes, finish, result, seconds_left, wait_until_settled
from ops_pipeline.defs.resources import NEWS_DELAY, Pipeline
from ops_pipeline.domain.errors import NotRunning
from ops_pipeline.domain.news import clean, next_state
from ops_pipeline.domain.stages import NEWS
from ops_pipeline.domain.stories import KnownEntry
from ops_pipeline.domain.values import FeedOutcome, FeedState, FeedStatus, NewsEntry
from ops_pipeline.storage import news as storage
from ops_pipeline.storage.knowledge import counts_by_minute

NAMED = 3


def materialize(minutes: Minutes, pipeline: Pipeline) -> dg.MaterializeResult[object]:
    """One row for each story, and one for each feed that told it; telling it again adds nothing."""
    wait_until_settled(minutes, pipeline)
    fetched = _fetch(minutes, pipeline)
    with pipeline.engine.begin() as connection:
        stamp = pipeline.stamp(connection)
        known = [KnownEntry(clean(entry), stamp or _known_at(entry)) for entry in fetched.entries]
        added = storage.insert_entries(connection, known, origin=pipeline.market.origin)
        if stamp:
            _save_states(connection, fetched.feeds, stamp)
    # What single feeds told and how they failed is kept, whatever becomes of the run.
    _require_some(fetched.feeds)
    with pipeline.engine.begin() as connection:
        counts = counts_by_minute(connection, NEWS.name, minutes.start, minutes.end)
        revised = storage.count_revisions(connection, minutes.start, minutes.end)
        finish(connection, NEWS, minutes, counts)
    told = len(fetched.entries)
    return result(minutes, added, told=told, revised=revised, **_feed_metadata(fetched.feeds))


def _fetch(minutes: Minutes, pipeline: Pipeline) -> FetchedNews:
    """What came out since the session before closed, as far as it is known at the last minute."""
    if not minutes.pairs or minutes.last is None:
        return FetchedNews([])
    start = pipeline.calendar.before(minutes.pairs[0][0].day).closes_at
    end = pipeline.timing.as_of(minutes.last)
    if pipeline.mode.is_live:
        with pipeline.engine.connect() as connection:
            reports = storage.feed_reports(connection)
        states = {feed: report.state for feed, report in reports.items()}
        left = seconds_left(minutes, pipeline)
        return pipeline.market.news.fetch_news(start, pipeline.now(), states, left)
    return pipeline.market.news.fetch_news(start, end - NEWS_DELAY, {})


def _save_states(connection: Connection, feeds: Sequence[FeedOutcome], now: datetime) -> None:
    reports = storage.feed_reports(connection)
    for outcome in feeds:
        report = reports.get(outcome.feed)
        state = next_state(report.state if report else FeedState(outcome.feed), outcome, now)
        storage.save_feed_state(connection, state, outcome, now)


def _require_some(feeds: Sequence[FeedOutcome]) -> None:
    """A run in which no feed could be reached has seen nothing, and must not look as if it had."""
    if feeds and not any(feed.status.is_answer for feed in feeds):
        reasons = "; ".join(f"{feed.feed}: {feed.reason}" for feed in feeds[:NAMED])
        raise NotRunning(
            f"none of {len(feeds)} feeds answered ({reasons})", "run: ops-pipeline doctor"
        )


def _feed_metadata(feeds: Sequence[FeedOutcome]) -> dict[str, object]:
    if not feeds:
        return {}
    counts = Counter(feed.status for feed in feeds)
    lines = [f"{feed.feed}: {feed.reason}" for feed in feeds if feed.status is FeedStatus.FAILED]
    return {
        "feeds": {status.value: counts[status] for status in FeedStatus},
        "bytes": sum(feed.bytes for feed in feeds),
        "failed": "; ".join(lines),
    }


def _known_at(entry: NewsEntry) -> datetime:
    if entry.published_at is None:
        raise ValueError("a recorded entry needs the time of its publication")
    return entry.published_at + NEWS_DELAY
