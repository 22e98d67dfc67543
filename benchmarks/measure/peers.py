"""Two queues that others have written, procrastinate and pgqueuer, at the same work.

Their settings are the fast ones of their own guides. A job carries what a recommendation carries;
its handler writes the ledger row that the dispatcher would have written. It decides the same gates
on an account that it read once, which lets two workers pass a limit, or it decides nothing.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib.util import find_spec
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from sqlalchemy import text

from benchmarks.measure.throughput import DURABILITY, Durability, Ready, System, Tuning
from benchmarks.measure.workload import (
    NOW,
    TICKERS,
    desk_of,
    documents,
    put_fresh,
    put_market,
)
from ops_pipeline.dispatcher.judge import Terms, settle
from ops_pipeline.dispatcher.run import run_once
from ops_pipeline.dispatcher.snapshot import Account, read_account
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.settings import Settings
from ops_pipeline.storage.dispatch import Owned, owned_of
from ops_pipeline.storage.engine import opened, server_of

NEEDED = ("procrastinate", "pgqueuer", "asyncpg", "uvloop")
INSTALL = "pip install -c constraints.txt -e '.[bench]'"
QUEUED_AT_ONCE = 1_000
TASK = "record"
# How many transactions of its handlers one worker may have open, so that commits share a flush.
AT_ONCE = 10
LEDGER = "bench_ledger"
# Without the dispatcher's foreign keys and triggers, which these systems have no use for.
CREATE_LEDGER = f"""
create table {LEDGER} (like dispatch_executions including all) with (toast_tuple_target = 8160)
"""


def need_peers() -> None:
    """Refuse to begin where one of them is absent.

    Raises:
        BadConfiguration: which, and how to get them.
    """
    if absent := [name for name in NEEDED if find_spec(name) is None]:
        raise BadConfiguration(
            f"{', '.join(absent)} must be installed to be measured",
            f"run: {INSTALL}, or add --without-peers",
        )


def payload(number: int) -> dict[str, Any]:
    """What one job carries: the same documents as the row of a recommendation."""
    found = documents()
    ticker = f"B{number % TICKERS:04}"
    features = found["features"] | {"ticker": ticker}
    return {"recommendation_id": number, "ticker": ticker, **found, "features": features}


def payload_bytes() -> int:
    """How long that is."""
    return len(json.dumps(payload(0)))


@dataclass(frozen=True)
class Desk:
    """What the gates are asked with: settings, the account as it was once, a recommendation."""

    terms: Terms
    account: Account
    owned: Owned

    def decide(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of the ledger that come of the decision."""
        recommendation = replace(
            self.owned.recommendation,
            id=job["recommendation_id"],
            ticker=job["ticker"],
            reason=job["reason"],
        )
        owned = replace(self.owned, recommendation=recommendation, features=job["features"])
        verdict = settle(self.terms, owned, self.account)
        if verdict.execution is None:
            raise RuntimeError(f"not executed: {verdict.closed.decision.failure_reason}")
        gates = {"gates": verdict.closed.decision.gates, "all_gates_passed": True}
        simulation = {**verdict.execution.simulation, "features_used": job["features"]}
        return {"risk_json": json.dumps(gates), "sim_json": json.dumps(simulation)}


@dataclass(frozen=True)
class Template:
    """A row of the ledger that the dispatcher wrote, to be written again for each job."""

    row: Mapping[str, Any]
    simulation: Mapping[str, Any]
    desk: Desk | None

    def values(self, job: Mapping[str, Any]) -> list[Any]:
        """The values of the row of one job, in the order of the columns."""
        simulation = {**self.simulation, "features_used": job["features"]}
        row = {
            **self.row,
            "execution_id": uuid4(),
            "recommendation_id": job["recommendation_id"],
            "ticker": job["ticker"],
            "explain_json": json.dumps(job["reason"]),
            **(self.desk.decide(job) if self.desk else {"sim_json": json.dumps(simulation)}),
        }
        return list(row.values())

    def insert(self, placeholders: Sequence[str]) -> str:
        """The statement, for a driver's own kind of placeholders."""
        columns = ", ".join(self.row)
        return f"insert into {LEDGER} ({columns}) values ({', '.join(placeholders)})"  # noqa: S608


@dataclass(frozen=True)
class Procrastinate(System):
    """https://procrastinate.readthedocs.io, on psycopg."""

    is_deciding: bool = True

    def tunings(self, batches: Sequence[int]) -> list[Tuning]:  # noqa: ARG002
        """It fetches one by one; what it has is concurrency."""
        return [Tuning(1, 1), Tuning(1, AT_ONCE)]

    def fill(self, settings: Settings, count: int) -> None:
        """Its tables, and the jobs by its own batches."""
        _put_template(settings)
        _run(self._fill(settings, count))

    async def _fill(self, settings: Settings, count: int) -> None:
        async with self._app(settings, 2).open_async() as app:
            await app.schema_manager.apply_schema_async()
            deferrer = app.configure_task(TASK)
            for numbers in _chunks(count):
                jobs = [{"job": payload(number)} for number in numbers]
                await deferrer.batch_defer_async(*jobs)

    def work(self, settings: Settings, tuning: Tuning, ready: Ready) -> None:
        """One worker, which ends when it has caught up."""
        _run(self._work(settings, tuning, ready))

    async def _work(self, settings: Settings, tuning: Tuning, ready: Ready) -> None:
        app = self._app(settings, tuning.at_once + 1)
        template = _template(settings, is_deciding=self.is_deciding)
        ledger = _psycopg_ledger(settings, template, tuning.at_once)
        async with ledger as (write, seen), app.open_async():

            async def record(job: dict[str, Any]) -> None:
                await write(job)

            app.task(name=TASK)(record)
            ready(seen)
            # All jobs wait already, so that listening for new ones would only cost.
            await app.run_worker_async(
                wait=False,
                concurrency=tuning.at_once,
                delete_jobs="always",
                listen_notify=False,
                install_signal_handlers=False,
            )

    def _app(self, settings: Settings, connections: int) -> Any:
        from procrastinate import App, PsycopgConnector

        connector = PsycopgConnector(
            conninfo=_conninfo(settings), min_size=connections, max_size=connections
        )
        return App(connector=connector)


@dataclass(frozen=True)
class PgQueuer(System):
    """https://janbjorge.github.io/pgqueuer, on asyncpg, which its guide calls the fastest."""

    is_deciding: bool = True

    def tunings(self, batches: Sequence[int]) -> list[Tuning]:
        """The same batches, and enough connections for its tasks."""
        return [Tuning(batch, AT_ONCE) for batch in batches]

    def fill(self, settings: Settings, count: int) -> None:
        """Its tables as its guide tunes them, and the jobs by its own batches."""
        _put_template(settings)
        _run(self._fill(settings, count))

    async def _fill(self, settings: Settings, count: int) -> None:
        from pgqueuer.db import AsyncpgDriver
        from pgqueuer.queries import Queries

        async with _asyncpg(settings) as connection:
            queries = Queries(AsyncpgDriver(connection))
            await queries.install()
            await queries.optimize_autovacuum()
            for numbers in _chunks(count):
                jobs: list[bytes | None] = [
                    json.dumps(payload(number)).encode() for number in numbers
                ]
                await queries.enqueue([TASK] * len(jobs), jobs, [0] * len(jobs))

    def work(self, settings: Settings, tuning: Tuning, ready: Ready) -> None:
        """One queue manager, which ends when the queue is empty."""
        _run(self._work(settings, tuning, ready))

    async def _work(self, settings: Settings, tuning: Tuning, ready: Ready) -> None:
        from pgqueuer.db import AsyncpgDriver
        from pgqueuer.qm import QueueManager
        from pgqueuer.queries import Queries
        from pgqueuer.types import QueueExecutionMode

        async with AsyncExitStack() as stack:
            opened_ = [
                await stack.enter_async_context(_asyncpg(settings))
                for _ in range(tuning.at_once + 1)
            ]
            manages, *writers = opened_
            free = _free(writers)
            template = _template(settings, is_deciding=self.is_deciding)
            statement = template.insert([f"${place + 1}" for place in range(len(template.row))])

            async def record(job: Any) -> None:
                values = template.values(json.loads(job.payload))
                connection = await free.get()
                try:
                    await connection.execute(statement, *values)
                finally:
                    free.put_nowait(connection)

            manager = QueueManager(Queries(AsyncpgDriver(manages)))
            manager.entrypoint(TASK)(record)
            seen = Durability(*await manages.fetchrow(DURABILITY))
            ready(seen)
            await manager.run(
                batch_size=tuning.batch,
                mode=QueueExecutionMode.drain,
                log_aggregation_interval=timedelta(0),
            )


PROCRASTINATE = Procrastinate(
    name="procrastinate",
    does=(
        "fetches one job (commit), decides 13 gates, inserts the ledger row (commit), deletes the"
        " job (commit); at least once"
    ),
    unfinished="select exists (select from procrastinate_jobs where status in ('todo', 'doing'))",
    ledger=LEDGER,
)
PGQUEUER = PgQueuer(
    name="pgqueuer",
    does=(
        "dequeues a batch (commit), decides 13 gates for each and inserts its ledger row (commit),"
        " logs and deletes finished jobs in batches (commit); at least once"
    ),
    unfinished="select exists (select from pgqueuer)",
    ledger=LEDGER,
)
PEERS = tuple(
    each
    for peer in (PROCRASTINATE, PGQUEUER)
    for each in (
        peer,
        replace(
            peer,
            name=f"{peer.name}, no gates",
            does="the same, but decides nothing and copies a row of the ledger",
            is_deciding=False,
        ),
    )
)


def _run(work: Any) -> None:
    import uvloop

    uvloop.run(work)


def _chunks(count: int) -> list[range]:
    return [
        range(first, min(first + QUEUED_AT_ONCE, count))
        for first in range(0, count, QUEUED_AT_ONCE)
    ]


def _conninfo(settings: Settings) -> str:
    server = server_of(settings)
    return make_conninfo(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        dbname=settings.pipeline_database,
    )


def _put_template(settings: Settings) -> None:
    """Let the dispatcher execute one recommendation, and make a ledger like its own."""
    with opened(settings) as engine:
        with engine.begin() as connection:
            put_market(connection)
            put_fresh(connection, 1)
        run_once(desk_of(engine, 1), NOW)
        with engine.begin() as connection:
            connection.execute(text(CREATE_LEDGER))


def _template(settings: Settings, *, is_deciding: bool) -> Template:
    with psycopg.connect(_conninfo(settings), row_factory=dict_row) as connection:
        row = connection.execute("select * from dispatch_executions").fetchone()
    if row is None:
        raise RuntimeError("the dispatcher executed nothing")
    del row["written_at"]
    simulation = row["sim_json"]
    plain = {
        name: json.dumps(value) if isinstance(value, dict | list) else value
        for name, value in row.items()
    }
    return Template(plain, simulation, _desk(settings) if is_deciding else None)


def _desk(settings: Settings) -> Desk:
    tickers = [f"B{number:04}" for number in range(TICKERS)]
    with opened(settings) as engine, engine.connect() as connection:
        dispatcher = desk_of(engine, QUEUED_AT_ONCE)
        account = read_account(connection, NOW, dispatcher.calendar, tickers)
        row = connection.execute(text("select * from dispatch_recommendations")).mappings().one()
        owned = owned_of(row)
    return Desk(Terms(uuid4(), dispatcher.config, dispatcher.broker), account, owned)


def _free(connections: Sequence[Any]) -> "asyncio.Queue[Any]":
    """A pool that costs nothing."""
    free: asyncio.Queue[Any] = asyncio.Queue()
    for connection in connections:
        free.put_nowait(connection)
    return free


@asynccontextmanager
async def _psycopg_ledger(
    settings: Settings, template: Template, connections: int
) -> AsyncIterator[tuple[Any, Durability]]:
    """A function that writes the row of a job in a transaction of its own."""
    statement = sql.SQL(template.insert(["%s"] * len(template.row)))
    async with AsyncExitStack() as stack:
        writers = [
            await stack.enter_async_context(
                await psycopg.AsyncConnection.connect(_conninfo(settings), autocommit=True)
            )
            for _ in range(connections)
        ]
        free = _free(writers)

        async def write(job: Mapping[str, Any]) -> None:
            values = template.values(job)
            connection = await free.get()
            try:
                await connection.execute(statement, values)
            finally:
                free.put_nowait(connection)

        row = await (await writers[0].execute(DURABILITY)).fetchone()
        assert row is not None  # noqa: S101 - settings are always there
        yield write, Durability(*row)


@asynccontextmanager
async def _asyncpg(settings: Settings) -> AsyncIterator[Any]:
    import asyncpg

    server = server_of(settings)
    connection = await asyncpg.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        database=settings.pipeline_database,
    )
    try:
        yield connection
    finally:
        await connection.close()
