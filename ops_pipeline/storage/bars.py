"""One-minute bars: the first complete version decides, later ones are kept beside it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime

from sqlalchemy import Connection

from ops_pipeline.domain.values import Bar
from ops_pipeline.storage.queries import query


def insert_bars(
    connection: Connection,
    bars: Sequence[Bar],
    sessions: Mapping[datetime, date],
    available_at: Mapping[datetime, datetime],
    *,
    feed: str,
    origin: str,
) -> int:
    """Keep bars that are new, and the versions of known bars that differ.

    Args:
        connection: holds the knowledge lock where rows are stamped with the present.
        bars: usable bars of session minutes.
        sessions: the session day of each bar's minute.
        available_at: when each minute's bars could first have been known.
        feed: which vendor feed they come from.
        origin: live or recorded.

    Returns:
        How many bars were new.
    """
    rows = [
        {
            **_prices(bar),
            "session_date": sessions[bar.minute],
            "available_at": available_at[bar.minute],
            "feed": feed,
            "origin": origin,
        }
        for bar in bars
    ]
    if not rows:
        return 0
    known = known_minutes(connection, min(b.minute for b in bars), max(b.minute for b in bars))
    fresh: list[dict[str, object]] = []
    repeated: list[dict[str, object]] = []
    for bar, row in zip(bars, rows, strict=True):
        (repeated if (bar.ticker, bar.minute) in known else fresh).append(row)
        known.add((bar.ticker, bar.minute))
    if fresh:
        connection.execute(query("bars", "insert_bars"), fresh)
    if repeated:
        connection.execute(query("bars", "insert_revision"), repeated)
    return len(fresh)


def known_minutes(
    connection: Connection, first: datetime, last: datetime
) -> set[tuple[str, datetime]]:
    """Ticker and minute of the stored bars from the first minute to the last one."""
    rows = connection.execute(query("bars", "known_minutes"), {"first": first, "last": last})
    return {(row[0], row[1].astimezone(UTC)) for row in rows}


def newest_minute(connection: Connection, start: datetime, end: datetime) -> datetime | None:
    """The newest stored minute in [start, end); None where there is none."""
    newest: datetime | None = connection.execute(
        query("bars", "newest_minute"), {"start": start, "end": end}
    ).scalar()
    return newest.astimezone(UTC) if newest else None


def newest_bars(connection: Connection, tickers: Sequence[str], now: datetime) -> dict[str, Bar]:
    """The newest bar of each ticker that was known at an instant, not older than a week."""
    rows = connection.execute(
        query("bars", "newest_bars"), {"tickers": list(tickers), "now": now}
    ).mappings()
    return {row["ticker"]: Bar(**{**row, "minute": row["minute"].astimezone(UTC)}) for row in rows}


def _prices(bar: Bar) -> dict[str, object]:
    return {
        "ticker": bar.ticker,
        "minute": bar.minute,
        "open": bar.open,
        "high": bar.high,
        "low": bar.low,
        "close": bar.close,
        "volume": bar.volume,
    }
