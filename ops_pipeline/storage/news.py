"""Stories, the feeds that told them, and the tickers that they speak of."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, RowMapping

from ops_pipeline.domain.linking import FEED, Mention, TickerLinker
from ops_pipeline.domain.news import entry_key, news_id, text_hash
from ops_pipeline.domain.values import FeedOutcome, FeedState, FeedStatus, NewsEntry
from ops_pipeline.storage.queries import query


@dataclass(frozen=True)
class KnownEntry:
    """An entry, and the instant at which this system could first have known it."""

    entry: NewsEntry
    available_at: datetime


def insert_entries(connection: Connection, entries: Sequence[KnownEntry], *, origin: str) -> int:
    """Keep entries: a story once, its tellings once for each feed. Returns how many were new."""
    # The earliest telling of a story decides when it was known.
    ordered = sorted(entries, key=lambda known: (known.available_at, entry_key(known.entry)))
    if not ordered:
        return 0
    items = [_item(known, origin) for known in ordered]
    before = _count_items(connection)
    connection.execute(query("news", "insert_item"), items)
    connection.execute(query("news", "insert_provenance"), [_told(known) for known in ordered])
    return _count_items(connection) - before


@dataclass(frozen=True)
class FeedReport:
    """A feed as it was left by its last fetch."""

    state: FeedState
    last_status: FeedStatus
    last_reason: str
    last_ok_at: datetime | None


def feed_reports(connection: Connection) -> dict[str, FeedReport]:
    """How the last fetch of each feed went, by its name."""
    rows = connection.execute(query("news", "feed_states")).mappings()
    return {row["feed"]: _feed_report(row) for row in rows}


def save_feed_state(
    connection: Connection, state: FeedState, outcome: FeedOutcome, now: datetime
) -> None:
    """Keep how a fetch went, and what the next one needs."""
    row = {
        **state.__dict__,
        "last_status": outcome.status.value,
        "last_reason": outcome.reason,
        "last_ok_at": now if outcome.status.is_answer else None,
    }
    connection.execute(query("news", "save_feed_state"), row)


def link_tickers(connection: Connection, linker: TickerLinker) -> int:
    """Search what was told since the last time for tickers. Returns how many links it gave."""
    rows = connection.execute(query("news", "unlinked")).mappings().all()
    links, done = [], []
    for row in rows:
        done.append({"feed": row["feed"], "entry_key": row["entry_key"]})
        mentions = [Mention(ticker, FEED, row["feed"]) for ticker in row["tickers"]]
        mentions += linker.mentions(f"{row['title']}\n{row['summary']}")
        links += [_link(row["news_id"], mention, row["available_at"]) for mention in mentions]
    if links:
        connection.execute(query("news", "insert_link"), links)
    if done:
        connection.execute(query("news", "mark_linked"), done)
    return len(links)


def _feed_report(row: RowMapping) -> FeedReport:
    state = FeedState(
        row["feed"],
        row["etag"],
        row["last_modified"],
        row["failures"],
        _in_utc(row["retry_at"]),
    )
    status = FeedStatus(row["last_status"])
    return FeedReport(state, status, row["last_reason"], _in_utc(row["last_ok_at"]))


def _in_utc(at: datetime | None) -> datetime | None:
    return at.astimezone(UTC) if at else None


def _count_items(connection: Connection) -> int:
    return int(connection.execute(query("news", "count_items")).scalar_one())


def _item(known: KnownEntry, origin: str) -> dict[str, object]:
    entry, available_at = known.entry, known.available_at
    return {
        "news_id": news_id(entry),
        "title": entry.title,
        "summary": entry.summary,
        "link": entry.link,
        "text_hash": text_hash(entry.title, entry.summary),
        "published_at": entry.published_at,
        # A publication in the future cannot be: what counts is that it is known.
        "event_at": min(entry.published_at or available_at, available_at),
        "origin": origin,
        "available_at": available_at,
    }


def _told(known: KnownEntry) -> dict[str, object]:
    return {
        "feed": known.entry.feed,
        "entry_key": entry_key(known.entry),
        "news_id": news_id(known.entry),
        "entry_id": known.entry.entry_id,
        "tickers": sorted(set(known.entry.tickers)),
        "available_at": known.available_at,
    }


def _link(item: str, mention: Mention, available_at: datetime) -> dict[str, object]:
    return {
        "news_id": item,
        "ticker": mention.ticker,
        "match_source": mention.match_source,
        "span": mention.span,
        "available_at": available_at,
    }
