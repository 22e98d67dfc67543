"""An Alpaca on loopback that says what a test tells it to, and time that only sleeping moves."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ops_pipeline.clients.alpaca_http import Patience, RateBudget
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.values import Bar
from ops_pipeline_tests.builders import NOON


@dataclass(frozen=True)
class Asked:
    """A request as it came in."""

    method: str
    target: str
    headers: Mapping[str, str]

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))

    @property
    def symbols(self) -> list[str]:
        return self.query["symbols"].split(",")


@dataclass(frozen=True)
class Answer:
    """A status and a body: text or bytes as they stand, all else as JSON."""

    body: Any = field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    is_cut_off: bool = False

    @property
    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


HANG, DROP = Answer(), Answer()
Script = Callable[[Asked], Answer]


@dataclass
class Stub:
    """Where the stub answers, and what it was asked."""

    url: str
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def serving(*script: Answer | Script) -> Iterator[Stub]:
    """A server that gives these answers in turn, and the last of them again and again."""
    is_over = Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Otherwise header and body wait for each other for 40 ms.
        wbufsize = -1
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = Asked(self.command, self.path, dict(self.headers))
            stub.asked.append(asked)
            turn = script[min(len(stub.asked), len(script)) - 1]
            answer = turn if isinstance(turn, Answer) else turn(asked)
            if answer is HANG:
                is_over.wait(20)
            if answer is HANG or answer is DROP:
                self.close_connection = True
                return
            self.send(answer)

        def send(self, answer: Answer) -> None:
            length = len(answer.content) + (1 if answer.is_cut_off else 0)
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(length), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.content)
            self.close_connection = answer.is_cut_off

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    stub = Stub(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield stub
    finally:
        is_over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def row_of(bar: Bar) -> dict[str, Any]:
    """A bar as Alpaca writes it."""
    return {
        "t": f"{bar.minute:%Y-%m-%dT%H:%M:%SZ}",
        "o": bar.open,
        "h": bar.high,
        "l": bar.low,
        "c": bar.close,
        "v": bar.volume,
        "n": 42,
        "vw": bar.close,
    }


def rows(*, token: str | None = None, **tickers: Any) -> Answer:
    """One page with these rows."""
    return Answer({"bars": tickers, "next_page_token": token})


def market(bars: Sequence[Bar]) -> Script:
    """Answers as Alpaca does: start and end both included, pages by symbol and then time."""

    def answer(asked: Asked) -> Answer:
        query, symbols = asked.query, set(asked.symbols)
        start, end = (datetime.fromisoformat(query[name]) for name in ("start", "end"))
        found = [bar for bar in bars if bar.ticker in symbols and start <= bar.minute <= end]
        found.sort(key=lambda bar: (bar.ticker, bar.minute))
        first = int(query.get("page_token", 0))
        last = first + int(query.get("limit", 1000))
        page: dict[str, list[dict[str, Any]]] = {}
        for bar in found[first:last]:
            page.setdefault(bar.ticker, []).append(row_of(bar))
        token = str(last) if last < len(found) else None
        return Answer({"bars": page, "next_page_token": token})

    return answer


class Time:
    """Time that only sleeping moves; it is noon when it begins."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.passed += seconds

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.passed)

    def patience(self, **changes: Any) -> Patience:
        return Patience(monotonic=self.monotonic, sleep=self.sleep, **changes)

    def budget(self, limit: int = 200) -> RateBudget:
        return RateBudget(limit, 60.0, self.monotonic, self.sleep)

    def epoch(self, seconds: float) -> str:
        """The X-RateLimit-Reset that says so many seconds from now."""
        return str(round((self.now() + timedelta(seconds=seconds)).timestamp()))


def minutes(count: int) -> list[datetime]:
    """The last complete minutes before noon, oldest first."""
    return [NOON - back * MINUTE for back in range(count, 0, -1)]
