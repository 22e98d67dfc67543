import asyncio
import stat
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import pytest
from starlette.types import Message, Receive, Scope, Send

from ops_pipeline.engine import guard, login, web

HOST = "127.0.0.1:3000"
ORIGIN = f"http://{HOST}"
JSON = ("content-type", "application/json")
MUTATION = "query=mutation{launchRun}"
Header = tuple[str, str]


@dataclass
class Reached:
    """An application that says yes to everything and remembers who came."""

    scopes: list[Scope] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say yes."""
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        if scope["type"] == "http":
            headers = [(b"x-frame-options", b"SAMEORIGIN")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"yes"})


def call(scope: Scope, *headers: Header, host: str | None = HOST) -> tuple[list[Message], bool]:
    app, sent = Reached(), []
    named = ([("host", host)] if host else []) + list(headers)
    scope["headers"] = [(name.encode(), value.encode()) for name, value in named]

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    guarded = guard.Guard(app, guard.allowed_hosts(3000, "ops.example.com"))
    asyncio.run(guarded(scope, receive, send))
    return sent, bool(app.scopes)


def ask(method: str, target: str, *headers: Header, host: str | None = HOST) -> int:
    """The status of the answer; 200 only if the application was reached."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": unquote(path),
        "query_string": query.encode(),
    }
    sent, reached = call(scope, *headers, host=host)
    status = sent[0]["status"]
    assert reached is (status == 200)
    return status


def get(target: str, *headers: Header, host: str | None = HOST) -> int:
    return ask("GET", target, *headers, host=host)


def post(*headers: Header, target: str = "/graphql", host: str | None = HOST) -> int:
    return ask("POST", target, *headers, host=host)


def upgrade(*headers: Header, host: str = HOST) -> bool:
    """Whether the connection was opened."""
    scope = {"type": "websocket", "path": "/graphql", "query_string": b""}
    sent, reached = call(scope, *headers, host=host)
    assert reached is (sent[0]["type"] == "websocket.accept")
    return reached


@pytest.mark.parametrize("host", [HOST, "localhost:3000", "LocalHost:3000", "[::1]:3000"])
def test_loopback_names_are_answered(host: str) -> None:
    assert get("/runs", host=host) == 200


@pytest.mark.parametrize(
    "host", [None, "", "127.0.0.1", "127.0.0.1:3001", "evil.example:3000", "127.0.0.1:3000.evil"]
)
def test_other_host_names_are_refused(host: str | None) -> None:
    assert get("/", host=host) == 421


def test_host_of_the_proxy_is_answered_with_its_https_origin() -> None:
    headers = ("origin", "https://ops.example.com"), JSON
    assert post(*headers, host="ops.example.com") == 200


@pytest.mark.parametrize("name", ["host", "origin", "sec-fetch-site", "content-type"])
def test_header_that_comes_twice_is_refused(name: str) -> None:
    once = {
        "host": HOST,
        "origin": ORIGIN,
        "sec-fetch-site": "same-origin",
        "content-type": "application/json",
    }
    headers = [(key, value) for key, value in once.items() if key != "host"]
    assert post(*headers) == 200
    assert post(*headers, (name, once[name])) == 400


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "",
        "http://127.0.0.1:8080",
        "http://127.0.0.1",
        "http://localhost:3000.evil.example",
        "ftp://127.0.0.1:3000",
    ],
)
def test_pages_of_other_origins_get_nothing(origin: str) -> None:
    assert get("/", ("origin", origin)) == 403
    assert post(("origin", origin), JSON) == 403


@pytest.mark.parametrize("origin", [ORIGIN, "http://localhost:3000", "HTTP://LOCALHOST:3000"])
def test_the_servers_own_page_may_post(origin: str) -> None:
    assert post(("origin", origin), ("sec-fetch-site", "same-origin"), JSON) == 200


def test_program_without_an_origin_may_post() -> None:
    assert post(JSON) == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "something-new"])
def test_browser_that_names_another_site_gets_nothing(site: str) -> None:
    assert get("/asset", ("sec-fetch-site", site)) == 403
    assert post(("sec-fetch-site", site), JSON) == 403


def test_typed_address_is_answered() -> None:
    assert get("/", ("sec-fetch-site", "none")) == 200


LINK = [
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
]


def test_link_of_another_site_may_show_a_page() -> None:
    assert get("/runs/1", *LINK) == 200


@pytest.mark.parametrize(
    "target",
    ["/graphql", "/logs/a/b/out", "/notebook", "/download_debug/1", "/report_asset_check/bars"],
)
def test_link_of_another_site_reaches_pages_only(target: str) -> None:
    assert get(target, *LINK) == 403


def test_frame_or_form_of_another_site_is_no_link() -> None:
    assert get("/runs/1", *LINK[:2], ("sec-fetch-dest", "iframe")) == 403
    assert post(*LINK, JSON) == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "get"])
def test_other_methods_are_refused(method: str) -> None:
    assert ask(method, "/", JSON) == 405


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "path",
    [
        "/graphql",
        "/graphql/",
        "//graphql",
        "/GraphQL",
        "/%67raphql",
        "/%2567raphql",
        "/./graphql",
        "/x/../graphql",
        "/prefix/graphql",
        "/graphql/x",
        "\\graphql",
        "/graphql%20",
    ],
)
def test_graphql_is_not_asked_by_reading(method: str, path: str) -> None:
    assert ask(method, f"{path}?{MUTATION}") == 405
    assert ask(method, f"{path}?op=x&%71uery={MUTATION}", ("accept", "text/html")) == 405


def test_playground_without_a_query_is_shown() -> None:
    assert get("/graphql", ("accept", "text/html")) == 200


def test_pages_may_have_a_query() -> None:
    assert get("/runs?query=mutation") == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/graphql",
        "text/plain; application/json",
        "application/jsonx",
        "",
    ],
)
@pytest.mark.parametrize("target", ["/graphql", "/report_asset_materialization/bars", "/anything"])
def test_only_json_is_posted(content_type: str, target: str) -> None:
    assert post(("content-type", content_type), target=target) == 415


def test_post_without_a_content_type_is_refused() -> None:
    assert post(target=f"/graphql?{MUTATION}") == 415


def test_json_may_name_its_charset() -> None:
    assert post(("content-type", "Application/JSON; charset=utf-8")) == 200


@pytest.mark.parametrize("kind", ["materialization", "check", "observation"])
def test_events_are_reported_by_post_only(kind: str) -> None:
    target = f"/report_asset_{kind}/bars"
    assert get(f"{target}?passed=true") == ask("HEAD", target) == ask("OPTIONS", target) == 405
    assert post(JSON, target=target) == 200


def test_websocket_of_the_own_page_and_of_a_program_opens() -> None:
    assert upgrade(("origin", ORIGIN), ("sec-fetch-site", "same-origin"))
    assert upgrade()


def test_websocket_of_others_stays_shut() -> None:
    assert not upgrade(("origin", "http://evil.example"))
    assert not upgrade(("origin", "null"))
    assert not upgrade(("origin", ORIGIN), ("origin", ORIGIN))
    assert not upgrade(("origin", ORIGIN), ("sec-fetch-site", "cross-site"))
    assert not upgrade(("origin", ORIGIN), host="evil.example:3000")


def test_websocket_of_a_browser_has_to_name_its_page() -> None:
    assert not upgrade(("sec-fetch-mode", "websocket"))


@pytest.mark.parametrize(("host", "status"), [(HOST, 200), ("evil.example", 421)])
def test_every_answer_forbids_frames_and_guessed_types(host: str, status: int) -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b""}
    sent, _ = call(scope, host=host)
    assert sent[0]["status"] == status
    headers = dict(sent[0]["headers"])
    assert headers[b"x-frame-options"] == b"DENY"
    assert headers[b"x-content-type-options"] == b"nosniff"


def test_refusal_is_one_plain_sentence() -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b""}
    sent, _ = call(scope, host="evil.example")
    assert sent[1]["body"] == b"This server does not answer for that host name."
    assert dict(sent[0]["headers"])[b"content-type"].startswith(b"text/plain")


def test_lifespan_passes() -> None:
    _, reached = call({"type": "lifespan"})
    assert reached


@pytest.mark.parametrize("host", ["", "::", "192.168.1.5", "127.0.0.1.evil.example"])
def test_address_that_others_can_reach_ends_with_exit_code_6(
    host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert web.main(["--port", "3000", "--host", host, "--token-file", "unused"]) == 6
    assert "has no TLS" in capsys.readouterr().err


TOKEN = "t0ken"
COOKIE = "ops_pipeline_3000"


def knock(
    target: str, *headers: Header, kind: str = "http", method: str = "GET", file: Path
) -> tuple[Message, bool]:
    """The first message of the answer, and whether the application was reached."""
    path, _, query = target.partition("?")
    scope = {
        "type": kind,
        "method": method,
        "path": unquote(path),
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    app, sent = Reached(), []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(login.Login(app, file, 3000)(scope, receive, send))
    return sent[0], bool(app.scopes)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    return path


def cookie_of(first: Message) -> str:
    return dict(first["headers"])[b"set-cookie"].decode().partition(";")[0]


@pytest.mark.parametrize(
    ("target", "headers", "method"),
    [
        ("/", [], "GET"),
        ("/graphql", [JSON], "POST"),
        ("/?token=", [], "GET"),
        ("/?token=other", [], "GET"),
        ("/?token=t0ke", [], "GET"),
        ("/graphql?token=t0ken", [JSON], "POST"),
        ("/", [("authorization", "Bearer ")], "GET"),
        ("/", [("authorization", "Bearer other")], "GET"),
        ("/", [("authorization", "t0ken")], "GET"),
        ("/", [("authorization", "Basic t0ken")], "GET"),
        ("/", [("cookie", f"{COOKIE}=t0ken")], "GET"),
        ("/", [("cookie", f"{COOKIE}=")], "GET"),
        ("/", [("cookie", "\u00e9=\u00e9")], "GET"),
    ],
)
def test_nobody_enters_without_the_token(
    token_file: Path, target: str, headers: list[Header], method: str
) -> None:
    first, reached = knock(target, *headers, method=method, file=token_file)
    assert (first["status"], reached) == (401, False)
    assert TOKEN not in str(first)


def test_a_connection_without_the_token_is_closed(token_file: Path) -> None:
    first, reached = knock("/graphql?token=t0ken", kind="websocket", file=token_file)
    assert (first["type"], reached) == ("websocket.close", False)


@pytest.mark.parametrize(
    ("target", "leads_to"),
    [
        ("/?token=t0ken", "/"),
        ("/runs/a%20b?x=1&token=t0ken&y=%26", "/runs/a%20b?x=1&y=%26"),
        ("//evil.example/?token=t0ken", "/evil.example/"),
    ],
)
def test_the_link_gives_a_cookie_and_leaves_the_address(
    token_file: Path, target: str, leads_to: str
) -> None:
    first, reached = knock(target, file=token_file)
    headers = dict(first["headers"])
    assert (first["status"], reached) == (303, False)
    assert headers[b"location"].decode() == leads_to
    assert {b"HttpOnly", b"SameSite=strict"} <= set(headers[b"set-cookie"].split(b"; "))
    assert TOKEN not in headers[b"set-cookie"].decode()
    for kind in ("http", "websocket"):
        cookie = ("cookie", cookie_of(first))
        assert knock("/graphql", cookie, kind=kind, file=token_file)[1]


def test_a_token_is_made_once_for_its_owner_and_a_new_one_ends_the_old(tmp_path: Path) -> None:
    path = tmp_path / "below" / "token"
    first = login.headers_for(path)
    assert login.headers_for(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text()) >= 40
    cookie = cookie_of(knock(f"/?token={path.read_text()}", file=path)[0])
    path.unlink()
    for header in (("authorization", first["Authorization"]), ("cookie", cookie)):
        assert not knock("/", header, file=path)[1]
    assert knock("/", ("authorization", login.headers_for(path)["Authorization"]), file=path)[1]


def test_an_empty_token_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("")
    assert not knock("/?token=", ("authorization", "Bearer "), file=path)[1]
    assert path.read_text()
