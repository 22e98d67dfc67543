"""For how many days is kept what is no history, and what a purge did about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

MAX_DAYS = 3_650
TICKS, RUN_EVENTS, OUTPUT_FILES, SIGNALS = "ticks", "run_events", "output_files", "signals"
CHECK_RESULTS, RUNS, FRAMES, ALERTS = "check_results", "runs", "frames", "alerts"


@dataclass(frozen=True)
class Retention:
    """Days, counted from the end of what is kept; bars, decisions and ledgers have none."""

    # Not below what dagster.yaml keeps of failed sensor ticks.
    ticks_days: int = 14
    logs_days: int = 7
    # Their logs are thinned before.
    runs_days: int = 14
    # Longer than the minutes' partitions reach back: a minute without its signals cannot be
    # compared when it is computed again.
    signals_days: int = 90
    # From their end on, with all that was said of them.
    alerts_days: int = 90

    def days(self, kind: str) -> int:
        """For how many days this kind is kept."""
        kept = {
            TICKS: self.ticks_days,
            RUNS: self.runs_days,
            SIGNALS: self.signals_days,
            ALERTS: self.alerts_days,
        }
        return kept.get(kind, self.logs_days)

    def before(self, kind: str, now: datetime) -> datetime:
        """The instant before which this kind goes."""
        return now - timedelta(days=self.days(kind))


@dataclass(frozen=True)
class Removed:
    """What went of one kind, or would go in a dry run; bytes of rows are about those on disk."""

    kind: str
    days: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class TableSize:
    """Bytes of a table with its indexes, before a purge and after its vacuum.

    Vacuum gives room back to the table, seldom to the disk: it then stops growing.
    """

    table: str
    bytes_before: int
    bytes_after: int
    is_vacuumed: bool


@dataclass(frozen=True)
class Purge:
    """What one purge did, and how large the two databases are, in bytes."""

    is_dry_run: bool
    removed: Sequence[Removed]
    tables: Sequence[TableSize]
    database_bytes_before: int
    database_bytes_after: int

    @property
    def rows(self) -> int:
        """Rows and files of all kinds."""
        return sum(one.rows for one in self.removed)

    @property
    def bytes(self) -> int:
        """Their bytes, without indexes."""
        return sum(one.bytes for one in self.removed)
