"""Every key of the settings: set through the store, it changes a decision; a bad value, nothing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import Connection, Engine

from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.operations.config import change, config_of, in_force
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage import config as storage
from ops_pipeline.storage import dispatch, knowledge
from ops_pipeline_tests.builders import NOON, a_bar, at
from ops_pipeline_tests.dispatcher.world import TS, World, empty, features
from ops_pipeline_tests.storage.rows import put_run

KEYS = tuple(DispatcherConfig.model_fields)
MINUTE = timedelta(minutes=1)
Scene = Callable[[World], None]


@dataclass(frozen=True)
class Case:
    """Another value of a key, where it shows, and what else is set in both plays."""

    value: Any
    scene: Scene
    given: dict[str, Any] = field(default_factory=dict)


def buy(world: World, minute: datetime = NOON, **changes: Any) -> None:
    """A run that decides whether to buy AAPL, 20 seconds after a minute has ended."""
    now = minute + 80 * MINUTE / 60
    world.trade(minute=minute)
    asked = {"minute": minute, "ts": now, "features_snapshot": features(ts=minute.isoformat())}
    world.recommend(**(asked | changes))
    world.run(now)


def buy_weak(world: World) -> None:
    buy(world, confidence=0.5)


def buy_late(world: World) -> None:
    buy(world, ts=TS - timedelta(seconds=100))


def buy_by_another_clock(world: World) -> None:
    with patch.object(knowledge, "clock_skew_seconds", lambda *_: 7.0):
        buy(world)


def buy_again(world: World) -> None:
    """AAPL was bought an hour ago."""
    world.hold()
    buy(world)


def buy_another(world: World) -> None:
    """MSFT is held."""
    world.hold("MSFT")
    world.trade(a_bar(ticker="MSFT"))
    buy(world)


def buy_after_a_loss(world: World) -> None:
    """MSFT has lost 400 USD."""
    world.hold("MSFT")
    world.trade(a_bar(ticker="MSFT", open=160.0, high=160.0, low=160.0, close=160.0))
    buy(world)


def buy_in_the_morning(world: World) -> None:
    buy(world, at(8))


def buy_in_the_evening(world: World) -> None:
    buy(world, at(370))


def sell(world: World) -> None:
    buy(world, action="SELL")


def buy_two(world: World) -> None:
    world.trade(a_bar(ticker="MSFT"))
    world.recommend(ticker="MSFT")
    buy(world)


def buy_for_the_second_time(world: World) -> None:
    """A run before this one has claimed it, and died."""
    buy(world, claim_epoch=1)


def hold_for_forty_minutes(world: World) -> None:
    buy(world)
    later = NOON + 40 * MINUTE
    world.trade(minute=later)
    world.feature(minute=later)
    world.run(later + 80 * MINUTE / 60)


def hold_in_the_evening(world: World) -> None:
    minute = at(370)
    world.hold()
    world.trade(minute=minute)
    world.feature(minute=minute)
    world.run(minute + 80 * MINUTE / 60)


def claim_and_die(world: World) -> None:
    world.recommend()
    with world.engine.begin() as connection:
        dispatch.claim(connection, put_run(connection), TS, world.config)


CASES: dict[str, Case] = {
    "confidence_min": Case(0.9, buy),
    "tier": Case("small", buy_weak, {"confidence_min": 0.0}),
    "equity_usd": Case(50_000.0, buy),
    "max_daily_loss_usd": Case(300.0, buy_after_a_loss),
    "max_bar_age_seconds": Case(10, buy),
    "max_feature_age_seconds": Case(10, buy),
    "max_recommendation_age_seconds": Case(60, buy_late),
    "max_clock_skew_seconds": Case(8, buy_by_another_clock),
    "max_open_positions": Case(1, buy_another),
    "max_notional_exposure": Case(0.05, buy),
    "max_notional_per_trade": Case(0.05, buy),
    "max_trades_per_ticker_per_day": Case(1, buy_again),
    "ticker_cooldown_minutes": Case(90, buy_again),
    "allow_shorting": Case(True, sell),  # noqa: FBT003 - it is the value
    "allowed_actions": Case(["SELL_STOCK"], buy),
    "opening_block_minutes": Case(30, buy_in_the_morning),
    "closing_block_minutes": Case(30, buy_in_the_evening),
    "flat_before_close_minutes": Case(30, hold_in_the_evening),
    "slippage_bps": Case(50.0, buy),
    "stop_loss_vol_mult": Case(4.0, buy),
    "stop_horizon_minutes": Case(60, buy),
    "min_stop_distance": Case(0.02, buy),
    "take_profit_risk_reward": Case(3.0, buy),
    "max_hold_minutes": Case(30, hold_for_forty_minutes),
    "max_signals_per_run": Case(1, buy_two),
    "processing_ttl_minutes": Case(0.5, claim_and_die),
    "max_attempts": Case(1, buy_for_the_second_time),
}
# Of each key a value that is out of its range, and one of another type.
REFUSED: dict[str, tuple[Any, Any]] = {
    "confidence_min": (1.01, "0.6"),
    "tier": ("huge", 1),
    "equity_usd": (0, None),
    "max_daily_loss_usd": (-1.0, "500"),
    "max_bar_age_seconds": (86_401, 1.5),
    "max_feature_age_seconds": (0, True),
    "max_recommendation_age_seconds": (0, "300"),
    "max_clock_skew_seconds": (61, "5"),
    "max_open_positions": (0, 2.5),
    "max_notional_exposure": (1.5, {}),
    "max_notional_per_trade": (-0.1, []),
    "max_trades_per_ticker_per_day": (101, "2"),
    "ticker_cooldown_minutes": (391, 1.5),
    "allow_shorting": ("perhaps", 1),
    "allowed_actions": (["BUY_CALL"], "BUY_STOCK"),
    "opening_block_minutes": (121, None),
    "closing_block_minutes": (-1, "15"),
    "flat_before_close_minutes": (0, True),
    "slippage_bps": (1_001, "5"),
    "stop_loss_vol_mult": (0, {}),
    "stop_horizon_minutes": (391, 1.5),
    "min_stop_distance": (0, "0.005"),
    "take_profit_risk_reward": (101, None),
    "max_hold_minutes": (0, 1.5),
    "max_signals_per_run": (1_001, "10"),
    "processing_ttl_minutes": (5.01, "5"),
    "max_attempts": (21, 2.5),
}
ALLOWED = "between .* and |above .* at most |one of |true or false|known are |a list of "
OUTCOMES = """
select decided.ticker, decided.intent, decided.status, decided.failure_reason,
    decided.reason ->> 'exit', made.qty, made.entry_price, made.stop_loss_price,
    made.take_profit_price, made.max_hold_minutes,
    round(extract(epoch from decided.lease_until - clock_timestamp()) / 10)
from dispatch_recommendations as decided
left join dispatch_executions as made on decided.id = made.recommendation_id
order by decided.id"""


@pytest.fixture
def rules(template: Settings) -> Settings:
    """A mode without a profile."""
    return replace(template, mode=Mode.SIMULATED)


@pytest.fixture
def store(desk_engine: Engine) -> Iterator[Connection]:
    """The operator's store; what is set in it is taken back."""
    with desk_engine.connect() as connection:
        yield connection


def put(store: Connection, rules: Settings, changes: dict[str, Any]) -> DispatcherConfig:
    """What the dispatcher takes from the store after a change."""
    change(store, rules, changes, who="night", why="a try", now=TS)
    return config_of(in_force(store, rules, TS), rules)


def play(engine: Engine, config: DispatcherConfig, scene: Scene) -> list[tuple[Any, ...]]:
    """What the dispatcher makes of a scene under these settings."""
    world = World(engine, config)
    scene(world)
    found = world.ask(OUTCOMES)
    empty(engine)
    return found


def test_every_key_has_a_case_and_a_bad_value() -> None:
    assert set(CASES) == set(REFUSED) == set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_is_changed_changes_what_the_dispatcher_decides(
    desk_engine: Engine, store: Connection, rules: Settings, key: str
) -> None:
    case = CASES[key]
    before = play(desk_engine, put(store, rules, case.given), case.scene)
    after = play(desk_engine, put(store, rules, {key: case.value}), case.scene)
    assert before
    assert after != before


def test_a_key_that_has_no_part_in_a_scene_changes_nothing_in_it(
    desk_engine: Engine, store: Connection, rules: Settings
) -> None:
    before = play(desk_engine, put(store, rules, {}), buy)
    assert before[0][2] == "SIMULATED"
    others = {"max_attempts": 2, "max_signals_per_run": 9, "flat_before_close_minutes": 6}
    assert play(desk_engine, put(store, rules, others), buy) == before


@pytest.mark.parametrize("key", KEYS)
def test_a_bad_value_is_refused_with_its_key_and_what_is_allowed_and_nothing_is_written(
    store: Connection, rules: Settings, key: str
) -> None:
    kept = put(store, rules, {"max_hold_minutes": 111})
    written = storage.versions(store)
    for value in REFUSED[key]:
        with pytest.raises(BadInput) as refused:
            put(store, rules, {key: value})
        told = str(refused.value)
        assert told.startswith(f"{key}: ")
        assert any(
            word in told
            for word in ("between", "above", "one of", "true or", "known are", "a list of")
        )
        assert storage.versions(store) == written
        assert config_of(in_force(store, rules, TS), rules) == kept
