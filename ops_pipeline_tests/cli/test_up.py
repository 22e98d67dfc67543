import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
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

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ops_pipeline", *words]
        environment = {**os.environ, "OPS_VAR_DIR": str(self.folder), "COLUMNS": "160"}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=200, check=False
        )

    def up(self) -> None:
        done = self.run("up", "--port", str(self.port))
        assert done.returncode == 0, done.stderr

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
    assert installation.run("status").returncode == 3


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
