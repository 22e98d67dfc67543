"""Causes that more than one section finds, and the looks that find them."""

from collections.abc import Iterable, Iterator

from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.errors import OperatorError
from ops_pipeline.domain.session import both_zones
from ops_pipeline.domain.stages import SERVICES, Stage
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.local.keeper import last_asked, log_dir, table_of
from ops_pipeline.local.ticks import MAX_TICK_AGE_SECONDS, code_location, late_ticks
from ops_pipeline.operations import config
from ops_pipeline.operations.runbook.changes import (
    anew,
    by_hand,
    restart,
    start_processes,
    start_stopped,
    switch_on,
)
from ops_pipeline.operations.runbook.section import Cause, Change, Found, OwnCheck, Scene
from ops_pipeline.settings import (
    CODE,
    DAEMON,
    KEEPER,
    dispatcher_config,
    dispatcher_overrides,
)
from ops_pipeline.storage.acceptance import verdicts
from ops_pipeline.storage.config import read_state
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.migrate import migrate, pending
from ops_pipeline.storage.services import Switch, switches

DAEMON_SILENT_SECONDS = 120.0

SERVICE_OFF = Cause(
    "SERVICE_OFF",
    "A service is switched off, and nothing switches it on again.",
    Level.HIGH,
    "switches it on; the dispatcher only while the ledger is sound",
)
MAINTENANCE = Cause(
    "MAINTENANCE",
    "A service is switched off until a time that is still to come.",
    Level.NORMAL,
    "nothing: it comes back by itself",
)
SCHEDULE_STOPPED = Cause(
    "SCHEDULE_STOPPED",
    "Somebody has stopped a schedule or a sensor in the UI.",
    Level.HIGH,
    "starts it as the code declares it",
)
_KEEPER = "starts the keeper, which starts what does not run"
KEEPER_DOWN = Cause(
    "KEEPER_DOWN",
    "The process that keeps all others does not run.",
    Level.CRITICAL,
    "starts it; it starts what does not run",
)
CODE_SERVER_DOWN = Cause(
    "CODE_SERVER_DOWN",
    "The process that serves the pipeline's code to Dagster does not run: nothing is started.",
    Level.CRITICAL,
    _KEEPER,
)
DAEMON_DOWN = Cause(
    "DAEMON_DOWN",
    "Dagster's daemon does not run: no schedule ticks, no run is started.",
    Level.CRITICAL,
    _KEEPER,
)
PROCESS_DOWN = Cause(
    "PROCESS_DOWN",
    "Another background process of this mode does not run.",
    Level.HIGH,
    _KEEPER,
)
DOWN = {KEEPER: KEEPER_DOWN, CODE: CODE_SERVER_DOWN, DAEMON: DAEMON_DOWN}
PROCESSES = (*DOWN.values(), PROCESS_DOWN)
DAEMON_SILENT = Cause(
    "DAEMON_SILENT",
    f"The daemon runs, and gave no sign of life for {DAEMON_SILENT_SECONDS:.0f} s.",
    Level.HIGH,
    "a person looks at its log, and starts it anew",
)
CODE_NOT_LOADED = Cause(
    "CODE_NOT_LOADED",
    "Dagster cannot load the pipeline's code: nothing ticks, and no run is started.",
    Level.CRITICAL,
    "a person corrects what the evidence names; the keeper loads again until it works",
)
NOT_TICKING = Cause(
    "NOT_TICKING",
    f"The daemon runs, and a schedule or a sensor has not ticked for {MAX_TICK_AGE_SECONDS:.0f} s.",
    Level.CRITICAL,
    "restarts the code server, then the daemon",
)
NOT_WORKING = (CODE_NOT_LOADED, NOT_TICKING)
RUNS_FAIL = Cause(
    "RUNS_FAIL",
    "The newest run of the service's job failed.",
    Level.HIGH,
    "a person reads the run's error; the next tick takes its minutes along",
)
NOT_MIGRATED = Cause(
    "NOT_MIGRATED",
    "The database is older than this version.",
    Level.HIGH,
    "runs the migrations that wait",
)
CONFIG_INVALID = Cause(
    "CONFIG_INVALID",
    "The dispatcher's settings are refused, so that it decides nothing.",
    Level.HIGH,
    "a person corrects the setting that the evidence names",
)


def switched_off(scene: Scene, stages: Iterable[Stage] = SERVICES) -> Iterator[Found]:
    """Services that are off: for good, or for a maintenance window."""
    wanted = set(stages)
    with scene.engine.connect() as connection:
        found = switches(connection, scene.now)
    off = [one for one in found if one.stage in wanted and not one.is_enabled]
    for_good = [one for one in off if one.disabled_until is None]
    if for_good:
        changes = [switch_on(scene, one.stage) for one in for_good]
        yield Found(SERVICE_OFF, _named(for_good), changes)
    if windows := [one for one in off if one.disabled_until is not None]:
        yield Found(MAINTENANCE, _named(windows))


def _named(found: Iterable[Switch]) -> dict[str, str]:
    return {
        one.stage.service: "off"
        + (f" until {both_zones(one.disabled_until)}" if one.disabled_until else "")
        + (f": {one.reason}" if one.reason else "")
        for one in found
    }


def stopped(scene: Scene) -> Iterator[Found]:
    """Schedules and sensors that were stopped; a replay has none that matter."""
    if scene.settings.mode.is_live and (names := scene.dagster.stopped()):
        changes = [start_stopped(scene, name) for name in names]
        yield Found(SCHEDULE_STOPPED, {"stopped": names}, changes)


def processes_down(scene: Scene) -> Iterator[Found]:
    """Processes of a live mode that do not run, what the others need first."""
    if not scene.settings.mode.is_live:
        return
    table, folder = table_of(scene.settings), log_dir(scene.settings)
    down = [name for name in scene.settings.mode.processes if table.find(name) is None]
    for name in sorted(down, key=lambda name: name not in DOWN):
        told = {"process": name, "log": str(folder / f"{name}.log")}
        yield Found(DOWN.get(name, PROCESS_DOWN), told, [start_processes(scene)])


def not_working(scene: Scene) -> Iterator[Found]:
    """Code that is not loaded, or else a daemon that does not tick, though its process runs."""
    table = table_of(scene.settings)
    if error := code_location(scene.settings, table).error:
        look = by_hand("read the log of the code server", "ops-pipeline logs code")
        yield Found(CODE_NOT_LOADED, {"error": error}, [look])
    elif late := late_ticks(scene.settings, table, clock()):
        late_for = {name: f"{age:.0f} s" for name, age in late.items()}
        yield Found(NOT_TICKING, late_for, [restart(scene, name) for name in (CODE, DAEMON)])


def daemon_silent(scene: Scene) -> Iterator[Found]:
    """A daemon that is there and says nothing."""
    silent = scene.dagster.silent_seconds(scene.now)
    if silent is not None and silent > DAEMON_SILENT_SECONDS:
        log_file = log_dir(scene.settings) / "daemon.log"
        by_person = by_hand(
            "read the daemon's log, then start all anew",
            f"less {log_file}; {anew(scene)}",
        )
        yield Found(DAEMON_SILENT, {"seconds_silent": round(silent)}, [by_person])


def failing(scene: Scene, *jobs: str) -> Iterator[Found]:
    """Jobs whose newest run failed."""
    for job in jobs:
        run = scene.dagster.last_run(job)
        if run is not None and run.status == "FAILURE":
            look = by_hand(
                "read the error of the run",
                f"http://127.0.0.1:{last_asked(scene.settings).port}/runs/{run.run_id}",
            )
            yield Found(RUNS_FAIL, {"job": job, "error": run.error, "run_id": run.run_id}, [look])


def not_migrated(scene: Scene) -> Iterator[Found]:
    """Migrations that wait."""
    if names := pending(scene.engine):

        def apply() -> None:
            with opened(scene.settings) as engine:
                migrate(engine)

        change = Change(f"run {len(names)} migrations", "ops-pipeline init", apply)
        yield Found(NOT_MIGRATED, {"waiting": names}, [change])


def config_of(scene: Scene) -> DispatcherConfig:
    """The dispatcher's settings that are in force.

    Raises:
        BadConfiguration: there are none, or this code refuses them.
    """
    with scene.engine.connect() as connection:
        version = config.in_force(connection, scene.settings, scene.now)
    return config.config_of(version, scene.settings)


def config_invalid(scene: Scene) -> Iterator[Found]:
    """Settings that are refused: what was found last, or what stands there now."""
    with scene.engine.connect() as connection:
        refused = read_state(connection).invalid
    try:
        dispatcher_config(scene.settings.mode, dispatcher_overrides(scene.settings))
        config_of(scene)
    except OperatorError as error:
        refused = refused or str(error)
    if refused:
        correct = by_hand("correct it where it was set", "ops-pipeline config log")
        yield Found(CONFIG_INVALID, {"refused": refused}, [correct])


def catalogue(scene: Scene, *names: str) -> list[Verdict]:
    """What the checks of these names say now."""
    now, calendar = scene.now, scene.settings.mode.calendar
    with scene.engine.connect() as connection:
        return verdicts(connection, now, calendar, is_live=scene.settings.mode.is_live, names=names)


def verdict_of(check: OwnCheck, found: Iterable[Found], normal: str) -> Verdict:
    """A check that is normal where none of these causes is."""
    causes = [one for one in found if one.cause.level is not Level.NORMAL]
    level = max((one.cause.level for one in causes), key=list(Level).index, default=Level.NORMAL)
    told = "; ".join(f"{one.cause.code} {_brief(one)}".strip() for one in causes)
    observed = {one.cause.code: dict(one.evidence) for one in causes}
    return Verdict(check.name, level, told or normal, observed, check.normal)


def _brief(found: Found) -> str:
    return next((f"({name} {value})" for name, value in found.evidence.items()), "")[:160]
