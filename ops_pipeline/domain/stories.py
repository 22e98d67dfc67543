"""Which entries are one story. Only earlier entries decide, so that no answer ever changes.

Entries of one feed that became known at one instant are one document. An entry is a story that is
known already where the first of these holds:

1. The same feed has given the same id, and the id names one story only. The id of a document's
   entry names none where the document has other text under it, as filings at the SEC do.
2. The same feed has given the same text, less than REPEAT_WINDOW before or after by publication,
   or the entry has no time of its own. That window is the longest one over which features count.
3. Any feed has given the same title and link; for the entry's own feed only where the two cannot
   be told apart by id and by time.

The first version stays: its text is linked and scored, and it decides when the story was known.
A later text is kept beside it as a revision.
"""

from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby

from ops_pipeline.domain.news import NO_TITLE, digest, entry_key, news_id, text_hash
from ops_pipeline.domain.values import NewsEntry

REPEAT_WINDOW = timedelta(minutes=60)


@dataclass(frozen=True)
class KnownEntry:
    """An entry, and the instant at which this system could first have known it."""

    entry: NewsEntry
    available_at: datetime

    @property
    def event_at(self) -> datetime:
        """The publication; an entry cannot happen after it is known."""
        return min(self.entry.published_at or self.available_at, self.available_at)


@dataclass(frozen=True)
class Provenance:
    """What a feed gave, and the story that it belongs to."""

    feed: str
    entry_key: str
    news_id: str
    entry_id: str
    text_hash: str
    tickers: tuple[str, ...]
    event_at: datetime
    available_at: datetime


@dataclass(frozen=True)
class Resolved:
    """An entry with its story: the story's first version, or a later text of the same feed."""

    known: KnownEntry
    provenance: Provenance
    is_new: bool
    is_revision: bool


class StoryIndex:
    """The stories that are known, by what identifies them."""

    def __init__(self, known: Iterable[Provenance], stories: Mapping[str, datetime]) -> None:
        self._stories = dict(stories)
        self._by_key = dict[tuple[str, str], Provenance]()
        self._by_id = defaultdict[tuple[str, str], list[Provenance]](list)
        self._by_text = defaultdict[tuple[str, str], list[Provenance]](list)
        self._by_story = defaultdict[str, list[Provenance]](list)
        for provenance in known:
            self._add(provenance)

    def resolve(self, entries: Iterable[KnownEntry]) -> Iterator[Resolved]:
        """Yield the entries that add something, oldest first: a story, a text or a ticker."""
        drafts = [(draft_of(known), known) for known in entries]
        # Of equals the one that stands first in its document or file is the first version.
        drafts.sort(key=lambda d: (d[0].available_at, d[0].feed, d[0].event_at))
        for _, document in groupby(drafts, key=lambda d: (d[0].available_at, d[0].feed)):
            yield from self._resolve_document(list(document))

    def _resolve_document(
        self, document: Sequence[tuple[Provenance, KnownEntry]]
    ) -> Iterator[Resolved]:
        texts = defaultdict[str, set[str]](set)
        for draft, _ in document:
            texts[draft.entry_id].add(draft.text_hash)
        for draft, known in document:
            names_story = draft.entry_id != "" and len(texts[draft.entry_id]) == 1
            story = self._story_of(draft, known.entry, names_story=names_story)
            if story is None or self._adds(draft, story):
                yield self._admit(draft, known, story)

    def _story_of(self, draft: Provenance, entry: NewsEntry, *, names_story: bool) -> str | None:
        same = self._by_key.get((draft.feed, draft.entry_key))
        has_name = bool(entry.entry_id or entry.link)
        if same and has_name and same.available_at <= draft.available_at:
            return same.news_id
        if names_story:
            by_id = self._by_id[draft.feed, draft.entry_id]
            stories = {p.news_id for p in by_id if p.available_at <= draft.available_at}
            if len(stories) == 1:
                return stories.pop()
        same_text = self._by_text[draft.feed, draft.text_hash]
        last = next((p for p in reversed(same_text) if p.available_at <= draft.available_at), None)
        has_text = (entry.title, entry.summary) != (NO_TITLE, "")
        if last and has_text and not (entry.published_at and _is_apart(draft, last)):
            return last.news_id
        return self._same_link(draft, entry)

    def _same_link(self, draft: Provenance, entry: NewsEntry) -> str | None:
        known_at = self._stories.get(draft.news_id)
        if known_at is None or known_at > draft.available_at:
            return None
        own = [p for p in self._by_story[draft.news_id] if p.feed == draft.feed]
        has_id = draft.entry_id not in ("", entry.link)
        has_own_time = entry.published_at is not None and all(_is_apart(draft, p) for p in own)
        return None if own and has_id and has_own_time else draft.news_id

    def _adds(self, draft: Provenance, story: str) -> bool:
        """Return True if its feed gave no such text by this id, or the story has no such ticker."""
        of_story = self._by_story[story]
        if not {t for p in of_story for t in p.tickers}.issuperset(draft.tickers):
            return True
        given = {(p.feed, p.entry_id, p.text_hash) for p in of_story}
        is_given = draft.entry_id != "" and (draft.feed, draft.entry_id, draft.text_hash) in given
        return not is_given and (draft.feed, draft.entry_key) not in self._by_key

    def _admit(self, draft: Provenance, known: KnownEntry, story: str | None) -> Resolved:
        key, own = draft.entry_key, draft.news_id
        if (draft.feed, key) in self._by_key:
            # The row of this entry stands: a further ticker, or a later play, has one of its own.
            key = digest(key, *draft.tickers, draft.available_at.isoformat())
        made = story or (own if own not in self._stories else digest(own, draft.feed, key))
        provenance = replace(draft, entry_key=key, news_id=made)
        texts = {p.text_hash for p in self._by_story[made] if p.feed == draft.feed}
        is_revision = bool(texts) and draft.text_hash not in texts
        self._stories.setdefault(made, draft.available_at)
        self._add(provenance)
        return Resolved(known, provenance, story is None, is_revision)

    def _add(self, provenance: Provenance) -> None:
        feed = provenance.feed
        self._by_key[feed, provenance.entry_key] = provenance
        insort(self._by_id[feed, provenance.entry_id], provenance, key=_order)
        insort(self._by_text[feed, provenance.text_hash], provenance, key=_order)
        insort(self._by_story[provenance.news_id], provenance, key=_order)


def draft_of(known: KnownEntry) -> Provenance:
    """Return an entry as what it is if no other entry is known."""
    entry = known.entry
    return Provenance(
        feed=entry.feed,
        entry_key=entry_key(entry),
        news_id=news_id(entry),
        entry_id=entry.entry_id,
        text_hash=text_hash(entry.title, entry.summary),
        tickers=tuple(sorted(set(entry.tickers))),
        event_at=known.event_at,
        available_at=known.available_at,
    )


def _is_apart(entry: Provenance, earlier: Provenance) -> bool:
    return abs(entry.event_at - earlier.event_at) >= REPEAT_WINDOW


def _order(entry: Provenance) -> tuple[datetime, str, datetime, str]:
    return entry.available_at, entry.feed, entry.event_at, entry.entry_key
