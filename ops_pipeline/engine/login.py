"""Lets in who knows this installation's token: by a link once, then by a cookie, or by a header."""

import hmac
import os
import secrets
import tempfile
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

TOKEN_BYTES = 32
COOKIE_SECONDS = 30 * 24 * 3600
POLICY_VIOLATION = 1008
# A page of another site that leads here brings no cookie along; the link on this page does.
PAGE = """<!doctype html><title>ops-pipeline</title>
<p>This page needs the link of this installation. Print it with: <code>ops-pipeline ui</code></p>
<p>You have opened it before? <a href="">Go on to this page</a></p>
"""


class Login:
    """Ask each request for the token in a file, whoever else has an account on this machine.

    The file is read each time: one that was replaced or deleted ends all earlier links and cookies.
    """

    def __init__(self, app: ASGIApp, token_file: Path, port: int) -> None:
        self._app = app
        self._file = token_file
        # Cookies know hosts and no ports: two servers of one machine have a name each.
        self._cookie = f"ops_pipeline_{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        asked, token = HTTPConnection(scope), token_in(self._file)
        if self._is_known(asked, token):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        elif scope["method"] == "GET" and _same(asked.query_params.get("token", ""), token):
            await self._welcome(scope, token)(scope, receive, send)
        else:
            headers = {"WWW-Authenticate": "Bearer", "Cache-Control": "no-store"}
            await HTMLResponse(PAGE, 401, headers)(scope, receive, send)

    def _is_known(self, asked: HTTPConnection, token: str) -> bool:
        given = asked.headers.get("authorization", "")
        cookie = asked.cookies.get(self._cookie, "")
        return _same(given, _bearer(token)) or _same(cookie, _cookie_of(token))

    def _welcome(self, scope: Scope, token: str) -> Response:
        """Set the cookie, and lead to the same page without the token in its address."""
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        query = urlencode([pair for pair in pairs if pair[0] != "token"])
        # Two slashes would lead to another host.
        path = "/" + quote(scope["path"].lstrip("/\\"))
        headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        answer = RedirectResponse(f"{path}?{query}" if query else path, 303, headers)
        answer.set_cookie(
            self._cookie,
            _cookie_of(token),
            max_age=COOKIE_SECONDS,
            httponly=True,
            samesite="strict",
        )
        return answer


def token_in(path: Path) -> str:
    """Return the token in a file, which is made if there is none (0600)."""
    while not (token := _read(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(TOKEN_BYTES))
        # The first of two that make one at once wins; an empty file is what a full disk left.
        if path.exists() and not _read(path):
            path.unlink(missing_ok=True)
        try:
            os.link(draft, path)
        except FileExistsError:
            continue
        finally:
            Path(draft).unlink()
    return token


def headers_for(token_file: Path) -> dict[str, str]:
    """Return the headers of a request that needs no link."""
    return {"Authorization": _bearer(token_in(token_file))}


def link_to(port: int, token_file: Path) -> str:
    """Return the address that opens the UI in a browser."""
    return f"http://127.0.0.1:{port}/?token={token_in(token_file)}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())


def _bearer(token: str) -> str:
    return f"Bearer {token}"


def _cookie_of(token: str) -> str:
    return hmac.digest(token.encode(), b"cookie", "sha256").hex()
