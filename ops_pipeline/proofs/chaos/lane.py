"""Where trials run: a PostgreSQL of its own that may be killed, and a broker that is only played.

Two lanes share nothing, so that one may restart its server while the other works.
"""

import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from multiprocessing.connection import Connection as Ear
from multiprocessing.process import BaseProcess
from pathlib import Path
from uuid import UUID

import psutil
from sqlalchemy import Connection, Engine, text

from ops_pipeline.domain.errors import TimedOut
from ops_pipeline.domain.values import Bar
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.local.processes import is_alive, wait_until
from ops_pipeline.proofs.chaos import history, scene
from ops_pipeline.proofs.chaos.defects import DEFECTS
from ops_pipeline.proofs.chaos.history import Counts
from ops_pipeline.proofs.chaos.plan import SUBMIT, UNSENT, Fault, Injection, Moment, Point
from ops_pipeline.proofs.chaos.worker import DONE, HERE, UNLIMITED, Task, work
from ops_pipeline.sandbox.faults import Kind, Rule, Schedule
from ops_pipeline.sandbox.live import RestampedMarket
from ops_pipeline.sandbox.server import LOOPBACK, server_of
from ops_pipeline.sandbox.world import SandboxWorld
from ops_pipeline.settings import SANDBOX_KEY, SANDBOX_SECRET, AlpacaAccess, Settings, load
from ops_pipeline.storage.engine import open_engine
from ops_pipeline.storage.knowledge import clock, set_present
from ops_pipeline.storage.migrate import migrate

TEMPLATE = "chaos_template"
WORKER_SECONDS = 60.0
# Orders wait for the broker; a tick that was hurt itself is no tick.
QUIET_SECONDS = 10.0
TICK_SECONDS = 0.05
HURT_TICKS = 5
FILL_SECONDS = 0.03
CASH = Decimal(1_000_000_000)
PRELOADED = ["ops_pipeline.proofs.chaos.worker"]


@dataclass(frozen=True)
class Trial:
    """What one injection did; `attempts` are claims, of which more than one a row is a recovery."""

    injection: Injection
    is_reached: bool
    is_effective: bool
    attempts: int
    recoveries: int
    seconds: float
    counts: Counts


@dataclass
class _Worker:
    """A dispatcher's process, and the pipe on which it tells where it stands."""

    process: BaseProcess
    ear: Ear

    def hear(self) -> str:
        """What it says next: that it stopped, that it is done; nothing where it is gone."""
        if not self.ear.poll(WORKER_SECONDS):
            self.process.kill()
            raise TimedOut("a dispatcher under chaos stands still")
        try:
            said: str = self.ear.recv()[0]
        except EOFError:
            return ""
        return said

    def go_on(self) -> None:
        """Let it go on from where it stopped."""
        self.ear.send("go on")

    def end(self) -> str:
        """Let it work to its end; what it said at last."""
        said = self.hear()
        self.process.join()
        return said


@dataclass
class Lane:
    """One server, one broker; trials run in it one after the other."""

    settings: Settings
    server: EmbeddedServer
    world: SandboxWorld
    access: AlpacaAccess
    number: int = 0
    known_orders: set[UUID] = field(default_factory=set)
    # When the clock jumped forward: the orders that the broker had, and those that waited.
    sent_before: set[str] = field(default_factory=set)
    waited: set[str] = field(default_factory=set)

    def run(self, injection: Injection, defect: str = "") -> Trial:
        """Hurt a dispatcher once, let others heal what is left, and examine that."""
        started = time.monotonic()
        self.number += 1
        self.known_orders = set(self.world.broker.orders)
        settings = self._database(f"chaos_{self.number}", defect)
        engine = open_engine(settings)
        try:
            trial = self._run(settings, engine, injection, defect)
        finally:
            engine.dispose()
            self._administer(f"drop database if exists {settings.pipeline_database} with (force)")
        return replace(trial, seconds=time.monotonic() - started)

    def _run(self, settings: Settings, engine: Engine, injection: Injection, defect: str) -> Trial:
        access = self.access if injection.with_broker else None
        healthy = Task(settings, access, defect=defect, limit=injection.limit)
        hurt = replace(
            healthy,
            point=injection.point,
            occurrence=injection.occurrence,
            fault=injection.fault,
        )
        counts, worker = Counts(), self._start(hurt)
        is_reached = worker.hear() == HERE
        is_effective = False
        if is_reached:
            with engine.connect() as connection:
                self._note_unwritten(connection, counts)
            is_effective = self._strike(engine, injection, worker, healthy)
        worker.process.join()
        self.world.faults.order(Schedule())
        counts.unfinished += self._heal(engine, injection, healthy)
        with engine.connect() as connection:
            may_expire = injection.fault is Fault.FORWARD
            counts.add(
                history.examine(
                    connection,
                    self._at_broker(),
                    with_broker=injection.with_broker,
                    may_expire=may_expire,
                    limit=injection.limit,
                )
            )
            if may_expire and is_effective:
                self._note_late(connection, injection, counts)
            if not history.is_single(connection):
                counts.note("duplicates", "the database takes a second execution")
            attempts, recoveries = _attempts(connection)
        return Trial(injection, is_reached, is_effective, attempts, recoveries, 0.0, counts)

    def _strike(self, engine: Engine, injection: Injection, worker: _Worker, healthy: Task) -> bool:
        """Let the fault happen to a dispatcher that stands at its point; whether it did."""
        match injection.fault:
            case Fault.KILL:
                worker.process.kill()
                worker.process.join()
                return worker.process.exitcode == -signal.SIGKILL
            case Fault.CUT:
                is_effective = _cut(engine) > 0
            case Fault.RESTART:
                is_effective = self._crash_server()
            case Fault.REPLY_LOST:
                worker.go_on()
                return worker.end() != DONE
            case Fault.ZOMBIE:
                time.sleep(scene.LEASE_SECONDS + scene.FROZEN_SECONDS)
                is_effective = self._start(healthy).end() == DONE
            case Fault.DOUBLE:
                one, two = self._start(healthy), self._start(healthy)
                worker.go_on()
                worker.end()
                return (one.end(), two.end()) == (DONE, DONE)
            case Fault.FORWARD | Fault.BACKWARD:
                is_effective = self._jump(engine, injection.fault)
            case Fault.CROWD:
                return self._crowd(engine, worker, healthy)
            case Fault.ANSWER_LOST:
                return self._lose_answer(worker)
        worker.go_on()
        worker.end()
        return is_effective

    def _crowd(self, engine: Engine, worker: _Worker, healthy: Task) -> bool:
        """Start another one, which waits for the decision of the first, or does not."""
        time.sleep(scene.LEASE_SECONDS)
        beside = self._start(healthy)
        wait_until(
            lambda: beside.ear.poll() or _waits(engine),
            WORKER_SECONDS,
            "a dispatcher beside another one neither waits nor ends",
        )
        worker.go_on()
        worker.end()
        return beside.end() == DONE

    def _lose_answer(self, worker: _Worker) -> bool:
        lost = Rule(kind=Kind.DROP, match="/v2/orders", times=1)
        self.world.faults.order(Schedule(rules=(lost,)))
        worker.go_on()
        worker.end()
        return self.world.faults.struck() > 0

    def _jump(self, engine: Engine, fault: Fault) -> bool:
        with engine.begin() as connection:
            set_present(connection, scene.PRESENT + _jump_of(fault) * scene.JUMP)
            self.sent_before, self.waited = set(self._at_broker()), history.waiting(connection)
        return True

    def _heal(self, engine: Engine, injection: Injection, healthy: Task) -> int:
        """Time passes, and a healthy dispatcher comes by; then others, until no order is open.

        Returns:
            How many rows the first of them left open: there must be none.
        """
        tick = replace(healthy, turns=1)
        with engine.begin() as connection:
            set_present(connection, scene.PRESENT + max(0, _jump_of(injection.fault)) * scene.JUMP)
        time.sleep(scene.LEASE_SECONDS)
        for _ in range(HURT_TICKS):
            if self._start(tick).end() == DONE:
                break
        with engine.connect() as connection:
            left = history.open_rows(connection)
        give_up = time.monotonic() + QUIET_SECONDS
        while time.monotonic() < give_up:
            with engine.connect() as connection:
                if not history.open_orders(connection):
                    break
            time.sleep(TICK_SECONDS)
            self._start(tick).end()
        return left

    def _note_late(self, connection: Connection, injection: Injection, counts: Counts) -> None:
        """Count the orders that were taken or handed over after they had expired."""
        too_old = history.expired(connection, scene.PRESENT + scene.JUMP)
        late = too_old & (set(self._at_broker()) - self.sent_before)
        if injection.point == UNSENT:
            late |= too_old & (self.waited - history.waiting(connection))
        # The request that was on its way when the clock jumped.
        is_on_its_way = injection.point == Point(SUBMIT, Moment.BEFORE)
        for order_id in sorted(late)[is_on_its_way:]:
            counts.note("late", f"{order_id} was handed over after it had expired")

    def _note_unwritten(self, connection: Connection, counts: Counts) -> None:
        for order_id in history.unwritten(connection, self._at_broker()):
            counts.note("orphans", f"the broker had {order_id} before it was on disk")

    def _at_broker(self) -> dict[str, int]:
        orders = dict(self.world.broker.orders)
        return {
            order.client_order_id: int(order.ticket.qty)
            for number, order in orders.items()
            if number not in self.known_orders
        }

    def _start(self, task: Task) -> _Worker:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        ear, mouth = context.Pipe()
        process = context.Process(target=work, args=(mouth, task), daemon=True)
        process.start()
        mouth.close()
        return _Worker(process, ear)

    def _database(self, name: str, defect: str) -> Settings:
        """A database of the scene, under an installation of its own, weakened for a defect."""
        assert self.settings.server is not None  # noqa: S101 - a lane has one
        settings = replace(self.settings, server=replace(self.settings.server, base_name=name))
        self._administer(f"create database {settings.pipeline_database} template {TEMPLATE}")
        engine = open_engine(settings)
        with engine.begin() as connection:
            connection.execute(text("update installation set id = gen_random_uuid()"))
            for statement in DEFECTS[defect].statements if defect else ():
                connection.execute(text(statement))
        engine.dispose()
        return settings

    def _crash_server(self) -> bool:
        pid = self.server.pid()
        if pid is None:
            return False
        process = psutil.Process(pid)
        process.send_signal(signal.SIGQUIT)
        wait_until(lambda: not is_alive(process), WORKER_SECONDS, "PostgreSQL did not end")
        self.server.start()
        return self.server.pid() != pid

    def _administer(self, statement: str) -> None:
        engine = open_engine(self.settings, "postgres")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(statement))
        engine.dispose()

    def prepare(self) -> None:
        """Make the database that each trial gets a copy of."""
        self._administer(f"create database {TEMPLATE}")
        engine = open_engine(self.settings, TEMPLATE)
        migrate(engine)
        with engine.begin() as connection:
            scene.put(connection)
        engine.dispose()


@contextmanager
def lane(folder: Path) -> Iterator[Lane]:
    """A lane in a folder of its own; its server and its broker are gone after."""
    server = EmbeddedServer.in_folder(folder)
    server.start()
    try:
        with _broker() as (world, url):
            made = Lane(
                settings=load("replay", {"OPS_VAR_DIR": str(folder)}),
                server=server,
                world=world,
                access=AlpacaAccess(SANDBOX_KEY, SANDBOX_SECRET, url, url),
            )
            made.prepare()
            yield made
    finally:
        server.remove()


@contextmanager
def _broker() -> Iterator[tuple[SandboxWorld, str]]:
    """A broker over HTTP in a thread of this process, so that its orders can be read at any time.

    It knows the scene's tickers at a steady price, takes any order and fills it soon.
    """
    minute = datetime(2025, 1, 1, tzinfo=UTC)
    market = RestampedMarket(
        [Bar(ticker, minute, 200.0, 200.0, 200.0, 200.0, 1_000) for ticker in scene.TICKERS], clock
    )
    world = SandboxWorld(
        market,
        clock,
        requests_per_minute=UNLIMITED,
        cash=CASH,
        shorting=True,
        fill_seconds=FILL_SECONDS,
    )
    server = server_of(world)
    with socket.create_server((LOOPBACK, 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started, WORKER_SECONDS, "the broker did not start")
        try:
            yield world, f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def _waits(engine: Engine) -> bool:
    """Return True if a session on this database waits for a lock."""
    statement = text(
        "select count(*) from pg_stat_activity"
        " where datname = current_database() and wait_event_type = 'Lock'"
    )
    with engine.connect() as connection:
        return int(connection.execute(statement).scalar_one()) > 0


def _cut(engine: Engine) -> int:
    """End every session on this database but our own. Returns how many."""
    statement = text(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    with engine.connect() as connection:
        return int(connection.execute(statement).scalar_one())


def _jump_of(fault: Fault) -> int:
    return {Fault.FORWARD: 1, Fault.BACKWARD: -1}.get(fault, 0)


def _attempts(connection: Connection) -> tuple[int, int]:
    statement = text(
        "select count(*), count(*) filter (where outcome = 'RELEASED') from dispatch_attempts"
    )
    row = connection.execute(statement).one()
    return int(row[0]), int(row[1])
