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
        request = Request(address, body, {"Content-Type": "application/json", **headers})
        with urlopen(request, timeout=20) as answer:
            return json.load(answer)["data"]


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path / "var")
    yield made
    made.run("down")
    EmbeddedServer.in_folder(made.folder).remove()


def family_of(installation: Installation) -> list[psutil.Process]:
    """What was started, and all that came of it."""
    family = [psutil.Process(pid) for pid in installation.pids()]
    return family + [child for process in family for child in process.children(recursive=True)]


def assets(installation: Installation) -> set[str]:
    nodes = installation.ask("{assetNodes{assetKey{path}}}")["assetNodes"]
    return {node["assetKey"]["path"][-1] for node in nodes}


def forks(installation: Installation) -> int:
    found = 0
    for process in family_of(installation):
        with contextlib.suppress(psutil.Error):
            found += "ops_pipeline.engine.forks" in process.cmdline()
    return found


def test_up_survives_kill_9_of_everything_and_down_leaves_nothing(
    installation: Installation,
) -> None:
    installation.up()
    before = installation.run("service", "disable", "dispatcher")
    assert before.returncode == 0
    postgres = EmbeddedServer.in_folder(installation.folder).pid()
    family = family_of(installation)
    for process in [*family, psutil.Process(postgres)]:
        os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(family, timeout=10)

    installation.up()
    switches = json.loads(installation.run("service", "list", "--json").stdout)
    assert [s["is_enabled"] for s in switches if s["stage"]["name"] == "dispatch"] == [False]
    stages = {stage.name for stage in DATA_STAGES} | {"executions"}
    wait_until(lambda: stages < assets(installation), 30, "the code location did not load")

    # Nothing was launched yet, and what runs are forked from is there.
    wait_until(lambda: forks(installation) == 1, 30, "the fork server did not come up")
    running = family_of(installation)
    assert installation.run("down").returncode == 0
    assert [p for p in running if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert installation.run("status").returncode == 3


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
