"""Keeps other web pages away from a server that does what any request says."""

from collections.abc import Collection, Sequence
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ops_pipeline.engine.login import POLICY_VIOLATION

LOOPBACK = ("127.0.0.1", "localhost", "::1")
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST"})
READING = frozenset({"GET", "HEAD"})
NOT_PAGES = frozenset({"graphql", "logs", "notebook", "download_debug"})
REPORTING = "report_asset_"
DECODINGS = 4
RESPONSE_HEADERS = {"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff"}


class RefusedError(Exception):
    """The request must not reach the web server."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class Guard:
    """Lets through what a person in front of this web server does, and nothing else.

    A server behind it does what any request says, so a page of another site could start runs on
    it, with the cookie of whoever looks at that page. The guard asks of each request which host it
    was meant for, which page sent it, and that it changes things only in a form that a browser does
    not send across sites.
    """

    def __init__(
        self, app: ASGIApp, allowed_hosts: Collection[str], methods: Collection[str] = METHODS
    ) -> None:
        self._app = app
        self._methods = methods
        self._hosts = frozenset(host.lower() for host in allowed_hosts)
        # A page of https at the very same host and port is this server behind its proxy.
        self._origins = frozenset(
            f"{scheme}://{host}" for host in self._hosts for scheme in ("http", "https")
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] == "http":
            await self._http(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        segments = path_segments(scope["path"])
        try:
            self._check_host(headers)
            self._check_origin(headers)
            if not _is_page_visit(scope["method"], headers, segments):
                _check_fetch_site(headers)
            self._check_method(scope["method"])
            _check_form(scope["method"], headers, segments)
            _check_query(scope, segments)
        except RefusedError as refused:
            response = PlainTextResponse(refused.sentence, refused.status)
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        try:
            self._check_host(headers)
            self._check_origin(headers)
            _check_fetch_site(headers)
            _check_sender_is_known(headers)
        except RefusedError as refused:
            await receive()
            await send(
                {"type": "websocket.close", "code": POLICY_VIOLATION, "reason": refused.sentence}
            )
        else:
            await self._app(scope, receive, send)

    def _check_host(self, headers: Headers) -> None:
        if _only(headers, "host") not in self._hosts:
            raise RefusedError(421, "This server does not answer for that host name.")

    def _check_method(self, method: str) -> None:
        if method not in self._methods:
            known = ", ".join(sorted(self._methods))
            raise RefusedError(405, f"This server knows {known} only.")

    def _check_origin(self, headers: Headers) -> None:
        origin = _only(headers, "origin")
        if origin is not None and origin not in self._origins:
            raise RefusedError(403, "Pages of other sites may not use this server.")


def path_segments(path: str) -> tuple[str, ...]:
    """The parts of a path as the most lenient router could read it: decoded, in lower case."""
    for _ in range(DECODINGS):
        path = unquote(path)
    parts = (part.strip().lower() for part in path.replace("\\", "/").split("/"))
    return tuple(part for part in parts if part not in ("", "."))


def _only(headers: Headers, name: str) -> str | None:
    values = headers.getlist(name)
    if len(values) > 1:
        raise RefusedError(400, f"The header {name} came twice.")
    return values[0].strip().lower() if values else None


def _is_page_visit(method: str, headers: Headers, segments: Sequence[str]) -> bool:
    """Whether somebody followed a link of another site to a page that is only shown."""
    return (
        method == "GET"
        and _only(headers, "sec-fetch-mode") == "navigate"
        and _only(headers, "sec-fetch-dest") == "document"
        and not any(part in NOT_PAGES or part.startswith(REPORTING) for part in segments)
    )


def _check_fetch_site(headers: Headers) -> None:
    if _only(headers, "sec-fetch-site") not in (None, "same-origin", "none"):
        raise RefusedError(403, "Pages of other sites may not use this server.")


def _check_sender_is_known(headers: Headers) -> None:
    is_browser = any(name.startswith("sec-fetch-") for name in headers)
    if is_browser and "origin" not in headers:
        raise RefusedError(403, "A browser has to say which page opens the connection.")


def _check_form(method: str, headers: Headers, segments: Sequence[str]) -> None:
    if method == "POST":
        # A browser sends JSON to another site only if that site agrees, and this one never does.
        media_type = (_only(headers, "content-type") or "").partition(";")[0].strip()
        if media_type != "application/json":
            raise RefusedError(415, "What is posted here has to be application/json.")
    elif any(part.startswith(REPORTING) for part in segments):
        raise RefusedError(405, "Events are reported by POST only.")


def _check_query(scope: Scope, segments: Sequence[str]) -> None:
    if scope["method"] in READING and "graphql" in segments and scope["query_string"]:
        raise RefusedError(405, "GraphQL is asked by POST only.")


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(RESPONSE_HEADERS)
        await send(message)

    return wrapped


def allowed_hosts(port: int, extra: str | None = None) -> list[str]:
    """The Host headers of a server at this port: the loopback names, and the one given."""
    names = [f"[{name}]" if ":" in name else name for name in LOOPBACK]
    return [f"{name}:{port}" for name in names] + ([extra] if extra else [])
