"""Requests for bars: what they may ask, and the pages in which they are answered."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from ops_pipeline.domain.bars import is_ticker
from ops_pipeline.domain.session import MINUTE, floor_minute
from ops_pipeline.domain.values import Bar
from ops_pipeline.sandbox.query import BadQuery, choice, number, time
from ops_pipeline.sandbox.tape import Tape

MAX_LIMIT, DEFAULT_LIMIT = 10_000, 1_000
SIP_DELAY = timedelta(minutes=15)
_DAY = timedelta(days=1)
# What lies beyond is asked of no market; calendars do not reach so far.
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_FEEDS, _SORTS = ("iex", "sip"), ("asc", "desc")
_ADJUSTMENTS = ("raw", "split", "dividend", "all")


@dataclass(frozen=True)
class BarsQuery:
    """Bars of some symbols with start <= minute <= end; `after` is the last one told already."""

    symbols: tuple[str, ...]
    start: datetime
    end: datetime
    limit: int
    is_newest_first: bool
    after: tuple[str, datetime] | None

    @classmethod
    def read(cls, params: Mapping[str, str], now: datetime) -> "BarsQuery":
        """The query as its parameters tell it.

        Raises:
            BadQuery: one of them cannot be used, or the plan does not allow it.
        """
        if (timeframe := params.get("timeframe", "")) != "1Min":
            raise BadQuery(f"invalid timeframe: {timeframe}")
        choice(params, "adjustment", _ADJUSTMENTS)
        start = time(params, "start") or now.replace(hour=0, minute=0, second=0, microsecond=0)
        end = time(params, "end") or now
        if start > end:
            raise BadQuery("end should not be before start")
        if choice(params, "feed", _FEEDS) == "sip" and end > now - SIP_DELAY:
            raise BadQuery("subscription does not permit querying recent SIP data", 403)
        token = params.get("page_token")
        return cls(
            symbols=_symbols(params),
            start=max(start, _EARLIEST),
            end=min(end, _LATEST),
            limit=number(params, "limit", DEFAULT_LIMIT, MAX_LIMIT),
            is_newest_first=choice(params, "sort", _SORTS) == "desc",
            after=_place(token) if token else None,
        )


def page_of(query: BarsQuery, tape: Tape) -> tuple[dict[str, list[dict[str, Any]]], str | None]:
    """One page of bars by symbol, and the token of the next page; none after the last one."""
    found = list(islice(_bars(query, tape), query.limit + 1))
    shown = found[: query.limit]
    page: dict[str, list[dict[str, Any]]] = {}
    for bar in map(tape.told, shown):
        page.setdefault(bar.ticker, []).append(_answer(bar))
    return page, _token(shown[-1]) if len(found) > len(shown) else None


def _bars(query: BarsQuery, tape: Tape) -> Iterator[Bar]:
    for symbol in query.symbols:
        start, end = query.start, query.end
        if query.after and symbol < query.after[0]:
            continue
        if query.after and symbol == query.after[0]:
            told = query.after[1]
            start, end = (start, told - MINUTE) if query.is_newest_first else (told + MINUTE, end)
        if query.is_newest_first:
            yield from _newest_first(tape, symbol, start, end)
        else:
            yield from tape.bars(symbol, start, end)


def _newest_first(tape: Tape, symbol: str, start: datetime, end: datetime) -> Iterator[Bar]:
    # Day by day, so that a page of a long range costs only the days that it shows.
    while start <= end:
        since = max(start, floor_minute(end) - _DAY)
        yield from reversed(list(tape.bars(symbol, since, end)))
        end = since - MINUTE


def _answer(bar: Bar) -> dict[str, Any]:
    return {
        "t": f"{bar.minute:%Y-%m-%dT%H:%M:%SZ}",
        "o": bar.open,
        "h": bar.high,
        "l": bar.low,
        "c": bar.close,
        "v": bar.volume,
        "n": -(-bar.volume // 100),
        "vw": round((bar.high + bar.low + bar.close) / 3, 4),
    }


def _symbols(params: Mapping[str, str]) -> tuple[str, ...]:
    symbols = [symbol.strip() for symbol in params.get("symbols", "").split(",")]
    for symbol in symbols:
        if not is_ticker(symbol):
            raise BadQuery(f"invalid symbol: {symbol}")
    return tuple(sorted(set(symbols)))


def _token(bar: Bar) -> str:
    return base64.b64encode(f"{bar.ticker}|M|{bar.minute.isoformat()}".encode()).decode()


def _place(token: str) -> tuple[str, datetime]:
    try:
        symbol, _, minute = base64.b64decode(token, validate=True).decode().split("|")
        return symbol, datetime.fromisoformat(minute).astimezone(UTC)
    except (binascii.Error, ValueError):
        raise BadQuery("invalid page_token") from None
