"""The tape: what the sandbox's traders see of the market, minute by minute."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from ops_pipeline.domain.bars import is_complete
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.values import Bar
from ops_pipeline.sandbox.faults import Faults, half_formed
from ops_pipeline.sandbox.live import LiveMarket, Now

# Longer than the market's halts; who did not trade for so long has no price.
_LOOK_BACK = timedelta(minutes=30)


class Tape:
    """Bars as a vendor has them; the bar of the running minute is half-formed."""

    def __init__(self, market: LiveMarket, now: Now, faults: Faults) -> None:
        self._market, self._now, self._faults = market, now, faults

    def bars(self, ticker: str, start: datetime, end: datetime) -> Iterator[Bar]:
        """Bars with start <= minute <= end, oldest first; the running minute's as it stands."""
        now = self._now()
        for bar in self._market.bars(ticker, start, end):
            yield _so_far(bar, now)

    def told(self, bar: Bar) -> Bar:
        """The bar as it is told in an answer; faults strike here, once for each telling."""
        return self._faults.changed(bar)

    def newest(self, ticker: str) -> Bar | None:
        """The newest bar, whose close is the price; none where nothing traded for half an hour."""
        now = self._now()
        bars = list(self._market.bars(ticker, now - _LOOK_BACK, now))
        return _so_far(bars[-1], now) if bars else None


def _so_far(bar: Bar, now: datetime) -> Bar:
    return bar if is_complete(bar, now) else half_formed(bar, (now - bar.minute) / MINUTE)
