"""A web server on a port of its own whose pages a test writes, and which counts what it sent."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ops_pipeline.clients.rss import RssFeeds
from ops_pipeline.domain.values import Feed

NOW = datetime(2026, 3, 2, 15, 0, tzinfo=UTC)
ITEM = (
    "<item><title>Story {0}</title><link>https://news.example/{0}</link>"
    "<guid isPermaLink='false'>{0}</guid>"
    "<pubDate>Mon, 02 Mar 2026 14:00:00 GMT</pubDate></item>"
)


def a_feed(*, items: int = 2) -> bytes:
    """A small feed."""
    return rss("".join(ITEM.format(number) for number in range(items)))


def rss(text: str) -> bytes:
    """A feed with this text in its channel."""
    return f"<rss version='2.0'><channel><title>Wire</title>{text}</channel></rss>".encode()


@dataclass
class Page:
    """What one path answers; a body may be made piece by piece, without an end."""

    body: bytes | Callable[[], Iterator[bytes]] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class FeedServer(ThreadingHTTPServer):
    """Serves pages by path; knows who asked for what, and how many bytes of body left."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages = dict[str, Page]()
        self.requests = list[tuple[str, Message]]()
        self.sent = Counter[str]()
        self.is_over = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"

    def feed(self, path: str, page: Page | bytes, ticker: str | None = None) -> Feed:
        """A feed at this path; its name is the path."""
        self.pages[path] = page if isinstance(page, Page) else Page(page)
        return Feed(path, self.url(path), ticker)


class _Handler(BaseHTTPRequestHandler):
    server: FeedServer

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers))
        page = self.server.pages[self.path]
        etag = page.headers.get("ETag")
        is_known = etag is not None and self.headers.get("If-None-Match") == etag
        self.send_response(304 if is_known else page.status)
        for name, value in page.headers.items():
            self.send_header(name, value)
        if isinstance(page.body, bytes) and not is_known:
            self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        if not is_known:
            self._send(iter([page.body]) if isinstance(page.body, bytes) else page.body())

    def _send(self, pieces: Iterator[bytes]) -> None:
        try:
            for piece in pieces:
                if self.server.is_over.is_set():
                    return
                self.wfile.write(piece)
                self.server.sent[self.path] += len(piece)
        except OSError:
            return

    def log_message(self, *args: object) -> None:
        """Stays silent."""


@contextmanager
def serving() -> Iterator[FeedServer]:
    """A running server."""
    server = FeedServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.is_over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def following(*feeds: Feed, contact: str = "", deadline_seconds: float = 20.0) -> RssFeeds:
    """A source of these feeds that may ask this machine."""
    return RssFeeds(
        feeds,
        lambda: NOW,
        user_agent="ops-pipeline/1",
        contact=contact,
        allows_private=True,
        deadline_seconds=deadline_seconds,
    )
