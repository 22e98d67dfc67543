import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from ops_pipeline_tests.engine.conftest import PROJECT

pytestmark = [pytest.mark.dagster, pytest.mark.slow]

CODE = """
import dagster as dg

@dg.op
def idle(): ...

@dg.job
def quiet():
    idle()

defs = dg.Definitions(jobs=[quiet])
"""
LAUNCH = """
mutation { launchRun(executionParams: {
  selector: {repositoryLocationName: "tiny", repositoryName: "__repository__", jobName: "quiet"}
}) { __typename } }
"""
COUNT = "{ runsOrError { ... on Runs { results { runId } } } }"
ELSEWHERE = {"Origin": "http://evil.example"}
TOKEN = "token-of-a-test"
KNOWN = {"Authorization": f"Bearer {TOKEN}"}


@dataclass(frozen=True)
class Server:
    """A running web server of a home of its own."""

    process: psutil.Popen
    url: str

    def ask(self, query: str) -> dict[str, object]:
        """The answer to a question that the server's own page asks."""
        headers = {"Origin": self.url, **KNOWN}
        answer = httpx.post(f"{self.url}/graphql", json={"query": query}, headers=headers)
        assert answer.status_code == 200
        return answer.json()["data"]

    def runs(self) -> int:
        """How many runs there are."""
        return len(self.ask(COUNT)["runsOrError"]["results"])


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/server_info", headers=KNOWN).status_code == 200
    except httpx.ConnectError:
        return False


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that several tests ask."""
    with serving(tmp_path_factory.mktemp("web")) as made:
        yield made


@contextmanager
def serving(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "tiny.py").write_text(CODE, encoding="utf-8")
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    location = {"relative_path": "tiny.py", "location_name": "tiny"}
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(json.dumps({"load_from": [{"python_file": location}]}), encoding="utf-8")
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "ops_pipeline.engine.web",
        "--port",
        str(port),
        "-w",
        workspace,
        "--token-file",
        tmp_path / "token",
    ]
    (tmp_path / "token").write_text(TOKEN)
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    process = psutil.Popen(command, cwd=tmp_path, env=environment)
    server = Server(process, f"http://127.0.0.1:{port}")
    try:
        wait_for(lambda: is_up(server.url), 60)
        yield server
    finally:
        stop(process)


def stop(process: psutil.Popen) -> None:
    """End the server and whatever it left, however the test went."""
    left = [process, *process.children(recursive=True)] if process.is_running() else []
    for one in left:
        one.kill()
    process.wait()


def test_other_sites_launch_nothing_and_the_own_page_launches_one(shared: Server) -> None:
    url = f"{shared.url}/graphql"
    body = json.dumps({"query": LAUNCH})
    as_json = {"Content-Type": "application/json"}
    with httpx.Client(headers=KNOWN) as web:
        refused = [
            web.get(url, params={"query": LAUNCH}),
            web.get(url, params={"query": LAUNCH}, headers=ELSEWHERE),
            web.get(f"{url}/", params={"query": LAUNCH}),
            web.post(url, content=body, headers={**as_json, **ELSEWHERE}),
            web.post(url, content=body, headers={**as_json, "Host": "evil.example"}),
            web.post(url, content=body, headers={"Content-Type": "text/plain"}),
            web.post(url, params={"query": LAUNCH}, data={"query": LAUNCH}),
            web.post(url, content=LAUNCH, headers={"Content-Type": "application/graphql"}),
            # Nobody without the token, however well formed.
            httpx.post(url, content=body, headers=as_json),
            httpx.post(url, content=body, headers={**as_json, "Authorization": "Bearer x"}),
            httpx.post(f"{url}?token={TOKEN}", content=body, headers=as_json),
            httpx.get(f"{shared.url}/"),
        ]
    assert all(400 <= answer.status_code < 500 for answer in refused)
    assert shared.runs() == 0
    assert shared.ask(LAUNCH) == {"launchRun": {"__typename": "LaunchRunSuccess"}}
    assert shared.runs() == 1


def test_the_page_itself_is_served_and_not_in_a_frame(shared: Server) -> None:
    with httpx.Client(follow_redirects=True) as browser:
        page = browser.get(f"{shared.url}/?token={TOKEN}", headers={"Accept": "text/html"})
        assert browser.get(f"{shared.url}/server_info").status_code == 200
    assert page.status_code == 200
    assert TOKEN not in str(page.url)
    assert "<html" in page.text
    assert page.headers["x-frame-options"] == "DENY"


def test_sigterm_ends_it_and_its_code_servers(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.runs()
        children = server.process.children(recursive=True)
        assert children
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=30) == 0
        gone, left = psutil.wait_procs(children, timeout=20)
        assert not left
        assert len(gone) == len(children)


def test_address_that_others_can_reach_needs_a_proxy(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ops_pipeline.engine.web", "--port", "1", "--host", "0.0.0.0"]  # noqa: S104
    command += ["--token-file", str(tmp_path / "token")]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert "--behind-authenticating-proxy" in done.stderr


def test_websocket_opens_for_the_own_page_only(shared: Server) -> None:
    url = shared.url.replace("http", "ws") + "/graphql"
    protocols = [Subprotocol("graphql-ws")]
    own = Origin(shared.url)
    with connect(url, origin=own, subprotocols=protocols, additional_headers=KNOWN) as opened:
        opened.send(json.dumps({"type": "connection_init"}))
        assert json.loads(opened.recv(timeout=10)) == {"type": "connection_ack"}
    with pytest.raises(InvalidStatus, match="403"):
        connect(
            url,
            origin=Origin("http://evil.example"),
            subprotocols=protocols,
            additional_headers=KNOWN,
        )
    with pytest.raises(InvalidStatus, match="403"):
        connect(url, origin=own, subprotocols=protocols)
