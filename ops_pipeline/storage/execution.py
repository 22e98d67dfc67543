"""The ledger of executions, from which positions, limits and profit are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Connection, RowMapping

from ops_pipeline.domain.execution import Order
from ops_pipeline.domain.values import Fill, Recommendation
from ops_pipeline.storage.dispatch import ACCOUNT, FenceLost
from ops_pipeline.storage.queries import as_rows, query

# One name space, so that the same recommendation has the same execution id wherever it is replayed.
_NAMESPACE = UUID("6f1d1c1e-6a0e-5f0e-9d43-0b6f3f0a7a11")
SIMULATED, ALPACA_PAPER = "SIMULATED", "ALPACA_PAPER"
# Of a broker's fill the row tells only what was expected; what came stands with the order.
FILL_MODELS = {SIMULATED: "close+slip", ALPACA_PAPER: "broker"}


@dataclass(frozen=True)
class Execution:
    """What is written of one execution."""

    recommendation: Recommendation
    run_id: UUID
    order: Order
    execution_mode: str
    at: datetime
    session_date: date
    slippage_bps: float
    max_hold_minutes: int | None
    simulation: Mapping[str, Any]


def execution_id(recommendation: Recommendation) -> UUID:
    """The same id for the same ticker, minute and intent, wherever it runs."""
    key = f"{recommendation.ticker}|{recommendation.minute.isoformat()}|{recommendation.intent}"
    return uuid5(_NAMESPACE, key)


def insert_executions(connection: Connection, made: Sequence[Execution]) -> None:
    """Add to the ledger, once for each recommendation; their decisions are written already.

    Raises:
        FenceLost: a recommendation is not there.
    """
    if not made:
        return
    rows = as_rows(_row(each) for each in made)
    done = connection.execute(query("execution", "insert_executions"), {"rows": rows}).rowcount
    if done != len(made):
        raise FenceLost(f"{len(made) - done} of {len(made)} executions have no recommendation")


def insert_manual_fills(
    connection: Connection, fills: Sequence[Fill], account: str = ACCOUNT
) -> None:
    """Add to the ledger what was closed by hand, without a decision of ours."""
    rows = [
        {
            "ticker": fill.ticker,
            "side": "buy" if fill.quantity > 0 else "sell",
            "qty": abs(fill.quantity),
            "price": fill.price,
            "filled_at": fill.at,
            "session_date": fill.session_date,
        }
        for fill in fills
    ]
    parameters = {"account": account, "rows": as_rows(rows)}
    connection.execute(query("execution", "insert_manual_fills"), parameters)


def live_fills(connection: Connection, session_date: date, account: str = ACCOUNT) -> list[Fill]:
    """The fills of tickers that are held or were traded in this session, in time order."""
    rows = connection.execute(
        query("execution", "live_fills"), {"account": account, "session_date": session_date}
    ).mappings()
    return [_fill(row) for row in rows]


def fills_until(connection: Connection, session_date: date, account: str = ACCOUNT) -> list[Fill]:
    """All fills up to the end of a session, in time order."""
    rows = connection.execute(
        query("execution", "fills_until"), {"account": account, "session_date": session_date}
    ).mappings()
    return [_fill(row) for row in rows]


def _row(execution: Execution) -> dict[str, object]:
    recommendation, order = execution.recommendation, execution.order
    return {
        "execution_id": execution_id(recommendation),
        "recommendation_id": recommendation.id,
        "dispatcher_run_id": execution.run_id,
        "claim_epoch": recommendation.claim_epoch,
        "account": ACCOUNT,
        "simulated_ts": execution.at,
        "session_date": execution.session_date,
        "side": "buy" if order.quantity > 0 else "sell",
        "qty": abs(order.quantity),
        "entry_price": order.price,
        "notional": order.notional,
        "stop_loss_price": order.stop_price,
        "take_profit_price": order.target_price,
        "max_hold_minutes": execution.max_hold_minutes,
        "fill_model": FILL_MODELS[execution.execution_mode],
        "slippage_bps": execution.slippage_bps,
        "execution_mode": execution.execution_mode,
        "sim_json": execution.simulation,
    }


def _fill(row: RowMapping) -> Fill:
    sign = 1 if row["side"] == "buy" else -1
    return Fill(
        ticker=row["ticker"],
        at=row["simulated_ts"].astimezone(UTC),
        session_date=row["session_date"],
        quantity=sign * row["qty"],
        price=row["price"],
        intent=row["intent"],
        stop_price=row["stop_loss_price"],
        target_price=row["take_profit_price"],
        max_hold_minutes=row["max_hold_minutes"],
        working=sign * row["working_qty"],
        split_ratio=row["split_ratio"],
    )
