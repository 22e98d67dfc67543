"""News feeds, RSS and Atom, over HTTP; none of them can harm another one."""

import codecs
import hashlib
import io
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import inf
from typing import Any

import feedparser
import httpcore
import httpx

from ops_pipeline.clients.guard import Refused, guarded_client, open_response, read_body
from ops_pipeline.clients.protocols import FetchedNews
from ops_pipeline.domain.feed_times import publication_time
from ops_pipeline.domain.news import clean, entry_key
from ops_pipeline.domain.values import Feed, FeedOutcome, FeedState, FeedStatus, NewsEntry

WORKERS = 8
FEED_SHARE = 0.75  # of the deadline, so that a feed that waits for a slow one gets its turn
MAX_VALIDATOR = 500
# Far more than is kept of them, and little enough to be cleaned in no time.
MAX_TITLE, MAX_SUMMARY, MAX_ID, MAX_LINK = 5_000, 10_000, 1_000, 2_000
# In what follows feedparser takes a time that grows with the square, and lets no thread run
# meanwhile: what stands before the first element, and names of people, which nobody reads here.
MAX_PROLOGUE = 4_000
_PEOPLE = re.compile(
    r"(</?(?:[^<>\s:]*:)?)(?=(?:author|creator|managingeditor|publisher|webmaster)\b)",
    re.IGNORECASE,
)
MAX_TAGS = 300_000
MAX_ENTRIES = 500
_REFERENCE = re.compile(r"&#(?:[xX]([0-9a-fA-F]++)|([0-9]++));?")
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"\x00\x00\x00<", "utf-32-be"),
    (b"<\x00\x00\x00", "utf-32-le"),
    (b"\x00<", "utf-16-be"),
    (b"<\x00", "utf-16-le"),
)
# Python calls these encodings too; they are no character sets, and some are slow.
_NO_CHARSETS = {"idna", "punycode", "raw-unicode-escape", "unicode-escape"}


class RssFeeds:
    """Source of news that asks every feed once, all of them under one deadline."""

    def __init__(
        self,
        feeds: Sequence[Feed],
        now: Callable[[], datetime],
        *,
        user_agent: str,
        contact: str = "",
        allows_private: bool = False,
        deadline_seconds: float = 20.0,
    ) -> None:
        self._feeds = tuple(feeds)
        self._now = now
        self._agent = f"{user_agent} {contact}".strip()
        self._has_contact = bool(contact)
        self._allows_private = allows_private
        self._deadline_seconds = deadline_seconds
        self._tls = httpx.create_ssl_context(trust_env=False)

    def fetch_news(
        self,
        start: datetime,  # noqa: ARG002 - a feed is one page, whatever is asked
        end: datetime,  # noqa: ARG002
        states: Mapping[str, FeedState],
        within_seconds: float = inf,
    ) -> FetchedNews:
        """All that the feeds hold now, oldest first, undated last; one outcome for each feed.

        A feed cannot be asked for a span of time, so start and end choose nothing: what is older
        or lies in the future is told too. A feed whose time to retry has not come is not asked; but
        where that is so of all, the one whose time is nearest is: all of them fail together where
        the network is away, and must not be waited for when it is back.
        """
        seconds = min(self._deadline_seconds, within_seconds)
        now, until = self._now(), time.monotonic() + seconds
        pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="feed")
        asked: dict[Feed, Future[FetchedNews]] = {}
        for feed, state in self._due(states, now):
            asked[feed] = pool.submit(self._ask, feed, state, now, (until, FEED_SHARE * seconds))
        wait(asked.values(), timeout=seconds)
        pool.shutdown(wait=False, cancel_futures=True)
        answers = [_answer(feed, asked.get(feed)) for feed in self._feeds]
        entries = [entry for answer in answers for entry in answer.entries]
        outcomes = [outcome for answer in answers for outcome in answer.feeds]
        return FetchedNews(sorted(entries, key=_order), outcomes)

    def _due(self, states: Mapping[str, FeedState], now: datetime) -> list[tuple[Feed, FeedState]]:
        known = [(feed, states.get(feed.name) or FeedState(feed.name)) for feed in self._feeds]
        due = [(feed, state) for feed, state in known if (state.retry_at or now) <= now]
        return due or sorted(known, key=lambda each: each[1].retry_at or now)[:1]

    def _ask(
        self, feed: Feed, state: FeedState, now: datetime, bounds: tuple[float, float]
    ) -> FetchedNews:
        try:
            until, share = bounds
            return self._fetch(feed, state, now, min(until, time.monotonic() + share))
        except Exception as error:  # noqa: BLE001 - whatever ails one feed must not harm another
            return _failed(feed, _reason(error))

    def _fetch(self, feed: Feed, state: FeedState, now: datetime, until: float) -> FetchedNews:
        headers = httpx.Headers({"User-Agent": self._agent, **_conditions(state)}, "utf-8")
        with guarded_client(until, self._tls, allows_private=self._allows_private) as client:
            request = client.build_request("GET", feed.url, headers=headers)
            response = open_response(client, request, self._require_contact)
            if response.status_code == httpx.codes.NOT_MODIFIED:
                return FetchedNews([], [_not_modified(state)])
            if response.status_code != httpx.codes.OK:
                wait_seconds = _retry_after(response, now)
                return _failed(feed, f"HTTP {response.status_code}", wait_seconds)
            body = read_body(response)
        entries = parse_feed(feed, body, response, now, until)
        return FetchedNews(entries, [_ok(feed, response, len(entries))])

    def _require_contact(self, url: httpx.URL) -> None:
        host = url.host.rstrip(".")
        if not self._has_contact and (host == "sec.gov" or host.endswith(".sec.gov")):
            raise Refused("SEC asks for a contact: set OPS_CONTACT")


def parse_feed(
    feed: Feed, body: bytes, response: httpx.Response, now: datetime, until: float
) -> list[NewsEntry]:
    """The entries of a document, each once, in its order; ends at the monotonic time `until`.

    Of more than MAX_ENTRIES the newest are kept: an archive must not keep all others waiting.

    Raises:
        Refused: it is no feed, declares entities, or takes too long to read.
    """
    text = decoded(body, response.headers.get("content-type", ""))
    if "<!ENTITY" in text:
        raise Refused("the feed declares entities")
    first = re.search(r"<\w", text, re.ASCII)
    if first is None or first.start() > MAX_PROLOGUE or text.count("<") > MAX_TAGS:
        raise Refused("not a feed")
    # A query may hold a key, and would end up in the links.
    base = response.url.copy_with(query=None, fragment=None)
    document = _parsed(text, str(base))
    if not document.entries and (document.bozo or not document.version):
        raise Refused("not a feed")
    entries = dict[str, NewsEntry]()
    for told in document.entries:
        if time.monotonic() > until:
            raise Refused("the feed takes too long to read")
        entry = _entry(feed, told, now)
        entries.setdefault(entry_key(clean(entry)), entry)
    newest = sorted(entries.values(), key=lambda entry: entry.published_at or now, reverse=True)
    kept = {id(entry) for entry in newest[:MAX_ENTRIES]}
    return [entry for entry in entries.values() if id(entry) in kept]


def decoded(body: bytes, content_type: str) -> str:
    """A document as text: UTF-8 where it can only be that, else as marked, declared or usual."""
    charset = re.search(r"charset=[\"']?([\w.:-]{1,40})", content_type, re.IGNORECASE)
    declared = re.match(rb"\s*<\?xml[^>]{0,200}?encoding=[\"']([\w.:-]{1,40})", body[:1_000])
    marked = [name for mark, name in _MARKS if body.startswith(mark)]
    # Hardly any text of another encoding happens to be UTF-8, while declarations are often wrong.
    certain = ["utf-8-sig"] if not marked and not body.isascii() else []
    told = [charset[1] if charset else "", declared[1].decode() if declared else ""]
    for name in (*marked[:1], *certain, *filter(_is_charset, told), "utf-8-sig", "windows-1252"):
        try:
            return body.decode(name)
        except UnicodeError:
            continue
    return body.decode("latin-1")


def _is_charset(name: str) -> bool:
    try:
        found = codecs.lookup(name)
        "".encode(name)  # fails with what makes bytes of bytes, such as zip
    except (LookupError, UnicodeError):
        return False
    return found.name not in _NO_CHARSETS


def _parsed(text: str, base: str) -> Any:
    # With a declaration of our own on a line of its own, feedparser has no encoding to guess.
    text = re.sub(r"^<\?xml\s[^>]*>", "", text.lstrip("\ufeff").lstrip(), count=1)
    text = _REFERENCE.sub(_character, _PEOPLE.sub(r"\1x-", text))
    declaration = "<?xml version='1.0' encoding='utf-8'?>\n"
    return feedparser.parse(
        io.BytesIO((declaration + text.lstrip()).encode("utf-8", "replace")),
        response_headers={
            "content-type": "application/xml; charset=utf-8",
            "content-location": base,
        },
        resolve_relative_uris=False,
        sanitize_html=False,
    )


def _character(reference: re.Match[str]) -> str:
    """The reference where it is of a character, for feedparser fails at any other."""
    digits, base = (reference[1], 16) if reference[1] else (reference[2], 10)
    code = int(digits.lstrip("0")[:8] or "0", base)
    is_character = code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF and code != 0
    return reference[0] if is_character else "\ufffd"


def _entry(feed: Feed, told: Any, now: datetime) -> NewsEntry:
    title, link = str(told.get("title") or ""), str(told.get("link") or "")
    texts = (told.get("summary"), *(part.get("value") for part in told.get("content", ())))
    # dict's own get, because feedparser's takes one time for the other and warns of it.
    times = [
        publication_time(str(dict.get(told, name) or ""), dict.get(told, f"{name}_parsed"), now)
        for name in ("published", "updated")
    ]
    published_at = next(filter(None, times), None)
    made_id = hashlib.sha256(f"{title}\x1f{published_at}".encode("utf-8", "replace")).hexdigest()
    return NewsEntry(
        feed=feed.name,
        entry_id=str(told.get("id") or link or made_id)[:MAX_ID],
        title=title[:MAX_TITLE],
        summary=str(next(filter(None, texts), ""))[:MAX_SUMMARY],
        link=link if len(link) <= MAX_LINK else "",
        published_at=published_at,
        tickers=(feed.ticker,) if feed.ticker else (),
    )


def _order(entry: NewsEntry) -> tuple[bool, datetime, str, str]:
    at = entry.published_at or datetime.max.replace(tzinfo=UTC)
    return entry.published_at is None, at, entry.feed, entry.entry_id


def _conditions(state: FeedState) -> dict[str, str]:
    told = {"If-None-Match": state.etag, "If-Modified-Since": state.last_modified}
    return {name: value for name, value in told.items() if value}


def _validator(response: httpx.Response, name: str) -> str:
    """A validator that can be sent back as it is, else none."""
    value = response.headers.get(name, "")
    is_usable = value.isascii() and value.isprintable() and len(value) <= MAX_VALIDATOR
    return value if is_usable else ""


def _retry_after(response: httpx.Response, now: datetime) -> float | None:
    """How many seconds the server asks to wait, where it is busy and says so."""
    value: str = response.headers.get("retry-after", "").strip()
    if response.status_code not in (429, 503) or not value:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        at: datetime = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    seconds = (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds()
    return max(0.0, seconds)


def _answer(feed: Feed, asked: Future[FetchedNews] | None) -> FetchedNews:
    if asked is None:
        return FetchedNews([], [FeedOutcome(feed.name, FeedStatus.BACKING_OFF)])
    if asked.cancelled() or not asked.done():
        return _failed(feed, "no answer in time")
    return asked.result()


def _ok(feed: Feed, response: httpx.Response, entries: int) -> FeedOutcome:
    return FeedOutcome(
        feed.name,
        FeedStatus.OK,
        entries=entries,
        bytes=response.num_bytes_downloaded,
        etag=_validator(response, "etag"),
        last_modified=_validator(response, "last-modified"),
    )


def _not_modified(state: FeedState) -> FeedOutcome:
    return FeedOutcome(
        state.feed,
        FeedStatus.NOT_MODIFIED,
        etag=state.etag,
        last_modified=state.last_modified,
    )


def _failed(feed: Feed, reason: str, retry_after: float | None = None) -> FetchedNews:
    outcome = FeedOutcome(
        feed.name, FeedStatus.FAILED, reason=reason, retry_after_seconds=retry_after
    )
    return FetchedNews([], [outcome])


def _reason(error: Exception) -> str:
    """What happened, in one line; only texts that cannot hold a URL are passed on."""
    match error:
        case Refused() | httpcore.ConnectError():
            return " ".join(str(error).split())[:200] or "no connection"
        case httpcore.TimeoutException():
            return "no answer in time"
        case httpcore.NetworkError() | httpcore.ProtocolError() | httpx.HTTPError():
            return "the answer is broken"
        case httpx.InvalidURL():
            return "the URL cannot be used"
    return f"failed with {type(error).__name__}"
