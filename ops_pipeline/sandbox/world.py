"""The sandbox's world: its market, its account, and what befalls those who ask."""

import secrets
from decimal import Decimal

from ops_pipeline.sandbox.broker import Broker
from ops_pipeline.sandbox.faults import Faults
from ops_pipeline.sandbox.live import LiveMarket, Now
from ops_pipeline.sandbox.splits import Split
from ops_pipeline.sandbox.stream import TradeUpdates
from ops_pipeline.sandbox.tape import Tape
from ops_pipeline.sandbox.traffic import RateLimit, RequestLog
from ops_pipeline.settings import SANDBOX_KEY, SANDBOX_SECRET


class SandboxWorld:
    """All that a sandbox knows, in memory; to be used from one event loop.

    `fill_seconds` is how long a market order takes to be filled, in real seconds; all else goes by
    `now`.
    """

    def __init__(
        self,
        market: LiveMarket,
        now: Now,
        key: str = SANDBOX_KEY,
        secret: str = SANDBOX_SECRET,
        seed: int = 7,
        *,
        requests_per_minute: int = 200,
        cash: Decimal = Decimal(100_000),
        shorting: bool = False,
        fill_seconds: float = 0.2,
    ) -> None:
        self.market, self.now = market, now
        self._key, self._secret = key.encode(), secret.encode()
        self.fill_seconds = fill_seconds
        self.created_at = now()
        self.faults = Faults(now)
        self.tape = Tape(market, now, self.faults)
        traded = frozenset(market.tickers)
        self.broker = Broker(
            self.tape.newest, traded.__contains__, now, seed, cash=cash, shorting=shorting
        )
        self.updates = TradeUpdates(self.faults, self.is_authorized)
        self.broker.listeners.append(self.updates.tell)
        self.log = RequestLog()
        self.rate_limit = RateLimit(requests_per_minute, now)
        self.splits: list[Split] = []

    def is_authorized(self, key: str, secret: str) -> bool:
        """Whether these are the sandbox's key and secret."""
        is_key = secrets.compare_digest(key.encode(), self._key)
        return secrets.compare_digest(secret.encode(), self._secret) and is_key
