"""Rows of the queue and of the ledger, with one override each."""

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.domain.values import Recommendation
from ops_pipeline.storage import dispatch
from ops_pipeline.storage.execution import ALPACA_PAPER
from ops_pipeline_tests.builders import DAY, NOON

TS = NOON + timedelta(seconds=80)
CONFIG = DispatcherConfig(confidence_min=0.55)


def insert(connection: Connection, table: str, returning: str = "1", **row: Any) -> Any:
    """One row as it is; gives what it returns."""
    names, values = ", ".join(row), ", ".join(f":{name}" for name in row)
    statement = text(f"insert into {table} ({names}) values ({values}) returning {returning}")
    return connection.execute(statement, row).scalar_one()


def put_recommendation(connection: Connection, **changes: Any) -> int:
    """A recommendation to buy AAPL at noon; jsonb columns take plain objects."""
    row = {
        "ts": TS,
        "ticker": "AAPL",
        "minute": NOON,
        "session_date": DAY,
        "action": "BUY",
        "instrument_type": "STOCK",
        "intent": "open",
        "confidence": 0.8,
        "reason": {"rule": "BULL_ENTRY"},
        "features_snapshot": {"v": 1, "ts": NOON.isoformat(), "recent_vol": 0.0005},
        "available_at": TS,
    } | changes
    row.setdefault("expires_at", row["ts"] + timedelta(seconds=300))
    for name in ("reason", "features_snapshot"):
        row[name] = json.dumps(row[name])
    return int(insert(connection, "dispatch_recommendations", "id", **row))


def put_run(connection: Connection, config: DispatcherConfig = CONFIG) -> UUID:
    """A run of the dispatcher that is open."""
    run_id = uuid4()
    dispatch.insert_run(
        connection,
        run_id,
        TS,
        config,
        mode="replay",
        code_version="test",
        orchestrator_run_id="",
    )
    return run_id


def put_execution(connection: Connection, recommendation_id: int, **changes: Any) -> UUID:
    """An execution of ten shares of AAPL for 200 USD each."""
    row = {
        "execution_id": uuid4(),
        "recommendation_id": recommendation_id,
        "claim_epoch": 1,
        "account": "paper",
        "ticker": "AAPL",
        "action": "BUY_STOCK",
        "intent": "open",
        "decision_ts": TS,
        "simulated_ts": TS,
        "session_date": DAY,
        "side": "buy",
        "qty": 10,
        "entry_price": 200.0,
        "notional": 2_000.0,
        "fill_model": "close+slip",
        "slippage_bps": 5.0,
        "execution_mode": "SIMULATED",
        "explain_json": "{}",
        "risk_json": "{}",
        "sim_json": '{"bar_used": {"timestamp": "2025-02-12T17:01:00+00:00"}}',
    } | changes
    if "dispatcher_run_id" not in row:
        row["dispatcher_run_id"] = put_run(connection)
    return insert(connection, "dispatch_executions", "execution_id", **row)


def put_executed(connection: Connection, **changes: Any) -> int:
    """A recommendation to buy AAPL that was simulated, with its execution; gives its id."""
    asked = {name: changes[name] for name in ("ticker", "intent") if name in changes}
    asked |= {name: changes.pop(name) for name in ("minute", "ts", "action") if name in changes}
    closed = {"status": "SIMULATED", "claim_epoch": 1, "processed_at": TS} | asked
    if changes.get("execution_mode") == ALPACA_PAPER:
        closed["status"] = "EXECUTED"
    number = put_recommendation(connection, **closed)
    put_execution(connection, number, **changes)
    return number


def put_order(connection: Connection, **changes: Any) -> int:
    """An order to buy ten shares of AAPL, ready, with its execution; gives the id of both."""
    shared = {key: changes[key] for key in ("ticker", "intent", "side", "qty") if key in changes}
    alone = ("minute", "session_date", "simulated_ts", "entry_price")
    moved = {key: changes.pop(key) for key in alone if key in changes}
    number = put_executed(connection, execution_mode=ALPACA_PAPER, **(shared | moved))
    return put_order_of(connection, number, **changes)


def put_order_of(connection: Connection, number: int, **changes: Any) -> int:
    """An order to buy ten shares of AAPL, ready, of an execution that is there."""
    row = {
        "recommendation_id": number,
        "client_order_id": f"op1-{number:032}",
        "account": "paper",
        "ticker": "AAPL",
        "intent": "open",
        "side": "buy",
        "qty": 10,
        "expires_at": TS + timedelta(seconds=300),
        "decided_at": TS,
    } | changes
    return int(insert(connection, "order_intents", "recommendation_id", **row))


def ago(connection: Connection, seconds: float) -> datetime:
    """An instant of the server's clock, so long before now."""
    statement = "select clock_timestamp() - make_interval(secs => :seconds)"
    found: datetime = one(connection, statement, seconds=seconds)
    return found


def claim(connection: Connection, run_id: UUID, limit: int = 1_000) -> dict[int, int]:
    """Claim what waits at the time of the rows above."""
    config = CONFIG.model_copy(update={"max_signals_per_run": limit})
    return dispatch.claim(connection, run_id, TS, config)


def take(connection: Connection) -> Recommendation:
    """The only row that waits, claimed."""
    claims = claim(connection, put_run(connection))
    return dispatch.owned(connection, claims)[0].recommendation


def one(connection: Connection, statement: str, **parameters: Any) -> Any:
    """The one value of a statement."""
    return connection.execute(text(statement), parameters).scalar_one()


def rows(connection: Connection, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """The rows of a statement as plain tuples."""
    return [tuple(row) for row in connection.execute(text(statement), parameters)]


def status_of(connection: Connection, recommendation_id: int) -> str:
    """Where a recommendation stands."""
    return str(
        one(
            connection,
            "select status from dispatch_recommendations where id = :id",
            id=recommendation_id,
        )
    )


def end_lease(connection: Connection) -> None:
    """Let every lease run out, as only time can: the guard refuses any change that is no move."""
    connection.execute(text("set local session_replication_role = replica"))
    connection.execute(
        text(
            "update dispatch_recommendations"
            " set lease_until = clock_timestamp() - interval '1 second'"
            " where status = 'PROCESSING'"
        )
    )
    connection.execute(text("set local session_replication_role = origin"))
