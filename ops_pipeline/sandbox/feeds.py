"""News as RSS 2.0: the newest entries of a feed, and the validators of a conditional request."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from xml.etree import ElementTree as ET

from ops_pipeline.domain.values import NewsEntry

MARKETS = "markets"
MAX_ENTRIES = 50
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class FeedDocument:
    """A feed as it is served; the tag is that of its content, the time of its newest entry."""

    content: bytes
    etag: str
    changed_at: datetime | None

    @property
    def headers(self) -> dict[str, str]:
        """Type and validators."""
        told = {"Content-Type": "application/rss+xml; charset=utf-8", "ETag": self.etag}
        if self.changed_at:
            told["Last-Modified"] = _date(self.changed_at)
        return told

    def is_known(self, headers: Mapping[str, str]) -> bool:
        """Whether who asks has this document already; a tag counts more than a time."""
        if tags := headers.get("if-none-match"):
            # The comparison is a weak one, as RFC 9110 asks for.
            known = {tag.strip().removeprefix("W/") for tag in tags.split(",")}
            return self.etag in known or "*" in known
        since = _time(headers.get("if-modified-since", ""))
        return bool(since and self.changed_at and self.changed_at.replace(microsecond=0) <= since)


def document(name: str, news: Sequence[NewsEntry], tickers: Sequence[str]) -> FeedDocument:
    """The feed of one ticker, or the general one: what names none of the traded tickers."""
    if name != MARKETS:
        return _rendered(name, [entry for entry in news if name in entry.tickers])
    traded = frozenset(tickers)
    return _rendered(name, [entry for entry in news if traded.isdisjoint(entry.tickers)])


def _rendered(name: str, entries: Sequence[NewsEntry]) -> FeedDocument:
    rss = ET.Element("rss", version="2.0")
    channel = ET.SubElement(rss, "channel")
    _tell(channel, title=f"Sandbox news: {name}", link="https://news.example/")
    _tell(channel, description="Generated or recorded news, played as they came.")
    for entry in reversed(entries[-MAX_ENTRIES:]):
        item = ET.SubElement(channel, "item")
        _tell(item, title=entry.title, link=entry.link, description=entry.summary)
        ET.SubElement(item, "guid", isPermaLink="false").text = entry.entry_id
        if entry.published_at:
            _tell(item, pubDate=_date(entry.published_at))
    content = ET.tostring(rss, encoding="utf-8", xml_declaration=True)
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    changed_at = max((e.published_at for e in entries if e.published_at), default=None)
    return FeedDocument(content, tag, changed_at)


def _tell(parent: ET.Element, **texts: str) -> None:
    for name, text in texts.items():
        ET.SubElement(parent, name).text = _NOT_XML.sub(" ", text)


def _date(at: datetime) -> str:
    return format_datetime(at.astimezone(UTC), usegmt=True)


def _time(text: str) -> datetime | None:
    try:
        told = parsedate_to_datetime(text)
    except ValueError:
        return None
    return told if told.tzinfo else told.replace(tzinfo=UTC)
