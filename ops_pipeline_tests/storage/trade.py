"""One trade of AAPL at noon, with every row that it stands on."""

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from ops_pipeline.dispatcher import judge
from ops_pipeline.domain.dispatch import decide
from ops_pipeline.domain.gates import evaluate
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.values import Bar
from ops_pipeline.storage import bars, knowledge
from ops_pipeline_tests.builders import DAY, NOON, SESSION, a_bar, a_snapshot
from ops_pipeline_tests.storage.rows import CONFIG, TS, insert, put_execution, put_recommendation

STORY = "story-1"
REASON = {
    "rule": "BULL_ENTRY",
    "direction": "LONG",
    "confidence_breakdown": {
        "base": 0.9,
        "components": {"trend_alignment": 1.0, "setup_quality": 0.8, "volatility": 1.0},
        "multipliers": {"sentiment": 1.1, "volume": 1.15, "move": 0.7},
        "final": 0.8,
    },
}


def put_bars(connection: Connection, *found: Bar) -> None:
    """Bars that were known five seconds after their end."""
    minutes = {bar.minute for bar in found}
    bars.insert_bars(
        connection,
        found,
        dict.fromkeys(minutes, DAY),
        lambda bar: bar.minute + timedelta(seconds=65),
        feed="test",
        origin="recorded",
    )


def put_decided(
    connection: Connection, *stages: str, minute: datetime = NOON, rows: int = 1
) -> None:
    """A cut-off, and stages that have finished with the minute; each run is called by its stage."""
    cutoffs = {minute: minute + timedelta(seconds=80)}
    knowledge.stamp_cutoffs(connection, [(SESSION, minute)], cutoffs, "run of cut-off")
    for stage in stages:
        knowledge.insert_stage_minutes(
            connection, stage, [(SESSION, minute)], {minute: rows}, f"run of {stage}"
        )


def put_features(connection: Connection, **changes: Any) -> None:
    """Features of AAPL at noon, on the bar of noon and on one story."""
    row = {
        "ticker": "AAPL",
        "minute": NOON,
        "session_date": DAY,
        "bar_at": NOON,
        "close": 200.0,
        "sma20": 199.6,
        "sma50": 199.0,
        "distance_sma20": 0.002,
        "distance_sma50": 0.005,
        "trend_state": 1,
        "volume": 10_000,
        "volume_avg_20": 4_000.0,
        "volume_ratio": 2.5,
        "volume_surge": True,
        "news_count_30": 1,
        "news_count_60": 1,
        "confident_count_30": 1,
        "positive_count_30": 1,
        "negative_count_30": 0,
        "neutral_count_30": 0,
        "available_at": TS,
        "written_at": TS,
        "news_ids": [STORY],
    } | changes
    insert(connection, "features.features_1m", **row)


def put_watchlist(connection: Connection, **changes: Any) -> None:
    """AAPL on the watchlist since noon."""
    row = {
        "minute": NOON,
        "ticker": "AAPL",
        "session_date": DAY,
        "score": 0.7,
        "rank": 1,
        "in_watchlist": True,
        "reason": "in: score",
        "entered_at": NOON,
        "sentiment_pressure": 0.5,
        "setup_quality": 0.8,
        "volatility": 0.9,
        "trend_alignment": 1.0,
        "available_at": TS,
    } | changes
    insert(connection, "watchlist_entries", **row)


def put_signal(connection: Connection, **changes: Any) -> None:
    """A signal to buy AAPL at noon."""
    row = {
        "minute": NOON,
        "ticker": "AAPL",
        "session_date": DAY,
        "action": "BUY",
        "rule": "BULL_ENTRY",
        "confidence": 0.8,
        "reason": REASON,
        "available_at": TS,
    } | changes
    insert(connection, "signals", **{**row, "reason": json.dumps(row["reason"])})


def put_story(connection: Connection, news_id: str = STORY, **changes: Any) -> None:
    """A story of AAPL ten minutes before noon, told by one feed and scored by one model."""
    at = NOON - 10 * MINUTE
    item = {
        "news_id": news_id,
        "title": "Apple beats expectations",
        "summary": "",
        "link": f"https://news.example/{news_id}",
        "text_hash": f"text of {news_id}",
        "published_at": at,
        "event_at": at,
        "origin": "recorded",
        "available_at": at,
    } | changes
    insert(connection, "news_items", **item)
    put_telling(connection, "wire", news_id)
    insert(
        connection,
        "news_tickers",
        news_id=news_id,
        ticker="AAPL",
        match_source="alias",
        span="Apple",
        available_at=at,
    )
    put_score(connection, news_id=news_id)


def put_telling(connection: Connection, feed: str, news_id: str = STORY) -> None:
    """A feed tells a story."""
    insert(
        connection,
        "news_provenance",
        feed=feed,
        entry_key=news_id,
        news_id=news_id,
        entry_id="1",
        text_hash=f"text of {news_id}",
        tickers=[],
        event_at=NOON,
        available_at=NOON,
    )


def put_score(connection: Connection, *, news_id: str = STORY, **changes: Any) -> None:
    """What a model says of a story."""
    row = {
        "text_hash": f"text of {news_id}",
        "model": "words",
        "revision": "1",
        "backend": "test",
        "precision": "exact",
        "label": "positive",
        "probability": 0.7,
        "p_positive": 0.7,
        "p_negative": 0.1,
        "p_neutral": 0.2,
        "score": 0.6,
        "origin": "recorded",
        "available_at": NOON - 9 * MINUTE,
    } | changes
    insert(connection, "news_sentiments", **row)


def gates(**changes: Any) -> str:
    """The gates' answers, as they are stored."""
    return json.dumps(decide(evaluate(a_snapshot(**changes), CONFIG)).gates)


def put_basis(connection: Connection) -> None:
    """All that a trade of AAPL at noon stands on."""
    put_bars(connection, a_bar())
    put_decided(connection, "news", "bars", "sentiment", "features", "watchlist", "signals")
    put_features(connection)
    put_story(connection)
    put_watchlist(connection)
    put_signal(connection)


def put_opening(connection: Connection, **changes: Any) -> UUID:
    """The execution of a recommendation to buy AAPL at noon."""
    asked = {"minute": changes.pop("minute", NOON), "ts": changes.get("simulated_ts", TS)}
    bar_used = {"bar_used": judge.bar_used(a_bar())}
    number = put_recommendation(
        connection,
        **asked,
        status="SIMULATED",
        claim_epoch=1,
        processed_at=TS,
        reason=REASON,
        risk_gate_json=gates(),
    )
    known = {"explain_json": json.dumps(REASON), "sim_json": json.dumps(bar_used)}
    made = put_execution(connection, number, **(known | changes))
    _work_on(connection, number, made)
    return made


def put_closing(connection: Connection, opened_at: datetime = TS, **changes: Any) -> UUID:
    """The execution that sells ten shares of AAPL two minutes later, for 202 USD each."""
    minute, reason = NOON + 2 * MINUTE, {"rule": "EXIT", "exit": "target"}
    reason["position_opened_at"] = opened_at.isoformat()
    number = put_recommendation(
        connection,
        intent="close",
        action="SELL",
        minute=minute,
        ts=TS + 2 * MINUTE,
        status="SIMULATED",
        claim_epoch=1,
        processed_at=TS,
        reason=reason,
        risk_gate_json=gates(intent="close", action="SELL", held_quantity=10),
    )
    known = {
        "intent": "close",
        "side": "sell",
        "entry_price": 202.0,
        "simulated_ts": TS + 2 * MINUTE,
        "explain_json": json.dumps(reason),
        "sim_json": json.dumps({"bar_used": judge.bar_used(a_bar())}),
    }
    made = put_execution(connection, number, **(known | changes))
    _work_on(connection, number, made)
    return made


def _work_on(connection: Connection, number: int, execution_id: UUID) -> None:
    """The recommendation names the run that its execution names, as in a played day."""
    change(
        connection,
        "update dispatch_recommendations set dispatcher_run_id = (select dispatcher_run_id"
        " from dispatch_executions where execution_id = :made) where id = :number",
        made=execution_id,
        number=number,
    )


def change(connection: Connection, statement: str, **parameters: Any) -> None:
    """Change or delete what no guard would let go."""
    connection.execute(text("set local session_replication_role = replica"))
    connection.execute(text(statement), parameters)
    connection.execute(text("set local session_replication_role = origin"))
