"""What is asked at once, or kept, is what Dagster finds one by one, in far less time."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter

import dagster as dg
import pytest
from dagster import DagsterInstance, TimeWindowPartitionsDefinition
from dagster._core.definitions.partitions.context import partition_loading_context

from ops_pipeline.engine.partitions import FEW, at_once, keys_of, number_of, one_by_one
from ops_pipeline_tests.engine.conftest import PROJECT

pytestmark = [pytest.mark.dagster, pytest.mark.slow]

# Over the end of daylight saving time; the present is a Thursday, at noon in New York.
NOON = datetime(2026, 11, 5, 17, tzinfo=UTC)
MARKET = TimeWindowPartitionsDefinition(
    start="2026-10-29T09:30-0400",
    fmt="%Y-%m-%dT%H:%M%z",
    timezone="America/New_York",
    cron_schedule="* 9-16 * * 1-5",
    exclusions=["0-29 9 * * *", "* 16 * * *"],
)
CLOCK = TimeWindowPartitionsDefinition(
    start="2026-11-03T00:00+0000",
    fmt="%Y-%m-%dT%H:%M%z",
    timezone="UTC",
    cron_schedule="* * * * *",
)
# The day of the key is not the day's instant.
MONTHS = TimeWindowPartitionsDefinition(
    start="2026-01", fmt="%Y-%m", timezone="UTC", cron_schedule="0 7 15 * *"
)
NONE_OF_THEM = {
    "2026-10-28T10:00-0400",  # before the first
    "2026-11-05T12:00-0500",  # not over yet
    "2026-11-06T10:00-0500",
    "2026-10-31T10:00-0400",  # a Saturday
    "2026-10-30T09:29-0400",
    "2026-10-30T16:00-0400",
    "2026-10-30T10:00-0500",  # the wrong offset
    "yesterday",
    "",
}
DEFINITIONS = pytest.mark.parametrize("definition", [MARKET, CLOCK, MONTHS])


@DEFINITIONS
@pytest.mark.parametrize("step", [1, 97, 10_000])
def test_the_answer_is_that_of_one_by_one(
    definition: TimeWindowPartitionsDefinition, step: int
) -> None:
    with partition_loading_context(NOON):
        keys = set(definition.get_partition_keys()[-300::step]) | NONE_OF_THEM
        assert at_once(definition, keys) == one_by_one(definition, keys)
        assert at_once(definition, NONE_OF_THEM) == one_by_one(definition, NONE_OF_THEM)
        assert at_once(definition, set()) == set()


def test_all_minutes_of_the_market_are_partitions_and_no_other_key_is() -> None:
    with partition_loading_context(NOON):
        keys = MARKET.get_partition_keys()
        assert len(keys) == 5 * 390 + 150
        assert at_once(MARKET, set(keys) | NONE_OF_THEM) == set(keys)


def test_a_day_of_minutes_takes_a_fraction_of_the_time() -> None:
    with partition_loading_context(NOON):
        keys = set(MARKET.get_partition_keys()[-390:])
        begun = perf_counter()
        at_once(MARKET, keys)
        together = perf_counter() - begun
        begun = perf_counter()
        one_by_one(MARKET, keys)
        assert together < (perf_counter() - begun) / 4
    assert len(keys) > FEW


@DEFINITIONS
def test_keys_that_are_kept_are_those_of_dagster_as_time_goes_on_and_back(
    definition: TimeWindowPartitionsDefinition,
) -> None:
    for minutes in (0, 1, 7, 300, 24 * 60, 4 * 24 * 60, 3, -20_000, 0):
        now = NOON + timedelta(minutes=minutes)
        with partition_loading_context(now):
            expected = definition.get_partition_keys()
            assert keys_of(definition) == expected
            assert number_of(definition) == definition.get_num_partitions() == len(expected)
        assert keys_of(definition, now) == expected


def test_what_was_handed_out_may_be_changed_by_whom_it_was_handed_to() -> None:
    with partition_loading_context(NOON):
        keys_of(MARKET).clear()
        assert len(keys_of(MARKET)) == 5 * 390 + 150


def test_keys_are_not_walked_a_second_time() -> None:
    with partition_loading_context(NOON):
        keys_of(MARKET)
        begun = perf_counter()
        keys_of(MARKET)
        kept = perf_counter() - begun
        begun = perf_counter()
        MARKET.get_partition_keys()
        assert kept < (perf_counter() - begun) / 4


@pytest.mark.postgres
def test_the_prepared_status_is_what_a_page_would_make(
    instance: DagsterInstance, environment: Path
) -> None:
    """In a process of its own, because Dagster is changed in it."""
    keys = ["2026-11-02T10:00-0500", "2026-11-02T10:01-0500", "2026-11-03T09:30-0500"]
    for key in [*keys, "2026-10-31T10:00-0400", "2026-11-04T15:59-0500", "gone"]:
        instance.report_runless_asset_event(dg.AssetMaterialization("bars", partition=key))
    told = [
        subprocess.run(
            [sys.executable, "-c", PREPARE, name, str(environment)],
            cwd=PROJECT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for name in ("stock", "ours")
    ]
    assert told[0] == told[1]
    assert '"num_partitions": 4' in told[0]


PREPARE = """
import sys
from dagster import AssetKey, DagsterInstance
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from ops_pipeline.engine.partitions import prepare_status
from ops_pipeline_tests.engine.test_partitions import MARKET

with DagsterInstance.from_config(sys.argv[2]) as instance:
    key = AssetKey("bars")
    instance.wipe_asset_cached_status([key])
    if sys.argv[1] == "ours":
        prepare_status(instance, ["bars"], MARKET)
    else:
        get_and_update_asset_status_cache_value(instance, key, MARKET)
    print(instance.get_asset_records([key])[0].asset_entry.cached_status)
"""
