"""Those who trade in a sandbox: orders, waiting for their end, and hearing of it."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.models import Order, TradeUpdate
from alpaca.trading.requests import (
    LimitOrderRequest,
    MarketOrderRequest,
)
from alpaca.trading.stream import TradingStream

from ops_pipeline.sandbox.world import SandboxWorld
from ops_pipeline_tests.sandbox.served import served
from ops_pipeline_tests.sandbox.worlds import (
    ACCESS,
    Clock,
    a_world,
    flat_market,
)

T = TypeVar("T")
BUY, SELL = OrderSide.BUY, OrderSide.SELL


def flat_world(**how: Any) -> SandboxWorld:
    """AAPL at 100 and MSFT at 50, for ever."""
    clock = how.pop("clock", Clock())
    return a_world(clock, flat_market(clock, [("AAPL", 100.0), ("MSFT", 50.0)]), **how)


def market_order(side: OrderSide = BUY, qty: float = 10, **how: Any) -> MarketOrderRequest:
    fields = {"symbol": "AAPL", "time_in_force": TimeInForce.DAY, **how}
    return MarketOrderRequest(side=side, qty=qty, **fields)


def limit_order(
    price: float, side: OrderSide = BUY, qty: float = 10, **how: Any
) -> LimitOrderRequest:
    fields = {"symbol": "AAPL", "time_in_force": TimeInForce.GTC, **how}
    return LimitOrderRequest(side=side, qty=qty, limit_price=price, **fields)


def eventually(ask: Callable[[], T], is_it: Callable[[T], bool]) -> T:
    give_up = time.monotonic() + 8
    while not is_it(found := ask()):
        assert time.monotonic() < give_up, f"never came: {found}"
        time.sleep(0.01)
    return found


def filled(client: Any, request: Any) -> Order:
    """Submit an order, and wait until it is filled."""
    order = client.submit_order(request)
    return eventually(lambda: client.get_order_by_id(order.id), lambda o: o.filled_at is not None)


class Listener:
    """Trade updates as an unmodified client receives them, in a thread of its own."""

    def __init__(self, url: str) -> None:
        self.seen = list[TradeUpdate]()
        self.stream = TradingStream(*ACCESS, url_override=f"ws{url[4:]}/stream")
        self.stream.subscribe_trade_updates(self._note)
        self.thread = threading.Thread(target=self.stream.run, daemon=True)
        self.thread.start()

    async def _note(self, update: TradeUpdate) -> None:
        self.seen.append(update)


@contextmanager
def heard(world: SandboxWorld, count: int = 1) -> Iterator[tuple[str, list[Listener]]]:
    """A served world, and so many who listen to it."""
    with served(world) as url:
        listeners = [Listener(url) for _ in range(count)]
        eventually(subscribers(world), lambda found: found == count)
        yield url, listeners
        for listener in listeners:
            listener.stream.stop()
    # Joined when the server has gone, because only that wakes a stopped client at once.
    for listener in listeners:
        listener.thread.join(10)
        assert not listener.thread.is_alive()


def subscribers(world: SandboxWorld) -> Callable[[], int]:
    return lambda: len(world.updates._listening)
