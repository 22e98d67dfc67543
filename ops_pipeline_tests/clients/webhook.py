"""A webhook as a test wants it: it takes messages, refuses them, or never answers."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Webhook:
    """What it was sent; `answer` is its status, 0 where it does not answer."""

    port: int = 0
    answer: int = 200
    taken: list[dict[str, Any]] = field(default_factory=list)
    pings: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        """As apprise reads it; the path stands for a token."""
        return f"json://127.0.0.1:{self.port}/hooks/secret-token-1234"

    @property
    def titles(self) -> list[str]:
        """What it took, in order."""
        return [each["title"] for each in self.taken]


@contextmanager
def opened(port: int = 0) -> Iterator[Webhook]:
    """A webhook on a port of this machine, until the end."""
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if hook.answer == 200:
                hook.taken.append(body)
            self._answer()

        def do_GET(self) -> None:
            hook.pings.append(self.path)
            self._answer()

        def _answer(self) -> None:
            if not hook.answer:
                hook.ended.wait(30)
                return
            self.send_response(hook.answer)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Tell nobody."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    hook.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hook
    finally:
        hook.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
