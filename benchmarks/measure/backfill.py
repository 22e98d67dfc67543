"""How long past sessions take: a range run for each, a run for each minute, two event writers."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from sqlalchemy import text

from benchmarks.measure.minutes import rows_of
from ops_pipeline.defs.replay import Player
from ops_pipeline.domain.session import Session
from ops_pipeline.settings import PROJECT_DIR, Settings
from ops_pipeline.storage.engine import open_engine

SESSIONS = "a run a session"
BY_MINUTE = "a run a minute"
OURS = "batched events"
STOCK = "stock events"
BATCH_SIZE = "DAGSTER_EVENT_BATCH_SIZE"
DOES = {
    SESSIONS: "as backfill does: all minutes of a session in one run",
    BY_MINUTE: "the naive way: one run for each partition, in this process, nothing to launch",
    OURS: "minutes of one session as one run, its events in few inserts on a kept connection",
    STOCK: "as many minutes as one run, Dagster's own storage, each event inserted by itself",
}
COUNT = text("select count(*) from event_logs")
OnWay = Callable[[str], None]


@dataclass(frozen=True)
class Filled:
    """Minutes that were filled one way; seconds are those of the runs, everything loaded."""

    way: str
    minutes: int
    runs: int
    rows: int
    events: int
    seconds: float

    @property
    def seconds_a_minute(self) -> float:
        """Seconds for each minute of the market."""
        return self.seconds / self.minutes


@dataclass(frozen=True)
class Sample:
    """Three stretches of one session that follow each other, as long as each other."""

    before: Sequence[datetime]
    by_minute: Sequence[datetime]
    ours: Sequence[datetime]
    stock: Sequence[datetime]


def sample_of(session: Session, size: int) -> Sample:
    """Stretches around the middle of a session, which costs what its minutes cost on average."""
    minutes = session.minutes()
    size = min(size, len(minutes) // 3)
    begin = (len(minutes) - 3 * size) // 2
    stretches = [minutes[begin + n * size : begin + (n + 1) * size] for n in range(3)]
    return Sample(minutes[:begin], *stretches)


def measure(
    player: Player,
    settings: Settings,
    sessions: Sequence[Session],
    sample: Sample,
    on_way: OnWay,
) -> list[Filled]:
    """Fill sessions a run each, then the stretches of a later session; nothing is traded."""
    on_way(SESSIONS)
    past = [minute for session in sessions for minute in session.minutes()]
    runs = [_ends(session.minutes()) for session in sessions]
    found = [_filled(SESSIONS, player, settings, past, runs)]
    on_way(BY_MINUTE)
    if sample.before:
        player.minutes(sample.before[0], sample.before[-1])
    runs = [(minute, minute) for minute in sample.by_minute]
    found.append(_filled(BY_MINUTE, player, settings, sample.by_minute, runs))
    on_way(OURS)
    found.append(_filled(OURS, player, settings, sample.ours, [_ends(sample.ours)]))
    on_way(STOCK)
    with _stock_instance() as instance:
        stock = player.beside(instance)
        found.append(_filled(STOCK, stock, settings, sample.stock, [_ends(sample.stock)]))
    return found


def _ends(minutes: Sequence[datetime]) -> tuple[datetime, datetime]:
    return minutes[0], minutes[-1]


def _filled(
    way: str,
    player: Player,
    settings: Settings,
    minutes: Sequence[datetime],
    runs: Sequence[tuple[datetime, datetime]],
) -> Filled:
    before, begun = _events(settings), time.monotonic()
    for first, last in runs:
        player.minutes(first, last)
    seconds = time.monotonic() - begun
    events = _events(settings) - before
    return Filled(way, len(minutes), len(runs), rows_of(settings, minutes), events, seconds)


def _events(settings: Settings) -> int:
    engine = open_engine(settings, settings.dagster_database)
    try:
        with engine.connect() as connection:
            return int(connection.execute(COUNT).scalar_one())
    finally:
        engine.dispose()


@contextmanager
def _stock_instance() -> Iterator[dg.DagsterInstance]:
    """The same Dagster database under its own storage, which is handed events one by one."""
    size = os.environ.pop(BATCH_SIZE)
    try:
        with tempfile.TemporaryDirectory(prefix="ops-bench-") as home:
            (Path(home) / "dagster.yaml").write_text(yaml.safe_dump(_stock_configuration()))
            with dg.DagsterInstance.from_config(home) as instance:
                yield instance
    finally:
        os.environ[BATCH_SIZE] = size


def _stock_configuration() -> dict[str, Any]:
    words = (PROJECT_DIR / "dagster.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(words)
    document["storage"] = {"postgres": document["storage"]["custom"]["config"]}
    # Nothing is launched: what it runs it runs in this process.
    del document["run_launcher"]
    return document
