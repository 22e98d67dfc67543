"""Starts, finds and stops the background processes of one machine, across invocations."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from ops_pipeline.domain.errors import BadConfiguration, NotRunning, TimedOut, Unsafe
from ops_pipeline.engine.starts import Start, began_at, start_of
from ops_pipeline.private_files import replace_private
from ops_pipeline.settings import read_object

POLL_SECONDS = 0.05
GRACE_SECONDS = 2.0
KILL_SECONDS = 5.0
# Names the record in the process's own environment, so that it is found without the record.
RECORD_VARIABLE = "OPS_PROCESS_RECORD"


@dataclass(frozen=True)
class Process:
    """One background process; its start tells it apart from a later one with the same pid."""

    name: str
    pid: int
    started: Start


@dataclass(frozen=True)
class ProcessTable:
    """The background processes that are recorded in one folder."""

    run_dir: Path

    def start(
        self, name: str, command: list[str], env: Mapping[str, str], log_file: Path, cwd: Path
    ) -> Process:
        """Start a process that outlives this one, and record it.

        It gets exactly this environment and the name of its record, no input, and a session of
        its own; the record holds neither command nor environment.

        Raises:
            Unsafe: a process of this name is alive.
            NotRunning: the command could not be started.
        """
        if running := self.find(name):
            raise Unsafe(f"{name} already runs as pid {running.pid}", hint="stop it first")
        environment = {**env, RECORD_VARIABLE: str(self._record(name))}
        try:
            pid = _spawn(command, environment, log_file, cwd)
        except OSError as error:
            raise NotRunning(
                f"{name} could not be started: {error.strerror}: {error.filename}",
                hint="ops-pipeline doctor",
            ) from error
        process = Process(name, pid, start_of(pid))
        try:
            replace_private(self._record(name), json.dumps(asdict(process)))
        except OSError as error:
            _end_tree(name, psutil.Process(pid), GRACE_SECONDS)
            raise NotRunning(
                f"{name} was ended again: {self._record(name)}: {error.strerror}",
                hint="make room, or remove what is in its place",
            ) from error
        return process

    def find(self, name: str) -> Process | None:
        """The process of this name, if the one that was started is still alive."""
        try:
            kept = read_object(self._record(name))
            if kept is None:
                return None
            record = Process(str(kept["name"]), int(kept["pid"]), kept["started"])
            return record if _handle(record) else None
        except (BadConfiguration, KeyError, TypeError, ValueError):
            return self._find_without_record(name)

    def began(self, name: str) -> float | None:
        """When the process of this name began, in seconds since 1970 by the clock of now."""
        handle = self._handle(name)
        return handle.create_time() if handle else None

    def knows(self, name: str) -> bool:
        """Whether a process of this name was started here and not stopped, be it alive or not."""
        return self._record(name).exists()

    def all(self) -> list[Process]:
        """Every recorded process that is alive, by name."""
        found = (self.find(path.stem) for path in sorted(self.run_dir.glob("*.json")))
        return [process for process in found if process]

    def stop(self, name: str, timeout_seconds: float = 20) -> bool:
        """End the process and all its descendants; tell whether there was one.

        The process is asked first and has the timeout to end its own children; what is left
        then is ended one by one.

        Raises:
            TimedOut: something survived even SIGKILL.
        """
        handle = self._handle(name)
        if handle:
            _end_tree(name, handle, timeout_seconds)
        with contextlib.suppress(IsADirectoryError, PermissionError):
            self._record(name).unlink(missing_ok=True)
        return handle is not None

    def would_end_us(self, name: str) -> bool:
        """Whether the end of the process of this name is ours: it is us, or we came of it."""
        us, handle = psutil.Process(), self._handle(name)
        return handle is not None and handle in (us, *us.parents())

    def memory_bytes(self, name: str) -> int:
        """Memory of the process and of those of its descendants that have no record of their own.

        Shared pages are counted once where possible.
        """
        handles = {process.name: self._handle(process.name) for process in self.all()}
        handle = handles.pop(name, None)
        if handle is None:
            return 0
        own = set(_tree(handle))
        for other in filter(None, handles.values()):
            if other in own:
                own -= set(_tree(other))
        return sum(map(_memory, own))

    def _find_without_record(self, name: str) -> Process | None:
        """Find the process by its own environment; its descendants inherit that."""
        record, found = str(self._record(name)), dict[int, psutil.Process]()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(RECORD_VARIABLE) == record and is_alive(process):
                    found[process.pid] = process
        roots = [process for process in found.values() if process.ppid() not in found]
        oldest = min(roots, key=psutil.Process.create_time, default=None)
        return Process(name, oldest.pid, start_of(oldest.pid)) if oldest else None

    def _handle(self, name: str) -> psutil.Process | None:
        process = self.find(name)
        return _handle(process) if process else None

    def _record(self, name: str) -> Path:
        return self.run_dir / f"{name}.json"


def wait_until(
    condition: Callable[[], bool], timeout_seconds: float, what: str, hint: str = ""
) -> None:
    """Return as soon as the condition holds.

    Args:
        condition: asked about twenty times a second, and once more at the end.
        timeout_seconds: how long to wait.
        what: the failure in words, as in "the web server did not answer".
        hint: the next command to try.

    Raises:
        TimedOut: it did not hold in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise TimedOut(f"{what} in {timeout_seconds:g} s", hint=hint)
        time.sleep(POLL_SECONDS)


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; a zombie does not, however long nobody collects it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def send_signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    """Send it to those that still exist."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _spawn(command: list[str], env: Mapping[str, str], log_file: Path, cwd: Path) -> int:
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as log:
        child = subprocess.Popen(
            command,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # It shall outlive us: without a return code, Popen would warn that nobody waits for it.
    child.returncode = 0
    return child.pid


def _handle(process: Process) -> psutil.Process | None:
    try:
        handle = psutil.Process(process.pid)
        is_same = began_at(process.pid, process.started)
    except psutil.NoSuchProcess:
        return None
    if is_same and is_alive(handle):
        return handle
    if is_same:
        _collect(process.pid)
    return None


def _collect(pid: int) -> None:
    """Bury our own dead child, so that restarts do not pile up zombies."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _tree(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _end_tree(name: str, root: psutil.Process, timeout_seconds: float) -> None:
    # Once the root is dead, its children belong to init and nobody can tell that they were its.
    tree = _tree(root)
    send_signal([root], signal.SIGTERM)
    _wait_for([root], timeout_seconds)
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        send_signal(tree, number)
        tree = _wait_for(tree, seconds)
    _collect(root.pid)
    if tree:
        pids = " ".join(str(process.pid) for process in tree)
        raise TimedOut(f"{name} did not end, still alive: pid {pids}", hint=f"kill -9 {pids}")


def _wait_for(processes: Sequence[psutil.Process], timeout_seconds: float) -> list[psutil.Process]:
    with contextlib.suppress(TimedOut):
        wait_until(lambda: not any(map(is_alive, processes)), timeout_seconds, "they did not end")
    return [process for process in processes if is_alive(process)]


def _memory(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.rss))
    except psutil.AccessDenied:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0
