"""A market, a queue and a desk, all committed."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, text

from ops_pipeline.dispatcher.run import Desk, RunReport, run_once, run_until_idle
from ops_pipeline.domain.session import floor_minute
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.domain.values import Bar
from ops_pipeline.settings import Mode
from ops_pipeline.storage import bars
from ops_pipeline_tests.builders import DAY, NOON, a_bar
from ops_pipeline_tests.storage.rows import put_execution, put_recommendation, put_run

SETTLE = timedelta(seconds=80)
TS = NOON + SETTLE
CONFIG = DispatcherConfig(confidence_min=0.55)
FILLED = (
    "broker_events",
    "broker_frames",
    "broker_orders",
    "broker_positions",
    "stream_leases",
    "stream_looks",
    "order_intents",
    "dispatch_attempts",
    "dispatch_executions",
    "dispatch_recommendations",
    "dispatcher_runs",
    "bars_1m",
    "bar_revisions",
    "features.features_1m",
    "replay_clock",
    "stage_minutes",
    "leases",
    "trading_state_changes",
    "manual_fills",
    "account_adjustments",
)


@dataclass
class World:
    """What a test needs to know of one database."""

    engine: Engine
    config: DispatcherConfig = field(default_factory=lambda: CONFIG)

    @property
    def desk(self) -> Desk:
        """A desk in replay mode."""
        return Desk(self.engine, Mode.REPLAY.calendar, self.config, Mode.REPLAY, "test")

    def configure(self, **changes: Any) -> None:
        """Change settings of the dispatcher."""
        self.config = DispatcherConfig(**(self.config.model_dump() | changes))

    def trade(self, *found: Bar, **changes: Any) -> None:
        """Let bars be known; one of AAPL at noon where none is given."""
        found = found or (a_bar(**changes),)
        minutes = {bar.minute for bar in found}
        with self.engine.begin() as connection:
            bars.insert_bars(
                connection,
                found,
                {minute: minute.date() for minute in minutes},
                lambda bar: bar.minute + timedelta(minutes=1),
                feed="test",
                origin="recorded",
            )

    def recommend(self, **changes: Any) -> int:
        """Queue a recommendation."""
        with self.engine.begin() as connection:
            return put_recommendation(connection, **changes)

    def hold(self, ticker: str = "AAPL", **changes: Any) -> None:
        """Let ten shares be held, bought for 200 USD an hour before noon."""
        opened = changes.pop("simulated_ts", NOON - timedelta(hours=1))
        with self.engine.begin() as connection:
            row = put_recommendation(
                connection, ticker=ticker, minute=floor_minute(opened), ts=opened
            )
            changes.setdefault("dispatcher_run_id", put_run(connection))
            for move in (
                (
                    "status = 'PROCESSING', lease_until = now(), claim_epoch = claim_epoch + 1,"
                    " claimed_at = now(), dispatcher_run_id = :run"
                ),
                "status = 'SIMULATED', lease_until = null, processed_at = now()",
            ):
                statement = f"update dispatch_recommendations set {move} where id = :id"
                known = {"id": row, "run": changes["dispatcher_run_id"]}
                connection.execute(text(statement), known)
            known = {
                "ticker": ticker,
                "simulated_ts": opened,
                "session_date": DAY,
                "stop_loss_price": 199.0,
                "take_profit_price": 202.0,
                "max_hold_minutes": 240,
            }
            put_execution(connection, row, **(known | changes))

    def feature(self, ticker: str = "AAPL", minute: datetime = NOON) -> None:
        """Let features of a minute be known."""
        self.execute(
            "insert into features.features_1m (ticker, minute, session_date, bar_at, close, sma20,"
            " sma50, distance_sma20, distance_sma50, trend_state, volume, volume_avg_20,"
            " volume_ratio, volume_surge, news_count_30, news_count_60, confident_count_30,"
            " positive_count_30, negative_count_30, neutral_count_30, available_at, written_at)"
            " values (:ticker, :minute, :day, :minute, 1, 1, 1, 0, 0, 0, 1, 1, 1, false, 0, 0, 0,"
            " 0, 0, 0, :known, :known)",
            ticker=ticker,
            minute=minute,
            day=DAY,
            known=minute + timedelta(minutes=1),
        )

    def run(self, now: datetime = TS) -> RunReport:
        """One run."""
        return run_once(self.desk, now)

    def drain(self, now: datetime = TS) -> list[RunReport]:
        """Runs until nothing can be claimed."""
        return run_until_idle(self.desk, now)

    def execute(self, statement: str, **parameters: Any) -> None:
        """Change something by hand."""
        with self.engine.begin() as connection:
            connection.execute(text(statement), parameters)

    def ask(self, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement), parameters)]

    def outcomes(self, order: str = "id") -> list[tuple[str, str | None]]:
        """Status and reason of every recommendation."""
        statement = "select status, failure_reason from dispatch_recommendations"
        return self.ask(f"{statement} order by {order}")

    def executions(self) -> int:
        """How long the ledger is."""
        return int(self.ask("select count(*) from dispatch_executions")[0][0])


def features(**changes: Any) -> dict[str, Any]:
    """What a recommendation was made on."""
    return {"v": 1, "ts": NOON.isoformat(), "recent_vol": 0.0005} | changes


def moved(bar: Bar, minutes: float, **changes: Any) -> Bar:
    """The bar so many minutes later."""
    return replace(bar, minute=bar.minute + timedelta(minutes=minutes), **changes)


def empty(engine: Engine) -> None:
    """Take everything off the desk, and let trading be active."""
    with engine.begin() as connection:
        # The ledger refuses to be emptied, as it should: its guards are triggers.
        connection.execute(text("set local session_replication_role = replica"))
        for table in FILLED:
            connection.execute(text(f"delete from {table}"))
        connection.execute(text("update trading_state set state = 'ACTIVE', must_be_flat = false"))
