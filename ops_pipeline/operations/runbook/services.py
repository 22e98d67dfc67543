"""Services that do not start, or of which no log tells."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.machine import disk_verdict
from ops_pipeline.local.keeper import log_dir, table_of
from ops_pipeline.local.machine import free_bytes
from ops_pipeline.operations.runbook.causes import (
    CONFIG_INVALID,
    DAEMON_SILENT,
    MAINTENANCE,
    NOT_MIGRATED,
    NOT_WORKING,
    PROCESSES,
    RUNS_FAIL,
    SCHEDULE_STOPPED,
    SERVICE_OFF,
    config_invalid,
    daemon_silent,
    failing,
    not_migrated,
    not_working,
    processes_down,
    stopped,
    switched_off,
    verdict_of,
)
from ops_pipeline.operations.runbook.changes import by_hand, restart
from ops_pipeline.operations.runbook.section import Cause, Change, Found, OwnCheck, Scene, Section
from ops_pipeline.settings import KEEPER

CAN_START = OwnCheck(
    "services_can_start",
    "switches on, processes and schedules running, settings valid, runs ending well",
)
LOGS_WRITTEN = OwnCheck(
    "logs_are_written", "each process that runs writes a log, on a disk with room"
)
JOBS = ("minute_job", "dispatch_job")

LOGS_NOT_WRITABLE = Cause(
    "LOGS_NOT_WRITABLE",
    "The folder of the logs is not there, or nothing may be written into it.",
    Level.HIGH,
    "makes the folder, and lets its owner write; of another owner, a person does",
)
LOG_FILE_GONE = Cause(
    "LOG_FILE_GONE",
    "A process runs, and the file that it logs to was removed.",
    Level.HIGH,
    "restarts it, with a new file; a job leaves to a person what it would not outlive",
)
DISK_FULL = Cause(
    "DISK_FULL",
    "There is no room on the disk.",
    Level.CRITICAL,
    "a person makes room; ops-pipeline purge removes what is no history",
)


def _wont_start(scene: Scene) -> Iterator[Found]:
    """Everything that a service needs before its first minute, outermost first."""
    if waiting := list(not_migrated(scene)):
        yield from waiting
        return
    yield from switched_off(scene)
    yield from processes_down(scene)
    yield from not_working(scene)
    yield from stopped(scene)
    yield from daemon_silent(scene)
    yield from config_invalid(scene)
    yield from failing(scene, *JOBS)


def _no_logs(scene: Scene) -> Iterator[Found]:
    """The folder, the disk, the files, and then whatever keeps services from starting."""
    yield from _folder(scene)
    disk = disk_verdict(free_bytes(scene.settings))
    if disk.level is Level.CRITICAL:
        room = by_hand("make room", "ops-pipeline purge --dry-run")
        yield Found(DISK_FULL, disk.observed, [room])
    yield from _files(scene)
    yield from switched_off(scene)
    yield from processes_down(scene)
    yield from stopped(scene)
    yield from failing(scene, *JOBS)


def _folder(scene: Scene) -> Iterator[Found]:
    folder = log_dir(scene.settings)
    if os.access(folder, os.W_OK | os.X_OK) and folder.is_dir():
        return
    make = Change("make the folder of the logs", f"mkdir -p {folder}", partial(_open, folder))
    yield Found(LOGS_NOT_WRITABLE, {"folder": str(folder), "is_there": folder.exists()}, [make])


def _open(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(folder.stat().st_mode | 0o700)


def _files(scene: Scene) -> Iterator[Found]:
    """Processes whose log was removed under them: what they say since is lost."""
    table, folder = table_of(scene.settings), log_dir(scene.settings)
    running = [name for name in scene.settings.mode.processes if table.find(name)]
    gone = [name for name in running if not (folder / f"{name}.log").exists()]
    if gone:
        # With the keeper all that it keeps starts anew.
        again = [KEEPER] if KEEPER in gone else gone
        yield Found(LOG_FILE_GONE, {"processes": gone}, [restart(scene, name) for name in again])


def _verify_start(scene: Scene) -> list[Verdict]:
    return [verdict_of(CAN_START, _wont_start(scene), "nothing keeps a service from its start")]


def _verify_logs(scene: Scene) -> list[Verdict]:
    return [verdict_of(LOGS_WRITTEN, _no_logs(scene), "every process writes its log")]


SECTIONS = (
    Section(
        name="no-logs-generated",
        heading="Issue: No Logs Generated",
        symptom="A service has no log, or its log does not go on.",
        own=(LOGS_WRITTEN,),
        causes=(
            LOGS_NOT_WRITABLE,
            DISK_FULL,
            LOG_FILE_GONE,
            SERVICE_OFF,
            MAINTENANCE,
            *PROCESSES,
            SCHEDULE_STOPPED,
            RUNS_FAIL,
        ),
        look=_no_logs,
        verify=_verify_logs,
        in_replay=False,
    ),
    Section(
        name="service-wont-start",
        heading="Issue: Service Won't Start",
        symptom="A service is on, and nothing runs and nothing is logged.",
        own=(CAN_START,),
        causes=(
            NOT_MIGRATED,
            SERVICE_OFF,
            MAINTENANCE,
            *PROCESSES,
            *NOT_WORKING,
            SCHEDULE_STOPPED,
            DAEMON_SILENT,
            CONFIG_INVALID,
            RUNS_FAIL,
        ),
        look=_wont_start,
        verify=_verify_start,
        in_replay=False,
    ),
)
