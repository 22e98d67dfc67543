"""Dispatchers whose own clocks are wrong, at one database and one broker: nothing comes late."""

import json
import logging
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from ops_pipeline.clients.alpaca_http import RateBudget
from ops_pipeline.clients.alpaca_orders import AlpacaOrders
from ops_pipeline.dispatcher.brokers import PaperBroker
from ops_pipeline.dispatcher.orders import Pace
from ops_pipeline.dispatcher.run import Desk, run_once
from ops_pipeline.dispatcher.turn import take_turn
from ops_pipeline.domain.checks import SKEW
from ops_pipeline.domain.session import floor_minute
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.sandbox.world import SandboxWorld
from ops_pipeline.settings import SANDBOX_KEY, SANDBOX_SECRET, AlpacaAccess, Mode, Settings
from ops_pipeline.storage import acceptance, knowledge
from ops_pipeline.storage.engine import open_engine
from ops_pipeline.storage.knowledge import clock
from ops_pipeline_tests.builders import a_bar
from ops_pipeline_tests.dispatcher.world import World, features
from ops_pipeline_tests.sandbox.served import served
from ops_pipeline_tests.sandbox.worlds import a_world, flat_market
from ops_pipeline_tests.storage.clones import clone

SLOW, FAST = -180.0, 600.0
FRESH, EXPIRED = 128, 3
TICKERS = [f"T{number:03}" for number in range(FRESH)]
OLD = [f"X{number}" for number in range(EXPIRED)]
UNLIMITED = 1_000_000
CONFIG = DispatcherConfig(
    confidence_min=0.55,
    max_open_positions=200,
    max_notional_per_trade=0.003,
    max_signals_per_run=50,
    opening_block_minutes=0,
    closing_block_minutes=0,
    flat_before_close_minutes=1,
)
OUTCOMES = (
    "select row.ticker, row.intent, row.status, row.failure_reason, placed.state"
    " from dispatch_recommendations as row"
    " left join order_intents as placed on placed.recommendation_id = row.id"
    " where row.status not in ('SIMULATED')"
)


def desk_of(settings: Settings, url: str, skew_seconds: float) -> Desk:
    """A desk in a live mode, in a process whose own clock is off by so much."""
    knowledge.clock = lambda: clock() + timedelta(seconds=skew_seconds)  # type: ignore[assignment]
    access = AlpacaAccess(SANDBOX_KEY, SANDBOX_SECRET, url, url)
    gateway = AlpacaOrders(access, knowledge.clock, budget=RateBudget(UNLIMITED))
    limit = CONFIG.max_clock_skew_seconds
    broker = PaperBroker(gateway, "sandbox", Pace(asking=0.05), max_clock_skew_seconds=limit)
    engine = open_engine(settings)
    return Desk(engine, Mode.SANDBOX.calendar, CONFIG, Mode.SANDBOX, "test", broker=broker)


def work(settings: Settings, url: str, skew_seconds: float, seconds: float) -> None:
    """Take turns, in a process of its own."""
    logging.disable(logging.CRITICAL)
    desk, give_up = desk_of(settings, url, skew_seconds), time.monotonic() + seconds
    while time.monotonic() < give_up:
        take_turn(desk)
        time.sleep(0.1)


def at_work(settings: Settings, url: str, skews: list[float], seconds: float) -> None:
    """Let dispatchers with these clocks work beside each other."""
    context = multiprocessing.get_context("spawn")
    found = [context.Process(target=work, args=(settings, url, skew, seconds)) for skew in skews]
    for process in found:
        process.start()
    for process in found:
        process.join(120)
        assert process.exitcode == 0


@pytest.fixture
def market(template: Settings) -> Iterator[tuple[Settings, World, SandboxWorld, str]]:
    """Fresh and expired recommendations, a position below its stop, and a broker."""
    settings = clone(template, "clocks")
    engine = open_engine(settings)
    world, now = World(engine, CONFIG), clock()
    minute = floor_minute(now) - timedelta(minutes=1)
    for back in range(6):
        close = 198.0 if back == 0 else 200.0
        at = minute - timedelta(minutes=back)
        world.trade(*(a_bar(ticker=ticker, minute=at) for ticker in (*TICKERS, *OLD)))
        price = {"open": close, "high": close, "low": close, "close": close}
        world.trade(a_bar(ticker="HELD", minute=at, **price))
    world.hold(
        "HELD",
        simulated_ts=now - timedelta(seconds=150),
        session_date=Mode.SANDBOX.calendar.day(now),
    )
    for ticker in TICKERS:
        recommend(world, ticker, minute, now - timedelta(seconds=1))
    for ticker in OLD:
        recommend(world, ticker, minute - timedelta(minutes=6), now - timedelta(seconds=400))
    prices = [(ticker, 200.0) for ticker in (*TICKERS, *OLD, "HELD")]
    broker = a_world(
        clock,  # type: ignore[arg-type]
        flat_market(clock, prices),  # type: ignore[arg-type]
        requests_per_minute=UNLIMITED,
        cash=Decimal(1_000_000_000),
        shorting=True,
    )
    with served(broker) as url:
        yield settings, world, broker, url
    engine.dispose()


def recommend(world: World, ticker: str, minute: datetime, ts: datetime) -> None:
    world.recommend(
        ticker=ticker,
        minute=minute,
        ts=ts,
        expires_at=ts + timedelta(seconds=300),
        session_date=Mode.SANDBOX.calendar.day(ts),
        features_snapshot=features(ts=minute.isoformat()),
    )


def outcomes(world: World) -> Counter[tuple[Any, ...]]:
    """How many recommendations of each kind ended how."""
    return Counter(
        ("old" if ticker in OLD else intent, status, reason, state)
        for ticker, intent, status, reason, state in world.ask(OUTCOMES)
    )


@pytest.mark.proof
@pytest.mark.timeout(240)
def test_dispatchers_with_wrong_clocks_expire_nothing_fresh_and_trade_nothing_expired(
    market: tuple[Settings, World, SandboxWorld, str],
) -> None:
    settings, world, broker, url = market
    at_work(settings, url, [SLOW, FAST], 4)
    # The close went, what may be opened waits for a right clock, and what had expired has ended.
    assert outcomes(world) == {
        ("open", "PENDING", None, None): FRESH,
        ("old", "SKIPPED", "expired", None): EXPIRED,
        ("close", "EXECUTED", None, "FILLED"): 1,
    }
    with world.engine.connect() as connection:
        now = knowledge.read_now(connection, Mode.SANDBOX)
        (found,) = acceptance.verdicts(
            connection, now, Mode.SANDBOX.calendar, is_live=True, names=[SKEW]
        )
    assert found.level.value == "high"
    assert "a dispatcher opens nothing: its clock is" in found.finding
    at_work(settings, url, [SLOW, 0.0, FAST], 8)
    ended = outcomes(world)
    assert ended == {
        ("open", "EXECUTED", None, "FILLED"): FRESH,
        ("old", "SKIPPED", "expired", None): EXPIRED,
        ("close", "EXECUTED", None, "FILLED"): 1,
    }
    at_broker = Counter(order.client_order_id for order in broker.broker.orders.values())
    assert (len(at_broker), max(at_broker.values())) == (FRESH + 1, 1)
    print(json.dumps({" ".join(map(str, key)): count for key, count in ended.items()}))  # noqa: T201


def test_a_clock_that_goes_wrong_between_claim_and_decision_opens_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate says so; until then what may be opened is not even claimed."""
    now = clock()
    minute = floor_minute(now) - timedelta(minutes=1)
    world.trade(a_bar(minute=minute))
    desk = replace(world.desk, mode=Mode.SANDBOX, calendar=Mode.SANDBOX.calendar, config=CONFIG)
    recommend(world, "AAPL", minute, now - timedelta(seconds=1))
    skews = iter([-5.5])
    monkeypatch.setattr(knowledge, "clock_skew_seconds", lambda *_: next(skews, 5.5))
    assert run_once(desk).pulled == 0
    assert world.outcomes() == [("PENDING", None)]
    skews = iter([4.5])
    assert run_once(desk).skipped == 1
    assert world.outcomes() == [("SKIPPED", "trading_hours: Clocks disagree")]
