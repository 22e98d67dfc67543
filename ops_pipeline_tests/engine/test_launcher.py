"""The launcher with Dagster's own instance on PostgreSQL and real processes."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import pytest
import yaml
from dagster import DagsterInstance
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.errors import DagsterLaunchFailedError
from dagster._core.launcher import WorkerStatus
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring import run_monitoring

from ops_pipeline.engine.daemon import monitor_starting_runs
from ops_pipeline.engine.forks import Worker
from ops_pipeline.engine.launcher import WORKER_TAG, WarmRunLauncher, fingerprint, worker_tags

pytestmark = [pytest.mark.postgres, pytest.mark.dagster, pytest.mark.slow]
CODE = """
import os, time
from pathlib import Path
import dagster as dg

HERE = Path(__file__).parent
VERSION = 1


@dg.op
def work():
    (HERE / "worked").write_text(f"{VERSION} {os.getppid()}")


@dg.op
def wait():
    (HERE / "waiting").write_text(str(os.getpid()))
    time.sleep(120)


@dg.op
def fail():
    raise ValueError("no rows")


@dg.op
def hoard():
    bytearray(2 * 2**30)


def job_of(op):
    @dg.job(name=f"{op.name}_job", executor_def=dg.in_process_executor)
    def made():
        op()
    return made


defs = dg.Definitions(jobs=[job_of(op) for op in (work, wait, fail, hoard)])
"""


class Lab:
    """Code in a file, and an instance that launches it warm."""

    def __init__(
        self, folder: Path, instance: DagsterInstance, context: WorkspaceProcessContext
    ) -> None:
        self.folder, self.instance, self.context = folder, instance, context
        launcher = instance.run_launcher
        assert isinstance(launcher, WarmRunLauncher)
        self.launcher = launcher

    def launch(self, name: str) -> str:
        pointer = ModuleCodePointer("warm_code", "defs", working_directory=None)
        origin = JobPythonOrigin(f"{name}_job", RepositoryPythonOrigin(sys.executable, pointer))
        run = create_run_for_test(self.instance, job_name=origin.job_name, job_code_origin=origin)
        self.instance.launch_run(run.run_id, self.context.create_request_context())
        return run.run_id

    def run(self, run_id: str) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run
        return run

    def ended(self, run_id: str) -> dg.DagsterRunStatus:
        until(lambda: self.run(run_id).is_finished)
        return self.run(run_id).status

    def waiting(self) -> str:
        run_id = self.launch("wait")
        until((self.folder / "waiting").exists)
        until(lambda: self.run(run_id).status == dg.DagsterRunStatus.STARTED)
        return run_id

    def worker(self, run_id: str) -> psutil.Process:
        return psutil.Process(int(self.run(run_id).tags[WORKER_TAG].split()[0]))

    def monitor(self) -> None:
        list(run_monitoring.execute_run_monitoring_iteration(self.context, logging.getLogger()))

    def change(self, before: str, after: str) -> None:
        path = self.folder / "warm_code.py"
        path.write_text(path.read_text().replace(before, after))


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


@contextmanager
def lab_of(environment: Path, code: Path) -> Iterator[Lab]:
    document = yaml.safe_load((environment / "dagster.yaml").read_text())
    document["run_launcher"]["config"] = {
        "preload": ["warm_code"],
        "watch": [str(code)],
        "memory_mb": 1024,
    }
    (environment / "dagster.yaml").write_text(yaml.safe_dump(document))
    with (
        DagsterInstance.from_config(str(environment)) as instance,
        WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context,
    ):
        yield Lab(code, instance, context)


@pytest.fixture
def lab(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    code = tmp_path / "code"
    code.mkdir()
    (code / "warm_code.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(code))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(code), *sys.path]))
    with lab_of(environment, code) as made:
        yield made


def test_run_is_a_fork_of_the_loaded_process_and_succeeds(lab: Lab) -> None:
    run_id = lab.launch("work")
    assert lab.ended(run_id) == dg.DagsterRunStatus.SUCCESS
    assert (lab.folder / "worked").read_text() == f"1 {lab.launcher.server_pid}"


def test_ten_runs_at_once_all_succeed(lab: Lab) -> None:
    run_ids = [lab.launch("work") for _ in range(10)]
    assert {lab.ended(run_id) for run_id in run_ids} == {dg.DagsterRunStatus.SUCCESS}
    assert len({lab.run(run_id).tags[WORKER_TAG] for run_id in run_ids}) == 10


def test_failed_run_is_a_failure(lab: Lab) -> None:
    assert lab.ended(lab.launch("fail")) == dg.DagsterRunStatus.FAILURE


def test_run_that_asks_for_too_much_memory_fails_alone(lab: Lab) -> None:
    run_id = lab.launch("hoard")
    assert lab.ended(run_id) == dg.DagsterRunStatus.FAILURE
    assert any("MemoryError" in str(entry) for entry in lab.instance.all_logs(run_id))
    assert lab.ended(lab.launch("work")) == dg.DagsterRunStatus.SUCCESS


def test_run_is_terminated_from_another_process(lab: Lab, environment: Path) -> None:
    run_id = lab.waiting()
    worker = lab.worker(run_id)
    with DagsterInstance.from_config(str(environment)) as elsewhere:
        assert elsewhere.run_launcher.terminate(run_id)
        assert lab.ended(run_id) == dg.DagsterRunStatus.CANCELED
        until(lambda: not worker.is_running())
        assert not elsewhere.run_launcher.terminate(run_id)


def test_run_that_is_frozen_is_terminated_too(lab: Lab) -> None:
    run_id = lab.waiting()
    worker = lab.worker(run_id)
    worker.suspend()
    assert lab.launcher.terminate(run_id)
    assert lab.ended(run_id) == dg.DagsterRunStatus.CANCELED
    until(lambda: not worker.is_running())


def test_run_whose_process_was_killed_is_canceled_at_once(lab: Lab) -> None:
    run_id = lab.waiting()
    lab.worker(run_id).kill()
    until(lambda: health(lab, run_id) == WorkerStatus.NOT_FOUND)
    assert lab.launcher.terminate(run_id)
    assert lab.run(run_id).status == dg.DagsterRunStatus.CANCELED


def test_monitoring_fails_a_run_whose_process_was_killed_and_leaves_the_others(lab: Lab) -> None:
    killed, other = lab.waiting(), lab.waiting()
    lab.worker(killed).kill()
    until(lambda: health(lab, killed) == WorkerStatus.NOT_FOUND)
    lab.monitor()
    assert lab.run(killed).status == dg.DagsterRunStatus.FAILURE
    assert lab.run(other).status == dg.DagsterRunStatus.STARTED
    assert health(lab, other) == WorkerStatus.RUNNING
    lab.worker(other).kill()


def test_monitoring_fails_a_run_whose_process_died_before_it_reported_its_start(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_monitoring, "monitor_starting_run", run_monitoring.monitor_starting_run)
    monitor_starting_runs(lab.launcher)
    dead = Worker(os.getpid(), "another boot 1")
    killed, alive = (
        create_run_for_test(lab.instance, status=dg.DagsterRunStatus.NOT_STARTED, tags=tags)
        for tags in (worker_tags(dead), worker_tags(Worker.current(os.getpid())))
    )
    lab.monitor()
    assert lab.run(killed.run_id).status == dg.DagsterRunStatus.FAILURE
    assert lab.run(alive.run_id).status == dg.DagsterRunStatus.NOT_STARTED
    (failure,) = lab.instance.all_logs(killed.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert failure.dagster_event.message == f"The run did not start: process {dead.pid} is gone."


def test_killed_server_is_replaced_and_its_runs_go_on(lab: Lab) -> None:
    run_id = lab.waiting()
    before = lab.launcher.server_pid
    assert before
    os.kill(before, signal.SIGKILL)
    until(lambda: lab.launcher.server_pid is None)
    assert lab.ended(lab.launch("work")) == dg.DagsterRunStatus.SUCCESS
    assert lab.launcher.server_pid not in (None, before)
    assert health(lab, run_id) == WorkerStatus.RUNNING
    lab.worker(run_id).kill()


def test_changed_file_is_what_the_next_run_executes(lab: Lab) -> None:
    assert lab.ended(lab.launch("work")) == dg.DagsterRunStatus.SUCCESS
    before = lab.launcher.server_pid
    lab.change("VERSION = 1", "VERSION = 22")
    assert lab.ended(lab.launch("work")) == dg.DagsterRunStatus.SUCCESS
    assert (lab.folder / "worked").read_text().startswith("22 ")
    assert lab.launcher.server_pid != before


def test_unchanged_files_keep_the_server(lab: Lab) -> None:
    lab.ended(lab.launch("work"))
    before = lab.launcher.server_pid
    lab.ended(lab.launch("work"))
    assert lab.launcher.server_pid == before


def test_code_that_cannot_be_loaded_is_named_and_mended_code_runs(lab: Lab) -> None:
    lab.change("VERSION = 1", "VERSION = (")
    with pytest.raises(DagsterLaunchFailedError, match="SyntaxError while loading warm_code"):
        lab.launch("work")
    lab.change("VERSION = (", "VERSION = 3")
    assert lab.ended(lab.launch("work")) == dg.DagsterRunStatus.SUCCESS


def test_run_that_an_earlier_version_has_forked_is_known(lab: Lab) -> None:
    tags = {WORKER_TAG: f"{os.getpid()} {psutil.Process().create_time()!r}"}
    run = create_run_for_test(lab.instance, status=dg.DagsterRunStatus.STARTED, tags=tags)
    assert health(lab, run.run_id) == WorkerStatus.RUNNING


def test_run_that_nobody_launched_has_no_known_process(lab: Lab) -> None:
    run = create_run_for_test(lab.instance, status=dg.DagsterRunStatus.STARTED)
    assert health(lab, run.run_id) == WorkerStatus.UNKNOWN
    assert lab.launcher.terminate(run.run_id)
    assert lab.run(run.run_id).status == dg.DagsterRunStatus.CANCELED


def test_fingerprint_changes_with_a_file_and_not_with_what_python_leaves(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "bars.sql").write_text("select 1")
    seen = [fingerprint([tmp_path])]
    (tmp_path / "models" / "bars.sql").write_text("select 12")
    seen.append(fingerprint([tmp_path]))
    (tmp_path / "models" / "news.sql").write_text("select 1")
    seen.append(fingerprint([tmp_path]))
    (tmp_path / "models" / "bars.sql").unlink()
    seen.append(fingerprint([tmp_path]))
    assert len(set(seen)) == 4
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "bars.py").write_text("")
    (tmp_path / "notes.txt").write_text("")
    assert fingerprint([tmp_path]) == seen[-1]


def test_unknown_module_to_preload_is_a_clear_error() -> None:
    with pytest.raises(ValueError, match="preload: there is no module nowhere"):
        WarmRunLauncher(preload=["nowhere.definitions"])


def health(lab: Lab, run_id: str) -> WorkerStatus:
    return lab.launcher.check_run_worker_health(lab.run(run_id)).status
