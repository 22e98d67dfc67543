"""The queue of recommendations and the runs that work on it; each move names its claim."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, RowMapping

from ops_pipeline.domain.dispatch import Decision, Status
from ops_pipeline.domain.execution import Closing
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.domain.values import Position, Recommendation
from ops_pipeline.storage.queries import as_rows, query

ACCOUNT = "paper"
ABANDONED_AFTER_MINUTES = 10
# Closed in one statement, so that a backlog of any size is worked off in bounded memory.
EXPIRED_AT_ONCE = 20_000


class FenceLost(Exception):
    """A row changed hands while it was worked on; nothing was written."""


@dataclass(frozen=True)
class StateChange:
    """A change of the trading state."""

    state: str
    changed_by: str
    reason: str
    written_at: datetime


@dataclass(frozen=True)
class DispatcherRun:
    """A run of the dispatcher, and how many recommendations it ended how."""

    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    pulled_count: int
    simulated_count: int
    skipped_count: int
    failed_count: int


@dataclass(frozen=True)
class Owned:
    """A claimed recommendation, and the features that it was made on."""

    recommendation: Recommendation
    session_date: date
    features: Mapping[str, Any] | None


@dataclass(frozen=True)
class Closed:
    """How a claimed recommendation ends, and what that was decided on."""

    recommendation: Recommendation
    status: Status
    decision: Decision
    snapshot: Mapping[str, Any] | None


@dataclass(frozen=True)
class PendingClose:
    """A closing order that is proposed and not claimed."""

    id: int
    ticker: str
    ts: datetime


@dataclass(frozen=True)
class NewestClose:
    """The newest closing order of a ticker; the order is the broker's, None in a simulation."""

    ticker: str
    ts: datetime
    status: str
    failure_reason: str | None
    order_state: str | None
    order_reason: str | None
    price: float | None


def insert_run(
    connection: Connection,
    run_id: UUID,
    started_at: datetime,
    config: DispatcherConfig,
    *,
    mode: str,
    code_version: str,
    orchestrator_run_id: str,
    config_version: int | None = None,
    summary: Mapping[str, Any] | None = None,
) -> None:
    """Open a run, with every setting in force, and what it found the world to be like."""
    row = {
        "run_id": run_id,
        "started_at": started_at,
        "mode": mode,
        "code_version": code_version,
        "config_version": config_version,
        "config_hash": config.fingerprint(),
        "config": json.dumps(config.document(), allow_nan=False),
        "summary": json.dumps(summary or {}, allow_nan=False),
        "orchestrator_run_id": orchestrator_run_id,
    }
    connection.execute(query("dispatch", "insert_run"), row)


def finish_run(
    connection: Connection,
    run_id: UUID,
    finished_at: datetime,
    *,
    released: int,
    expired: int,
) -> None:
    """Close a run; what became of its claims is counted from their rows.

    Raises:
        FenceLost: the run was given up for dead meanwhile.
    """
    parameters = {
        "run_id": run_id,
        "finished_at": finished_at,
        "released": released,
        "expired": expired,
    }
    if connection.execute(query("dispatch", "finish_run"), parameters).rowcount != 1:
        raise FenceLost(f"run {run_id} is closed already")


def abandon_runs(connection: Connection, now: datetime) -> int:
    """Close runs that were opened long ago and never finished."""
    parameters = {"now": now, "older_than_minutes": ABANDONED_AFTER_MINUTES}
    return connection.execute(query("dispatch", "abandon_runs"), parameters).rowcount


def insert_exit(
    connection: Connection,
    *,
    ticker: str,
    action: str,
    ts: datetime,
    minute: datetime,
    session_date: date,
    expires_at: datetime,
    reason: Mapping[str, Any],
    features: Mapping[str, Any],
) -> bool:
    """Propose to close a position; False where one is proposed already."""
    row = {
        "ticker": ticker,
        "action": action,
        "ts": ts,
        "minute": minute,
        "session_date": session_date,
        "expires_at": expires_at,
        "reason": json.dumps(reason, allow_nan=False),
        "features_snapshot": json.dumps(features, allow_nan=False),
    }
    return connection.execute(query("dispatch", "insert_exit"), row).rowcount == 1


def pending_closes(connection: Connection) -> list[PendingClose]:
    """Return the closing orders that are proposed and not claimed."""
    rows = connection.execute(query("dispatch", "pending_closes")).mappings()
    return [PendingClose(row["id"], row["ticker"], row["ts"].astimezone(UTC)) for row in rows]


def closings(connection: Connection, positions: Sequence[Position]) -> dict[str, Closing]:
    """Return the attempts to close each of these positions, by ticker."""
    parameters = {
        "tickers": [position.ticker for position in positions],
        "opened": [position.opened_at for position in positions],
    }
    rows = connection.execute(query("dispatch", "closings"), parameters).mappings()
    return {
        row["ticker"]: Closing(row["exit"], row["failures"], row["last_at"].astimezone(UTC))
        for row in rows
    }


def newest_closes(
    connection: Connection, tickers: Sequence[str], since: datetime
) -> dict[str, NewestClose]:
    """Return the newest closing order of each of these tickers since an instant."""
    parameters = {"tickers": list(tickers), "since": since}
    rows = connection.execute(query("dispatch", "newest_closes"), parameters).mappings()
    return {row["ticker"]: NewestClose(**{**row, "ts": row["ts"].astimezone(UTC)}) for row in rows}


def expire(connection: Connection, now: datetime) -> int:
    """Close what is too old to trade, EXPIRED_AT_ONCE rows at most. Returns how many."""
    parameters = {"now": now, "limit": EXPIRED_AT_ONCE}
    return connection.execute(query("dispatch", "expire"), parameters).rowcount


def release_stuck(connection: Connection) -> int:
    """Give back rows whose lease has run out. Returns how many."""
    return connection.execute(query("dispatch", "release_stuck")).rowcount


def release_all(connection: Connection) -> int:
    """Give back every row that is held, for one who knows that nobody works. Returns how many."""
    return connection.execute(query("dispatch", "release_all")).rowcount


def claim(
    connection: Connection,
    run_id: UUID,
    now: datetime,
    config: DispatcherConfig,
    *,
    passed_over: Sequence[int] = (),
    closing_only: bool = False,
) -> dict[int, int]:
    """Take pending rows for a run, but for those passed over: the claim's epoch by the row's id."""
    parameters = {
        "passed_over": list(passed_over),
        "closing_only": closing_only,
        "run_id": run_id,
        "now": now,
        "limit": config.max_signals_per_run,
        "lease_seconds": config.processing_ttl_minutes * 60,
    }
    rows = connection.execute(query("dispatch", "claim"), parameters)
    return {row[0]: row[1] for row in rows}


def owned(connection: Connection, claims: Mapping[int, int]) -> list[Owned]:
    """The claimed rows that are still ours, locked, in the order in which they are decided."""
    parameters = {"ids": list(claims), "epochs": list(claims.values())}
    rows = connection.execute(query("dispatch", "owned"), parameters).mappings()
    return [owned_of(row) for row in rows]


def finish(connection: Connection, closed: Sequence[Closed], now: datetime) -> None:
    """Close rows under their claims, all of them or none.

    Raises:
        FenceLost: one of the claims no longer holds its row.
    """
    if not closed:
        return
    rows = as_rows(
        {
            "id": each.recommendation.id,
            "epoch": each.recommendation.claim_epoch,
            "status": each.status.value,
            "failure_reason": each.decision.failure_reason,
            "gates": each.decision.gates,
            "snapshot": each.snapshot,
        }
        for each in closed
    )
    done = connection.execute(query("dispatch", "finish"), {"rows": rows, "now": now}).rowcount
    if done != len(closed):
        raise FenceLost(f"{len(closed) - done} of {len(closed)} recommendations changed hands")


def executed_already(connection: Connection, recommendation_ids: Sequence[int]) -> list[int]:
    """Those of these open recommendations that the ledger holds: there must be none."""
    parameters = {"ids": list(recommendation_ids)}
    return list(connection.execute(query("dispatch", "executed_already"), parameters).scalars())


def take_lease(connection: Connection, name: str, holder: UUID, seconds: float) -> bool:
    """Be the only holder of a name for so long; True also for who holds it already."""
    parameters = {"name": name, "holder": holder, "seconds": seconds}
    return connection.execute(query("dispatch", "take_lease"), parameters).rowcount == 1


def end_lease(connection: Connection, name: str, holder: UUID) -> None:
    """Let the next one in; nothing where the lease has passed on."""
    connection.execute(query("dispatch", "end_lease"), {"name": name, "holder": holder})


def lock_account(connection: Connection, account: str = ACCOUNT) -> None:
    """Be the only one who decides orders of this account until the transaction ends."""
    connection.execute(query("dispatch", "lock_account"), {"account": account}).one()


def read_trading_state(connection: Connection) -> str:
    """ACTIVE, REDUCING or HALTED."""
    state: str = connection.execute(query("dispatch", "read_trading_state")).scalar_one()
    return state


def must_be_flat(connection: Connection) -> bool:
    """Return True while an operator wants all positions closed."""
    return bool(connection.execute(query("dispatch", "must_be_flat")).scalar_one())


def set_trading_state(
    connection: Connection, state: str, changed_by: str, reason: str, *, must_be_flat: bool = False
) -> None:
    """Change the trading state; waits for the run that is deciding now.

    With `must_be_flat` all positions have to be closed, until trading is ACTIVE again.
    """
    lock_account(connection)
    row = {
        "state": state,
        "changed_by": changed_by,
        "reason": reason,
        "must_be_flat": must_be_flat,
    }
    connection.execute(query("dispatch", "set_trading_state"), row)


def trading_state_changes(connection: Connection, limit: int) -> list[StateChange]:
    """Who changed the trading state, newest first."""
    rows = connection.execute(query("dispatch", "trading_state_changes"), {"limit": limit})
    return [StateChange(row[0], row[1], row[2], row[3].astimezone(UTC)) for row in rows]


def status_counts(connection: Connection) -> dict[str, int]:
    """How many recommendations stand where."""
    return {row[0]: row[1] for row in connection.execute(query("dispatch", "status_counts"))}


def is_waiting(connection: Connection, *, orders_move: bool = True) -> bool:
    """Whether there is work: a row that waits, or an order that is not settled.

    While the market is closed orders do not move, and are no work.
    """
    found = connection.execute(query("dispatch", "is_waiting"), {"orders_move": orders_move})
    return bool(found.scalar_one())


def owned_of(row: RowMapping) -> Owned:
    """A row of the queue as the dispatcher knows it."""
    recommendation = Recommendation(
        id=row["id"],
        ts=row["ts"].astimezone(UTC),
        ticker=row["ticker"],
        minute=row["minute"].astimezone(UTC),
        action=row["action"],
        instrument_type=row["instrument_type"],
        intent=row["intent"],
        confidence=row["confidence"],
        expires_at=row["expires_at"].astimezone(UTC),
        claim_epoch=row["claim_epoch"],
        reason=row["reason"],
    )
    return Owned(recommendation, row["session_date"], row["features_snapshot"])


def newest_runs(connection: Connection, limit: int) -> list[DispatcherRun]:
    """The runs that the dispatcher started last, newest first."""
    rows = connection.execute(query("dispatch", "newest_runs"), {"limit": limit}).mappings()
    return [DispatcherRun(**row) for row in rows]
