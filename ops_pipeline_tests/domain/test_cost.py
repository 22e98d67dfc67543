from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from ops_pipeline.cli.cost import judged
from ops_pipeline.domain.acceptance import Level
from ops_pipeline.domain.cost import (
    CRITICAL_USD,
    DAYS_IN_MONTH,
    NORMAL_USD,
    PRICES,
    TRADING_DAYS_IN_MONTH,
    CostLine,
    Usage,
    day_cost,
    level_of,
    limits,
    prices,
)
from ops_pipeline.domain.judges import cost_per_day
from ops_pipeline.domain.ranges import present_at
from ops_pipeline.domain.session import Calendar
from ops_pipeline.domain.stages import BARS, DISPATCH, SENTIMENT, SERVICES, WATCHLIST, Stage
from ops_pipeline.settings import Mode, load
from ops_pipeline_tests.builders import DAY, NOON, at

USD = prices({})


def lines(*used: Usage, log_bytes: int = 0, is_followed: bool = False) -> dict[str, CostLine]:
    found = day_cost(used, log_bytes, USD, is_followed=is_followed)
    return {line.item: line for line in found}


def an_hour(stage: Stage) -> Usage:
    return Usage(stage, 60, 1_200.0, 3_600.0)


def test_an_hour_of_a_small_task_is_its_processor_its_memory_and_its_address() -> None:
    line = lines(an_hour(BARS))["telemetry-1m"]
    assert (line.quantity, line.unit) == (1.0, "task-hours")
    assert line.usd == pytest.approx(0.25 * 0.04048 + 0.5 * 0.004445 + 0.005)


def test_the_model_needs_a_larger_task() -> None:
    found = lines(an_hour(BARS), an_hour(SENTIMENT))
    assert found["classifier-worker"].usd > 1.5 * found["telemetry-1m"].usd


def test_what_stands_is_paid_on_a_day_without_a_run_too() -> None:
    found = lines()
    assert {item for item, line in found.items() if line.usd} == {
        "database",
        "database storage",
        "secrets and parameters",
    }
    assert all(line.is_standing for line in found.values() if line.usd)


def test_the_trade_stream_runs_all_day_where_an_account_is_followed() -> None:
    found = lines(is_followed=True)
    assert found["trade-stream"].quantity == 24
    assert found["trade-stream"].is_standing


def test_a_gigabyte_of_logs_and_a_million_starts_have_their_price() -> None:
    found = lines(Usage(DISPATCH, 1_000_000, 0.0, 0.0), log_bytes=2_000_000_000)
    assert (found["logs"].usd, found["starts of tasks"].usd) == (1.0, 1.0)


def test_a_month_has_fewer_days_that_trade() -> None:
    found = lines(an_hour(BARS))
    task, database = found["telemetry-1m"], found["database"]
    assert task.month_usd(TRADING_DAYS_IN_MONTH) == pytest.approx(21 * task.usd)
    assert database.month_usd(TRADING_DAYS_IN_MONTH) == pytest.approx(DAYS_IN_MONTH * database.usd)


def test_a_whole_day_of_minutes_is_normal() -> None:
    # Each service in its cadence, billed a minute each time.
    used = [Usage(stage, 390, 3_900.0, 390 * 60.0) for stage in SERVICES if stage != WATCHLIST]
    used += [Usage(WATCHLIST, 78, 1_170.0, 78 * 60.0)]
    total = sum(line.usd for line in lines(*used, is_followed=True).values())
    assert 1.0 < total <= NORMAL_USD


def test_an_operators_price_is_taken_in_place_of_ours() -> None:
    assert prices({"database": 0.032}) == {**USD, "database": 0.032}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"databse": 1}, "databse: no such price; there are vcpu"),
        ({"database": "0.032"}, "database: must be a number"),
        ({"database": -1}, "database: must be a number"),
        ({"database": True}, "database: must be a number"),
        ({"database": float("nan")}, "database: must be a number"),
    ],
)
def test_a_price_that_cannot_be_used_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        prices(changes)


def test_each_price_says_where_it_comes_from() -> None:
    assert all(price.source.startswith("aws.amazon.com/") for price in PRICES.values())


@pytest.mark.parametrize(
    ("usd", "level"),
    [
        (0.0, Level.NORMAL),
        (NORMAL_USD, Level.NORMAL),
        (NORMAL_USD + 0.01, Level.LOW),
        (CRITICAL_USD, Level.LOW),
        (CRITICAL_USD + 0.01, Level.CRITICAL),
    ],
)
def test_cost_per_day_is_critical_beyond_five_dollars(usd: float, level: Level) -> None:
    found = cost_per_day(present_at(Calendar("XNYS"), NOON), [{"day": DAY, "usd": usd}])
    assert found.level is level is level_of(usd, *limits(390, 390))
    assert "on AWS" in found.finding


def test_cost_per_day_of_a_market_that_never_closes_may_be_more() -> None:
    found = cost_per_day(present_at(Calendar("24/7"), NOON), [{"day": DAY, "usd": 7.0}])
    assert found.level is Level.NORMAL


def test_cost_per_day_before_anything_was_measured_is_not_judged() -> None:
    assert cost_per_day(present_at(Calendar("XNYS"), NOON), []).level is Level.UNMEASURED


def test_a_half_day_has_the_limits_of_a_whole_one() -> None:
    assert limits(210, 390) == (NORMAL_USD, CRITICAL_USD)


@pytest.mark.parametrize(
    ("since", "now", "minutes"),
    [(at(0), at(390), 390), (at(-9_999), at(391), 390), (at(100), at(102), 2), (at(0), at(2), 2)],
)
def test_a_month_is_estimated_from_a_whole_session_alone(
    since: datetime, now: datetime, minutes: int
) -> None:
    found_lines = day_cost([], 0, prices({}), is_followed=False)
    settings = replace(load("simulated"), mode=Mode.REPLAY)
    found = judged(settings, DAY, found_lines, since, now)
    assert (found.minutes, found.measured_minutes) == (390, minutes)
    assert (found.month_usd is not None) is (minutes == 390)
