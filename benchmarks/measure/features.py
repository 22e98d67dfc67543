"""How long the features take: dbt, pandas and DuckDB over the same rows of PostgreSQL, in turn."""

import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import psycopg

from benchmarks.features import duck, frames
from benchmarks.features.agreement import Agreement, agreement, rows_of
from benchmarks.features.exchange import (
    OURS,
    Window,
    connect,
    create_target,
    read,
    write,
)
from benchmarks.measure.throughput import settle
from ops_pipeline.defs import dbt
from ops_pipeline.defs.minutes import minutes_between
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.defs.tick import tick
from ops_pipeline.domain.session import Session
from ops_pipeline.domain.stages import BARS, NEWS, SENTIMENT
from ops_pipeline.settings import Settings
from ops_pipeline.storage.knowledge import stamp_cutoffs

INPUTS = (NEWS, BARS, SENTIMENT)
PHASES = ("read", "compute", "write")
Phases = Mapping[str, float]
OnWay = Callable[[str], None]


@dataclass(frozen=True)
class Measured:
    """One way: the fastest of its runs over the range, and over one minute, in seconds.

    Phases are those of the fastest run over the range; a way that is one statement has none.
    Every run is followed by a look at its rows; `agreement` is None for what others are held to.
    """

    way: str
    does: str
    rows: int
    seconds: float
    phases: Phases
    minute_seconds: float
    agreement: Agreement | None = None

    @property
    def per_second(self) -> float:
        """Rows of features a second over the range."""
        return self.rows / self.seconds


class Way(ABC):
    """One way to make the features of a window, from PostgreSQL's tables to one of them."""

    name: str
    does: str
    table: str

    @abstractmethod
    def make(self, window: Window, folder: Path) -> Phases:
        """Put the window's rows into the table. Returns seconds by phase, where there are any."""


class Dbt(Way):
    """Ours: the models as a run of the stage calls them."""

    name = "dbt"
    does = (
        "the models in this process, parsed and warm; PostgreSQL computes, each minute looks back"
        " at what was known at its cut-off, and its rows replace those of before (commit)"
    )
    table = OURS

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def make(self, window: Window, folder: Path) -> Phases:  # noqa: ARG002
        """Run the whole dbt project over the window."""
        variables = dbt.window_vars(window.first, window.end, window.model)
        dbt.run(self._settings, "run", variables)
        return {}


class Pandas(Way):
    """Frames, rolled and joined as wholes."""

    name = "pandas"
    does = (
        "reads bars and scores by COPY, groups, rolls and joins whole columns, replaces the rows"
        " by COPY (commit); assumes that no bar came late"
    )
    table = "features_pandas"

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def make(self, window: Window, folder: Path) -> Phases:
        """Read, compute and write the window."""
        watch, made = Watch(), folder / "made.csv"
        loaded = frames.load(read(self._connection, window, folder))
        watch.lap("read")
        found = frames.compute(loaded)
        watch.lap("compute")
        frames.save(found, made)
        write(self._connection, self.table, window, made)
        watch.lap("write")
        return watch.laps


class DuckDb(Way):
    """Window functions of an engine that is made for them."""

    name = "DuckDB"
    does = (
        "reads the same by COPY, window functions and an asof join in memory on all processors,"
        " replaces the rows by COPY (commit); assumes that no bar came late"
    )
    table = "features_duckdb"

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def make(self, window: Window, folder: Path) -> Phases:
        """Read, compute and write the window."""
        watch, made = Watch(), folder / "made.csv"
        with duck.connect() as database:
            duck.load(database, read(self._connection, window, folder))
            watch.lap("read")
            duck.compute(database)
            watch.lap("compute")
            duck.save(database, made)
        write(self._connection, self.table, window, made)
        watch.lap("write")
        return watch.laps


class Watch:
    """Seconds from one lap to the next."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._since = time.monotonic()

    def lap(self, name: str) -> None:
        """End a lap, and begin the next."""
        now = time.monotonic()
        self.laps[name], self._since = now - self._since, now


def measure(
    settings: Settings, sessions: Sequence[Session], repeats: int, on_way: OnWay
) -> list[Measured]:
    """Make the features of these sessions each way, so many times in turn, and compare the rows.

    The settings are those of a scratch in replay mode whose market holds these sessions and the
    one before. Of each repeat, on_way is told three times.
    """
    pipeline = Pipeline(settings)
    whole, single = _put_inputs(pipeline, sessions)
    dbt.warm()
    try:
        with connect(settings) as connection:
            peers: list[Way] = [Pandas(connection), DuckDb(connection)]
            for peer in peers:
                create_target(connection, peer.table)
            settle(pipeline.engine)
            ways = [Dbt(settings), *peers]
            found = _in_turn(ways, whole, single, repeats, on_way)
        with pipeline.engine.connect() as reading:
            rows = {way.table: rows_of(reading, way.table) for way in ways}
    finally:
        pipeline.engine.dispose()
    ours = rows[OURS]
    return [
        replace(
            one,
            rows=len(rows[way.table]),
            agreement=None if way.table == OURS else agreement(ours, rows[way.table]),
        )
        for way, one in zip(ways, found, strict=True)
    ]


def _put_inputs(pipeline: Pipeline, sessions: Sequence[Session]) -> tuple[Window, Window]:
    """Bars, scored news and cut-offs. Returns the whole range, and a minute in its middle."""
    first, last = sessions[0].minutes()[0], sessions[-1].minutes()[-1]
    tick(pipeline, first, last, INPUTS)
    middle = sessions[len(sessions) // 2]
    minutes = minutes_between(first, sessions[-1].closes_at, "bench", pipeline)
    cutoffs: dict[datetime, datetime] = {m: pipeline.timing.as_of(m) for _, m in minutes.pairs}
    with pipeline.engine.begin() as connection:
        stamp_cutoffs(connection, minutes.pairs, cutoffs, minutes.run_id, pipeline.calendar)
    noon = middle.minutes()[len(middle.minutes()) // 2]
    model = pipeline.classifier.model
    return Window(sessions[0], first, last, model), Window(middle, noon, noon, model)


def _in_turn(
    ways: Sequence[Way], whole: Window, single: Window, repeats: int, on_way: OnWay
) -> list[Measured]:
    ranges: dict[str, list[tuple[float, Phases]]] = {way.name: [] for way in ways}
    singles: dict[str, list[float]] = {way.name: [] for way in ways}
    with tempfile.TemporaryDirectory(prefix="ops-bench-") as folder:
        for way in ways:
            # Not counted: what a process loads only once.
            way.make(single, Path(folder))
        for _ in range(repeats):
            for way in ways:
                on_way(way.name)
                ranges[way.name].append(_timed(way, whole, Path(folder)))
                singles[way.name].append(_timed(way, single, Path(folder))[0])
    found = []
    for way in ways:
        seconds, phases = min(ranges[way.name], key=lambda run: run[0])
        found.append(Measured(way.name, way.does, 0, seconds, phases, min(singles[way.name])))
    return found


def _timed(way: Way, window: Window, folder: Path) -> tuple[float, Phases]:
    begun = time.monotonic()
    phases = way.make(window, folder)
    return time.monotonic() - begun, phases
