"""What the dispatcher finds in each trial: a market, a position, and a queue of every kind."""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Engine, text

from ops_pipeline.dispatcher.brokers import Broker
from ops_pipeline.dispatcher.run import Desk
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.domain.values import Bar
from ops_pipeline.settings import Mode
from ops_pipeline.storage import bars, knowledge

DAY = date(2025, 2, 12)
MINUTE_OF_BARS = datetime(2025, 2, 12, 17, 0, tzinfo=UTC)
PRESENT = MINUTE_OF_BARS + timedelta(seconds=80)
JUMP = timedelta(minutes=10)
GOOD = ("ALFA", "BETA", "GAMA", "DELT", "EPSI")
HELD, WEAK, STALE = "HELD", "WEAK", "STAL"
TICKERS = (*GOOD, HELD, WEAK, STALE)
# Leases are seconds in life, and a trial should take about one.
LEASE_SECONDS = 0.6
# After so long the server ends the transaction of one that stands still, and frees what it locked.
FROZEN_SECONDS = 0.8
CONFIG = DispatcherConfig(
    confidence_min=0.55,
    max_signals_per_run=3,
    max_open_positions=20,
    max_notional_per_trade=0.003,
    max_attempts=20,
).model_copy(update={"processing_ttl_minutes": LEASE_SECONDS / 60})

# The limits of a crowd: so many positions, or so much money for as many orders of one share.
CROWD_POSITIONS, CROWD_USD = 3, 620.0
CROWD_CONFIG = {
    "": CONFIG,
    "positions": CONFIG.model_copy(update={"max_open_positions": CROWD_POSITIONS}),
    "exposure": CONFIG.model_copy(update={"max_notional_exposure": CROWD_USD / CONFIG.equity_usd}),
}


@dataclass(frozen=True)
class Expected:
    """What must have become of a row when all is quiet again."""

    ticker: str
    intent: str
    is_executed: bool


EXPECTED = (
    *(Expected(ticker, "open", is_executed=True) for ticker in GOOD),
    Expected(HELD, "close", is_executed=True),
    Expected(WEAK, "open", is_executed=False),
    Expected(STALE, "open", is_executed=False),
)


def desk_of(engine: Engine, broker: Broker, limit: str = "") -> Desk:
    """The desk of every dispatcher of a trial; `limit` names the one that is tight."""
    return Desk(
        engine=engine,
        calendar=Mode.REPLAY.calendar,
        config=CROWD_CONFIG[limit],
        mode=Mode.REPLAY,
        code_version="chaos",
        broker=broker,
    )


def put(connection: Connection) -> None:
    """Bars of each ticker, a position held since the day before, and a queue."""
    knowledge.set_present(connection, PRESENT)
    # After a jump of the clock there is one more: a simulated close waits for it, never for ever.
    after = MINUTE_OF_BARS + JUMP
    known = [*((ticker, MINUTE_OF_BARS) for ticker in TICKERS), (HELD, after)]
    found = [Bar(ticker, minute, 200.0, 201.0, 199.0, 200.0, 1_000) for ticker, minute in known]
    bars.insert_bars(
        connection,
        found,
        {MINUTE_OF_BARS: DAY, after: DAY},
        lambda bar: bar.minute + MINUTE,
        feed="chaos",
        origin="recorded",
    )
    _hold(connection)
    for ticker in GOOD:
        _recommend(connection, ticker)
    _recommend(connection, WEAK, confidence=0.4)
    old = PRESENT - timedelta(minutes=20)
    _recommend(connection, STALE, ts=old, expires_at=old + timedelta(minutes=5))
    _feature(connection)


def _recommend(connection: Connection, ticker: str, **changes: Any) -> int:
    row = {
        "ts": PRESENT,
        "ticker": ticker,
        "minute": MINUTE_OF_BARS,
        "session_date": DAY,
        "confidence": 0.8,
        "expires_at": PRESENT + timedelta(seconds=300),
        "features": json.dumps({"v": 1, "ts": MINUTE_OF_BARS.isoformat(), "recent_vol": 0.0005}),
    } | changes
    statement = text(
        "insert into dispatch_recommendations (ts, ticker, minute, session_date, action,"
        " instrument_type, intent, confidence, reason, features_snapshot, expires_at, available_at)"
        " values (:ts, :ticker, :minute, :session_date, 'BUY', 'STOCK', 'open', :confidence,"
        " '{}', cast(:features as jsonb), :expires_at, :ts) returning id"
    )
    return int(connection.execute(statement, row).scalar_one())


def _feature(connection: Connection) -> None:
    """What a closing order names as the features that it stands on."""
    connection.execute(
        text(
            "insert into features.features_1m (ticker, minute, session_date, bar_at, close, sma20,"
            " sma50, distance_sma20, distance_sma50, trend_state, volume, volume_avg_20,"
            " volume_ratio, volume_surge, news_count_30, news_count_60, confident_count_30,"
            " positive_count_30, negative_count_30, neutral_count_30, available_at, written_at)"
            " values (:ticker, :minute, :day, :minute, 1, 1, 1, 0, 0, 0, 1, 1, 1, false, 0, 0, 0,"
            " 0, 0, 0, :known, :known)"
        ),
        {
            "ticker": HELD,
            "minute": MINUTE_OF_BARS,
            "day": DAY,
            "known": MINUTE_OF_BARS + MINUTE,
        },
    )


_HELD = (
    """
    insert into dispatcher_runs (
        run_id, started_at, finished_at, outcome, mode, code_version, config_hash, run_config_json,
        orchestrator_run_id
    )
    values (:run, :at, :at, 'FINISHED', 'replay', 'chaos', '', '{}', '')
    """,
    """
    update dispatch_recommendations
    set
        status = 'PROCESSING', claim_epoch = 1, lease_until = clock_timestamp(), claimed_at = :at,
        dispatcher_run_id = :run
    where id = :id
    """,
    """
    update dispatch_recommendations
    set status = 'SIMULATED', lease_until = null, processed_at = :at
    where id = :id
    """,
    """
    insert into dispatch_executions (
        execution_id, recommendation_id, dispatcher_run_id, claim_epoch, account, ticker, action,
        intent, decision_ts, simulated_ts, session_date, side, qty, entry_price, notional,
        fill_model, slippage_bps, execution_mode, explain_json, risk_json, sim_json
    )
    values (
        gen_random_uuid(), :id, :run, 1, 'paper', :ticker, 'BUY_STOCK',
        'open', :at, :at, :day, 'buy', 1, 200, 200,
        'close+slip', 5, 'SIMULATED', '{}', '{}', '{"bar_used": {"timestamp": ""}}'
    )
    """,
)


def _hold(connection: Connection) -> None:
    """One share of the day before, which has to go at the first chance."""
    opened, day = PRESENT - timedelta(days=1), DAY - timedelta(days=1)
    row = _recommend(
        connection,
        HELD,
        ts=opened,
        minute=MINUTE_OF_BARS - timedelta(days=1),
        session_date=day,
        expires_at=opened + timedelta(minutes=5),
    )
    known = {"id": row, "run": uuid4(), "at": opened, "day": day, "ticker": HELD}
    for statement in map(text, _HELD):
        asked = statement.compile().params
        connection.execute(statement, {name: known[name] for name in asked})
