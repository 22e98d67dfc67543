"""Rows of the queue and of the ledger, with one override each."""

import json
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.storage import dispatch
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


def claim(connection: Connection, run_id: UUID, limit: int = 1_000) -> dict[int, int]:
    """Claim what waits at the time of the rows above."""
    config = CONFIG.model_copy(update={"max_signals_per_run": limit})
    return dispatch.claim(connection, run_id, TS, config)


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
    connection.execute(text("alter table dispatch_recommendations disable trigger user"))
    connection.execute(
        text(
            "update dispatch_recommendations"
            " set lease_until = clock_timestamp() - interval '1 second'"
            " where status = 'PROCESSING'"
        )
    )
    connection.execute(text("alter table dispatch_recommendations enable trigger user"))
