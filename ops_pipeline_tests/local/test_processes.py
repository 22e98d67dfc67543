"""Background processes: found across invocations, never mistaken, ended with all their children."""

import json
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ops_pipeline.domain.errors import NotRunning, TimedOut, Unsafe
from ops_pipeline.engine.starts import Start
from ops_pipeline.local.ports import free_port, port_is_free
from ops_pipeline.local.processes import Process, ProcessTable, is_alive, wait_until
from ops_pipeline.private_files import replace_private
from ops_pipeline.settings import PROJECT_DIR
from ops_pipeline_tests.damage import DAMAGES

SLEEP = "import time; time.sleep(60)"
FAMILY = """
import pathlib, subprocess, sys, time
grandchild = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
child = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', sys.argv[1]]);"
child += "print(p.pid, flush=True); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", child, grandchild])
time.sleep(60)
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
STUBBORN += "print('ready', flush=True); time.sleep(60)"


class Bench:
    """A table in a folder, and short ways to use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table = ProcessTable(folder / "run")

    def log(self, name: str) -> Path:
        """Where the process of this name writes."""
        return self.folder / "logs" / f"{name}.log"

    def record(self, name: str) -> Path:
        """What the table keeps about it."""
        return self.table.run_dir / f"{name}.json"

    def start(self, name: str, code: str = SLEEP, **env: str) -> Process:
        """Start a line of Python."""
        command = [sys.executable, "-c", code]
        return self.table.start(name, command, env, self.log(name), self.folder)

    def wait_for_line(self, name: str) -> str:
        """What it wrote, once it wrote a line."""
        wait_until(lambda: "\n" in self.log(name).read_text(), 10, f"{name} did not write")
        return self.log(name).read_text()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for process in bench.table.all():
        bench.table.stop(process.name, timeout_seconds=1)


def test_a_started_process_is_found_by_another_table(bench: Bench) -> None:
    process = bench.start("web")
    assert ProcessTable(bench.table.run_dir).find("web") == process


def test_all_lists_the_living_by_name(bench: Bench) -> None:
    assert bench.table.all() == []
    web, daemon, dead = bench.start("web"), bench.start("daemon"), bench.start("dead")
    os.kill(dead.pid, signal.SIGKILL)
    wait_until(lambda: bench.table.find("dead") is None, 5, "it did not die")
    assert bench.table.all() == [daemon, web]


def test_it_gets_our_environment_folder_and_log_and_its_own_session(bench: Bench) -> None:
    code = "import os; print(sorted(os.environ), os.getcwd(), os.getsid(0) == os.getpid())"
    bench.start("web", code, ONLY="this")
    line = bench.wait_for_line("web")
    assert "'ONLY'" in line
    assert "'PATH'" not in line
    assert line.endswith(f"{bench.folder} True\n")


def test_a_second_run_appends_to_the_log(bench: Bench) -> None:
    for _ in range(2):
        bench.start("web", "print('ran')")
        wait_until(lambda: bench.table.find("web") is None, 5, "it did not end")
    assert bench.log("web").read_text() == "ran\nran\n"


def test_the_record_is_private_and_holds_no_secret(bench: Bench) -> None:
    process = bench.start("web", SLEEP, PASSWORD="do-not-tell")
    assert json.loads(bench.record("web").read_text()) == vars(process)
    assert stat.S_IMODE(bench.record("web").stat().st_mode) == 0o600
    assert "do-not-tell" not in " ".join(psutil.Process(process.pid).cmdline())


def test_a_living_name_is_not_started_twice(bench: Bench) -> None:
    process = bench.start("web")
    with pytest.raises(Unsafe, match=f"web already runs as pid {process.pid}"):
        bench.start("web")
    assert bench.table.all() == [process]


def test_a_command_that_does_not_exist_is_a_one_line_error(bench: Bench) -> None:
    with pytest.raises(NotRunning, match=r"web could not be started: .*no-such-program"):
        bench.table.start("web", ["no-such-program"], {}, bench.log("web"), bench.folder)
    assert bench.table.find("web") is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere psutil's start is all there is")
def test_a_step_of_the_clock_takes_no_process_for_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, boot = bench.start("web"), psutil.boot_time()
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot + 3_600)
    assert bench.table.find("web") == process
    assert bench.table.began("web") > boot + 3_600
    with pytest.raises(Unsafe):
        bench.start("web")
    assert bench.table.stop("web")
    assert not psutil.pid_exists(process.pid)


def test_what_an_earlier_version_has_started_is_found_and_ended(bench: Bench) -> None:
    process = bench.start("web")
    seconds = psutil.Process(process.pid).create_time()
    replace_private(bench.record("web"), json.dumps({**vars(process), "started": seconds}))
    assert bench.table.stop("web")
    assert not psutil.pid_exists(process.pid)


@pytest.mark.parametrize("started", ["another-boot 100", 100.0])
def test_another_process_with_a_recorded_pid_is_not_ours_and_not_stopped(
    bench: Bench, started: Start
) -> None:
    process = bench.start("web")
    later = replace(process, name="old", started=started)
    replace_private(bench.record("old"), json.dumps(vars(later)))
    assert bench.table.find("old") is None
    assert not bench.table.stop("old")
    assert not bench.record("old").exists()
    assert bench.table.find("web") == process


def test_a_zombie_is_dead_and_gets_collected(bench: Bench) -> None:
    process = bench.start("web")
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: bench.table.find("web") is None, 5, "it did not die")
    assert not psutil.pid_exists(process.pid)


def test_stop_ends_the_whole_tree_however_stubborn(bench: Bench) -> None:
    process = bench.start("web", FAMILY)
    grandchild = psutil.Process(int(bench.wait_for_line("web")))
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    assert grandchild in family
    assert len(family) == 3
    assert bench.table.stop("web")
    assert not any(map(is_alive, family))
    assert not bench.record("web").exists()


def test_stop_kills_what_ignores_the_request(bench: Bench) -> None:
    process = bench.start("web", STUBBORN)
    bench.wait_for_line("web")
    assert bench.table.stop("web", timeout_seconds=0.2)
    assert not psutil.pid_exists(process.pid)


def test_stop_gives_time_to_end_in_order(bench: Bench) -> None:
    code = "import signal, sys, time; "
    code += "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), sys.exit(print('bye')))); "
    code += "print('ready', flush=True); time.sleep(60)"
    bench.start("web", code)
    bench.wait_for_line("web")
    assert bench.table.stop("web")
    assert bench.log("web").read_text() == "ready\nbye\n"


def test_stopping_the_dead_or_the_unknown_does_nothing(bench: Bench) -> None:
    assert not bench.table.stop("unknown")
    process = bench.start("web")
    assert bench.table.stop("web")
    assert not bench.table.stop("web")
    assert not psutil.pid_exists(process.pid)


ASKS = """
import pathlib, subprocess, sys, time
from ops_pipeline.local.processes import ProcessTable
table = ProcessTable(pathlib.Path("run"))
while not table.knows("other"): time.sleep(0.05)
print([table.would_end_us(name) for name in ("web", "other", "unknown")], flush=True)
if len(sys.argv) == 1: subprocess.run([sys.executable, "-c", open("asks.py").read(), "child"])
time.sleep(60)
"""


def test_a_process_knows_whose_end_would_be_its_own(bench: Bench) -> None:
    (bench.folder / "asks.py").write_text(ASKS)
    bench.start("web", ASKS, PYTHONPATH=str(PROJECT_DIR))
    bench.start("other")
    wait_until(lambda: bench.log("web").read_text().count("\n") == 2, 20, "they did not say")
    assert bench.log("web").read_text() == "[True, False, False]\n" * 2


def test_memory_counts_the_children_and_is_nothing_for_the_dead(bench: Bench) -> None:
    bench.start("one", f"print('ready', flush=True); {SLEEP}")
    bench.start("three", FAMILY)
    bench.wait_for_line("one")
    bench.wait_for_line("three")
    assert bench.table.memory_bytes("three") > bench.table.memory_bytes("one") > 1_000_000
    assert bench.table.memory_bytes("unknown") == 0


def test_waiting_ends_as_soon_as_it_holds_and_fails_in_words() -> None:
    answers = iter([False, False, True])
    wait_until(lambda: next(answers), 5, "never")
    with pytest.raises(TimedOut, match=r"^the web server did not answer in 0\.1 s") as caught:
        wait_until(lambda: False, 0.1, "the web server did not answer", hint="look")
    assert caught.value.hint == "look"


def test_a_port_is_free_until_somebody_listens() -> None:
    port = free_port()
    assert port_is_free(port)
    with socket.create_server(("127.0.0.1", port)):
        assert not port_is_free(port)
    with socket.create_server(("0.0.0.0", port)):  # noqa: S104 - the case is somebody else's server
        assert not port_is_free(port)
    assert port_is_free(port)


def test_a_private_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "inner" / "secret"
    for text in ("first", "second"):
        replace_private(path, text)
        assert path.read_text() == text
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("damage", list(DAMAGES.values()), ids=list(DAMAGES))
def test_a_process_with_a_damaged_record_is_found_and_stopped(
    bench: Bench, damage: Callable[[Path], None]
) -> None:
    process = bench.start("web")
    damage(bench.record("web"))
    assert bench.table.find("web") == process
    with pytest.raises(Unsafe, match="already runs"):
        bench.start("web")
    assert bench.table.stop("web", timeout_seconds=1)
    assert not psutil.pid_exists(process.pid)


def test_a_process_whose_record_cannot_be_written_is_ended_and_that_is_one_line(
    bench: Bench,
) -> None:
    bench.record("web").mkdir(parents=True)
    with pytest.raises(NotRunning, match=r"web was ended again: .*web\.json: Is a directory"):
        bench.start("web")
    assert bench.table.all() == []
