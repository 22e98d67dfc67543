"""How late a follower applies what a broker tells of, at so many events a second.

The broker is the sandbox's, in a process of its own, the follower in another one, on a scratch
database. Its requests tell of the same orders and positions; of fills only frames tell.
"""

import asyncio
import itertools
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from typing import Any
from uuid import uuid4

import psutil
from sqlalchemy import Engine, text

from benchmarks.measure.memory import MEGABYTE
from ops_pipeline import __version__
from ops_pipeline.clients.alpaca_books import AlpacaBooks
from ops_pipeline.clients.alpaca_stream import AlpacaStream
from ops_pipeline.dispatcher.stream import Follower, StreamPace
from ops_pipeline.domain.errors import OperatorError, TimedOut
from ops_pipeline.domain.session import floor_minute
from ops_pipeline.domain.values import Bar
from ops_pipeline.local.memory import share_one_arena
from ops_pipeline.proofs.scratch import scratch
from ops_pipeline.sandbox.broker import FILLED, NEW, PARTLY, Event, Order, Position, Ticket
from ops_pipeline.sandbox.live import RestampedMarket
from ops_pipeline.sandbox.market import DEFAULT_TICKERS
from ops_pipeline.sandbox.server import LOOPBACK, server_of
from ops_pipeline.sandbox.world import SandboxWorld
from ops_pipeline.settings import SANDBOX_KEY, SANDBOX_SECRET, AlpacaAccess, Settings
from ops_pipeline.storage import stream as storage
from ops_pipeline.storage.dispatch import ACCOUNT
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.knowledge import clock

NAME = "bench_stream"
START_SECONDS = 60.0
# So long what was told may still be on its way.
END_SECONDS = 60.0
BEAT_SECONDS = 0.01
BROKER_RESTS_SECONDS = 1e6
# Of each order it is told that it is new, and then so many fills of a share.
FILLS = 19
PRICE = Decimal(100)
LAGS = """
select
    percentile_cont(array[0.5, 0.95, 1.0]) within group (
        order by extract(epoch from frame.applied_at - frame.received_at)
    ),
    percentile_cont(array[0.5, 0.95, 1.0]) within group (
        order by extract(epoch from frame.applied_at - told.at)
    )
from broker_frames as frame
inner join broker_events as told on frame.id = told.frame_id"""


@dataclass(frozen=True)
class Lag:
    """How late things were, in seconds."""

    p50: float
    p95: float
    longest: float


@dataclass(frozen=True)
class Streamed:
    """What was told and what became of it; memory is the follower's, resident, in megabytes."""

    rate: int
    seconds: float
    sent: int
    frames: int
    outcomes: dict[str, int]
    events: int
    orders: int
    adds_up: bool
    lag_since_received: Lag
    lag_since_sent: Lag
    start_mb: float
    half_mb: float
    end_mb: float
    peak_mb: float
    connections: int
    load: tuple[float, float, float]

    @property
    def lost(self) -> int:
        """Events that were told and are not known."""
        return self.sent - self.events


@dataclass(frozen=True)
class _Sent:
    """What the broker has told, and what its account holds after it."""

    events: int
    seconds: float
    connections: int
    held: dict[str, Decimal]


@dataclass(frozen=True)
class _Memory:
    start: float
    half: float
    end: float
    peak: float


def measure_stream(
    settings: Settings, rate: int, seconds: float, on_second: Callable[[float], None]
) -> Streamed:
    """Tell so many events a second for so long, and look at what a follower made of them.

    Raises:
        OperatorError: one of the processes ended, or did not begin.
    """
    context = multiprocessing.get_context("spawn")
    told: SimpleQueue[Any] = context.SimpleQueue()
    begin = context.Event()
    with scratch(settings, NAME) as inside, opened(inside) as engine:
        words = (rate, seconds, told, begin)
        broker = context.Process(target=_tell, args=words, daemon=True)
        processes: list[BaseProcess] = [broker]
        try:
            broker.start()
            url = _next(told, processes)
            follower = context.Process(target=follow, args=(inside, url), daemon=True)
            processes.append(follower)
            follower.start()
            _until(lambda: _is_ready(engine), processes, START_SECONDS)
            begin.set()
            memory = _watch(follower, seconds, told, processes, on_second)
            sent: _Sent = told.get()
            _until(lambda: _is_applied(engine, sent.events), processes, END_SECONDS)
            memory = replace(memory, end=_resident(follower))
            return _found(engine, rate, sent, memory)
        finally:
            for process in reversed(processes):
                process.terminate()
                process.join(10)
                process.kill()


def _found(engine: Engine, rate: int, sent: _Sent, memory: _Memory) -> Streamed:
    with engine.connect() as connection:
        lags = connection.execute(text(LAGS)).one()
        held = storage.sums(connection, ACCOUNT)
        counted = connection.execute(
            text("select outcome, count(*) from broker_frames group by outcome")
        )
        outcomes = {row[0]: int(row[1]) for row in counted}
        events, orders = (
            int(connection.execute(text(f"select count(*) from {table}")).scalar_one())  # noqa: S608
            for table in ("broker_events", "broker_orders")
        )
    return Streamed(
        rate=rate,
        seconds=sent.seconds,
        sent=sent.events,
        frames=sum(outcomes.values()),
        outcomes=outcomes,
        events=events,
        orders=orders,
        adds_up=held == sent.held,
        lag_since_received=Lag(*map(float, lags[0] or (0, 0, 0))),
        lag_since_sent=Lag(*map(float, lags[1] or (0, 0, 0))),
        start_mb=memory.start,
        half_mb=memory.half,
        end_mb=memory.end,
        peak_mb=memory.peak,
        connections=sent.connections,
        load=os.getloadavg(),
    )


def _watch(
    follower: BaseProcess,
    seconds: float,
    told: "SimpleQueue[Any]",
    processes: list[BaseProcess],
    on_second: Callable[[float], None],
) -> _Memory:
    """Look at the follower's memory each second until the broker has told all."""
    start, seen, begun = _resident(follower), [], time.monotonic()
    while told.empty():
        _require(processes)
        if time.monotonic() - begun > 2 * seconds + END_SECONDS:
            raise TimedOut("the broker does not come to an end", "ask for a lower --rate")
        time.sleep(1)
        seen.append(_resident(follower))
        on_second(time.monotonic() - begun)
    return _Memory(start, seen[len(seen) // 2], seen[-1], max(seen))


def _is_ready(engine: Engine) -> bool:
    """Whether there is a connection, and the first look is over."""
    with engine.connect() as connection:
        health = storage.read_health(connection, ACCOUNT)
    return health is not None and None not in (health.passed_at, health.connected_at)


def _is_applied(engine: Engine, count: int) -> bool:
    statement = "select count(*) from broker_frames where outcome <> 'RECEIVED'"
    with engine.connect() as connection:
        return int(connection.execute(text(statement)).scalar_one()) >= count


def _until(ask: Callable[[], bool], processes: list[BaseProcess], seconds: float) -> None:
    """Wait until it is so, or for so long: what is missing then is what was lost."""
    give_up = time.monotonic() + seconds
    while not ask() and time.monotonic() < give_up:
        _require(processes)
        time.sleep(0.1)


def _next(told: "SimpleQueue[Any]", processes: list[BaseProcess]) -> Any:
    _until(lambda: not told.empty(), processes, START_SECONDS)
    if told.empty():
        raise TimedOut("the broker did not start", "look above for why")
    return told.get()


def _require(processes: list[BaseProcess]) -> None:
    if any(process.exitcode is not None for process in processes):
        raise OperatorError("a process ended before its time; see above")


def _resident(process: BaseProcess) -> float:
    return float(psutil.Process(process.pid).memory_info().rss) / MEGABYTE


def follow(settings: Settings, url: str, pace: StreamPace | None = None) -> None:
    """The process that follows the account of a sandbox, until it is terminated.

    Raises:
        OperatorError: another process follows it, or the key is refused.
    """
    share_one_arena()

    async def until_terminated() -> None:
        with opened(settings) as engine:
            access = AlpacaAccess(SANDBOX_KEY, SANDBOX_SECRET, url, url)
            follower = Follower(
                engine,
                AlpacaBooks(access, clock),
                lambda hear, tell: AlpacaStream(access, hear, tell),
                ACCOUNT,
                __version__,
                pace or StreamPace(),
            )
            following = asyncio.create_task(follower.run())
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, following.cancel)
            with suppress(asyncio.CancelledError):
                await following

    asyncio.run(until_terminated())


def _tell(rate: int, seconds: float, told: "SimpleQueue[Any]", begin: Any) -> None:
    """The process that is the broker, until it is terminated."""

    async def tell() -> None:
        world = _world()
        server = server_of(world)
        with socket.create_server((LOOPBACK, 0)) as listener:
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            told.put(f"http://{LOOPBACK}:{listener.getsockname()[1]}")
            while not begin.is_set():
                await asyncio.sleep(BEAT_SECONDS)
            told.put(await _told(world, rate, seconds))
            await serving

    asyncio.run(tell())


async def _told(world: SandboxWorld, rate: int, seconds: float) -> _Sent:
    """Tell events in time, and know what they come to."""
    lives, begun, sent = _lives(), time.monotonic(), 0
    while (passed := time.monotonic() - begun) < seconds:
        while sent < round(passed * rate):
            _happen(world, next(lives))
            sent += 1
        await asyncio.sleep(BEAT_SECONDS)
    held = {ticker: one.quantity for ticker, one in world.broker.positions.items()}
    return _Sent(sent, passed, world.updates.connections, held)


def _happen(world: SandboxWorld, event: Event) -> None:
    order, broker = event.order, world.broker
    broker.orders[order.id] = order
    if event.is_fill:
        ticker = order.ticket.symbol
        held = broker.positions.get(ticker, Position(ticker, Decimal(0), PRICE))
        broker.positions[ticker] = held.after(event.quantity, event.price)
    world.updates.tell(event)


def _lives() -> Iterator[Event]:
    """What happens to orders without an end, each of them new and then filled share by share."""
    for number in itertools.count():
        ticker = DEFAULT_TICKERS[number % len(DEFAULT_TICKERS)]
        ticket = Ticket(
            symbol=ticker, qty=Decimal(FILLS), side="buy", type="market", time_in_force="day"
        )
        at = clock()
        order = Order(uuid4(), f"bench-{number}", ticket, NEW, at, at)
        yield _event("new", order, at)
        for share in range(1, FILLS + 1):
            status, name = (FILLED, "fill") if share == FILLS else (PARTLY, "partial_fill")
            at, filled = clock(), Decimal(share)
            order = replace(order, status=status, updated_at=at, filled=filled, paid=filled * PRICE)
            yield _event(name, order, at, Decimal(1))


def _event(name: str, order: Order, at: datetime, quantity: Decimal = Decimal(0)) -> Event:
    return Event(name, order, at, uuid4(), quantity, PRICE if quantity else Decimal(0), quantity)


def _world() -> SandboxWorld:
    minute = floor_minute(clock())
    price = float(PRICE)
    bars = [Bar(t, minute, price, price, price, price, 1_000) for t in DEFAULT_TICKERS]
    market = RestampedMarket(bars, clock)
    # Nothing happens to its orders but what is told.
    return SandboxWorld(
        market, clock, requests_per_minute=10_000, fill_seconds=BROKER_RESTS_SECONDS
    )
