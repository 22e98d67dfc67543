"""Proposes to close positions: the first step of every run."""

from datetime import datetime

from sqlalchemy import Connection

from ops_pipeline.dispatcher.snapshot import Account
from ops_pipeline.domain.execution import exit_reason
from ops_pipeline.domain.session import floor_minute
from ops_pipeline.domain.thresholds import DispatcherConfig, SignalRules
from ops_pipeline.domain.values import Position
from ops_pipeline.storage import dispatch, features


def propose_exits(connection: Connection, account: Account, config: DispatcherConfig) -> list[str]:
    """Queue a closing recommendation for each position that is due. Returns their reasons.

    A quarantined ticker is left to a person: its price, or the number of its shares, may be wrong.
    """
    due = [
        (position, reason)
        for ticker, position in sorted(account.book.positions.items())
        if ticker not in account.quarantined
        and (
            reason := exit_reason(
                position, account.bars.get(ticker), account.session, account.now, config
            )
        )
    ]
    if not due:
        return []
    tickers = [position.ticker for position, _ in due]
    feature_bars = features.newest_feature_bars(connection, tickers, account.now)
    return [
        reason
        for position, reason in due
        if _propose(connection, account, position, reason, feature_bars.get(position.ticker))
    ]


def _propose(
    connection: Connection,
    account: Account,
    position: Position,
    reason: str,
    feature_bar: datetime | None,
) -> bool:
    assert account.session is not None  # noqa: S101 - there is no reason to exit without one
    return dispatch.insert_exit(
        connection,
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
