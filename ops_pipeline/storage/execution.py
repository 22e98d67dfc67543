"""The ledger of executions, from which positions, limits and profit are read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Connection, RowMapping

from ops_pipeline.domain.execution import Order
from ops_pipeline.domain.values import Fill, Recommendation
from ops_pipeline.storage.dispatch import ACCOUNT
from ops_pipeline.storage.queries import query

# One name space, so that the same recommendation has the same execution id wherever it is replayed.
_NAMESPACE = UUID("6f1d1c1e-6a0e-5f0e-9d43-0b6f3f0a7a11")


@dataclass(frozen=True)
class Execution:
    """What is written of one execution."""

    recommendation: Recommendation
    run_id: UUID
    order: Order
    at: datetime
    session_date: date
    slippage_bps: float
    max_hold_minutes: int | None
    risk: Mapping[str, Any]
    simulation: Mapping[str, Any]


def execution_id(recommendation: Recommendation) -> UUID:
    """The same id for the same ticker, minute and intent, wherever it runs."""
    key = f"{recommendation.ticker}|{recommendation.minute.isoformat()}|{recommendation.intent}"
    return uuid5(_NAMESPACE, key)


def insert_execution(connection: Connection, execution: Execution) -> UUID:
    """Add to the ledger, once for each recommendation. Returns the execution's id."""
    row = _row(execution)
    connection.execute(query("execution", "insert_execution"), row)
    return execution_id(execution.recommendation)


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
        "ticker": recommendation.ticker,
        "action": f"{recommendation.action}_{recommendation.instrument_type}",
        "intent": recommendation.intent,
        "decision_ts": recommendation.ts,
        "simulated_ts": execution.at,
        "session_date": execution.session_date,
        "side": "buy" if order.quantity > 0 else "sell",
        "qty": abs(order.quantity),
        "entry_price": order.price,
        "notional": order.notional,
        "stop_loss_price": order.stop_price,
        "take_profit_price": order.target_price,
        "max_hold_minutes": execution.max_hold_minutes,
        "fill_model": "close+slip",
        "slippage_bps": execution.slippage_bps,
        "explain_json": json.dumps(recommendation.reason, allow_nan=False),
        "risk_json": json.dumps(execution.risk, allow_nan=False),
        "sim_json": json.dumps(execution.simulation, allow_nan=False),
    }


def _fill(row: RowMapping) -> Fill:
    return Fill(
        ticker=row["ticker"],
        at=row["simulated_ts"].astimezone(UTC),
        session_date=row["session_date"],
        quantity=row["qty"] if row["side"] == "buy" else -row["qty"],
        price=row["entry_price"],
        intent=row["intent"],
        stop_price=row["stop_loss_price"],
        target_price=row["take_profit_price"],
        max_hold_minutes=row["max_hold_minutes"],
    )
