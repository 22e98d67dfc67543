"""How many recommendations a second are worked off, by this dispatcher and by other queues.

Each measurement has new databases of its own on the same server, and processes that start together.
"""

import multiprocessing
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from threading import BrokenBarrierError

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from benchmarks.measure.workload import NOW, desk_of, put_fresh, put_market
from ops_pipeline.dispatcher.run import run_once
from ops_pipeline.domain.errors import OperatorError, TimedOut
from ops_pipeline.proofs.scratch import scratch
from ops_pipeline.settings import Settings
from ops_pipeline.storage.engine import opened

NAME = "bench_dispatch"
START_SECONDS = 60
WORK_SECONDS = 900
POLL_SECONDS = 0.01
# One by one is what one would write first; more of them would take minutes.
ONE_BY_ONE_AT_MOST = 200
DURABILITY = (
    "select current_setting('synchronous_commit'), current_setting('fsync'),"
    " current_setting('full_page_writes')"
)


@dataclass(frozen=True)
class Durability:
    """What a commit waits for, as the connection that works sees it."""

    synchronous_commit: str
    fsync: str
    full_page_writes: str


@dataclass(frozen=True)
class Tuning:
    """How many jobs one claim takes, and how many transactions one worker has open at once."""

    batch: int
    at_once: int = 1


Ready = Callable[[Durability], None]


@dataclass(frozen=True)
class System(ABC):
    """One way to work a queue off. It is sent to other processes, and holds nothing open."""

    name: str
    does: str  # for each job, in words
    unfinished: str  # a query: whether anything is left to do
    ledger: str  # the table that gets one row for each recommendation
    at_most: int = 1_000_000
    is_tuned: bool = True  # tries each tuning, and goes on with more workers

    @abstractmethod
    def tunings(self, batches: Sequence[int]) -> list[Tuning]:
        """What to try with one worker; the fastest goes on with more."""

    @abstractmethod
    def fill(self, settings: Settings, count: int) -> None:
        """Queue so many recommendations in an empty scratch."""

    @abstractmethod
    def work(self, settings: Settings, tuning: Tuning, ready: Ready) -> None:
        """Connect, say `ready`, which waits for the other workers, and work until all is done."""


@dataclass(frozen=True)
class Measured:
    """One measurement; `ledger_rows` is what it left behind."""

    system: str
    workers: int
    batch: int
    at_once: int
    recommendations: int
    ledger_rows: int
    all_seconds: tuple[float, ...]
    durability: Durability

    @property
    def seconds(self) -> float:
        """The fastest of its repeats: what else this machine did only ever adds."""
        return min(self.all_seconds)

    @property
    def per_second(self) -> float:
        """Recommendations worked off in a second."""
        return self.recommendations / self.seconds

    @property
    def tuning(self) -> Tuning:
        """As it was asked for."""
        return Tuning(self.batch, self.at_once)


class Dispatcher(System):
    """This project's own, in replay mode: the present is given, all else is as it trades."""

    def tunings(self, batches: Sequence[int]) -> list[Tuning]:
        """Each batch; a worker has one connection at work."""
        return [Tuning(batch) for batch in batches]

    def fill(self, settings: Settings, count: int) -> None:
        """Bars and recommendations."""
        with opened(settings) as engine, engine.begin() as connection:
            put_market(connection)
            put_fresh(connection, count)

    def work(self, settings: Settings, tuning: Tuning, ready: Ready) -> None:
        """Runs until nothing is left, not even with another worker."""
        with opened(settings) as engine:
            desk = desk_of(engine, tuning.batch)
            with engine.connect() as connection:
                seen = durability(connection)
            ready(seen)
            while True:
                if not run_once(desk, NOW).is_idle:
                    continue
                with engine.connect() as connection:
                    if not connection.execute(text(self.unfinished)).scalar_one():
                        return
                time.sleep(POLL_SECONDS)


OURS = Dispatcher(
    name="ops-pipeline",
    does=(
        "claims a batch (commit), decides 13 gates for each, closes the rows and writes the ledger"
        " (one commit for the batch); decision and ledger row are atomic"
    ),
    unfinished=(
        "select exists (select from dispatch_recommendations where status in ('PENDING',"
        " 'PROCESSING'))"
    ),
    ledger="dispatch_executions",
)
ONE_BY_ONE = replace(
    OURS,
    name="ops-pipeline, one by one",
    does="the same, with one recommendation in each batch",
    at_most=ONE_BY_ONE_AT_MOST,
    is_tuned=False,
)


def durability(connection: Connection) -> Durability:
    """The settings in force on this connection."""
    row = connection.execute(text(DURABILITY)).one()
    return Durability(row[0], row[1], row[2])


@dataclass(frozen=True)
class Plan:
    """What to measure: how many recommendations, and with what."""

    count: int
    batches: Sequence[int]
    workers: Sequence[int]
    repeats: int = 1

    def measurements(self, systems: Sequence[System]) -> int:
        """How many lines that makes."""
        return sum(
            len(_tunings(system, self)) + system.is_tuned * (len(self.workers) - 1)
            for system in systems
        )


def measure(
    settings: Settings, systems: Sequence[System], plan: Plan, on_begin: Callable[[str], None]
) -> Iterator[Measured]:
    """Measure each system: each tuning with the first number of workers, the fastest with all.

    Raises:
        OperatorError: a recommendation is not in the ledger exactly once; that is no measure.
    """
    for system in systems:
        tried = []
        for tuning in _tunings(system, plan):
            on_begin(f"{system.name}, batch {tuning.batch}")
            tried.append(_best(settings, system, tuning, plan.workers[0], plan))
            yield tried[-1]
        fastest = max(tried, key=lambda one: one.per_second)
        for workers in plan.workers[1:] if system.is_tuned else ():
            on_begin(f"{system.name}, {workers} workers")
            yield _best(settings, system, fastest.tuning, workers, plan)


def _tunings(system: System, plan: Plan) -> list[Tuning]:
    return system.tunings(plan.batches) if system.is_tuned else [Tuning(1)]


def _best(settings: Settings, system: System, tuning: Tuning, workers: int, plan: Plan) -> Measured:
    count = min(plan.count, system.at_most)
    found = [race(settings, system, tuning, workers, count) for _ in range(plan.repeats)]
    return replace(found[0], all_seconds=tuple(one.seconds for one in found))


def race(settings: Settings, system: System, tuning: Tuning, workers: int, count: int) -> Measured:
    """Work off so many recommendations with so many processes, in a scratch of its own."""
    with scratch(settings, NAME) as inside, opened(inside) as engine:
        system.fill(inside, count)
        settle(engine)
        seconds, seen = _timed(inside, engine, system, tuning, workers)
        rows, distinct = _counted(engine, system.ledger)
    if not rows == distinct == count:
        raise OperatorError(
            f"{system.name}: {count:,} recommendations, and {rows:,} rows of {distinct:,} of them"
            " in the ledger"
        )
    return Measured(
        system=system.name,
        workers=workers,
        batch=tuning.batch,
        at_once=tuning.at_once,
        recommendations=count,
        ledger_rows=rows,
        all_seconds=(seconds,),
        durability=seen,
    )


def settle(engine: Engine) -> None:
    """Let nobody pay for what was there before: no dirty page, and what the planner has to know."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze"))
        try:
            connection.execute(text("checkpoint"))
        except ProgrammingError:
            # A server that is not ours may keep that to itself; then no system has it.
            return


def _timed(
    settings: Settings, engine: Engine, system: System, tuning: Tuning, workers: int
) -> tuple[float, Durability]:
    context = multiprocessing.get_context("spawn")
    start, told = context.Barrier(workers + 1), context.SimpleQueue()
    words = (system, settings, tuning, start, told)
    processes = [context.Process(target=_work, args=words, daemon=True) for _ in range(workers)]
    try:
        for process in processes:
            process.start()
        try:
            start.wait(START_SECONDS)
        except BrokenBarrierError as error:
            raise OperatorError(f"{system.name}: a worker did not start; see above") from error
        seconds = _until_done(engine, system, processes)
        seen = {told.get() for _ in processes}
        for process in processes:
            process.join(START_SECONDS)
    finally:
        for process in processes:
            process.kill()
            process.join()
    if len(seen) != 1:
        raise OperatorError(f"{system.name}: its workers commit in different ways: {seen}")
    return seconds, seen.pop()


def _work(
    system: System,
    settings: Settings,
    tuning: Tuning,
    start: Barrier,
    told: "SimpleQueue[Durability]",
) -> None:
    def ready(seen: Durability) -> None:
        told.put(seen)
        start.wait(START_SECONDS)

    try:
        system.work(settings, tuning, ready)
    except BaseException:
        start.abort()
        raise


def _until_done(engine: Engine, system: System, processes: Sequence[BaseProcess]) -> float:
    """How long it takes until nothing is left; seen by the same question for each system."""
    begun = time.monotonic()
    unfinished = text(system.unfinished)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while connection.execute(unfinished).scalar_one():
            seconds = time.monotonic() - begun
            if any(process.exitcode for process in processes):
                raise OperatorError(f"{system.name}: a worker ended before its work; see above")
            if seconds > WORK_SECONDS:
                raise TimedOut(
                    f"{system.name} was not done after {WORK_SECONDS} s",
                    "ask for fewer --recommendations",
                )
            time.sleep(POLL_SECONDS)
    return time.monotonic() - begun


def _counted(engine: Engine, ledger: str) -> tuple[int, int]:
    statement = f"select count(*), count(distinct recommendation_id) from {ledger}"  # noqa: S608
    with engine.connect() as connection:
        row = connection.execute(text(statement)).one()
    return int(row[0]), int(row[1])
