"""Proposes to close positions: the first step of every run."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection

from ops_pipeline.dispatcher.snapshot import Account
from ops_pipeline.domain.execution import FLATTEN, OVERNIGHT, Closing, exit_reason, may_fill
from ops_pipeline.domain.session import floor_minute
from ops_pipeline.domain.thresholds import DispatcherConfig, SignalRules
from ops_pipeline.domain.values import Position
from ops_pipeline.storage import bars, dispatch, features

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exit:
    """A proposal to close a position, as it is queued."""

    ticker: str
    action: str
    ts: datetime
    minute: datetime
    session_date: date
    expires_at: datetime
    reason: Mapping[str, Any]
    features: Mapping[str, Any]


def propose_exits(connection: Connection, account: Account, config: DispatcherConfig) -> list[str]:
    """Queue a closing recommendation for each position that is due. Returns their reasons."""
    positions = closable(account)
    tried = dispatch.closings(connection, positions) if positions else {}
    is_flattening = bool(positions) and dispatch.must_be_flat(connection)
    due = due_positions(account, config, tried, must_be_flat=is_flattening)
    if survivors := [position.ticker for position, reason in due if reason == OVERNIGHT]:
        log.error("position_survived_the_night", extra={"data": {"tickers": survivors}})
    return [reason for _, reason in _queue(connection, account, due)]


def propose_flatten(connection: Connection, account: Account) -> list[Position]:
    """Queue a closing recommendation for each closable position. Returns those that are new."""
    due = [(position, FLATTEN) for position in closable(account)]
    return [position for position, _ in _queue(connection, account, due)]


def closable(account: Account) -> list[Position]:
    """The positions that may be closed, by ticker.

    A quarantined ticker is left to a person: its price, or the number of its shares, may be wrong.
    What an order at work already closes is not closed twice.
    """
    return [
        position
        for ticker, position in sorted(account.book.positions.items())
        if ticker not in account.quarantined and account.book.closable(ticker) != 0
    ]


def closes_without_bar(
    connection: Connection, now: datetime, config: DispatcherConfig
) -> list[int]:
    """Return the proposed closing orders for which the simulation has no new bar yet."""
    pending = dispatch.pending_closes(connection)
    if not pending:
        return []
    known = bars.newest_bars(connection, sorted({one.ticker for one in pending}), now)
    return [one.id for one in pending if not may_fill(known.get(one.ticker), one.ts, now, config)]


def _queue(
    connection: Connection, account: Account, due: Sequence[tuple[Position, str]]
) -> list[tuple[Position, str]]:
    if not due:
        return []
    tickers = [position.ticker for position, _ in due]
    feature_bars = features.newest_feature_bars(connection, tickers, account.now)
    return [
        (position, reason)
        for position, reason in due
        if dispatch.insert_exit(
            connection, **exit_of(account, position, reason, feature_bars).__dict__
        )
    ]


def due_positions(
    account: Account,
    config: DispatcherConfig,
    tried: Mapping[str, Closing],
    *,
    must_be_flat: bool,
) -> list[tuple[Position, str]]:
    """Return the positions to close now, by ticker, and why.

    A position that once had to be closed is due until it is flat, whatever the price does then;
    one that an operator wanted closed is due until trading is resumed.

    Args:
        account: what is held, and the market.
        config: when to close.
        tried: earlier attempts to close each position, by ticker.
        must_be_flat: close all positions.
    """
    session = account.session
    if session is None:
        return []
    found = []
    for position in closable(account):
        attempts = tried.get(position.ticker)
        if attempts and not attempts.is_due(account.now, session.closes_at):
            continue
        bar = account.bars.get(position.ticker)
        reason = exit_reason(position, bar, session, account.now, config)
        reason = reason or (FLATTEN if must_be_flat else attempts.exit if attempts else None)
        if reason:
            found.append((position, reason))
    return found


def exit_of(
    account: Account, position: Position, reason: str, feature_bars: Mapping[str, datetime]
) -> Exit:
    """The proposal to close a position that is due; it stands on the ticker's newest features."""
    assert account.session is not None  # noqa: S101 - there is no reason to exit without one
    feature_bar = feature_bars.get(position.ticker)
    return Exit(
        ticker=position.ticker,
        action="SELL" if position.quantity > 0 else "BUY",
        ts=account.now,
        minute=floor_minute(account.now),
        session_date=account.session.day,
        expires_at=account.now + SignalRules().expires_after,
        reason={
            "rule": "EXIT",
            "exit": reason,
            "position_opened_at": position.opened_at.isoformat(),
        },
        features={
            "v": 1,
            "ticker": position.ticker,
            "ts": feature_bar.isoformat() if feature_bar else None,
        },
    )
