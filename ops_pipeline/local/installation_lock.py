"""Let one command at a time start or stop the processes of an installation."""

import fcntl
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from ops_pipeline.domain.errors import Unsafe
from ops_pipeline.engine.starts import began_at, start_of
from ops_pipeline.local.processes import wait_until

# What a command that was told to end needs, to end what it has started.
WAIT_SECONDS = 120.0


@dataclass(frozen=True)
class Holder:
    """The command that has the lock."""

    verb: str
    pid: int


@contextmanager
def installation_lock(var_dir: Path, verb: str, *, takes_over: bool = False) -> Iterator[None]:
    """Hold the lock; the kernel gives it back when this process ends, however it ends.

    Args:
        var_dir: the installation.
        verb: the command, for whoever finds the lock taken.
        takes_over: end an `up` that has the lock, and wait; otherwise refuse.

    Raises:
        Unsafe: another command has it.
        TimedOut: it did not end.
    """
    var_dir.mkdir(parents=True, exist_ok=True)
    handle = os.open(var_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _is_taken(handle):
            holder = _holder(handle)
            named = f"{holder.verb} (pid {holder.pid})" if holder else "another command"
            if not takes_over:
                raise Unsafe(
                    f"{named} is starting or stopping this installation; nothing was changed",
                    "try again when it is done",
                )
            if holder and holder.verb == "up":
                with suppress(ProcessLookupError):
                    os.kill(holder.pid, signal.SIGTERM)
            wait_until(lambda: _is_taken(handle), WAIT_SECONDS, f"{named} did not end")
        held = json.dumps({"verb": verb, "pid": os.getpid(), "started": start_of(os.getpid())})
        os.ftruncate(handle, 0)
        os.pwrite(handle, held.encode(), 0)
        yield
    finally:
        os.close(handle)


def _is_taken(handle: int) -> bool:
    """Take the lock for ourselves where it is free."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(handle: int) -> Holder | None:
    """Return who has the lock; None in the moment before it says so."""
    with suppress(ValueError, KeyError, TypeError, psutil.NoSuchProcess):
        kept = json.loads(os.pread(handle, 1_000, 0))
        if began_at(kept["pid"], kept["started"]):
            return Holder(str(kept["verb"]), kept["pid"])
    return None
