"""A process that has imported what runs need, and forks one of itself for each piece of work.

It knows nothing of Dagster: what a fork does is a function, named as `module:function`, and its
arguments, as JSON. `ForkServer` is the owner's end. The server ends with its owner; its forks go
on.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import util
from typing import Any

import psutil

from ops_pipeline.engine.starts import Start, began_at, start_of

PRELOAD_SECONDS = 120
STOP_SECONDS = 5


class ForksUnavailable(Exception):
    """The server could not be started, or could not load what it was told to."""


@dataclass(frozen=True)
class Worker:
    """A process, told from a later one of the same number by when it began."""

    pid: int
    started: Start

    @classmethod
    def current(cls, pid: int) -> "Worker":
        """The process that has this number now."""
        return cls(pid, start_of(pid))

    def is_alive(self) -> bool:
        """Whether it is at work; one that has ended and was not yet waited for is not."""
        try:
            status = psutil.Process(self.pid).status()
            return began_at(self.pid, self.started) and status != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def send(self, number: signal.Signals) -> bool:
        """Send it a signal; False where it is gone."""
        if not self.is_alive():
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False


class ForkServer:
    """The owner's end of one server; safe to use from several threads."""

    def __init__(self, preload: Sequence[str], memory_mb: int | None = None) -> None:
        """Name what to load.

        Args:
            preload: modules to import, or functions without arguments to call, as
                `module:function`.
            memory_mb: how much data one fork may hold; a fork that asks for more gets a
                MemoryError.
        """
        self._preload, self._memory_mb = tuple(preload), memory_mb
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The server's process, while it is alive."""
        process = self._process
        return process.pid if process and process.poll() is None else None

    def start(self) -> None:
        """Start the server where it is not alive; it loads while the caller goes on."""
        with self._lock:
            self._start()

    def fork(self, function: str, **arguments: Any) -> Worker:
        """Call `module:function` with these arguments in a fork; returns as soon as it exists.

        A server that died since is started anew, and loads first.

        Raises:
            ForksUnavailable: it cannot load what it was told to; the message says why.
        """
        with self._lock:
            self._start()
            try:
                return self._ask(function, arguments)
            except OSError as error:
                # Not asked again: the fork may be there, and only the answer be missing.
                self._stop()
                raise ForksUnavailable(f"the fork server died: {error}") from error

    def stop(self) -> None:
        """End the server; its forks go on."""
        with self._lock:
            self._stop()

    def _start(self) -> None:
        if self.pid:
            return
        self._stop()
        ours, theirs = socket.socketpair()
        limit = [] if self._memory_mb is None else [f"--memory-mb={self._memory_mb}"]
        # A session of its own, so that a Ctrl-C at its owner's terminal ends no work.
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *limit, *self._preload],
            stdin=theirs.fileno(),
            start_new_session=True,
        )
        theirs.close()
        ours.settimeout(PRELOAD_SECONDS)
        self._channel = ours

    def _ask(self, function: str, arguments: dict[str, Any]) -> Worker:
        if self._channel is None:
            raise ConnectionError("there is no server")
        _send(self._channel, {"function": function, "arguments": arguments})
        answer = _receive(self._channel)
        if answer is None:
            raise ConnectionError("it gave no answer")
        if "error" in answer:
            # What kept it from loading may be over: the next one loads again.
            self._stop()
            raise ForksUnavailable(answer["error"])
        return Worker(answer["pid"], answer["started"])

    def _stop(self) -> None:
        if self._channel:
            self._channel.close()
        if self._process:
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._channel = self._process = None


def serve(channel: socket.socket, preload: Sequence[str], memory_mb: int | None) -> None:
    """Load, then fork at each request until the owner hangs up."""
    failure = _load(preload)
    # What is loaded is never freed, and so never copied into a fork for being counted.
    gc.collect()
    gc.freeze()
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([channel, awake], [], [])
        if awake in ready:
            os.read(awake, 4096)
            _reap()
        if channel not in ready:
            continue
        request = _receive(channel)
        if request is None:
            return
        if failure:
            _send(channel, {"error": failure})
            continue
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for handle in (awake, wake):
                os.close(handle)
            channel.close()
            _become(request, memory_mb)
        worker = Worker.current(pid)
        _send(channel, {"pid": worker.pid, "started": worker.started})


def _load(preload: Sequence[str]) -> str | None:
    """Load each; why that failed, or None. What a fork must not inherit is told on stderr."""
    began = time.monotonic()
    try:
        for word in preload:
            _call(word, {})
    except BaseException as error:  # noqa: BLE001 - also what a module raises to end its process
        traceback.print_exc()
        return f"{type(error).__name__} while loading {word}: {error}"
    for problem in unfit(psutil.Process()):
        _tell(f"a fork would inherit {problem}")
    _tell(f"loaded {', '.join(preload)} in {time.monotonic() - began:.1f} s")
    return None


def unfit(process: psutil.Process) -> list[str]:
    """What this process has and no fork of it may use: threads of Python, network connections."""
    threads = [f"thread {each.name}" for each in threading.enumerate()][1:]
    connections = [
        f"a connection to {each.raddr or each.laddr}" for each in process.net_connections("inet")
    ]
    return threads + connections


def _call(word: str, arguments: dict[str, Any]) -> Any:
    module, _, name = word.partition(":")
    loaded = importlib.import_module(module)
    return getattr(loaded, name)(**arguments) if name else None


def _become(request: dict[str, Any], memory_mb: int | None) -> None:
    """Do the work and end; what the parent would do at its end is not this process's to do."""
    code = 1
    # As multiprocessing does in its own forks: what it made here it removes here, and nothing else.
    util._finalizer_registry.clear()  # type: ignore[attr-defined]  # noqa: SLF001
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor, not a path
            os.dup2(nothing.fileno(), 0)
        if memory_mb is not None:
            size = memory_mb * 2**20
            resource.setrlimit(resource.RLIMIT_DATA, (size, size))
        code = int(_call(request["function"], request["arguments"]) or 0)
    except BaseException:  # noqa: BLE001 - a fork must not go on in its parent's code
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            util._exit_function()  # type: ignore[attr-defined]  # noqa: SLF001
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _send(channel: socket.socket, message: dict[str, Any]) -> None:
    text = json.dumps(message).encode()
    channel.sendall(len(text).to_bytes(4, "big") + text)


def _receive(channel: socket.socket) -> dict[str, Any] | None:
    """One message; None where the other end hung up."""
    size = _exactly(channel, 4)
    text = _exactly(channel, int.from_bytes(size, "big")) if size else None
    return json.loads(text) if text else None


def _exactly(channel: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = channel.recv(size - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


def main(words: Sequence[str]) -> None:
    """The server itself; its owner's end is its standard input."""
    limits = [word.removeprefix("--memory-mb=") for word in words if word.startswith("--")]
    preload = [word for word in words if not word.startswith("--")]
    channel = socket.socket(fileno=os.dup(0))
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor, not a path
        os.dup2(nothing.fileno(), 0)
    serve(channel, preload, int(limits[0]) if limits else None)


def _tell(text: str) -> None:
    sys.stderr.write(f"fork server {os.getpid()}: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
