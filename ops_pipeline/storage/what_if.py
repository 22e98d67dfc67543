"""What the dispatcher knew and decided over a stretch of time, to be played again in memory."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, RowMapping

from ops_pipeline.domain.values import Bar
from ops_pipeline.storage.dispatch import Owned, owned_of
from ops_pipeline.storage.queries import query

# As newest_bars and newest_feature_bars have it.
OLDEST = timedelta(days=7)
Value = TypeVar("Value")


@dataclass(frozen=True)
class RecordedRun:
    """A run of the dispatcher: when it claimed and decided, its settings, and what it found."""

    started_at: datetime
    decided_at: datetime
    config_hash: str
    pulled: int
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Waiting:
    """A recommendation to open a position, and when its row was written."""

    owned: Owned
    created_at: datetime


@dataclass(frozen=True)
class Ended:
    """How a recommendation ended; quantity is signed like the side, 0 where nothing was filled."""

    ticker: str
    minute: datetime
    intent: str
    action: str
    at: datetime
    status: str
    failure_reason: str | None
    quantity: int = 0
    price: float | None = None
    stop_price: float | None = None
    target_price: float | None = None
    max_hold_minutes: int | None = None

    @property
    def key(self) -> tuple[str, datetime, str]:
        """What tells it from all others."""
        return self.ticker, self.minute, self.intent

    @property
    def is_traded(self) -> bool:
        """Whether it passed every gate."""
        return self.status in ("SIMULATED", "EXECUTED")


@dataclass(frozen=True)
class Dated(Generic[Value]):
    """What is told of a ticker's minute, and when it became known."""

    ticker: str
    minute: datetime
    available_at: datetime
    value: Value


class Newest(Generic[Value]):
    """The newest of each ticker that was known, at instants that only go forward."""

    def __init__(self, rows: Iterable[Dated[Value]]) -> None:
        self._coming = iter(rows)
        self._next = next(self._coming, None)
        self._newest: dict[str, Dated[Value]] = {}

    def at(self, now: datetime) -> dict[str, Value]:
        """By ticker what newest_bars or newest_feature_bars say of this instant."""
        while self._next and self._next.available_at <= now:
            known = self._newest.get(self._next.ticker)
            if known is None or known.minute < self._next.minute:
                self._newest[self._next.ticker] = self._next
            self._next = next(self._coming, None)
        return {
            ticker: found.value
            for ticker, found in self._newest.items()
            if found.minute > now - OLDEST
        }


def runs(connection: Connection, start: datetime, end: datetime) -> list[RecordedRun]:
    """The runs in [start, end), in order."""
    rows = connection.execute(query("what_if", "runs"), {"start": start, "end": end})
    return [RecordedRun(*(at.astimezone(UTC) for at in row[:2]), *row[2:]) for row in rows]


def settings(connection: Connection, start: datetime, end: datetime) -> dict[str, dict[str, Any]]:
    """The settings that were in force in [start, end), by their hash."""
    rows = connection.execute(query("what_if", "settings"), {"start": start, "end": end})
    return {row[0]: row[1] for row in rows}


def openings(connection: Connection, start: datetime, end: datetime) -> list[Waiting]:
    """What a run from the start to the end could have taken, or expired."""
    rows = connection.execute(query("what_if", "openings"), {"start": start, "end": end}).mappings()
    return [Waiting(owned_of(row), row["created_at"].astimezone(UTC)) for row in rows]


def decisions(connection: Connection, start: datetime, end: datetime) -> list[Ended]:
    """How recommendations of both intents ended, from the start to the end."""
    rows = connection.execute(query("what_if", "decisions"), {"start": start, "end": end})
    return [_ended(row) for row in rows.mappings()]


def known_bars(
    connection: Connection, tickers: Sequence[str], start: datetime, end: datetime
) -> list[Dated[Bar]]:
    """What newest_bars may answer at instants from the start to the end."""
    rows = connection.execute(
        query("what_if", "bars"), {"tickers": list(tickers), "start": start, "end": end}
    )
    return [
        Dated(row[0], minute, row[7].astimezone(UTC), Bar(row[0], minute, *row[2:7]))
        for row in rows
        for minute in (row[1].astimezone(UTC),)
    ]


def known_feature_bars(
    connection: Connection, tickers: Sequence[str], start: datetime, end: datetime
) -> list[Dated[datetime]]:
    """What newest_feature_bars may answer at instants from the start to the end."""
    rows = connection.execute(
        query("what_if", "feature_bars"), {"tickers": list(tickers), "start": start, "end": end}
    )
    return [Dated(row[0], *(row[n].astimezone(UTC) for n in (1, 3, 2))) for row in rows]


def _ended(row: RowMapping) -> Ended:
    sign = -1 if row["side"] == "sell" else 1
    return Ended(
        ticker=row["ticker"],
        minute=row["minute"].astimezone(UTC),
        intent=row["intent"],
        action=row["action"],
        at=row["processed_at"].astimezone(UTC),
        status=row["status"],
        failure_reason=row["failure_reason"],
        quantity=sign * (row["qty"] or 0),
        price=row["price"],
        stop_price=row["stop_loss_price"],
        target_price=row["take_profit_price"],
        max_hold_minutes=row["max_hold_minutes"],
    )
