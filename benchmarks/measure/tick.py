"""How long a minute takes from its request to its last asset, warm and the stock way, in turn."""

import asyncio
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import dagster as dg
import psutil
import yaml
from dagster import DagsterEventType, EventLogEntry
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster_graphql.client.query import LAUNCH_PIPELINE_EXECUTION_MUTATION
from dagster_graphql.schema import create_schema

from ops_pipeline.defs.partitions import partition_key
from ops_pipeline.defs.replay import QUIET
from ops_pipeline.domain.errors import OperatorError, TimedOut
from ops_pipeline.domain.session import Calendar
from ops_pipeline.domain.stages import DATA_STAGES
from ops_pipeline.engine.launcher import WarmRunLauncher
from ops_pipeline.proofs.scratch import entered
from ops_pipeline.settings import PROJECT_DIR
from ops_pipeline.storage.knowledge import clock

RUN_SECONDS = 180
END_SECONDS = 5
POLL_SECONDS = 0.1
SAMPLE_SECONDS = 0.25
LOCATION = "ops_pipeline"
COORDINATOR = {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}
LAUNCH = "launch"
# In the order in which they come: the request to the first step, then each stage to its event.
PHASES = (LAUNCH, *(stage.name for stage in DATA_STAGES))


@dataclass(frozen=True)
class Way:
    """One way to run a minute; the code and the database are the same."""

    name: str
    does: str
    launcher: Mapping[str, Any] | None
    variables: Mapping[str, str]


OURS = Way(
    "ops-pipeline",
    "each run a fork of a process that has loaded everything, dbt inside the run",
    None,
    {},
)
STOCK = Way(
    "stock",
    "Dagster's default launcher, a new Python for each run, and dbt as a command",
    {"module": "dagster", "class": "DefaultRunLauncher"},
    {"OPS_DBT_AS_COMMAND": "true"},
)


@dataclass(frozen=True)
class Tick:
    """One minute's run, in seconds from its request; memory is the highest of all its processes."""

    way: str
    minute: datetime
    phases: Mapping[str, float]
    seconds: float
    cpu_seconds: float
    memory_mb: float


class Lab:
    """An instance that launches one way, and the code location that it launches."""

    def __init__(
        self, way: Way, instance: dg.DagsterInstance, workspace: WorkspaceProcessContext
    ) -> None:
        self.way, self.instance, self._workspace = way, instance, workspace
        self._schema = create_schema()

    def launch(self, job: str, tags: Mapping[str, str]) -> str:
        """Ask for a run as the UI does. Returns its id."""
        selector = {
            "repositoryLocationName": LOCATION,
            "repositoryName": "__repository__",
            "jobName": job,
        }
        execution = {
            "selector": selector,
            "runConfigData": QUIET,
            "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in tags.items()]},
        }
        asked = self._schema.execute_async(
            LAUNCH_PIPELINE_EXECUTION_MUTATION,
            variables={"executionParams": execution},
            context=self._workspace.create_request_context(),
        )
        answer = asyncio.run(asked)
        said = (answer.data or {}).get("launchPipelineExecution", {})
        if "run" not in said:
            reason = answer.errors or said.get("message", said)
            raise OperatorError(f"{self.way.name}: the run was refused: {reason}")
        run_id: str = said["run"]["runId"]
        return run_id

    def minutes(self, first: datetime, last: datetime, calendar: Calendar) -> str:
        """The data stages of these minutes, both included, as one run. Returns its id."""
        keys = [partition_key(minute, calendar) for minute in (first, last)]
        return self.launch(
            "minute_job",
            {ASSET_PARTITION_RANGE_START_TAG: keys[0], ASSET_PARTITION_RANGE_END_TAG: keys[1]},
        )

    def finished(self, run_id: str) -> None:
        """Wait for the end of a run.

        Raises:
            OperatorError: it did not succeed.
            TimedOut: it takes too long.
        """
        deadline = time.monotonic() + RUN_SECONDS
        while True:
            run = self.instance.get_run_by_id(run_id)
            if run and run.is_finished:
                break
            if time.monotonic() > deadline:
                raise TimedOut(f"{self.way.name}: the run took more than {RUN_SECONDS} s")
            time.sleep(POLL_SECONDS)
        if not run.is_success:
            raise OperatorError(f"{self.way.name}: run {run_id} ended as {run.status.value}")


@contextmanager
def lab_of(way: Way) -> Iterator[Lab]:
    """Dagster in this process, with everything that its daemon would have running.

    The way's own variables are there for what is started here, and gone for what follows.
    """
    before, mine = set(psutil.Process().children()), set[psutil.Process]()
    with ExitStack() as stack:
        # Dagster tells code servers to end and does not wait; their database is gone after this.
        stack.callback(lambda: _wait_for(mine))
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="ops-bench-"))
        (Path(home) / "dagster.yaml").write_text(yaml.safe_dump(_configuration(way)))
        with entered(dict(way.variables)):
            instance = stack.enter_context(dg.DagsterInstance.from_config(home))
            if isinstance(instance.run_launcher, WarmRunLauncher):
                instance.run_launcher.warm_up()
            target = ModuleTarget("ops_pipeline.definitions", None, None, LOCATION)
            workspace = stack.enter_context(
                WorkspaceProcessContext(instance, target, code_server_log_level="WARNING")
            )
        mine |= set(psutil.Process().children()) - before
        yield Lab(way, instance, workspace)


def _wait_for(processes: set[psutil.Process]) -> None:
    for process in psutil.wait_procs(processes, END_SECONDS)[1]:
        process.kill()


def _configuration(way: Way) -> dict[str, Any]:
    """The project's own dagster.yaml, without the queue: its second is nobody's doing."""
    text = (PROJECT_DIR / "dagster.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    for name in ("run_queue", "concurrency", "run_monitoring", "run_retries"):
        document.pop(name)
    document["run_coordinator"] = COORDINATOR
    if way.launcher:
        document["run_launcher"] = dict(way.launcher)
    return document


def measure(lab: Lab, minute: datetime, calendar: Calendar) -> Tick:
    """Run one minute and read from Dagster's own events where its time went."""
    with _watched() as seen:
        requested = clock().timestamp()
        run_id = lab.minutes(minute, minute, calendar)
        lab.finished(run_id)
    phases = phases_of(lab.instance.all_logs(run_id), requested)
    return Tick(
        lab.way.name, minute, phases, sum(phases.values()), seen.cpu_seconds, seen.memory_mb
    )


def phases_of(entries: Sequence[EventLogEntry], requested: float) -> dict[str, float]:
    """Seconds of each phase: up to the first step, then each stage up to its materialisation.

    A stage's phase begins where the one before ended, so that they add up to the whole.
    """
    steps = [e.timestamp for e in entries if _kind(e) == DagsterEventType.STEP_START]
    made = [
        (e.timestamp, str(e.get_dagster_event().asset_key.path[-1]))  # type: ignore[union-attr]
        for e in entries
        if _kind(e) == DagsterEventType.ASSET_MATERIALIZATION
    ]
    found = {LAUNCH: steps[0] - requested}
    before = steps[0]
    for at, name in sorted(made):
        found[name] = at - before
        before = at
    return {phase: found[phase] for phase in PHASES}


def _kind(entry: EventLogEntry) -> DagsterEventType | None:
    return entry.dagster_event.event_type if entry.dagster_event else None


class Watch:
    """What this machine spent while it was watched."""

    cpu_seconds = 0.0
    memory_mb = 0.0


@contextmanager
def _watched() -> Iterator[Watch]:
    """Watch the whole machine's processors, and the memory of this process's descendants."""
    seen, stop = Watch(), threading.Event()
    sampler = threading.Thread(target=_sample, args=(seen, stop), daemon=True)
    before = _busy_seconds()
    sampler.start()
    try:
        yield seen
    finally:
        seen.cpu_seconds = _busy_seconds() - before
        stop.set()
        sampler.join()


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(times.user + times.system + times.nice)


def _sample(seen: Watch, stop: threading.Event) -> None:
    while not stop.wait(SAMPLE_SECONDS):
        seen.memory_mb = max(seen.memory_mb, _memory_mb())


def _memory_mb() -> float:
    """Of this process's descendants, pages that they share counted once."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 2**20


def at(ticks: Sequence[Tick], share: float) -> float:
    """The seconds that this share of the ticks did not exceed."""
    ordered = sorted(tick.seconds for tick in ticks)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def typical(ticks: Sequence[Tick], phase: str) -> float:
    """The median seconds of a phase."""
    return median(tick.phases[phase] for tick in ticks)
