"""What a process holds in memory, in megabytes, as it sees itself."""

import re
import resource
from pathlib import Path

import psutil

MEGABYTE = 1_000_000


def resident_mb() -> float:
    """What is resident now."""
    return psutil.Process().memory_info().rss / MEGABYTE


def peak_mb() -> float:
    """The most that was resident since this process began."""
    status = Path("/proc/self/status")
    if status.exists():
        # What getrusage tells is, after an exec, the starting process's own peak.
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return int(found.group(1)) * 1024 / MEGABYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MEGABYTE
