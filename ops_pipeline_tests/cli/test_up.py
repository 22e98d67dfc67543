import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import psycopg
import pytest

from ops_pipeline.domain.stages import DATA_STAGES
from ops_pipeline.local.ports import free_port
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.local.processes import wait_until

pytestmark = pytest.mark.timeout(280)


class Installation:
    """A var folder and a port of its own, driven by the installed command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.sandbox_port = free_port()

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ops_pipeline", *words]
        environment = {
            **os.environ,
            "OPS_VAR_DIR": str(self.folder),
            "OPS_SANDBOX_PORT": str(self.sandbox_port),
            "COLUMNS": "160",
        }
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=200, check=False
        )

    def up(self, *words: str) -> str:
        done = self.run("up", "--port", str(self.port), *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pids(self) -> list[int]:
        records = (self.folder / "replay" / "run").glob("*.json")
        return [json.loads(record.read_text())["pid"] for record in records]

    def ask(self, query: str, **headers: str) -> Any:
        body = json.dumps({"query": query}).encode()
        address = f"http://127.0.0.1:{self.port}/graphql"
        token = (self.folder / "token").read_text()
        known = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        request = Request(address, body, {**known, **headers})
        with urlopen(request, timeout=20) as answer:
            return json.load(answer)["data"]


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path / "var")
    yield made
    made.run("down")
    EmbeddedServer.in_folder(made.folder).remove()


def family_of(installation: Installation) -> set[psutil.Process]:
    """What was started, and all that came of it."""
    family = {psutil.Process(pid) for pid in installation.pids() if psutil.pid_exists(pid)}
    return family | {child for process in family for child in process.children(recursive=True)}


def keeper_of(installation: Installation) -> psutil.Process:
    record = installation.folder / "replay" / "run" / "keeper.json"
    return psutil.Process(json.loads(record.read_text())["pid"])


def assets(installation: Installation) -> set[str]:
    nodes = installation.ask("{assetNodes{assetKey{path}}}")["assetNodes"]
    return {node["assetKey"]["path"][-1] for node in nodes}


def forks(installation: Installation) -> int:
    found = 0
    for process in family_of(installation):
        with contextlib.suppress(psutil.Error):
            found += "ops_pipeline.engine.forks" in process.cmdline()
    return found


def stage_assets_are_there(installation: Installation) -> bool:
    stages = {stage.name for stage in DATA_STAGES} | {"executions"}
    try:
        return stages < assets(installation)
    except (OSError, KeyError):
        return False


def test_what_is_killed_comes_back_by_itself_and_down_leaves_nothing(
    installation: Installation,
) -> None:
    installation.up()
    assert installation.run("service", "disable", "dispatcher").returncode == 0
    server = EmbeddedServer.in_folder(installation.folder)
    postgres = server.pid()
    family = family_of(installation) - {keeper_of(installation)}
    for process in [*family, psutil.Process(postgres)]:
        os.kill(process.pid, signal.SIGKILL)

    wait_until(lambda: server.pid() not in (None, postgres), 60, "PostgreSQL did not come back")
    wait_until(lambda: stage_assets_are_there(installation), 60, "the UI did not come back")
    switches = json.loads(installation.run("service", "list", "--json").stdout)
    assert [s["is_enabled"] for s in switches if s["stage"]["name"] == "dispatch"] == [False]
    # Nothing was launched yet, and what runs are forked from is there.
    wait_until(lambda: forks(installation) == 1, 30, "the fork server did not come up")

    running = family_of(installation)
    assert installation.run("down").returncode == 0
    assert [p for p in running if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert "does not run: keeper, code, daemon, web, postgres" in installation.run("status").stdout


def test_what_a_killed_keeper_left_is_replaced_by_the_next_up(installation: Installation) -> None:
    installation.up()
    before = family_of(installation)
    keeper = keeper_of(installation)
    keeper.kill()
    psutil.wait_procs([keeper], timeout=10)
    installation.up()
    left = [p for p in before if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert left == []
    assert stage_assets_are_there(installation)


def test_a_page_of_another_origin_can_launch_nothing(installation: Installation) -> None:
    installation.up()
    launch = (
        'mutation{launchRun(executionParams:{selector:{repositoryLocationName:"ops_pipeline",'
        'repositoryName:"__repository__",jobName:"dispatch_job"},runConfigData:{}}){__typename}}'
    )
    with pytest.raises(HTTPError, match="403"):
        installation.ask(launch, Origin="https://elsewhere.example")
    assert installation.ask("{runsOrError{... on Runs{results{runId}}}}")["runsOrError"] == {
        "results": []
    }
    own = installation.ask(launch, Origin=f"http://127.0.0.1:{installation.port}")
    assert own["launchRun"]["__typename"] == "LaunchRunSuccess"


@pytest.fixture
def open_folder() -> Iterator[Installation]:
    """An installation whose folder every account may enter, and whose files were open before."""
    parent = Path(tempfile.mkdtemp(prefix="ops-open-"))
    parent.chmod(0o755)
    made = Installation(parent / "var")
    (made.folder / "sandbox" / "logs").mkdir(parents=True)
    (made.folder / "sandbox" / "logs" / "web.log").write_text("what it said before")
    for path in (made.folder, *made.folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield made
    made.run("down")
    EmbeddedServer.in_folder(made.folder).remove()
    shutil.rmtree(parent)


def as_nobody(attempt: Callable[[], object]) -> object:
    """What an attempt of an account without rights came to; an error is its name."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            found = attempt()
        except HTTPError as error:
            found = error.code
        except BaseException as error:  # noqa: BLE001 - the parent judges
            found = f"{type(error).__name__}: {error}"
        os.write(writing, json.dumps(found).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        found = json.load(answer)
    os.waitpid(child, 0)
    return found


def readable(folder: Path) -> list[str]:
    """The files and sockets below a folder that this account can open."""
    paths = (Path(top) / name for top, _, names in os.walk(folder) for name in names)
    return [str(path) for path in paths if os.access(path, os.R_OK) or os.access(path, os.W_OK)]


def fetch(address: str, body: str = "", **headers: str) -> int:
    known = {"Content-Type": "application/json", **headers}
    with urlopen(Request(address, body.encode() or None, known), timeout=20) as answer:
        return int(answer.status)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another account")
def test_another_account_reads_and_drives_nothing(open_folder: Installation) -> None:
    told = open_folder.up("--mode", "sandbox")
    token = (open_folder.folder / "token").read_text()
    ui, control = f"http://127.0.0.1:{open_folder.port}", open_folder.sandbox_port
    assert f"{ui}/?token={token}" in told
    assert as_nobody(lambda: readable(open_folder.folder)) == []

    kept = json.loads((open_folder.folder / "postgres" / "connection.json").read_text())
    at = {"host": kept["host"], "port": kept["port"], "dbname": "ops_pipeline_sandbox"}
    for user in ("ops_pipeline", "ops_pipeline_runtime", "ops_pipeline_reader", "postgres"):
        said = as_nobody(partial(psycopg.connect, **at, user=user, connect_timeout=5))
        assert "no password supplied" in str(said)

    stop = '{"query": "mutation{stopRunningSchedule(id:\\"x\\"){__typename}}"}'
    assert as_nobody(lambda: fetch(f"{ui}/graphql", stop)) == 401
    assert as_nobody(lambda: fetch(f"{ui}/")) == 401
    assert as_nobody(lambda: fetch(f"{ui}/?token=guess")) == 401
    faults = f"http://127.0.0.1:{control}/control/faults"
    assert as_nobody(lambda: fetch(faults, '{"rules": []}')) == 401
    assert fetch(faults, '{"rules": []}', Authorization=f"Bearer {token}") == 200

    def ask_code_server() -> None:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(open_folder.folder / "sandbox" / "run" / "code.sock"))

    assert "PermissionError" in str(as_nobody(ask_code_server))
    commands = [
        " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
    ]
    logs = [path.read_text() for path in (open_folder.folder / "sandbox" / "logs").iterdir()]
    passwords = [
        kept["password"],
        json.loads((open_folder.folder / "postgres" / "runtime.json").read_text())["password"],
    ]
    for secret in (token, *passwords):
        assert not any(secret in text for text in (*commands, *logs))

    assert open_folder.run("ui", "--rotate").stdout.strip() != f"{ui}/?token={token}"
    with pytest.raises(HTTPError, match="401"):
        fetch(f"{ui}/server_info", Authorization=f"Bearer {token}")
