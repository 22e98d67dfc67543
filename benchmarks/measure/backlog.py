"""What a long backlog costs: how long until it is closed, and until what is fresh is executed."""

import multiprocessing
import re
import time
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from typing import Any

from sqlalchemy import Engine, event, text

from benchmarks.measure.memory import MEGABYTE, peak_mb, resident_mb
from benchmarks.measure.throughput import NAME, Durability, durability, settle
from benchmarks.measure.workload import NOW, desk_of, put_fresh, put_market, put_stale
from ops_pipeline.dispatcher.run import run_once
from ops_pipeline.domain.errors import OperatorError
from ops_pipeline.proofs.scratch import scratch
from ops_pipeline.settings import Settings
from ops_pipeline.storage.dispatch import status_counts
from ops_pipeline.storage.engine import opened

FRESH = 1_000
BATCH = 100
SIZE = "select pg_total_relation_size('dispatch_recommendations')"
# Only a claim mints the next epoch.
CLAIM = re.compile(r"claim_epoch\s*=\s*(?:\w+\.)?claim_epoch\s*\+\s*1")
INDEX = re.compile(r"(?:Index|Index Only|Bitmap Index) Scan (?:Backward )?(?:using|on) (\w+)")


@dataclass(frozen=True)
class Worked:
    """What the process that works saw; seconds are from its first run on, memory is resident."""

    seconds: float
    runs: int
    expired: int
    executed: int
    expiry_seconds: float
    first_fresh_seconds: float
    start_mb: float
    end_mb: float
    peak_mb: float
    plan: tuple[str, ...]
    durability: Durability


@dataclass(frozen=True)
class Backlog:
    """So many rows that waited, all of them stale but the fresh ones, and what became of them."""

    rows: int
    fresh: int
    batch: int
    load_seconds: float
    size_mb: float
    worked: Worked
    statuses: dict[str, int]

    @property
    def indexes(self) -> list[str]:
        """The indexes by which the first claim was planned."""
        return sorted(set(INDEX.findall("\n".join(self.worked.plan))))

    @property
    def reads_all(self) -> bool:
        """Whether the first claim was planned to read the whole table."""
        return any("Seq Scan on dispatch_recommendations" in line for line in self.worked.plan)


def measure_backlog(settings: Settings, rows: int) -> Backlog:
    """Let one dispatcher process work off a backlog in a scratch of its own.

    Raises:
        OperatorError: it did not, or not all that was fresh is executed; that is no measure.
    """
    with scratch(settings, NAME) as inside, opened(inside) as engine:
        begun = time.monotonic()
        with engine.begin() as connection:
            put_market(connection)
            put_stale(connection, rows - FRESH)
            put_fresh(connection, FRESH)
        load_seconds = time.monotonic() - begun
        settle(engine)
        with engine.connect() as connection:
            size = int(connection.execute(text(SIZE)).scalar_one())
        worked = _in_child(inside)
        with engine.connect() as connection:
            statuses = status_counts(connection)
    if statuses != {"SIMULATED": FRESH, "SKIPPED": rows - FRESH}:
        raise OperatorError(f"the backlog of {rows:,} ended as {statuses}")
    return Backlog(rows, FRESH, BATCH, load_seconds, size / MEGABYTE, worked, statuses)


def _in_child(settings: Settings) -> Worked:
    context = multiprocessing.get_context("spawn")
    told: SimpleQueue[Worked] = context.SimpleQueue()
    process = context.Process(target=_work, args=(settings, told), daemon=True)
    process.start()
    try:
        process.join()
        if process.exitcode:
            raise OperatorError("the dispatcher's process ended before its work; see above")
        return told.get()
    finally:
        process.kill()
        process.join()


def _work(settings: Settings, told: "SimpleQueue[Worked]") -> None:
    with opened(settings) as engine:
        told.put(_worked(engine))


def _worked(engine: Engine) -> Worked:
    desk, plan = desk_of(engine, BATCH), _noted_plan(engine)
    with engine.connect() as connection:
        seen = durability(connection)
    start_mb = resident_mb()
    runs = expired = executed = 0
    expiry_seconds = first_fresh_seconds = 0.0
    begun = time.monotonic()
    while True:
        report = run_once(desk, NOW)
        seconds = time.monotonic() - begun
        runs, expired, executed = (
            runs + 1,
            expired + report.expired,
            executed + report.simulated,
        )
        if report.expired:
            expiry_seconds = seconds
        if report.simulated and not first_fresh_seconds:
            first_fresh_seconds = seconds
        if report.is_idle and not report.expired:
            break
    return Worked(
        seconds=seconds,
        runs=runs,
        expired=expired,
        executed=executed,
        expiry_seconds=expiry_seconds,
        first_fresh_seconds=first_fresh_seconds,
        start_mb=start_mb,
        end_mb=resident_mb(),
        peak_mb=peak_mb(),
        plan=tuple(plan),
        durability=seen,
    )


def _noted_plan(engine: Engine) -> list[str]:
    """The plan of the first claim, of the very statement and parameters that are then run."""
    plan: list[str] = []

    def explain(
        connection: Any, cursor: Any, statement: str, parameters: Any, *rest: object
    ) -> None:
        if not plan and CLAIM.search(statement):
            cursor.execute(f"explain {statement}", parameters)
            plan.extend(row[0] for row in cursor.fetchall())

    event.listen(engine, "before_cursor_execute", explain)
    return plan
