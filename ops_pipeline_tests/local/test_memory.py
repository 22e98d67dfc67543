"""Threads that take turns take memory from one place."""

import ctypes
import subprocess
import sys

import pytest

# Each thread takes a good deal in small pieces and gives it back, one thread after the other.
GROWTH = """
import sys, threading, psutil
from ops_pipeline.local.memory import share_one_arena
if sys.argv[1] == "shared":
    assert share_one_arena()
pinned, gate = [], [threading.Event() for _ in range(9)]
def work(number):
    gate[number].wait()
    held = [bytearray(700) for _ in range(20_000)]
    pinned.append(held[-1])
    del held
    gate[number + 1].set()
    gate[8].wait()
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
before = psutil.Process().memory_info().rss
for thread in threads:
    thread.start()
gate[0].set()
gate[8].wait()
print((psutil.Process().memory_info().rss - before) // 1_000_000)
"""


def grown(how: str) -> int:
    """Megabytes that eight threads leave behind, which held 14 one after the other."""
    command = [sys.executable, "-c", GROWTH, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return int(done.stdout)


def test_threads_that_take_turns_leave_no_memory_behind() -> None:
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("this C library has no arenas")
    assert grown("shared") < 30 < grown("apart")
