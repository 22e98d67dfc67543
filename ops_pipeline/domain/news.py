"""Which entries are the same, and what their plain text is."""

import hashlib
import html
import re
import unicodedata
from dataclasses import replace
from datetime import datetime, timedelta
from html.parser import HTMLParser

from ops_pipeline.domain.values import FeedOutcome, FeedState, FeedStatus, NewsEntry

MAX_TITLE, MAX_SUMMARY = 500, 5_000
NO_TITLE = "No title"

LONGEST_BACK_OFF, LONGEST_RETRY_AFTER = timedelta(minutes=60), timedelta(hours=6)


# What prints nothing: soft hyphens, zero-width characters, bidi controls, variation selectors.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
# A zero-width space before a capital separates two words; elsewhere it only allows a line break.
_WORD_BREAK = re.compile("(?<=[a-z0-9])\u200b+(?=[A-Z])")
# NFKC would make letters of these: Apple\u2122 would become AppleTM.
_SIGN_INSIDE = re.compile("(?<=\\w)[\u2122\u00ae\u00a9\u2120]+(?=\\w)")
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u2122\u00ae\u00a9\u2120", ""),
        **dict.fromkeys("\u2018\u2019\u201b\u02bc\u2032", "'"),
        **dict.fromkeys("\u201c\u201d\u201f\u2033", '"'),
        **dict.fromkeys("\u2010\u2011\u2212", "-"),
    }
)
# A ticker as Reuters writes it, which a parser of HTML takes for an element.
_RIC = re.compile(r"<([A-Z][A-Za-z]{0,5}\.[A-Z]{1,3})>")
# Markup and entities that were escaped more than once.
_ESCAPED = re.compile(
    r"</?(?:a|b|br|div|em|font|h[1-6]|i|img|li|ol|p|script|span|strong|style|sub|sup|u|ul)\b[^<>]*>"
    r"|&(?:\#\d+|\#x[0-9a-f]+|[a-z]+);",
    re.IGNORECASE,
)
MAX_ESCAPES = 3


class _TextOnly(HTMLParser):
    """Collects what a reader would see."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - parser's name
        self._hidden += tag in ("script", "style")
        self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= bool(self._hidden) and tag in ("script", "style")
        self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def plain_text(text: str, limit: int) -> str:
    """Return the text that is stored, linked, scored and compared, cut to a length.

    It has no markup, entities, control or invisible characters, trademark signs or surplus space;
    letters have one width, apostrophes, quotation marks and hyphens one form.
    """
    text = _RIC.sub(r"(\1)", text)
    if "<" in text or "&" in text:
        text = _without_markup(text)
    for _ in range(MAX_ESCAPES):
        if not _ESCAPED.search(text):
            break
        text = _without_markup(text)
    text = _INVISIBLE.sub("", _WORD_BREAK.sub(" ", text))
    text = _SIGN_INSIDE.sub(" ", text).translate(_PLAIN)
    text = unicodedata.normalize("NFKC", text).translate(_PLAIN)
    return " ".join(_printable(text).split())[:limit]


def _without_markup(text: str) -> str:
    parser = _TextOnly()
    parser.feed(text)
    parser.close()
    return html.unescape("".join(parser.parts))


def _printable(text: str) -> str:
    # Control characters and lone surrogates are what a database refuses.
    return "".join(" " if unicodedata.category(char) in ("Cc", "Cs") else char for char in text)


def clean(entry: NewsEntry) -> NewsEntry:
    """The entry with plain text, and with a link only where it is http or https."""
    link = _printable(entry.link).strip()
    return NewsEntry(
        feed=_printable(entry.feed),
        entry_id=_printable(entry.entry_id).strip(),
        title=plain_text(entry.title, MAX_TITLE) or NO_TITLE,
        summary=plain_text(entry.summary, MAX_SUMMARY),
        link=link if re.match(r"https?://", link) else "",
        published_at=entry.published_at,
        tickers=entry.tickers,
    )


def entry_key(entry: NewsEntry) -> str:
    """Return the identity of an entry inside one feed: its id, title and link."""
    return digest(entry.entry_id, entry.title, entry.link)


def news_id(entry: NewsEntry) -> str:
    """Return the identity of a story across feeds: title and link, or text and time without one."""
    if not entry.link:
        at = entry.published_at.isoformat() if entry.published_at else entry.entry_id
        return digest(entry.title, entry.summary, at)
    if entry.title == NO_TITLE:
        return digest(entry.title, entry.summary, entry.link)
    return digest(entry.title, entry.link)


def text_hash(title: str, summary: str) -> str:
    """Identity of what a model reads; identical text is scored once."""
    text = unicodedata.normalize("NFKC", f"{title}\n{summary}")
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()


def digest(*parts: str) -> str:
    """Return the hash of several texts that cannot run together."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def back_off(failures: int) -> timedelta:
    """How long a feed is left alone after so many failures in a row: 0, 2, 4, 8 ... 60 minutes."""
    if failures <= 1:
        return timedelta(0)
    # The exponent is bounded too, because failures may go on for years.
    return min(timedelta(minutes=2 ** min(failures - 1, 10)), LONGEST_BACK_OFF)


def next_state(state: FeedState, outcome: FeedOutcome, now: datetime) -> FeedState:
    """What is remembered of a feed after a fetch; a server that asks for a longer wait gets it."""
    if outcome.status is FeedStatus.BACKING_OFF:
        return state
    if outcome.status is not FeedStatus.FAILED:
        return FeedState(state.feed, outcome.etag, outcome.last_modified)
    failures = state.failures + 1
    asked = min(outcome.retry_after_seconds or 0, LONGEST_RETRY_AFTER.total_seconds())
    pause = max(back_off(failures), timedelta(seconds=asked))
    return replace(state, failures=failures, retry_at=now + pause if pause else None)
