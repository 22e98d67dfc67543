"""A position is closed when it is due, once, at what the market pays."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from ops_pipeline.dispatcher import run
from ops_pipeline.domain.execution import Book, fill_price
from ops_pipeline.storage import dispatch, execution
from ops_pipeline_tests.builders import DAY, NOON, a_bar
from ops_pipeline_tests.dispatcher.world import CONFIG, TS, World

CLOSES = "select status, failure_reason from dispatch_recommendations where intent = 'close'"


def price(close: float) -> dict[str, float]:
    """Prices of a bar with this close."""
    return {"open": close, "high": close, "low": close, "close": close}


def prepare(world: World, now: datetime, close: float = 200.0) -> None:
    """A bar and features of the minute before now."""
    minute = now.replace(second=0, microsecond=0) - timedelta(minutes=1)
    world.trade(minute=minute, **price(close))
    world.feature(minute=minute)


def at_utc(text: str) -> datetime:
    return datetime.fromisoformat(f"{DAY}T{text}+00:00")


@pytest.mark.parametrize(
    ("close", "reason"),
    [
        (198.0, ("stop",)),
        (199.0, ("stop",)),
        (199.01, ()),
        (201.99, ()),
        (202.0, ("target",)),
        (205.0, ("target",)),
    ],
)
def test_a_long_is_closed_at_its_stop_and_at_its_target(
    world: World, close: float, reason: tuple[str, ...]
) -> None:
    prepare(world, TS, close)
    world.hold()
    assert world.run().exits == reason
    assert world.executions() == 1 + len(reason)


@pytest.mark.parametrize(
    ("close", "reason"), [(202.0, ("stop",)), (198.0, ("target",)), (200.0, ())]
)
def test_a_short_is_closed_the_other_way_round(
    world: World, close: float, reason: tuple[str, ...]
) -> None:
    prepare(world, TS, close)
    world.hold(side="sell", stop_loss_price=202.0, take_profit_price=198.0)
    assert world.run().exits == reason
    sides = [
        side for (side,) in world.ask("select side from dispatch_executions order by written_at")
    ]
    assert sides == ["sell", *["buy" for _ in reason]]


@pytest.mark.parametrize(
    ("now", "opened", "exits"),
    [
        ("20:00:19", "16:00:20", ()),
        ("20:00:20", "16:00:20", ("max_hold",)),
        ("20:54:59", "19:00:00", ()),
        ("20:55:00", "19:00:00", ("flat_before_close",)),
        ("20:59:59", "19:00:00", ("flat_before_close",)),
        ("21:00:00", "19:00:00", ()),
    ],
)
def test_time_closes_a_position(
    world: World, now: str, opened: str, exits: tuple[str, ...]
) -> None:
    prepare(world, at_utc(now))
    world.hold(simulated_ts=at_utc(opened))
    assert world.run(at_utc(now)).exits == exits
    assert world.executions() == 1 + len(exits)


def test_a_half_day_is_flat_before_its_own_close(world: World) -> None:
    now = datetime.fromisoformat("2025-07-03T16:55:00+00:00")
    prepare(world, now)
    world.hold(simulated_ts=now - timedelta(hours=1), session_date=now.date())
    assert world.run(now).exits == ("flat_before_close",)


@pytest.mark.parametrize(
    ("now", "closed"),
    [("14:34:59", False), ("14:35:00", True), ("17:00:00", True)],
)
def test_what_survived_the_night_is_closed_in_the_first_minute_that_may(
    world: World,
    now: str,
    closed: bool,  # noqa: FBT001
) -> None:
    day_before = DAY - timedelta(days=1)
    prepare(world, at_utc(now))
    world.hold(simulated_ts=at_utc("19:00:00") - timedelta(days=1), session_date=day_before)
    assert world.run(at_utc(now)).exits == ("overnight",)
    assert world.executions() == 1 + closed


@pytest.mark.parametrize("close", [198.0, 203.0])
def test_a_close_is_filled_at_the_bars_close_less_slippage_and_makes_that_profit(
    world: World, close: float
) -> None:
    prepare(world, TS, close)
    world.hold()
    world.run()
    paid = fill_price(close, -1, CONFIG)
    found = world.ask("select qty, entry_price from dispatch_executions where intent = 'close'")
    with world.engine.connect() as connection:
        result = Book(execution.fills_until(connection, DAY))
    assert found == [(10, paid)]
    assert result.positions == {}
    assert result.realised_usd[DAY] == pytest.approx(10 * (paid - 200.0))


def test_a_close_has_neither_stop_nor_target(world: World) -> None:
    prepare(world, TS, 198.0)
    world.hold()
    world.run()
    found = world.ask(
        "select stop_loss_price, take_profit_price, max_hold_minutes, action"
        " from dispatch_executions where intent = 'close'"
    )
    assert found == [(None, None, None, "SELL_STOCK")]


def test_a_close_frees_the_place_for_an_entry_of_the_same_run(world: World) -> None:
    world.configure(max_open_positions=1)
    prepare(world, TS, 198.0)
    world.trade(ticker="MSFT")
    world.hold()
    world.recommend(ticker="MSFT", confidence=1.0)
    report = world.run()
    assert (report.simulated, report.skipped) == (2, 0)


def test_a_close_passes_every_limit_on_entries(world: World) -> None:
    world.configure(max_trades_per_ticker_per_day=1, max_open_positions=1, max_daily_loss_usd=1.0)
    prepare(world, TS, 198.0)
    world.hold(simulated_ts=NOON - timedelta(minutes=1))
    world.run()
    assert world.ask(CLOSES) == [("SIMULATED", None)]


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ("REDUCING", ("SIMULATED", None)),
        ("HALTED", ("SKIPPED", "trading_state: Trading is halted")),
    ],
)
def test_reducing_closes_and_halted_does_not(
    world: World, state: str, outcome: tuple[str, Any]
) -> None:
    prepare(world, TS, 198.0)
    world.hold()
    world.execute("update trading_state set state = :state", state=state)
    world.run()
    assert world.ask(CLOSES) == [outcome]


def test_a_close_needs_no_features(world: World) -> None:
    world.trade(**price(198.0))
    world.hold()
    world.run()
    assert world.ask(CLOSES) == [("SIMULATED", None)]


def test_a_close_on_a_stale_bar_waits_and_fills_at_the_next_one_whatever_the_price(
    world: World,
) -> None:
    """A thin name: the stop is judged at the newest bar known, and never filled at that old one."""
    world.trade(minute=NOON - timedelta(minutes=4), **price(198.0))
    world.hold()
    assert world.run().exits == ("stop",)
    for seconds in (60, 120):
        assert world.drain(TS + timedelta(seconds=seconds))[-1].pulled == 0
    assert world.ask(CLOSES) == [("PENDING", None)]
    world.trade(minute=NOON + timedelta(minutes=2), **price(200.5))
    world.run(TS + timedelta(seconds=140))
    assert world.ask(CLOSES) == [("SIMULATED", None)]
    found = world.ask("select entry_price from dispatch_executions where intent = 'close'")
    assert found == [(fill_price(200.5, -1, CONFIG),)]


def test_a_close_that_lapsed_without_a_bar_is_proposed_again_and_stays_due(
    world: World,
) -> None:
    world.trade(minute=NOON - timedelta(minutes=4), **price(198.0))
    world.hold()
    world.run()
    world.run(TS + timedelta(seconds=300))
    lapsed, waits = ("SKIPPED", "expired"), ("PENDING", None)
    assert world.ask(CLOSES) == [lapsed]
    world.run(TS + timedelta(seconds=360))
    assert sorted(world.ask(CLOSES)) == [waits, lapsed]
    world.trade(minute=NOON + timedelta(minutes=7), **price(201.0))
    assert world.run(TS + timedelta(seconds=420)).simulated == 1


def test_a_stop_that_was_hit_while_halted_closes_although_the_price_came_back(
    world: World,
) -> None:
    prepare(world, TS, 198.0)
    world.hold()
    world.execute("update trading_state set state = 'HALTED'")
    world.run()
    later = TS + timedelta(minutes=1)
    prepare(world, later, 200.0)
    world.execute("update trading_state set state = 'REDUCING'")
    assert world.run(later).exits == ("stop",)
    assert [status for status, _ in world.ask(CLOSES + " order by id")] == ["SKIPPED", "SIMULATED"]


def test_while_all_must_be_flat_whatever_is_held_is_closed(world: World) -> None:
    prepare(world, TS)
    with world.engine.begin() as connection:
        dispatch.set_trading_state(connection, "REDUCING", "test", "", must_be_flat=True)
    world.hold()
    assert world.run().exits == ("flatten",)
    assert world.ask(CLOSES) == [("SIMULATED", None)]
    with world.engine.begin() as connection:
        dispatch.set_trading_state(connection, "HALTED", "test", "")
        assert dispatch.must_be_flat(connection)
        dispatch.set_trading_state(connection, "ACTIVE", "test", "")
        assert not dispatch.must_be_flat(connection)


def test_a_close_is_not_filled_at_a_bar_that_grew_old_while_the_process_stood_still(
    world: World,
) -> None:
    prepare(world, TS, 198.0)
    world.hold()
    report = run.RunReport(run.uuid4())
    with world.engine.begin() as connection:
        report, claims = run._take(connection, world.desk, report, TS)
    woken = run._Present(world.desk.mode, TS + timedelta(seconds=200))
    run._decide(world.desk, report, claims, woken)
    assert world.ask(CLOSES) == [("SKIPPED", "simulation: No new bar")]


def test_on_the_day_after_the_change_to_summer_time_all_is_flat_by_its_own_close(
    world: World,
) -> None:
    now = datetime.fromisoformat("2025-03-10T19:55:00+00:00")
    prepare(world, now)
    world.hold(simulated_ts=now - timedelta(hours=1), session_date=now.date())
    assert world.run(now - timedelta(seconds=1)).exits == ()
    assert world.run(now).exits == ("flat_before_close",)


def test_a_price_from_before_the_entry_closes_nothing(world: World) -> None:
    prepare(world, TS, 198.0)
    world.hold(simulated_ts=NOON + timedelta(minutes=1))
    assert world.run().exits == ()


def test_an_exit_that_waits_is_not_proposed_again(world: World) -> None:
    prepare(world, TS, 198.0)
    world.hold()
    for minutes in range(2):
        with world.engine.begin() as connection:
            report = run.RunReport(run.uuid4())
            run._take(connection, world.desk, report, TS + timedelta(minutes=minutes))
    assert world.ask(CLOSES) == [("PROCESSING", None)]


def test_an_exit_that_was_refused_is_proposed_once_in_each_minute(world: World) -> None:
    world.trade(**price(198.0))
    world.hold()
    world.execute("update trading_state set state = 'HALTED'")
    for seconds in (0, 10, 39, 40):
        world.drain(TS + timedelta(seconds=seconds))
    assert len(world.ask(CLOSES)) == 2


def test_what_was_closed_is_not_closed_again(world: World) -> None:
    prepare(world, TS, 198.0)
    world.hold()
    world.drain()
    assert world.run(TS + timedelta(minutes=1)).exits == ()
    assert world.executions() == 2


def test_each_of_several_positions_is_judged_by_its_own_price(world: World) -> None:
    prepare(world, TS, 198.0)
    world.trade(ticker="MSFT", **price(203.0))
    world.trade(ticker="NVDA", **price(200.0))
    for ticker in ("AAPL", "MSFT", "NVDA"):
        world.hold(ticker)
    for ticker in ("MSFT", "NVDA"):
        world.feature(ticker)
    assert world.run().exits == ("stop", "target")


def test_an_exit_of_a_position_without_a_bar_waits_for_one(world: World) -> None:
    world.hold()
    assert world.run().exits == ()


def test_a_bar_that_is_not_known_yet_closes_nothing(world: World) -> None:
    world.trade(a_bar(minute=NOON - timedelta(minutes=1)))
    world.trade(**price(198.0))
    world.feature()
    world.hold()
    assert world.run(NOON + timedelta(seconds=59)).exits == ()
