"""One-minute bars from Alpaca."""

import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import floor, inf, isfinite
from typing import Any

from alpaca.common.enums import Sort
from alpaca.common.exceptions import APIError
from alpaca.data.enums import Adjustment, DataFeed
from alpaca.data.historical.stock import StockHistoricalDataClient
from alpaca.data.requests import StockBarsRequest
from alpaca.data.timeframe import TimeFrame

from ops_pipeline.clients.alpaca_http import (
    KEYS,
    AlpacaBusy,
    AlpacaSilent,
    Patience,
    PatientAdapter,
    RateBudget,
    patient,
    refusal,
    told,
)
from ops_pipeline.clients.protocols import FetchedBars
from ops_pipeline.domain.bars import is_complete
from ops_pipeline.domain.errors import BadConfiguration, OperatorError
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.values import Bar
from ops_pipeline.settings import AlpacaAccess

# The most symbols of any length that fit into 8 kB; 5,000 tickers take 3 s at 0.2 s a request,
# of which threads would save less than 2 s.
CHUNK = 500
# So that a universe of strange symbols does not use up the rate of the minute.
MAX_REFUSALS = 100
# Above it a float is no longer an exact count.
MAX_VOLUME = 2**53
PROBED = "AAPL"

log = logging.getLogger(__name__)

Rows = dict[str, list[Any]]


class AlpacaBars:
    """One-minute bars of one feed of Alpaca, not adjusted for splits and dividends."""

    def __init__(
        self,
        access: AlpacaAccess,
        now: Callable[[], datetime],
        *,
        chunk: int = CHUNK,
        patience: Patience | None = None,
        budget: RateBudget | None = None,
    ) -> None:
        self._access, self._now, self._chunk = access, now, chunk
        self._patience = patience or Patience()
        self._budget = budget or RateBudget(
            monotonic=self._patience.monotonic, sleep=self._patience.sleep
        )

    @property
    def feed(self) -> str:
        """The name that is stored beside each bar: alpaca/iex or alpaca/sip."""
        return f"alpaca/{self._access.feed}"

    def fetch_bars(
        self,
        tickers: Sequence[str],
        start: datetime,
        end: datetime,
        within_seconds: float = inf,
    ) -> FetchedBars:
        """Complete bars of these tickers with start <= minute < end, by minute and ticker.

        What has not come in time is given up.

        A ticker is unanswered when Alpaca does not know it, when its request failed while others
        did not, and when none of its bars can be read. A bar that cannot be read is left out.

        Raises:
            BadConfiguration: the key is refused, or the account may not read the feed.
            BadInput: the request is refused, and not for its symbols.
            NotRunning: no request was answered.
            TimedOut: no request was answered, the first one because of the rate limit.
        """
        asked = list(dict.fromkeys(tickers))
        last = (end - datetime.resolution).replace(second=0, microsecond=0)
        if not asked or last < start:
            return FetchedBars([])
        # Taken before the first request: a bar that was half-formed then stays half-formed.
        asked_at = self._now()
        adapter = PatientAdapter(self._patience, self._budget, self._now, within_seconds)
        client = _client(self._access)
        with patient(client, adapter):
            fetch = _Fetch(lambda part: client.rows(part, start, last), self._access)
            fetch.run(asked[at : at + self._chunk] for at in range(0, len(asked), self._chunk))
        bars, unreadable = _read(fetch.rows)
        wanted = [bar for bar in bars if start <= bar.minute < end and is_complete(bar, asked_at)]
        unanswered = fetch.unanswered | unreadable
        return FetchedBars(wanted, unanswered, adapter.requests, adapter.bytes)

    def probe(self) -> str:
        """What works, by one request for the newest minutes of one ticker.

        Raises:
            OperatorError: as `fetch_bars`.
        """
        now = self._now()
        self.fetch_bars([PROBED], now - 5 * MINUTE, now)
        return f"feed {self._access.feed} answers"


class _Client(StockHistoricalDataClient):
    """alpaca-py's client; told apart are answers that are empty and answers that are none."""

    def __init__(self, access: AlpacaAccess) -> None:
        super().__init__(access.key, access.secret, raw_data=True, url_override=access.data_url)
        self._feed = DataFeed(access.feed)

    def rows(self, tickers: list[str], first: datetime, last: datetime) -> Rows:
        """The rows of all pages, from the first minute to the last one, both included."""
        request = StockBarsRequest(
            symbol_or_symbols=tickers,
            timeframe=TimeFrame.Minute,
            start=first,
            end=last,
            adjustment=Adjustment.RAW,
            feed=self._feed,
            sort=Sort.ASC,
        )
        rows: Any = self.get_stock_bars(request)
        return dict(rows)

    def get(self, path: str, data: Any = None, **options: Any) -> Any:
        """One page; alpaca-py itself stumbles over null, and never leaves a page that repeats."""
        page: Any = super().get(path, data, **options)
        bars = page.get("bars", False) if isinstance(page, dict) else False
        if bars is not None and not isinstance(bars, dict):
            raise AlpacaSilent("what it sends holds no bars")
        token = page.get("next_page_token") or None
        if token and token == data.get("page_token"):
            raise AlpacaSilent("it sends the same page again and again")
        lists = {ticker: rows for ticker, rows in (bars or {}).items() if isinstance(rows, list)}
        return {"bars": lists, "next_page_token": token}


class _Fetch:
    """What was answered so far, and what was not."""

    def __init__(self, ask: Callable[[list[str]], Rows], access: AlpacaAccess) -> None:
        self._ask, self._access = ask, access
        self._refusals = 0
        self.rows: Rows = {}
        self.unanswered: dict[str, str] = {}

    def run(self, parts: Iterable[list[str]]) -> None:
        """Ask for all parts, one after the other.

        Raises:
            OperatorError: no part was answered, or none can be.
        """
        waiting, failures, answers = deque(parts), list[OperatorError](), 0
        while waiting:
            part = waiting.popleft()
            try:
                rows = self._ask(part)
                self.rows |= {ticker: rows.get(ticker, []) for ticker in part}
                answers += 1
            except (AlpacaSilent, AlpacaBusy) as error:
                failures.append(error)
                self.unanswered |= dict.fromkeys(part, str(error))
            except APIError as error:
                waiting.extendleft(self._rest(part, error))
        if failures and not answers:
            raise failures[0]

    def _rest(self, part: list[str], error: APIError) -> list[list[str]]:
        """What to ask for after a refusal: all but the symbols it names, or both halves.

        Raises:
            OperatorError: the refusal is not about symbols.
        """
        message = told(error, self._access)
        if error.status_code not in (400, 422) or "symbol" not in message.lower():
            raise refusal(error, self._access) from None
        self._refusals += 1
        if self._refusals > MAX_REFUSALS:
            self.unanswered |= dict.fromkeys(part, f"given up after {MAX_REFUSALS} refusals")
            return []
        named = part if len(part) == 1 else _named(message, part)
        self.unanswered |= dict.fromkeys(named, message)
        rest = [ticker for ticker in part if ticker not in named]
        middle = 0 if named else len(part) // 2
        return [half for half in (rest[:middle], rest[middle:]) if half]


def _client(access: AlpacaAccess) -> _Client:
    """A client with keys that can be sent.

    Raises:
        BadConfiguration: a key is empty, or holds what no header may hold.
    """
    for text in (access.key, access.secret):
        if not text or not text.isascii() or not text.isprintable() or text != text.strip():
            raise BadConfiguration("the key for Alpaca cannot be one", KEYS)
    return _Client(access)


def _named(message: str, part: Sequence[str]) -> list[str]:
    """The tickers that a message names, as in "invalid symbol: X"."""
    words = {word.strip(".-") for word in re.split(r"[^A-Z0-9.-]+", message.partition(":")[2])}
    return [ticker for ticker in part if ticker in words]


def _read(rows: Mapping[str, list[Any]]) -> tuple[list[Bar], dict[str, str]]:
    """The bars by minute and ticker, the first of each, and the tickers that have none."""
    bars: dict[tuple[datetime, str], Bar] = {}
    unreadable: dict[str, str] = {}
    lost = 0
    for ticker, own in rows.items():
        read = [bar for row in own if (bar := _bar(ticker, row))]
        lost += len(own) - len(read)
        if own and not read:
            unreadable[ticker] = f"none of its {len(own)} bars can be read"
        for bar in read:
            bars.setdefault((bar.minute, ticker), bar)
    if lost:
        log.warning("%d of Alpaca's bars cannot be read", lost)
    return [bars[key] for key in sorted(bars)], unreadable


def _bar(ticker: str, row: Any) -> Bar | None:
    """A bar of an answer; None where it cannot be read."""
    try:
        minute = datetime.fromisoformat(row["t"])
        opened, high, low, closed, volume = (_number(row[name]) for name in "ohlcv")
        is_minute = minute.tzinfo and minute == minute.replace(second=0, microsecond=0)
        if not is_minute or abs(volume) > MAX_VOLUME:
            return None
        # The tape carries fractions of shares. Features use ratios of volumes, which need none.
        return Bar(ticker, minute.astimezone(UTC), opened, high, low, closed, floor(volume))
    except (LookupError, TypeError, ValueError, OverflowError):
        return None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError("no number")
    return float(value)
