"""An evening and the next morning with many recommendations, and ways to play them for real."""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, text

from ops_pipeline.dispatcher.replay import play
from ops_pipeline.dispatcher.run import Desk
from ops_pipeline.domain.dispatch import gate_of
from ops_pipeline.domain.execution import Book
from ops_pipeline.domain.gates import ACTIVE, REDUCING
from ops_pipeline.domain.session import MINUTE, Timing
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.domain.values import Bar
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage import bars, dispatch, quarantine
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.execution import fills_until
from ops_pipeline.storage.quarantine import Quarantine
from ops_pipeline_tests.builders import DAY
from ops_pipeline_tests.dispatcher.world import features
from ops_pipeline_tests.storage.clones import clone
from ops_pipeline_tests.storage.rows import put_recommendation

CALENDAR = Mode.REPLAY.calendar
TICKERS = ("AAPL", "AMD", "META", "MSFT", "NVDA", "SPY", "TSLA")
NEXT_DAY = date(2025, 2, 13)
EVENING = CALENDAR.between(DAY, DAY)[0].minutes()[-45:]
MORNING = CALENDAR.between(NEXT_DAY, NEXT_DAY)[0].minutes()[:25]
MINUTES = [*EVENING, *MORNING]
# What waits or is too old when the play begins.
EARLIER = [EVENING[0] - n * MINUTE for n in (9, 6, 3, 2, 1)]
CLOSES_AT = EVENING[-1] + MINUTE
FALLS_AT = MORNING[20]
BASE: dict[str, Any] = {
    "confidence_min": 0.6,
    "ticker_cooldown_minutes": 4,
    "max_trades_per_ticker_per_day": 3,
    "max_hold_minutes": 12,
    "max_signals_per_run": 3,
    "take_profit_risk_reward": 0.8,
    "max_daily_loss_usd": 400.0,
    "max_open_positions": 4,
    "max_notional_per_trade": 0.2,
    "closing_block_minutes": 8,
}


@dataclass(frozen=True)
class Ledger:
    """What a real play wrote."""

    executions: list[tuple[Any, ...]]
    decisions: list[tuple[Any, ...]]
    skips: dict[str, int]
    statuses: Counter[str]
    realised_usd: float


def fill(engine: Engine) -> None:
    """Prices that move enough for stops and targets, and far more asked than may trade.

    Bars and features come late or never, one ticker is quarantined, one has no bars before the
    close and is held over night, and in the morning all prices fall through the stops.
    """
    dice = random.Random(7)  # noqa: S311 - a market, no secret
    with engine.begin() as connection:
        _put_bars(connection, dice)
        _put_features(connection, dice)
        for minute in (*EARLIER, *MINUTES):
            for ticker in TICKERS:
                if dice.random() < 0.6:
                    _put_recommendation(connection, dice, ticker, minute)
        known = EVENING[20] + MINUTE
        quarantine.insert_quarantine(connection, Quarantine("META", DAY, "split", 2.0, known))


def played(market: Settings, name: str, changes: Mapping[str, Any]) -> Settings:
    """A copy of the market in which the dispatcher has really run."""
    copy = clone(market, name)
    config = DispatcherConfig(**{**BASE, **changes})
    with opened(copy) as engine:
        desk = Desk(engine, CALENDAR, config, Mode.REPLAY, "test")

        def turn_the_switch(minute: datetime) -> None:
            states = {EVENING[12]: REDUCING, EVENING[16]: ACTIVE}
            if minute in states:
                with engine.begin() as connection:
                    dispatch.set_trading_state(connection, states[minute], "test", "")

        play(desk, MINUTES, Timing(), turn_the_switch)
    return copy


def ledger(connection: Connection) -> Ledger:
    """What stands in a database, counted without the code that is tested."""
    decisions = _rows(
        connection,
        "select ticker, minute, intent, status, failure_reason, processed_at"
        " from dispatch_recommendations where processed_at is not null order by 1, 2, 3",
    )
    book = Book(fills_until(connection, NEXT_DAY))
    return Ledger(
        executions=_rows(
            connection,
            "select asked.ticker, asked.minute, asked.intent, side, qty, entry_price, simulated_ts,"
            " stop_loss_price, take_profit_price, max_hold_minutes from dispatch_executions as made"
            " join dispatch_recommendations as asked on asked.id = made.recommendation_id"
            " order by 1, 2, 3",
        ),
        decisions=decisions,
        skips=Counter(gate_of(row[4]) for row in decisions if row[3] == "SKIPPED"),
        statuses=Counter(row[3] for row in decisions),
        realised_usd=book.realised_usd.get(DAY, 0.0) + book.realised_usd.get(NEXT_DAY, 0.0),
    )


def _rows(connection: Connection, statement: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in connection.execute(text(statement))]


def _is_silent(ticker: str, minute: datetime) -> bool:
    """Return True if a ticker does not trade then: nothing that is held of it can be closed."""
    return ticker == "AMD" and CLOSES_AT - 16 * MINUTE < minute < CLOSES_AT


def _put_bars(connection: Connection, dice: random.Random) -> None:
    found: list[Bar] = []
    late: dict[Bar, timedelta] = {}
    for number, ticker in enumerate(TICKERS):
        price = 100.0 + 30 * number
        for minute in (*reversed(EARLIER), *MINUTES):
            price *= 1 + dice.gauss(0, 0.002)
            if minute == FALLS_AT:
                price *= 0.98
            close = round(price, 2)
            bar = Bar(ticker, minute, close, close + 0.01, close - 0.01, close, 1_000)
            is_printed = dice.random() < 0.95
            if is_printed and not _is_silent(ticker, minute):
                found.append(bar)
                late[bar] = timedelta(seconds=dice.choice([0, 0, 0, 5, 15, 90, 200]))
    bars.insert_bars(
        connection,
        found,
        {bar.minute: CALENDAR.day(bar.minute) for bar in found},
        lambda bar: bar.minute + MINUTE + late[bar],
        feed="test",
        origin="recorded",
    )


def _put_features(connection: Connection, dice: random.Random) -> None:
    statement = text(
        "insert into features.features_1m (ticker, minute, session_date, bar_at, close, sma20,"
        " sma50, distance_sma20, distance_sma50, trend_state, volume, volume_avg_20,"
        " volume_ratio, volume_surge, news_count_30, news_count_60, confident_count_30,"
        " positive_count_30, negative_count_30, neutral_count_30, available_at, written_at)"
        " values (:ticker, :minute, :day, :bar_at, 1, 1, 1, 0, 0, 0, 1, 1, 1, false, 0, 0, 0,"
        " 0, 0, 0, :known, :known)"
    )
    rows = [
        {
            "ticker": ticker,
            "minute": minute,
            "day": CALENDAR.day(minute),
            "bar_at": minute - dice.choice([0, 0, 0, 1, 2]) * MINUTE,
            "known": minute + MINUTE + timedelta(seconds=dice.choice([10, 15, 20, 100])),
        }
        for ticker in TICKERS
        for minute in MINUTES
        if not _is_silent(ticker, minute)
    ]
    connection.execute(statement, rows)


def _put_recommendation(
    connection: Connection, dice: random.Random, ticker: str, minute: datetime
) -> None:
    put_recommendation(
        connection,
        ticker=ticker,
        minute=minute,
        ts=Timing().as_of(minute),
        session_date=CALENDAR.day(minute),
        action=dice.choice(["BUY", "BUY", "BUY", "SELL"]),
        confidence=round(dice.uniform(0.4, 0.95), 3),
        available_at=Timing().as_of(minute),
        features_snapshot=features(
            ts=(minute - dice.choice([0, 0, 1, 7]) * MINUTE).isoformat(),
            recent_vol=dice.choice([None, 0.0003, 0.0006, 0.001]),
        ),
    )
