"""Whatever befalls frames, connections, the process and the database: what is known is the same."""

import hashlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from multiprocessing.process import BaseProcess
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from benchmarks.measure.trade_stream import follow
from ops_pipeline.clients.alpaca_books import read_order
from ops_pipeline.dispatcher.stream import StreamPace
from ops_pipeline.domain.stream import BrokerOrder, StreamHealth
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.sandbox.faults import Kind, Rule, Schedule
from ops_pipeline.sandbox.world import SandboxWorld
from ops_pipeline.settings import PROJECT_DIR, Settings, load
from ops_pipeline.storage import stream as storage
from ops_pipeline.storage.databases import create_databases
from ops_pipeline.storage.dispatch import ACCOUNT
from ops_pipeline.storage.engine import open_engine
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.migrate import migrate
from ops_pipeline_tests.sandbox.proxy import Line, line_to
from ops_pipeline_tests.sandbox.served import served
from ops_pipeline_tests.sandbox.traders import subscribers
from ops_pipeline_tests.sandbox.worlds import HEADERS, WEB, a_world, flat_market

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SEEDS = range(int(os.environ.get("OPS_STREAM_SEEDS", "2")))
PACE = StreamPace(lease=2.0, holding=0.3, looking=2.0, again=0.2, soon=0.1, rest=0.05)
TICKERS = {"AAPL": 100.0, "MSFT": 50.0, "TSLA": 250.0, "NVDA": 125.0, "AMZN": 10.0}
ORDERS, ORDER_SECONDS = 60, 0.16
MUTE_SECONDS = 2.0
# Far below what the flat market ever reaches.
NEVER = 1.0
TABLES = "broker_events, broker_frames, broker_orders, broker_positions, stream_leases"
RATE = 0.2


@dataclass(frozen=True)
class Place:
    """A database server of these tests' own, which they may end."""

    server: EmbeddedServer
    settings: Settings
    engine: Engine

    def known(self) -> list[BrokerOrder]:
        with self.engine.connect() as connection:
            return storage.all_orders(connection, ACCOUNT)

    def positions(self) -> list[tuple[Any, ...]]:
        statement = (
            "select ticker, before_qty, qty from broker_positions"
            " where qty <> 0 or before_qty <> 0 order by ticker"
        )
        with self.engine.connect() as connection:
            return [(row[0], *map(_plain, row[1:])) for row in connection.execute(text(statement))]

    def outcomes(self) -> dict[str, int]:
        statement = text("select outcome, count(*) from broker_frames group by outcome")
        with self.engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(statement)}

    def health(self) -> StreamHealth | None:
        with self.engine.connect() as connection:
            return storage.read_health(connection, ACCOUNT)

    def empty(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(f"truncate {TABLES}"))

    def restart(self) -> None:
        self.server.stop()
        self.server.start()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    var_dir = tmp_path_factory.mktemp("faults")
    server = EmbeddedServer.in_folder(var_dir)
    server.start()
    settings = load("sandbox", {"OPS_VAR_DIR": str(var_dir)})
    create_databases(settings)
    engine = open_engine(settings)
    migrate(engine)
    yield Place(server, settings, engine)
    engine.dispose()
    server.remove()


@dataclass
class Kept:
    """The process that follows, which is started again whenever it is gone."""

    settings: Settings
    url: str
    process: BaseProcess | None = None
    starts: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def keep(self) -> None:
        context = multiprocessing.get_context("spawn")
        while not self.ended.wait(0.1):
            if self.process is None or not self.process.is_alive():
                process = context.Process(target=follow, args=(self.settings, self.url, PACE))
                process.start()
                self.process, self.starts = process, self.starts + 1

    def kill(self) -> None:
        if self.process:
            self.process.kill()


@contextmanager
def kept(settings: Settings, url: str) -> Iterator[Kept]:
    keeper = Kept(settings, url)
    thread = threading.Thread(target=keeper.keep)
    thread.start()
    try:
        yield keeper
    finally:
        keeper.ended.set()
        thread.join()
        if keeper.process:
            keeper.process.terminate()
            keeper.process.join(10)
            keeper.process.kill()


def busy_world() -> SandboxWorld:
    market = flat_market(clock, TICKERS.items())  # type: ignore[arg-type]
    return a_world(clock, market, cash=Decimal(10**9), shorting=True)  # type: ignore[arg-type]


def trade(url: str) -> None:
    """The same orders in each run: filled, rejected, and canceled ones, for 10 s."""
    rng = random.Random("orders")  # noqa: S311 - a schedule
    for number in range(ORDERS):
        ticket: dict[str, Any] = {
            "symbol": rng.choice(list(TICKERS)),
            "side": rng.choice(["buy", "buy", "sell"]),
            "qty": str(rng.randint(1, 30)),
            "type": "market",
            "time_in_force": "day",
            "client_order_id": f"hand-{number}",
        }
        kind = rng.random()
        if kind < 0.1:
            ticket["symbol"] = f"REJ{number}"
        elif kind < 0.25:
            ticket |= {"type": "limit", "limit_price": str(NEVER), "side": "buy"}
        order = WEB.post(f"{url}/v2/orders", headers=HEADERS, json=ticket).raise_for_status().json()
        time.sleep(ORDER_SECONDS)
        if ticket["type"] == "limit":
            WEB.delete(f"{url}/v2/orders/{order['id']}", headers=HEADERS).raise_for_status()


def faults(seed: int, mute_at: datetime) -> Schedule:
    stream: dict[str, Any] = {"match": "/stream", "rate": RATE}
    end = mute_at + timedelta(seconds=MUTE_SECONDS)
    return Schedule(
        seed=seed,
        rules=(
            Rule(kind=Kind.DROP, **stream),
            Rule(kind=Kind.DUPLICATE, **stream),
            Rule(kind=Kind.REORDER, **stream),
            Rule(kind=Kind.DELAY, seconds=0.05, **stream),
            Rule(kind=Kind.MUTE, match="/stream", **{"from": mute_at, "until": end}),
            Rule(kind=Kind.STATUS, status=503, match="/v2", methods=("GET",), rate=0.1),
            Rule(kind=Kind.MALFORMED, match="/v2", methods=("GET",), rate=0.05),
        ),
    )


def befall(seed: int, place: Place, world: SandboxWorld, keeper: Kept, line: Line) -> None:
    """What a seed has in store, in its order; each of it strikes a stream that is at work."""
    rng = random.Random(seed)  # noqa: S311 - a schedule
    events: list[Callable[[], None]] = [keeper.kill, line.cut, line.cut, place.restart, keeper.kill]
    rng.shuffle(events)
    for event in events:
        assert eventually(lambda: subscribers(world)() > 0, 20)
        time.sleep(rng.uniform(0.1, 0.6))
        event()
        # What was cut is noticed by its broker as well.
        time.sleep(0.3)


def truth(url: str) -> tuple[list[BrokerOrder], list[tuple[Any, ...]]]:
    """What the sandbox itself says of orders and positions."""
    query = "status=all&limit=500&direction=asc"
    orders = WEB.get(f"{url}/v2/orders?{query}", headers=HEADERS).raise_for_status().json()
    held = WEB.get(f"{url}/v2/positions", headers=HEADERS).raise_for_status().json()
    found = sorted((one["symbol"], "0", _plain(Decimal(one["qty"]))) for one in held)
    return [read_order(order) for order in orders], found


def digest(orders: list[BrokerOrder], positions: list[tuple[Any, ...]], *, by: str = "all") -> str:
    """What two runs, or a run and the truth, are compared by."""
    drawn = () if by == "all" else ("broker_order_id", "created_at", "told_at")
    rows = [
        {k: _plain(v) for k, v in one.__dict__.items() if k not in drawn}
        for one in sorted(orders, key=lambda one: one.client_order_id)
    ]
    return hashlib.sha256(json.dumps([rows, positions]).encode()).hexdigest()


def eventually(ask: Callable[[], bool], seconds: float) -> bool:
    """Whether it comes to be so within this time, though the database may be away."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        try:
            if ask():
                return True
        except DBAPIError:
            pass
        time.sleep(0.1)
    return False


def settled(place: Place, world: SandboxWorld, url: str) -> str:
    """Wait until all that happened is known, and a look at it found no difference."""
    assert eventually(lambda: not world.broker.open_orders(), 20)
    world.faults.order(Schedule())
    calm, found = clock(), truth(url)
    wanted = digest(*found)
    eventually(lambda: digest(place.known(), place.positions()) == wanted, 40)
    known = (place.known(), place.positions())
    assert known == found
    assert digest(*known) == wanted

    def is_looked_at() -> bool:
        health = place.health()
        return bool(health and health.passed_at and health.passed_at > calm)

    assert eventually(is_looked_at, 20)
    health = place.health()
    assert health is not None
    assert health.differences == ()
    assert "RECEIVED" not in place.outcomes()
    return digest(*known, by="meaning")


@pytest.fixture(scope="module")
def calm(place: Place) -> str:
    """What the same orders come to where nothing fails."""
    place.empty()
    world = busy_world()
    with served(world) as url, kept(place.settings, url):
        assert eventually(lambda: bool((h := place.health()) and h.passed_at), 20)
        trade(url)
        found = settled(place, world, url)
        # A look may tell of a fill before its frame is looked at.
        assert set(place.outcomes()) <= {"APPLIED", "REPEATED"}
        assert len(place.known()) == ORDERS
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_befalls_it_all_orders_and_positions_are_those_of_a_calm_run(
    place: Place, calm: str, seed: int
) -> None:
    place.empty()
    world = busy_world()
    with served(world) as url, line_to(url) as line, kept(place.settings, line.url) as keeper:
        if seed % 2:
            # The others begin while orders are on their way.
            assert eventually(lambda: bool((h := place.health()) and h.passed_at), 20)
        world.faults.order(faults(seed, clock() + timedelta(seconds=2 + seed % 5)))
        trading = threading.Thread(target=trade, args=(url,))
        trading.start()
        befall(seed, place, world, keeper, line)
        trading.join()
        assert settled(place, world, url) == calm
        assert keeper.starts >= 3
        assert world.updates.connections >= 5


def test_a_stream_that_is_mute_is_found_and_healed(place: Place) -> None:
    place.empty()
    world = busy_world()
    world.faults.order(Schedule(rules=(Rule(kind=Kind.MUTE, match="/stream"),)))
    with served(world) as url, kept(place.settings, url) as keeper:
        assert eventually(lambda: bool((h := place.health()) and h.passed_at), 20)
        time.sleep(PACE.looking)
        begun, before = time.monotonic(), world.updates.connections
        WEB.post(
            f"{url}/v2/orders",
            headers=HEADERS,
            json={
                "symbol": "AAPL",
                "side": "buy",
                "qty": "10",
                "type": "market",
                "time_in_force": "day",
            },
        ).raise_for_status()
        assert eventually(lambda: world.updates.connections > before, 20)
        assert time.monotonic() - begun < 60 / 30 * PACE.looking + 3
        settled(place, world, url)
        assert keeper.starts == 1
        assert place.outcomes() == {}


def test_a_key_that_is_refused_ends_the_verb_loudly(place: Place) -> None:
    world = SandboxWorld(busy_world().market, clock, secret="another")
    with served(world) as url:
        environment = {**os.environ, "OPS_VAR_DIR": str(place.settings.var_dir)}
        environment |= {"OPS_SANDBOX_PORT": url.rpartition(":")[2]}
        ended = subprocess.run(
            [sys.executable, "-m", "ops_pipeline", "trade-stream", "--mode", "sandbox"],
            cwd=PROJECT_DIR,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 4, ended.stderr
    assert "refuses the key" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert world.updates.connections == 3


def _plain(value: Any) -> str:
    return f"{Decimal(value).normalize():f}" if isinstance(value, Decimal) else str(value)
