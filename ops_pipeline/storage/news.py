"""Stories, the feeds that told them, and the tickers that they speak of."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, RowMapping, text

from ops_pipeline.domain.linking import FEED, Mention, TickerLinker
from ops_pipeline.domain.stories import KnownEntry, Provenance, Resolved, StoryIndex, draft_of
from ops_pipeline.domain.values import FeedOutcome, FeedState, FeedStatus
from ops_pipeline.storage.queries import query

STORIES_LOCK = 7_310_028


def insert_entries(connection: Connection, entries: Sequence[KnownEntry], *, origin: str) -> int:
    """Store entries: a story once, and what else a feed gave of it. Return the number of stories.

    One transaction at a time resolves which entries are one story, so that all agree on it.
    """
    if not entries:
        return 0
    connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": STORIES_LOCK})
    added = list(_story_index(connection, entries).resolve(entries))
    if items := [_item(resolved, origin) for resolved in added if resolved.is_new]:
        connection.execute(query("news", "insert_item"), items)
    if added:
        connection.execute(query("news", "insert_provenance"), [_provenance(r) for r in added])
    return len(items)


def count_revisions(connection: Connection, start: datetime, end: datetime) -> int:
    """Return how many later texts of known stories became known in [start, end)."""
    parameters = {"start": start, "end": end}
    return int(connection.execute(query("news", "count_revisions"), parameters).scalar_one())


def _story_index(connection: Connection, entries: Sequence[KnownEntry]) -> StoryIndex:
    """Return what is stored of the stories that these entries may belong to."""
    drafts = [draft_of(known) for known in entries]
    keys = {
        name: [getattr(draft, name) for draft in drafts]
        for name in ("feed", "entry_key", "entry_id", "text_hash", "news_id")
    }
    stories = connection.execute(query("news", "stories"), keys).all()
    known = connection.execute(
        query("news", "provenance_of"), {"news_id": [row.news_id for row in stories]}
    ).mappings()
    provenances = (Provenance(**{**row, "tickers": tuple(row["tickers"])}) for row in known)
    return StoryIndex(provenances, {row.news_id: row.available_at for row in stories})


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


def _item(resolved: Resolved, origin: str) -> dict[str, object]:
    entry, provenance = resolved.known.entry, resolved.provenance
    return {
        "news_id": provenance.news_id,
        "title": entry.title,
        "summary": entry.summary,
        "link": entry.link,
        "text_hash": provenance.text_hash,
        "published_at": entry.published_at,
        "event_at": provenance.event_at,
        "origin": origin,
        "available_at": provenance.available_at,
    }


def _provenance(resolved: Resolved) -> dict[str, object]:
    entry = resolved.known.entry
    return {
        **resolved.provenance.__dict__,
        "tickers": list(resolved.provenance.tickers),
        "revised_title": entry.title if resolved.is_revision else None,
        "revised_summary": entry.summary if resolved.is_revision else None,
    }


def _link(item: str, mention: Mention, available_at: datetime) -> dict[str, object]:
    return {
        "news_id": item,
        "ticker": mention.ticker,
        "match_source": mention.match_source,
        "span": mention.span,
        "available_at": available_at,
    }
