"""The purge of what is no history, as a verb's work and as an asset of every day."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any, Protocol

import dagster as dg
from sqlalchemy import Engine

from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.retention import (
    ALERTS,
    CHECK_RESULTS,
    FRAMES,
    OUTPUT_FILES,
    RUN_EVENTS,
    RUNS,
    SIGNALS,
    TICKS,
    Purge,
    Removed,
    TableSize,
)
from ops_pipeline.domain.slo import MEGABYTE
from ops_pipeline.engine.retention import (
    OldChecks,
    OldEvents,
    OldOutput,
    OldRuns,
    OldTicks,
    has_tables,
)
from ops_pipeline.settings import Settings
from ops_pipeline.storage.engine import open_engine, opened
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.retention import (
    OldAlerts,
    OldFrames,
    OldSignals,
    database_bytes,
    sole_purge,
    table_bytes,
    vacuum,
)

NAME = "retention"
# Of a kind: what went so far, and how much there is.
OnProgress = Callable[[str, int, int], None]


class Old(Protocol):
    """What is too old of one kind; an amount is rows or files, and bytes."""

    def count(self) -> tuple[int, int]:
        """How much there is."""

    def remove(self) -> Iterator[tuple[int, int]]:
        """Delete it in small transactions; yields what went with each."""


def _quiet(kind: str, done: int, total: int) -> None:
    """Tell nobody."""


def purge(
    settings: Settings,
    now: datetime,
    *,
    is_dry_run: bool = False,
    on_progress: OnProgress = _quiet,
) -> Purge:
    """Remove what this mode keeps no longer, or count it; safe beside everything that runs.

    It may be killed at any instant: what it has removed is gone, the rest is for the next one.

    Raises:
        Unsafe: another purge is at work; nothing was removed.
    """
    with ExitStack() as stack:
        pipeline = stack.enter_context(opened(settings))
        dagster = stack.enter_context(_opened_dagster(settings))
        if not is_dry_run:
            stack.enter_context(sole_purge(pipeline))
        databases = (pipeline, dagster)
        before = sum(database_bytes(engine) for engine in databases)
        thinned = {engine: table_bytes(engine, _tables(engine is dagster)) for engine in databases}
        removed = []
        for kind, old in _olds(settings, now, pipeline, dagster).items():
            amount = old.count() if is_dry_run else _remove(kind, old, on_progress)
            removed.append(Removed(kind, settings.retention.days(kind), *amount))
        tables: list[TableSize] = []
        if not is_dry_run and any(one.rows for one in removed):
            tables = [size for engine in databases for size in vacuum(engine, thinned[engine])]
        after = sum(database_bytes(engine) for engine in databases)
    return Purge(is_dry_run, removed, tables, before, after)


def _olds(settings: Settings, now: datetime, pipeline: Engine, dagster: Engine) -> dict[str, Old]:
    kept = settings.retention
    olds: dict[str, Old] = {}
    if has_tables(dagster):
        olds[TICKS] = OldTicks(dagster, kept.before(TICKS, now))
        olds[RUN_EVENTS] = OldEvents(dagster, kept.before(RUN_EVENTS, now))
        olds[CHECK_RESULTS] = OldChecks(dagster, kept.before(CHECK_RESULTS, now))
        folder = settings.mode_dir / "dagster"
        olds[OUTPUT_FILES] = OldOutput(dagster, kept.before(OUTPUT_FILES, now), folder)
        # After all that asks a run when it ended.
        olds[RUNS] = OldRuns(dagster, kept.before(RUNS, now))
    if settings.mode.is_live:
        # A replay compares a day with what it decided before, however long ago that was.
        olds[SIGNALS] = OldSignals(pipeline, kept.before(SIGNALS, now))
        olds[FRAMES] = OldFrames(pipeline, kept.before(FRAMES, now))
        olds[ALERTS] = OldAlerts(pipeline, kept.before(ALERTS, now))
    return olds


def _tables(is_dagster: bool) -> list[str]:  # noqa: FBT001 - one of two databases
    if not is_dagster:
        return ["signals", "broker_frames", "alerts", "alert_messages", "alert_deliveries"]
    return [table.name for old in (OldTicks, OldEvents, OldChecks, OldRuns) for table in old.tables]


def _remove(kind: str, old: Old, on_progress: OnProgress) -> tuple[int, int]:
    total, _ = old.count()
    rows = size = 0
    on_progress(kind, 0, total)
    for gone, bytes_gone in old.remove():
        rows, size = rows + gone, size + bytes_gone
        on_progress(kind, rows, total)
    return rows, size


@contextmanager
def _opened_dagster(settings: Settings) -> Iterator[Engine]:
    engine = open_engine(settings, settings.dagster_database)
    try:
        yield engine
    finally:
        engine.dispose()


@dg.asset(name=NAME, group_name=NAME)
def retention(pipeline: dg.ResourceParam[Pipeline]) -> dg.MaterializeResult[Any]:
    """What is no history goes after its days: ticks, logs, repeated verdicts, runs, signals."""
    return dg.MaterializeResult(metadata=_metadata(purge(pipeline.settings, clock())))


def _metadata(done: Purge) -> dict[str, Any]:
    told = {
        "removed_rows": done.rows,
        "removed_mb": _megabytes(done.bytes),
        **{f"removed_{one.kind}": one.rows for one in done.removed},
        "database_mb_before": _megabytes(done.database_bytes_before),
        "database_mb_after": _megabytes(done.database_bytes_after),
        "days_kept": dg.MetadataValue.json({one.kind: one.days for one in done.removed}),
    }
    if done.tables:
        sizes = {size.table: _megabytes(size.bytes_after) for size in done.tables}
        told["tables_mb_after"] = dg.MetadataValue.json(sizes)
    return told


def _megabytes(count: int) -> float:
    return round(count / MEGABYTE, 1)
