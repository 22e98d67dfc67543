"""Tell whether Dagster does its work: the code location is loaded, schedules and sensors tick."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy.exc import OperationalError, ProgrammingError

from ops_pipeline.domain.errors import BadConfiguration, NotRunning
from ops_pipeline.local.processes import ProcessTable
from ops_pipeline.settings import CODE, DAEMON, Settings, read_object
from ops_pipeline.storage import runs
from ops_pipeline.storage.engine import opened

# Three ticks of the minute schedule.
MAX_TICK_AGE_SECONDS = 180.0
LOOK_SECONDS = 15.0
BOUND_SECONDS = 10.0


@dataclass(frozen=True)
class CodeLocation:
    """Tell whether the running code server has loaded its code, and why it last failed to."""

    is_loaded: bool
    error: str = ""


def location_file(settings: Settings) -> Path:
    """Return where the code server records how loading ended."""
    return settings.mode_dir / "code_location.json"


def code_location(settings: Settings, table: ProcessTable) -> CodeLocation:
    """Return what the code server recorded; a server that has not answered yet is not loaded."""
    try:
        kept = read_object(location_file(settings)) or {}
    except BadConfiguration:
        kept = {}
    process, error = table.find(CODE), str(kept.get("error", ""))
    is_its_own = process is not None and kept.get("pid") == process.pid
    return CodeLocation(is_its_own and not error, error)


def newest_ticks(settings: Settings) -> dict[str, datetime | None]:
    """Return when each frequent schedule and sensor last ticked, without those stopped by hand.

    Empty where Dagster's database does not answer, or has no tables yet.
    """
    try:
        with (
            opened(settings, settings.dagster_database, bound_seconds=BOUND_SECONDS) as dagster,
            dagster.connect() as connection,
        ):
            return runs.newest_ticks(connection)
    except (OperationalError, ProgrammingError, NotRunning):
        return {}


def late_ticks(settings: Settings, table: ProcessTable, now: datetime) -> dict[str, float]:
    """Return the seconds since the last tick, or the start of the daemon, of what is late."""
    began = table.began(DAEMON)
    if began is None:
        return {}
    ages = {
        name: now.timestamp() - max(began, at.timestamp() if at else 0.0)
        for name, at in newest_ticks(settings).items()
    }
    return {name: round(age) for name, age in ages.items() if age > MAX_TICK_AGE_SECONDS}


@dataclass
class TickWatch:
    """Notice a daemon that is alive and does not tick, by the clock of the process that watches."""

    read: Callable[[], Mapping[str, datetime | None]]
    seen: dict[str, tuple[datetime | None, float]] = field(default_factory=dict)
    not_before: float = 0.0

    def late(self, now: float) -> list[str]:
        """Return what has not ticked for too long; what cannot be read counts from anew."""
        if now < self.not_before:
            return []
        self.not_before = now + LOOK_SECONDS
        found = self.read()
        self.seen = {
            name: self.seen[name] if name in self.seen and self.seen[name][0] == at else (at, now)
            for name, at in found.items()
        }
        return [
            name for name, (_, since) in self.seen.items() if now - since > MAX_TICK_AGE_SECONDS
        ]
