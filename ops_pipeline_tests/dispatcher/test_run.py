"""Each recommendation is decided once, by all gates, and limits hold whoever decides."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ops_pipeline.dispatcher import run
from ops_pipeline.domain.execution import size_order
from ops_pipeline.domain.gates import GATES, Snapshot
from ops_pipeline.storage import dispatch, execution
from ops_pipeline.storage.dispatch import Closed, FenceLost
from ops_pipeline.storage.execution import Execution
from ops_pipeline_tests.builders import DAY, NOON, a_bar
from ops_pipeline_tests.dispatcher.world import CONFIG, TS, World, features
from ops_pipeline_tests.storage.rows import end_lease, put_run
from ops_pipeline_tests.storage.trade import change

TICKERS = ("AAPL", "MSFT", "NVDA", "TSLA")


def test_what_passes_every_gate_is_simulated_with_one_execution(world: World) -> None:
    world.trade()
    world.recommend()
    report = world.run()
    assert (report.pulled, report.simulated, world.executions()) == (1, 1, 1)
    assert world.outcomes() == [("SIMULATED", None)]


def test_an_execution_has_the_size_and_the_prices_that_the_domain_computes(world: World) -> None:
    world.trade(close=200.0)
    world.recommend(features_snapshot=features(recent_vol=0.0009))
    world.run()
    order = size_order(1, 200.0, 0.0009, 0, 0.0, CONFIG)
    found = world.ask(
        "select qty, entry_price, notional, stop_loss_price, take_profit_price, side, action,"
        " max_hold_minutes, simulated_ts, session_date from dispatch_executions"
    )
    assert found == [
        (
            order.quantity,
            order.price,
            order.notional,
            order.stop_price,
            order.target_price,
            "buy",
            "BUY_STOCK",
            CONFIG.max_hold_minutes,
            TS,
            DAY,
        )
    ]


def test_the_bar_that_was_used_is_named_by_its_end_and_by_its_start(world: World) -> None:
    world.trade()
    world.recommend()
    world.run()
    bar = world.ask("select sim_json -> 'bar_used' from dispatch_executions")[0][0]
    end = NOON + timedelta(minutes=1)
    assert (bar["timestamp"], bar["minute"]) == (end.isoformat(), NOON.isoformat())


def test_every_gates_answer_is_stored_with_the_decision(world: World) -> None:
    world.trade()
    world.recommend()
    world.run()
    kept = world.ask("select risk_gate_json from dispatch_recommendations")[0][0]
    assert set(kept) == {gate.name for gate in GATES}
    assert len(kept) == 13
    assert all(result["passed"] for result in kept.values())


def test_every_gates_answer_is_stored_with_a_refusal(world: World) -> None:
    world.recommend(confidence=0.1)
    world.run()
    kept = world.ask("select risk_gate_json from dispatch_recommendations")[0][0]
    assert {name for name, result in kept.items() if not result["passed"]} >= {
        "bar_freshness",
        "confidence",
    }


def test_an_execution_carries_what_it_was_decided_on(world: World) -> None:
    world.trade()
    world.recommend(reason={"rule": "BULL_ENTRY"})
    world.run()
    explained, used, risk = world.ask(
        "select explain_json, sim_json -> 'features_used', risk_json from dispatch_executions"
    )[0]
    assert (explained, used, risk["all_gates_passed"]) == (
        {"rule": "BULL_ENTRY"},
        features(),
        True,
    )


@pytest.mark.parametrize(
    ("bar", "changes", "config", "reason"),
    [
        (None, {}, {}, "bar_freshness: Bar unknown"),
        (-2, {}, {}, "bar_freshness: Bar too old"),
        (0, {"features_snapshot": features(ts=None)}, {}, "feature_freshness: Features unknown"),
        (
            0,
            {"features_snapshot": features(ts=(NOON - timedelta(minutes=5)).isoformat())},
            {},
            "feature_freshness: Features too old",
        ),
        (0, {"features_snapshot": None}, {}, "feature_freshness: Features unknown"),
        (
            0,
            {"ts": TS - timedelta(seconds=301), "expires_at": TS + timedelta(seconds=1)},
            {},
            "recommendation_freshness: Recommendation too old",
        ),
        (0, {"confidence": 0.54}, {}, "confidence: Confidence too low"),
        (0, {"action": "SELL"}, {}, "short_position: Shorting disabled"),
        (0, {}, {"allowed_actions": ()}, "action_allowed: Action not allowed"),
        (0, {}, {"max_notional_per_trade": 0.001}, "max_exposure: No room for a single share"),
        (0, {}, {"opening_block_minutes": 120, "closing_block_minutes": 120}, None),
    ],
    ids=str,
)
def test_a_refusal_names_its_gate_and_reason_and_executes_nothing(
    world: World,
    bar: int | None,
    changes: dict[str, Any],
    config: dict[str, Any],
    reason: str | None,
) -> None:
    if bar is not None:
        world.trade(minute=NOON + timedelta(minutes=bar))
    world.configure(**config)
    world.recommend(**changes)
    world.run()
    expected = ("SKIPPED", reason) if reason else ("SIMULATED", None)
    assert world.outcomes() == [expected]
    assert world.executions() == (reason is None)


@pytest.mark.parametrize(
    ("utc", "reason"),
    [
        ("14:29:59", "Market closed"),
        ("14:34:59", "Opening block"),
        ("20:45:00", "Closing block"),
        ("21:00:00", "Market closed"),
    ],
)
def test_outside_trading_hours_nothing_is_opened(world: World, utc: str, reason: str) -> None:
    now = datetime.fromisoformat(f"{DAY}T{utc}+00:00")
    world.trade(minute=now.replace(second=0) - timedelta(minutes=1))
    made_on = features(ts=(now - timedelta(seconds=80)).isoformat())
    world.recommend(ts=now, minute=now.replace(second=0), features_snapshot=made_on)
    world.run(now)
    assert world.outcomes() == [("SKIPPED", f"trading_hours: {reason}")]


@pytest.mark.parametrize("day", ["2025-02-15", "2025-02-17"], ids=["Saturday", "holiday"])
def test_on_a_day_without_a_session_nothing_is_opened(world: World, day: str) -> None:
    now = datetime.fromisoformat(f"{day}T17:01:20+00:00")
    minute = now.replace(second=0) - timedelta(minutes=1)
    world.trade(minute=minute)
    made_on = features(ts=minute.isoformat())
    world.recommend(ts=now, minute=minute, session_date=now.date(), features_snapshot=made_on)
    world.run(now)
    assert world.outcomes() == [("SKIPPED", "trading_hours: Market closed")]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("HALTED", "trading_state: Trading is halted"),
        ("REDUCING", "trading_state: Only closing orders while reducing"),
    ],
)
def test_nothing_is_opened_while_trading_is_not_active(
    world: World, state: str, reason: str
) -> None:
    world.trade()
    world.recommend()
    world.execute("update trading_state set state = :state", state=state)
    world.run()
    assert world.outcomes() == [("SKIPPED", reason)]
    assert world.executions() == 0


def test_a_third_entry_of_a_ticker_in_one_session_is_refused(world: World) -> None:
    world.trade()
    for hours in (2, 1):
        world.hold(simulated_ts=NOON - timedelta(hours=hours))
    world.recommend()
    world.run()
    assert world.outcomes()[-1] == (
        "SKIPPED",
        "ticker_daily_limit: Daily limit of the ticker reached",
    )


@pytest.mark.parametrize(
    ("minutes", "outcome"),
    [
        (14.99, ("SKIPPED", "ticker_cooldown: Ticker cooling down")),
        (15, ("SIMULATED", None)),
    ],
)
def test_a_ticker_cools_down_after_an_execution(
    world: World, minutes: float, outcome: tuple[str, str | None]
) -> None:
    world.trade()
    world.hold(simulated_ts=TS - timedelta(minutes=minutes))
    world.recommend()
    world.run()
    assert world.outcomes()[-1] == outcome


def test_more_positions_than_allowed_are_refused(world: World) -> None:
    world.configure(max_open_positions=1)
    world.trade(a_bar(), a_bar(ticker="MSFT"))
    world.hold("MSFT")
    world.recommend()
    world.run()
    assert world.outcomes()[-1] == ("SKIPPED", "max_positions: Too many open positions")


def test_a_loss_beyond_the_limit_refuses_opening_orders(world: World) -> None:
    world.trade(a_bar(), a_bar(ticker="MSFT", open=149.0, high=150.0, low=148.0, close=149.0))
    world.hold("MSFT", stop_loss_price=1.0)
    world.recommend()
    world.run()
    assert world.outcomes()[-1] == ("SKIPPED", "daily_loss_limit: Daily loss limit reached")


def test_a_position_whose_price_is_unknown_refuses_opening_orders(world: World) -> None:
    world.trade()
    world.hold("MSFT")
    world.recommend()
    world.run()
    reason = "daily_loss_limit: Profit and loss of the session unknown"
    assert world.outcomes()[-1] == ("SKIPPED", reason)


def test_a_sale_reduces_a_long_and_is_never_larger(world: World) -> None:
    world.configure(allowed_actions=("BUY_STOCK", "SELL_STOCK"))
    world.trade()
    world.hold()
    world.recommend(action="SELL")
    world.run()
    found = world.ask("select side, qty from dispatch_executions order by simulated_ts")
    assert found == [("buy", 10), ("sell", 10)]


def test_two_entries_of_one_ticker_in_one_run_see_each_other(world: World) -> None:
    world.trade()
    world.recommend(minute=NOON - timedelta(minutes=1), confidence=0.9)
    world.recommend(minute=NOON, confidence=0.8)
    world.run()
    assert world.outcomes() == [
        ("SIMULATED", None),
        ("SKIPPED", "ticker_cooldown: Ticker cooling down"),
    ]


def test_one_free_place_takes_one_of_three_tickers_of_one_run(world: World) -> None:
    world.configure(max_open_positions=1)
    world.trade(*[a_bar(ticker=ticker) for ticker in TICKERS[:3]])
    for ticker in TICKERS[:3]:
        world.recommend(ticker=ticker)
    report = world.run()
    assert (report.simulated, report.skipped) == (1, 2)


def test_exposure_is_shared_by_the_orders_of_one_run(world: World) -> None:
    world.configure(max_notional_exposure=0.15)
    world.trade(*[a_bar(ticker=ticker) for ticker in TICKERS[:3]])
    for ticker in TICKERS[:3]:
        world.recommend(ticker=ticker)
    world.run()
    total = world.ask("select sum(notional) from dispatch_executions")[0][0]
    assert 14_000 < total <= 15_000


@pytest.mark.parametrize("attempt", range(3))
def test_two_dispatchers_at_once_keep_the_limit_of_positions(world: World, attempt: int) -> None:
    world.configure(max_open_positions=1, max_signals_per_run=1)
    world.trade(*[a_bar(ticker=ticker) for ticker in TICKERS])
    for ticker in TICKERS:
        world.recommend(ticker=ticker)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: world.drain(), range(2)))
    assert world.executions() == 1
    assert {status for status, _ in world.outcomes()} == {"SIMULATED", "SKIPPED"}


def test_whoever_decides_second_sees_what_the_first_one_filled(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.configure(max_open_positions=1, max_signals_per_run=1)
    world.trade(a_bar(), a_bar(ticker="MSFT"))
    world.recommend()
    world.recommend(ticker="MSFT")
    both_claimed = threading.Barrier(2, timeout=20)
    lock = dispatch.lock_account

    def meet(connection: Connection) -> None:
        both_claimed.wait()
        lock(connection)

    monkeypatch.setattr(dispatch, "lock_account", meet)
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: world.run(), range(2)))
    assert sorted((r.simulated, r.skipped) for r in reports) == [(0, 1), (1, 0)]
    assert world.executions() == 1


def test_an_expired_row_is_skipped_as_expired_and_not_pulled(world: World) -> None:
    world.trade()
    world.recommend()
    report = world.run(TS + timedelta(seconds=300))
    assert (report.expired, report.pulled) == (1, 0)
    assert world.outcomes() == [("SKIPPED", "expired")]


def test_a_row_of_the_future_waits(world: World) -> None:
    world.trade()
    world.recommend()
    assert world.run(TS - timedelta(seconds=1)).is_idle
    assert world.outcomes() == [("PENDING", None)]


def test_a_run_writes_its_counts(world: World) -> None:
    world.trade()
    world.recommend()
    world.recommend(ticker="MSFT")
    world.recommend(ticker="NVDA", ts=TS - timedelta(seconds=400))
    report = world.run()
    found = world.ask(
        "select run_id, started_at, finished_at, outcome, pulled_count, processed_count,"
        " simulated_count, skipped_count, failed_count, expired_count, released_count, mode,"
        " config_hash from dispatcher_runs"
    )
    fingerprint = CONFIG.fingerprint()
    counts = (2, 2, 1, 1, 0, 1, 0)
    assert found == [
        (report.run_id, TS, TS, "FINISHED", *counts, "replay", fingerprint),
    ]


def test_an_idle_run_is_one_finished_row(world: World) -> None:
    assert world.run().is_idle
    found = world.ask("select outcome, pulled_count, finished_at from dispatcher_runs")
    assert found == [("FINISHED", 0, TS)]


def test_a_run_takes_no_more_than_its_limit(world: World) -> None:
    world.configure(max_signals_per_run=2)
    for ticker in TICKERS[:3]:
        world.recommend(ticker=ticker)
    assert [report.pulled for report in world.drain()] == [2, 1, 0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ts": "yesterday"}, "feature_freshness: Features unknown"),
        ({"ts": 17}, "feature_freshness: Features unknown"),
        ({"ts": "2025-02-12T17:00:00"}, "feature_freshness: Features unknown"),
        ({"recent_vol": "high"}, "max_exposure: Exposure unknown"),
        ({"recent_vol": {"is": 1}}, "max_exposure: Exposure unknown"),
        ({"recent_vol": True}, "max_exposure: Exposure unknown"),
    ],
    ids=str,
)
def test_features_of_the_wrong_type_are_refused_by_the_gate_that_reads_them(
    world: World, changes: dict[str, Any], reason: str
) -> None:
    world.trade(a_bar(), a_bar(ticker="MSFT"))
    world.recommend(ticker="MSFT", features_snapshot=features(**changes), confidence=0.9)
    world.recommend()
    world.run()
    assert world.outcomes("ticker") == [("SIMULATED", None), ("SKIPPED", reason)]


@pytest.mark.parametrize(
    ("poison", "error"),
    [
        (["not", "an", "object"], "AttributeError"),
        ("text", "AttributeError"),
        (features(recent_vol=10**400), "OverflowError"),
    ],
    ids=["list", "text", "endless"],
)
def test_a_row_whose_judging_raises_fails_alone(world: World, poison: object, error: str) -> None:
    world.trade(a_bar(), a_bar(ticker="MSFT"))
    world.recommend(ticker="MSFT", features_snapshot=poison, confidence=0.9)
    world.recommend()
    world.run()
    assert world.outcomes("ticker") == [("SIMULATED", None), ("FAILED", f"error: {error}")]


def ten(world: World) -> list[str]:
    """Ten tickers that may all be bought, one recommendation each; the last is the surest."""
    world.configure(max_open_positions=10, max_notional_per_trade=0.01)
    tickers = [f"T{number}" for number in range(10)]
    world.trade(*[a_bar(ticker=ticker) for ticker in tickers])
    for number, ticker in enumerate(tickers):
        world.recommend(ticker=ticker, confidence=0.8 + number / 100)
    return tickers


@contextmanager
def refused(world: World, ticker: str, timing: str) -> Iterator[None]:
    """The database refuses executions of a ticker: as it writes them, or as it commits."""
    world.execute(
        "create function refuse_ticker() returns trigger language plpgsql as $$ begin"
        f" if new.ticker = '{ticker}' then"
        " raise exception 'poison' using errcode = 'check_violation'; end if; return new; end $$"
    )
    world.execute(
        f"create constraint trigger poison after insert on dispatch_executions {timing}"
        " for each row execute function refuse_ticker()"
    )
    try:
        yield
    finally:
        world.execute("drop trigger poison on dispatch_executions")
        world.execute("drop function refuse_ticker()")


@pytest.mark.parametrize("timing", ["not deferrable", "deferrable initially deferred"])
def test_a_row_that_the_database_refuses_fails_alone(world: World, timing: str) -> None:
    tickers = ten(world)
    with refused(world, "T4", timing):
        report = world.run()
    assert (report.pulled, report.simulated, report.failed) == (10, 9, 1)
    outcomes = dict(zip(tickers, world.outcomes("ticker"), strict=True))
    assert outcomes.pop("T4") == ("FAILED", "error: CheckViolation")
    assert set(outcomes.values()) == {("SIMULATED", None)}
    counts = "select outcome, pulled_count, simulated_count, failed_count from dispatcher_runs"
    assert world.ask(counts) == [("FINISHED", 10, 9, 1)]


def test_a_row_that_cannot_be_told_to_the_database_fails_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a number is infinite, which no JSON can hold: the error comes before the database."""
    ten(world)
    insert = execution.insert_executions

    def tell(connection: Connection, made: Sequence[Execution]) -> None:
        if any(each.recommendation.ticker == "T4" for each in made):
            raise ValueError("Out of range float values are not JSON compliant")
        insert(connection, made)

    monkeypatch.setattr(execution, "insert_executions", tell)
    report = world.run()
    assert (report.simulated, report.failed) == (9, 1)
    failed = "select ticker, failure_reason from dispatch_recommendations where status = 'FAILED'"
    assert world.ask(failed) == [("T4", "error: ValueError")]


def test_after_a_refusal_the_places_still_go_to_the_surest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ten(world)
    world.configure(max_open_positions=2)
    claim = dispatch.claim

    def backwards(*known: Any, **narrowed: Any) -> dict[int, int]:
        """The database promises no order in which it tells what was claimed."""
        return dict(sorted(claim(*known, **narrowed).items()))

    monkeypatch.setattr(dispatch, "claim", backwards)
    with refused(world, "T9", "not deferrable"):
        world.run()
    bought = world.ask("select ticker from dispatch_executions order by ticker")
    assert bought == [("T7",), ("T8",)]


def test_a_row_that_was_claimed_too_often_fails(world: World) -> None:
    world.trade()
    world.configure(max_attempts=2)
    world.recommend()
    for _ in range(2):
        claim_and_die(world)
    report = world.run()
    assert (report.released, report.failed) == (1, 1)
    assert world.outcomes() == [("FAILED", "attempts: Exhausted")]


def claim_and_die(world: World) -> None:
    with world.engine.begin() as connection:
        desk = world.desk
        run_id = run.uuid4()
        dispatch.insert_run(
            connection,
            run_id,
            TS,
            desk.config,
            mode="replay",
            code_version="test",
            orchestrator_run_id="",
        )
        dispatch.release_stuck(connection)
        assert dispatch.claim(connection, run_id, TS, desk.config)
        end_lease(connection)


def test_a_row_of_a_dead_run_is_decided_by_the_next_one(world: World) -> None:
    world.trade()
    world.recommend()
    claim_and_die(world)
    report = world.run()
    assert (report.released, report.pulled, report.simulated) == (1, 1, 1)
    assert world.ask("select claim_epoch from dispatch_executions") == [(2,)]


def test_what_a_dead_run_gave_back_too_late_is_closed_in_the_same_run(world: World) -> None:
    world.recommend()
    claim_and_die(world)
    report = world.run(TS + timedelta(seconds=300))
    assert (report.released, report.expired, report.pulled) == (1, 1, 0)
    assert world.outcomes() == [("SKIPPED", "expired")]


def test_a_row_that_is_held_is_left_alone(world: World) -> None:
    world.trade()
    world.recommend()
    with world.engine.begin() as connection:
        report = run.RunReport(run.uuid4())
        run._take(connection, world.desk, report, TS)
    assert world.run().is_idle
    assert world.outcomes() == [("PROCESSING", None)]


def test_a_late_worker_writes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.trade()
    world.recommend()
    lock = dispatch.lock_account
    others: list[int] = []

    def oversleep(connection: Connection) -> None:
        monkeypatch.setattr(dispatch, "lock_account", lock)
        with world.engine.begin() as other:
            end_lease(other)
        others.append(world.run().simulated)
        lock(connection)

    monkeypatch.setattr(dispatch, "lock_account", oversleep)
    late = world.run()
    assert others == [1]
    assert (late.pulled, late.simulated, world.executions()) == (1, 0, 1)


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("insert", {}, Exception("connection lost")),
        InterfaceError("insert", {}, Exception("connection closed")),
        DBAPIError("insert", {}, Exception("cut"), connection_invalidated=True),
        PoolTimeout("no connection is free"),
        FenceLost("changed hands"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_transient_database_error_fails_no_row(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    world.trade()
    world.recommend()
    with monkeypatch.context() as broken:

        def hang_up(*_: object) -> None:
            raise error

        broken.setattr(execution, "insert_executions", hang_up)
        with pytest.raises(type(error)):
            world.run()
    assert world.outcomes() == [("PROCESSING", None)]
    assert world.executions() == 0
    with world.engine.begin() as connection:
        end_lease(connection)
    assert world.run().simulated == 1


def test_a_backend_that_is_ended_in_the_midst_of_a_batch_fails_no_row(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ten(world)
    finish = dispatch.finish

    def cut(connection: Connection, closed: Sequence[Closed], now: datetime) -> None:
        backend = connection.execute(text("select pg_backend_pid()")).scalar_one()
        world.ask("select pg_terminate_backend(:backend)", backend=backend)
        finish(connection, closed, now)

    with monkeypatch.context() as broken:
        broken.setattr(dispatch, "finish", cut)
        with pytest.raises(OperationalError):
            world.run()
    assert set(world.outcomes()) == {("PROCESSING", None)}
    with world.engine.begin() as connection:
        end_lease(connection)
    assert world.run().simulated == 10


def test_what_a_decision_was_made_on_is_stored_with_it(world: World) -> None:
    world.trade()
    world.recommend()
    world.recommend(ticker="MSFT", confidence=0.1)
    world.recommend(ticker="NVDA", features_snapshot="text")
    world.run()
    found = world.ask("select ticker, snapshot_json from dispatch_recommendations order by ticker")
    kept = dict(found)
    assert {name for name in kept if kept[name] is None} == {"NVDA"}
    for ticker, bar_minute, quantity in (("AAPL", NOON.isoformat(), 49), ("MSFT", None, None)):
        snapshot = kept[ticker]
        assert set(snapshot) == {field.name for field in fields(Snapshot)}
        assert (snapshot["ticker"], snapshot["now"]) == (ticker, TS.isoformat())
        assert (snapshot["bar_minute"], snapshot["order_quantity"]) == (bar_minute, quantity)
    assert kept["MSFT"]["confidence"] == 0.1


def test_a_decision_can_be_made_again_from_its_snapshot(world: World) -> None:
    """A refusal that depends on what the same run filled before it is told, too."""
    world.configure(max_open_positions=1)
    world.trade(a_bar(), a_bar(ticker="MSFT"))
    world.recommend(confidence=0.9)
    world.recommend(ticker="MSFT")
    world.run()
    found = world.ask(
        "select snapshot_json -> 'open_tickers' from dispatch_recommendations order by ticker"
    )
    assert found == [(["AAPL"],), (["AAPL", "MSFT"],)]


def test_an_open_row_that_the_ledger_holds_halts_trading_and_nothing_is_executed(
    world: World,
) -> None:
    ten(world)
    double(world, "T4")
    report = world.run()
    assert (report.pulled, report.simulated, report.skipped) == (10, 0, 10)
    assert set(world.outcomes()) == {("SKIPPED", "trading_state: Trading is halted")}
    held = world.ask("select ticker from dispatch_executions")
    assert held == [("T4",)]
    changes = world.ask("select state, changed_by, reason from trading_state_changes")
    row = world.ask("select id from dispatch_recommendations where ticker = 'T4'")[0][0]
    reason = f"recommendation {row} is open, and has an execution"
    assert changes == [("HALTED", "dispatcher", reason)]


def test_the_halt_and_the_refusals_are_one_transaction(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ten(world)
    double(world, "T4")

    def hang_up(*_: object) -> None:
        raise OperationalError("update", {}, Exception("connection lost"))

    with monkeypatch.context() as broken:
        broken.setattr(dispatch, "finish", hang_up)
        with pytest.raises(OperationalError):
            world.run()
    assert world.ask("select state from trading_state") == [("ACTIVE",)]
    assert set(world.outcomes()) == {("PROCESSING", None)}


def double(world: World, ticker: str) -> None:
    """Let the ledger hold a row that is open: what no guard would let happen."""
    with world.engine.begin() as connection:
        run_id = put_run(connection)
        change(
            connection,
            "insert into dispatch_executions (execution_id, recommendation_id, dispatcher_run_id,"
            " claim_epoch, account, ticker, action, intent, decision_ts, simulated_ts,"
            " session_date, side, qty, entry_price, notional, fill_model, slippage_bps,"
            " execution_mode, explain_json, risk_json, sim_json)"
            " select gen_random_uuid(), row.id, :run_id, 1, 'paper', row.ticker, 'BUY_STOCK',"
            " 'open', row.ts, row.ts - interval '1 hour', row.session_date, 'buy', 1, 200, 200,"
            " 'close+slip', 5, 'SIMULATED', '{}', '{}', '{\"bar_used\": {\"timestamp\": \"\"}}'"
            " from dispatch_recommendations as row where row.ticker = :ticker",
            run_id=run_id,
            ticker=ticker,
        )


def test_status_and_ledger_always_agree(world: World) -> None:
    world.trade(*[a_bar(ticker=ticker) for ticker in TICKERS[:2]])
    for ticker in TICKERS:
        world.recommend(ticker=ticker)
    world.drain()
    found = world.ask(
        "select row.status, count(made.execution_id) from dispatch_recommendations as row"
        " left join dispatch_executions as made on made.recommendation_id = row.id"
        " group by row.status order by row.status"
    )
    assert found == [("SIMULATED", 2), ("SKIPPED", 0)]
