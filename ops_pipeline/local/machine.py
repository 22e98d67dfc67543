"""This machine's clocks and its room on disk."""

import shutil
import time
from datetime import datetime
from pathlib import Path

from ops_pipeline.domain.machine import Clocks
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.settings import Settings

# Where a system has but one of the two, a sleep is seen as a jump of the clock.
SINCE_START = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def read_clocks(now: datetime) -> Clocks:
    """The three clocks, of which one is read already."""
    return Clocks(
        now.timestamp(),
        time.clock_gettime(SINCE_START),
        time.clock_gettime(time.CLOCK_MONOTONIC),
    )


def free_bytes(settings: Settings) -> int:
    """Room where this installation writes: the smaller of its folder and its databases."""
    data = EmbeddedServer.in_folder(settings.var_dir).data_dir
    places = [_existing(settings.var_dir), *([data] if data else [])]
    return min(shutil.disk_usage(place).free for place in places)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
