"""Recommendations to be measured with, and the market that they are made in: the same each time."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, text

from ops_pipeline.dispatcher.run import Desk
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.signals import decide, features_snapshot, sentiment_snapshot
from ops_pipeline.domain.thresholds import DispatcherConfig, SignalRules
from ops_pipeline.domain.values import FeatureRow
from ops_pipeline.settings import Mode

# An ordinary Wednesday, in the middle of the session.
AT = datetime(2025, 2, 12, 17, 0, tzinfo=UTC)
NOW = AT + timedelta(seconds=80)
TICKERS = 50
# A ticker trades at most a hundred times a day.
AT_MOST = 5_000

BARS = text("""
insert into bars_1m (
    ticker, minute, session_date, open, high, low, close, volume, feed, origin, available_at
)
select
    'B' || lpad(number::text, 4, '0'), :at, :at, 200, 200.5, 199.5, 200, 10000, 'bench', 'recorded',
    :known_at
from generate_series(0, :tickers - 1) as number
""")
RECOMMENDATIONS = text("""
insert into dispatch_recommendations (
    ts, ticker, minute, session_date, action, instrument_type, intent, confidence, reason,
    features_snapshot, sentiment_snapshot, expires_at, available_at
)
select
    made.ts, made.ticker, made.minute, made.minute, 'BUY', 'STOCK', 'open', 0.8,
    cast(:reason as jsonb),
    cast(:features as jsonb) || jsonb_build_object('ticker', made.ticker),
    cast(:sentiment as jsonb), made.ts + make_interval(secs => :lives_seconds), made.ts
from (
    select
        'B' || lpad((number % :tickers)::text, 4, '0') as ticker,
        :minute - (number / :tickers) * interval '1 minute' as minute,
        :ts - number * make_interval(secs => :apart_seconds) as ts
    from generate_series(0, :count - 1) as number
) as made
""")


def config_of(batch: int) -> DispatcherConfig:
    """Limits so wide that every recommendation is executed, four shares of each."""
    return DispatcherConfig(
        confidence_min=0.55,
        equity_usd=1e9,
        max_daily_loss_usd=1e9,
        max_open_positions=2 * TICKERS,
        max_notional_per_trade=1e-6,
        max_trades_per_ticker_per_day=AT_MOST // TICKERS,
        ticker_cooldown_minutes=0,
        max_signals_per_run=batch,
    )


def desk_of(engine: Engine, batch: int) -> Desk:
    """The dispatcher as a replay runs it: its present is given."""
    return Desk(engine, Mode.REPLAY.calendar, config_of(batch), Mode.REPLAY, "bench")


def documents() -> dict[str, dict[str, Any]]:
    """What a recommendation carries: its reason, the features, and what the news said."""
    row = FeatureRow(
        ticker="B0000",
        minute=AT,
        bar_at=AT,
        close=200.0,
        sma20=199.6,
        sma50=199.0,
        distance_sma20=0.002,
        distance_sma50=0.005,
        trend_state=1,
        recent_vol=0.0005,
        vol_ratio=1.0,
        volume_ratio=2.5,
        volume_surge=True,
        confident_count_30=3,
        confident_sentiment_30=0.42,
        positive_count_30=2,
        neutral_count_30=1,
    )
    reason = dict(decide(row, SignalRules()).reason)
    features, sentiment = features_snapshot(row), sentiment_snapshot(row)
    return {"reason": reason, "features": features, "sentiment": sentiment}


def put_market(connection: Connection) -> None:
    """A bar of each ticker, of the newest closed minute."""
    connection.execute(BARS, {"at": AT, "known_at": AT + MINUTE, "tickers": TICKERS})


def put_fresh(connection: Connection, count: int) -> None:
    """Recommendations that may trade now."""
    # A millisecond apart, so that the oldest of AT_MOST is still fresh.
    _put(connection, count, AT, NOW - timedelta(seconds=10), apart_seconds=0.001)


def put_stale(connection: Connection, count: int) -> None:
    """Recommendations that ran out a day ago and longer, and that nobody has closed."""
    day = timedelta(days=1)
    _put(connection, count, AT - day, NOW - day, apart_seconds=60 / TICKERS)


def _put(
    connection: Connection, count: int, minute: datetime, ts: datetime, *, apart_seconds: float
) -> None:
    parameters = {
        "count": count,
        "minute": minute,
        "ts": ts,
        "apart_seconds": apart_seconds,
        "tickers": TICKERS,
        "lives_seconds": SignalRules().expires_after_seconds,
    }
    found = {name: json.dumps(document) for name, document in documents().items()}
    connection.execute(RECOMMENDATIONS, parameters | found)
