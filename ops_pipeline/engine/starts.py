"""When a process began, which tells it apart from a later one of the same number."""

from pathlib import Path

import psutil

# psutil derives a start from the boot time, which moves a little when the clock is corrected.
SAME_START_SECONDS = 5.0
# Of the fields behind the name, which may hold anything; proc(5) counts them from 1.
FIRST_FIELD, START_FIELD = 3, 22

# What the kernel says, or seconds since 1970 by psutil.
Start = str | float


def start_of(pid: int) -> Start:
    """When the process of this number began; a step of the system clock changes nothing in it.

    On Linux the kernel's boot and its ticks since: psutil knows them, and gives no public way to
    them. Elsewhere psutil's `create_time`.

    Raises:
        psutil.NoSuchProcess: there is none.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return psutil.Process(pid).create_time()
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(pid) from error
    ticks = line.rpartition(b")")[2].split()[START_FIELD - FIRST_FIELD].decode()
    return f"{boot} {ticks}"


def began_at(pid: int, start: Start) -> bool:
    """Whether the process of this number is the one that began then.

    Seconds are also what earlier versions have recorded on Linux.

    Raises:
        psutil.NoSuchProcess: there is none.
    """
    if isinstance(start, str):
        return start_of(pid) == start
    return abs(psutil.Process(pid).create_time() - start) < SAME_START_SECONDS
