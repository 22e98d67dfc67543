import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ops_pipeline.engine.forks import ForkServer, ForksUnavailable, Worker, unfit

WORK = """
import os, pathlib, sys, threading, time

LOADED = []


def load():
    LOADED.append(os.getpid())


def tell(path, words):
    known = f"{os.getppid()} {LOADED} {os.getsid(0) == os.getpid()} {sys.stdin.read()!r} {words}"
    pathlib.Path(path).write_text(known)


def sleep(path):
    pathlib.Path(path).write_text("begun")
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        pathlib.Path(path).write_text("interrupted")


def lock(path):
    import multiprocessing

    kept.append(multiprocessing.get_context("spawn").RLock())
    name = kept[0]._semlock.name.strip("/")
    there = pathlib.Path("/dev/shm", f"sem.{name}").exists()
    pathlib.Path(path).write_text(f"{name} {there}")


kept = []


def fail(path):
    pathlib.Path(path).write_text("failing")
    raise SystemExit("no rows")


def hoard(path):
    try:
        kept = bytearray(600 * 2**20)
    except MemoryError:
        pathlib.Path(path).write_text("refused")
    else:
        pathlib.Path(path).write_text(f"got {len(kept)}")
"""

SEMAPHORES = Path("/dev/shm")  # noqa: S108 - where Linux keeps them
Forks = Callable[..., ForkServer]


@pytest.fixture
def forks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Forks]:
    (tmp_path / "forks_work.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    made = []

    def make(*preload: str, memory_mb: int | None = None) -> ForkServer:
        made.append(ForkServer(preload or ["forks_work:load"], memory_mb))
        return made[-1]

    yield make
    for server in made:
        server.stop()


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def said(path: Path) -> str:
    until(lambda: path.exists() and path.read_text())
    return path.read_text()


def test_fork_has_what_was_loaded_a_session_of_its_own_and_no_input(
    forks: Forks, tmp_path: Path
) -> None:
    server = forks()
    worker = server.fork("forks_work:tell", path=str(tmp_path / "told"), words=["a", "é"])
    assert said(tmp_path / "told") == f"{server.pid} [{server.pid}] True '' ['a', 'é']"
    until(lambda: not worker.is_alive())


def test_server_is_started_at_once_and_loads_while_its_owner_goes_on(
    forks: Forks, tmp_path: Path
) -> None:
    (tmp_path / "forks_slow.py").write_text("import time; time.sleep(1)")
    server = forks("forks_slow", "forks_work:load")
    began = time.monotonic()
    server.start()
    assert time.monotonic() - began < 0.5
    assert server.pid
    server.fork("forks_work:tell", path=str(tmp_path / "told"), words=[])
    assert said(tmp_path / "told")


def test_ended_fork_is_not_alive_and_is_collected(forks: Forks, tmp_path: Path) -> None:
    server = forks()
    worker = server.fork("forks_work:fail", path=str(tmp_path / "told"))
    assert said(tmp_path / "told") == "failing"
    until(lambda: not worker.is_alive())
    until(lambda: not psutil.pid_exists(worker.pid))
    assert server.pid


@pytest.mark.skipif(not SEMAPHORES.is_dir(), reason="semaphores have no folder here")
def test_fork_leaves_no_semaphore_behind(forks: Forks, tmp_path: Path) -> None:
    worker = forks().fork("forks_work:lock", path=str(tmp_path / "told"))
    name, _, was_there = said(tmp_path / "told").partition(" ")
    assert was_there == "True"
    until(lambda: not worker.is_alive())
    assert not (SEMAPHORES / f"sem.{name}").exists()


def test_fork_takes_an_interrupt(forks: Forks, tmp_path: Path) -> None:
    worker = forks().fork("forks_work:sleep", path=str(tmp_path / "told"))
    assert said(tmp_path / "told") == "begun"
    assert worker.send(signal.SIGINT)
    until(lambda: (tmp_path / "told").read_text() == "interrupted")
    until(lambda: not worker.is_alive())
    assert not worker.send(signal.SIGINT)


def test_forks_outlive_their_server_and_the_next_one_comes_from_a_new_server(
    forks: Forks, tmp_path: Path
) -> None:
    server = forks()
    worker = server.fork("forks_work:sleep", path=str(tmp_path / "told"))
    said(tmp_path / "told")
    before = server.pid
    assert before
    os.kill(before, signal.SIGKILL)
    until(lambda: server.pid is None)
    assert worker.is_alive()
    server.fork("forks_work:tell", path=str(tmp_path / "again"), words=[])
    assert said(tmp_path / "again")
    assert server.pid not in (None, before)
    worker.send(signal.SIGKILL)


def test_server_ends_with_its_owner(forks: Forks, tmp_path: Path) -> None:
    server = forks()
    worker = server.fork("forks_work:sleep", path=str(tmp_path / "told"))
    said(tmp_path / "told")
    pid = server.pid
    assert pid
    server.stop()
    assert not psutil.pid_exists(pid)
    assert worker.is_alive()
    worker.send(signal.SIGKILL)


@pytest.mark.parametrize(
    ("text", "said_of_it"),
    [("import nowhere", "ModuleNotFoundError"), ("exit(3)", "SystemExit"), ("(", "SyntaxError")],
)
def test_what_cannot_be_loaded_is_named_at_each_request(
    forks: Forks, tmp_path: Path, text: str, said_of_it: str
) -> None:
    (tmp_path / "forks_broken.py").write_text(text)
    server = forks("forks_work", "forks_broken")
    for _ in range(2):
        with pytest.raises(ForksUnavailable, match=f"{said_of_it} while loading forks_broken"):
            server.fork("forks_work:tell", path=str(tmp_path / "told"), words=[])
    assert not (tmp_path / "told").exists()


def test_what_could_not_be_loaded_is_loaded_once_it_can_be(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "forks_broken.py").write_text("raise OSError('no space left on device')")
    server = forks("forks_work", "forks_broken")
    with pytest.raises(ForksUnavailable, match="no space left"):
        server.fork("forks_work:tell", path=str(tmp_path / "told"), words=["well"])
    (tmp_path / "forks_broken.py").write_text("")
    server.fork("forks_work:tell", path=str(tmp_path / "told"), words=["well"])
    assert said(tmp_path / "told")


@pytest.mark.parametrize(("limit", "outcome"), [(400, "refused"), (None, f"got {600 * 2**20}")])
def test_fork_that_asks_for_too_much_memory_is_refused_it(
    forks: Forks, tmp_path: Path, limit: int | None, outcome: str
) -> None:
    forks(memory_mb=limit).fork("forks_work:hoard", path=str(tmp_path / "told"))
    assert said(tmp_path / "told") == outcome


def test_fifty_forks_at_once_from_eight_threads_are_fifty_processes(
    forks: Forks, tmp_path: Path
) -> None:
    server = forks()
    workers: list[Worker] = []

    def ask(first: int) -> None:
        for number in range(first, 50, 8):
            path = str(tmp_path / f"told{number}")
            workers.append(server.fork("forks_work:tell", path=path, words=[number]))

    threads = [threading.Thread(target=ask, args=[first]) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(50):
        assert said(tmp_path / f"told{number}").endswith(f"[{number}]")
    assert len({worker.pid for worker in workers}) == 50
    until(lambda: not psutil.Process(server.pid).children())


def test_later_process_with_the_same_number_is_not_the_worker() -> None:
    now = Worker.current(os.getpid())
    assert now.is_alive()
    assert not Worker(now.pid, f"{now.started}1").is_alive()
    assert not Worker(now.pid, psutil.Process().create_time() - 3600).is_alive()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere psutil's start is all there is")
def test_worker_is_alive_after_a_step_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now, boot = Worker.current(os.getpid()), psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot + 3_600)
    assert now.is_alive()


def test_threads_and_connections_are_named_as_unfit_for_a_fork() -> None:
    import socket

    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="a pool", daemon=True)
    listening = socket.create_server(("127.0.0.1", 0))
    thread.start()
    try:
        problems = unfit(psutil.Process())
    finally:
        stop.set()
        listening.close()
    assert "thread a pool" in problems
    assert any("connection" in problem for problem in problems)
