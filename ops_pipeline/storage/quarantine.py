"""Tickers that must not be traded until a person has looked at them."""

from dataclasses import dataclass
from datetime import UTC, date, datetime

from sqlalchemy import Connection

from ops_pipeline.storage.queries import query

OVERNIGHT_GAP, SPLIT = "overnight_gap", "split"


@dataclass(frozen=True)
class Quarantine:
    """Why a ticker must not be traded; `observed` is a return, or the ratio of a split."""

    ticker: str
    session_date: date
    cause: str
    observed: float
    available_at: datetime


def insert_quarantine(connection: Connection, quarantine: Quarantine) -> bool:
    """Keep a ticker from being traded. Returns whether this is new."""
    done = connection.execute(query("quarantine", "insert_quarantine"), quarantine.__dict__)
    return bool(done.rowcount)


def quarantined(connection: Connection, now: datetime) -> frozenset[str]:
    """The tickers that must not be traded at an instant."""
    rows = connection.execute(query("quarantine", "quarantined"), {"now": now})
    return frozenset(rows.scalars())


def open_quarantines(connection: Connection) -> list[Quarantine]:
    """What was not released yet, oldest first."""
    rows = connection.execute(query("quarantine", "open_quarantines")).mappings()
    return [
        Quarantine(**{**row, "available_at": row["available_at"].astimezone(UTC)}) for row in rows
    ]


def release(connection: Connection, ticker: str, now: datetime, because: str) -> int:
    """Let a ticker be traded again from now on. Returns how many causes that settles."""
    values = {"ticker": ticker, "now": now, "because": because}
    return connection.execute(query("quarantine", "release"), values).rowcount
