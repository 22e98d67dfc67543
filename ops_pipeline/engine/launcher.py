"""A run launcher that forks each run from a process which has imported everything already.

The stock launcher starts a Python for each run, which imports the code location anew: seconds, each
minute. Usable in any project on Linux or macOS whose daemon and runs share a machine:

    run_launcher:
      module: ops_pipeline.engine.launcher
      class: WarmRunLauncher
      config:
        preload: [my_project.definitions, "my_project.models:load"]

Run the daemon with `python -m ops_pipeline.engine.daemon`, which loads before the first run asks.
"""

import hashlib
import importlib
import importlib.util
import json
import logging
import os
import signal
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from dagster import DagsterInstance, DagsterRun, Field, IntSource, Noneable
from dagster._config import Array, StringSource
from dagster._core.errors import DagsterLaunchFailedError
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher.base import (
    CheckRunHealthResult,
    LaunchRunContext,
    RunLauncher,
    WorkerStatus,
)
from dagster._serdes import ConfigurableClass, deserialize_value, serialize_value
from dagster._serdes.config_class import ConfigurableClassData

from ops_pipeline.engine.forks import ForkServer, ForksUnavailable, Worker

log = logging.getLogger(__name__)

# Hidden in the UI, as that of the stock launcher.
WORKER_TAG = ".dagster/warm_launcher"
# What every run of Dagster imports, whatever the project; some of it only when it first executes.
PRELOAD = (
    "dagster._cli.api",
    "dagster._core.definitions.repository_definition.repository_data_builder",
    "dagster._core.execution.api",
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.storage.fs_io_manager",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.system_config.composite_descent",
)
WATCHED = frozenset({".py", ".sql", ".yml", ".yaml", ".toml", ".csv"})
SKIPPED = frozenset({"__pycache__", "target", "logs", "node_modules"})


class WarmRunLauncher(RunLauncher[DagsterInstance], ConfigurableClass):
    """Forks each run from a fork server that has the project loaded.

    The server belongs to the process that launches, which is the daemon, and ends with it; runs go
    on. A file that changed in a watched folder brings a fresh server at the next launch, so that
    no run mixes old code with new.
    """

    def __init__(
        self,
        preload: Sequence[str] = (),
        watch: Sequence[str] = (),
        memory_mb: int | None = None,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        """See `config_type` for what the arguments mean."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._inst_data = inst_data
        self._preload, self._memory_mb = tuple(preload), memory_mb
        self._folders = sorted({*map(Path, watch), *map(_folder_of, preload)})
        self._forks: ForkServer | None = None
        self._loaded_from = ""

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """As it stands in dagster.yaml."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """What may stand under `config:`."""
        return {
            "preload": Field(
                Array(StringSource),
                is_required=False,
                default_value=[],
                description="Modules to import, or functions to call as module:function.",
            ),
            "watch": Field(
                Array(StringSource),
                is_required=False,
                default_value=[],
                description="Folders whose changed files mean a fresh server, beside the"
                " packages of what is preloaded.",
            ),
            "memory_mb": Field(
                Noneable(IntSource),
                is_required=False,
                default_value=None,
                description="How much data one run may hold; more is a MemoryError in it.",
            ),
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """A launcher as dagster.yaml describes it."""
        return cls(inst_data=inst_data, **config_value)

    def warm_up(self) -> None:
        """Start loading, so that the first run finds it done; `engine.daemon` does this."""
        self._server()

    @property
    def server_pid(self) -> int | None:
        """The process of the fork server, while there is one."""
        return self._forks.pid if self._forks else None

    def launch_run(self, context: LaunchRunContext) -> None:
        """Fork the run.

        Raises:
            DagsterLaunchFailedError: the server could not load the project; the message says why.
        """
        run = context.dagster_run
        try:
            worker = self._server().fork(
                f"{__name__}:execute", run_id=run.run_id, ref=serialize_value(self._ref())
            )
        except ForksUnavailable as error:
            raise DagsterLaunchFailedError(str(error)) from error  # type: ignore[no-untyped-call]
        self._instance.add_run_tags(run.run_id, worker_tags(worker))

    def terminate(self, run_id: str) -> bool:
        """Interrupt the run, from whatever process; a run whose worker is gone is canceled here."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        worker = _worker_of(run)
        if worker is None or not worker.send(signal.SIGINT):
            self._instance.report_run_canceled(run, "The run's process is gone.")
        elif worker:
            # One that somebody has stopped could not hear it.
            worker.send(signal.SIGCONT)
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes: run monitoring may ask."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the run's process is there; asked by Dagster's run monitoring."""
        worker = _worker_of(run)
        if worker is None:
            return CheckRunHealthResult(WorkerStatus.UNKNOWN, "no process is known")
        if worker.is_alive():
            return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=str(worker.pid))
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND, f"process {worker.pid} is gone", run_worker_id=str(worker.pid)
        )

    def get_run_worker_debug_info(
        self,
        run: DagsterRun,
        include_container_logs: bool | None = True,  # noqa: ARG002, FBT001, FBT002
    ) -> str | None:
        """Where to look when a run does not start."""
        worker = _worker_of(run)
        return f"Forked as process {worker.pid}; its output is in the daemon's." if worker else None

    def dispose(self) -> None:
        """End the server; runs go on."""
        if self._forks:
            self._forks.stop()

    def _ref(self) -> InstanceRef:
        """The instance as a run opens it: its tables are there, or this process had not begun.

        Looking for each of them anew takes a run a tenth of its launch.
        """
        ref = self._instance.get_ref()
        storage = ref.storage_data
        if storage is None or not _makes_tables(storage):
            return ref
        config = {**(yaml.safe_load(storage.config_yaml) or {}), "should_autocreate_tables": False}
        return ref._replace(storage_data=storage._replace(config_yaml=yaml.safe_dump(config)))

    def _server(self) -> ForkServer:
        """The server, freshly loaded where a file has changed since."""
        now = fingerprint(self._folders)
        if self._forks and now != self._loaded_from:
            log.info("code has changed; the next runs are forked from a fresh process")
            self._forks.stop()
            self._forks = None
        if self._forks is None:
            self._forks = ForkServer([*PRELOAD, *self._preload], self._memory_mb)
            self._loaded_from = now
        self._forks.start()
        return self._forks


def execute(run_id: str, ref: str) -> int:
    """One run to its end, in a fork; whatever happens, the run learns of it."""
    from dagster._cli.api import _execute_run_command_body
    from dagster._utils.interrupts import capture_interrupts

    with (
        DagsterInstance.from_ref(deserialize_value(ref, InstanceRef)) as instance,
        capture_interrupts(),
    ):
        try:
            return _execute_run_command_body(
                run_id, instance, lambda _: None, set_exit_code_on_failure=True
            )
        except BaseException:
            run = instance.get_run_by_id(run_id)
            if run and not run.is_finished:
                instance.report_run_failed(run, f"The run broke off.\n{traceback.format_exc()}")
            raise


def fingerprint(folders: Iterable[Path]) -> str:
    """Another text when a watched file was changed, added or removed."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in folders for path in _files(folder)):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        digest.update(f"{path} {found.st_mtime_ns} {found.st_size}\n".encode())
    return digest.hexdigest()


def _files(folder: Path) -> Iterable[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in SKIPPED]
        yield from (Path(parent, name) for name in names if Path(name).suffix in WATCHED)


def _makes_tables(storage: ConfigurableClassData) -> bool:
    """Whether this storage, told nothing, looks for its tables and makes what is missing."""
    found = getattr(importlib.import_module(storage.module_name), storage.class_name)
    return "should_autocreate_tables" in (found.config_type() or {})


def _folder_of(word: str) -> Path:
    """Where the top package of a preloaded module lies."""
    package = word.partition(":")[0].partition(".")[0]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ValueError(f"preload: there is no module {package}")
    return Path(found.origin).parent


def worker_tags(worker: Worker) -> dict[str, str]:
    """The tags of a run by which monitoring finds its process; also of one that was not forked."""
    return {WORKER_TAG: f"{worker.pid} {json.dumps(worker.started)}"}


def _worker_of(run: DagsterRun) -> Worker | None:
    pid, _, started = run.tags.get(WORKER_TAG, "").partition(" ")
    return Worker(int(pid), json.loads(started)) if started else None
