"""The measure of the minute loop in a real Dagster: its numbers, its checks; none in a replay."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import MetadataValue

from ops_pipeline.defs.replay import QUIET
from ops_pipeline.domain.session import MINUTE, Session
from ops_pipeline.domain.slo import GROWTH, LATE, MEGABYTE, NAMES, PHASES, PROMPT, SKIPPED
from ops_pipeline.settings import PROJECT_DIR, Mode, Settings
from ops_pipeline.storage.knowledge import clock
from ops_pipeline_tests.defs.world import World, administrator, open_world
from ops_pipeline_tests.storage.turns import take

PROMPTLY = {"bars": 1.0, "features": 3.0, "signals": 4.0}


@pytest.fixture
def live(template: Settings, tmp_path: Path) -> Iterator[World]:
    """A sandbox whose Dagster keeps its runs and events in PostgreSQL, as the project's does."""
    with open_world(template, Mode.SANDBOX) as world:
        name = world.settings.dagster_database
        with administrator(template) as connection:
            connection.execute(f'drop database if exists "{name}" with (force)')
            connection.execute(f'create database "{name}"')
        world.settings = replace(world.settings, var_dir=tmp_path)
        # Of what was made a moment ago no minute is due yet.
        world.execute("update installation set created_at = clock_timestamp()")
        os.environ.update(world.settings.environment())
        shutil.copy(PROJECT_DIR / "dagster.yaml", tmp_path)
        world.instance = dg.DagsterInstance.from_config(str(tmp_path))
        world.pipeline.settings = world.settings
        yield world
    with administrator(template) as connection:
        connection.execute(f'drop database "{name}" with (force)')


def yesterday(world: World) -> Session:
    return world.calendar.before(clock().date())


def last(world: World, number: int) -> datetime:
    """One of the last minutes of yesterday, counted from its end."""
    return yesterday(world).closes_at - number * MINUTE


def take_minutes(world: World, *minutes: datetime, run_id: str = "", **seconds: float) -> None:
    with world.pipeline.engine.begin() as connection:
        take(connection, *minutes, run_id=run_id, **(seconds or PROMPTLY))


def measure(world: World, **how: Any) -> dg.ExecuteInProcessResult:
    config = {"session": yesterday(world).day.isoformat()} if world.pipeline.mode.is_live else {}
    return world.definitions.resolve_job_def("slo_job").execute_in_process(
        instance=world.instance,
        run_config={**QUIET, "ops": {"pipeline_slo": {"config": config}}},
        **how,
    )


def numbers(outcome: dg.ExecuteInProcessResult) -> dict[str, MetadataValue[Any]]:
    (event,) = outcome.get_asset_materialization_events()
    return dict(event.materialization.metadata)


def checks(outcome: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {found.check_name: found for found in outcome.get_asset_check_evaluations()}


def failed(outcome: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckSeverity]:
    return {name: found.severity for name, found in checks(outcome).items() if not found.passed}


def test_a_session_without_a_fault_passes_and_every_number_is_one_that_is_drawn(
    live: World,
) -> None:
    earlier = measure(live)
    take_minutes(live, last(live, 2), run_id=earlier.run_id)
    take_minutes(live, last(live, 1))
    outcome = measure(live)
    told = numbers(outcome)
    assert failed(outcome) == {}
    assert {name: told[name].value for name in told if name.startswith("minutes")} == {
        "minutes": 2,
        "minutes_skipped": 0,
        "minutes_late": 0,
    }
    for phase, seconds in {
        "close_to_bars": 1.0,
        "bars_to_features": 2.0,
        "features_to_signals": 1.0,
        "settle_to_signals": 4.0,
    }.items():
        for number in ("p50", "p95", "p99", "max"):
            value = told[f"{phase}_{number}_seconds"]
            assert isinstance(value, dg.FloatMetadataValue)
            assert value.value == pytest.approx(seconds)
        assert told[f"{phase}_count"] == MetadataValue.int(2)
    # The one of the two runs that Dagster knows.
    assert told["run_launch_count"] == MetadataValue.int(1)
    assert 0 < (told["run_launch_p95_seconds"].value or 0) < 60
    assert (told["event_log_mb"].value or 0) >= 0.1
    assert (told["database_mb"].value or 0) > 1
    assert 0 < (told["cost_usd"].value or 0) < 5


def test_measuring_twice_keeps_one_row_for_each_phase(live: World) -> None:
    take_minutes(live, last(live, 1))
    for _ in range(2):
        measure(live)
        rows = live.rows("select phase, count from pipeline_slo")
        assert {row["phase"] for row in rows} == {*PHASES}
        assert len(rows) == len(PHASES)
        assert live.value("select count(*) from pipeline_slo_counters") == 1


def test_a_skipped_minute_is_an_error_and_a_late_one_a_warning(live: World) -> None:
    take_minutes(live, last(live, 4))
    take_minutes(live, last(live, 3), last(live, 2))
    take_minutes(live, last(live, 1), bars=1, features=2, signals=61)
    outcome = measure(live)
    assert failed(outcome) == {
        SKIPPED: dg.AssetCheckSeverity.ERROR,
        LATE: dg.AssetCheckSeverity.WARN,
    }
    found = checks(outcome)
    assert (found[SKIPPED].description or "").startswith("1 of 4 minutes, the first at ")
    assert found[SKIPPED].metadata["session"].value == yesterday(live).day.isoformat()
    # Of four minutes a percentile says nothing.
    assert (found[PROMPT].description or "").startswith("not measured yet: 4 of the 30 minutes")


def test_growth_is_told_from_the_second_look_on(live: World) -> None:
    take_minutes(live, last(live, 1))
    assert "event_log_mb_per_day" not in numbers(measure(live))
    grown = 400_000_000
    live.execute(
        "update pipeline_slo_counters set since = since - :day,"
        " event_log_bytes_since = event_log_bytes - :grown",
        day=timedelta(days=1),
        grown=grown,
    )
    outcome = measure(live)
    # PostgreSQL gives emptied pages back by itself: a little less than was counted is true, too.
    told = numbers(outcome)["event_log_mb_per_day"].value
    assert told == pytest.approx(grown / MEGABYTE, rel=0.05)
    assert failed(outcome) == {}
    live.execute("update pipeline_slo_counters set event_log_bytes_since = -1000000000")
    assert failed(measure(live)) == {GROWTH: dg.AssetCheckSeverity.WARN}


def test_a_session_without_a_minute_was_not_run(live: World) -> None:
    found = checks(measure(live))
    assert {found[name].passed for name in NAMES} == {True}
    assert all((found[name].description or "").startswith("not measured") for name in NAMES)


def test_checks_pass_nothing_where_a_session_should_have_been_measured(live: World) -> None:
    job = live.definitions.resolve_job_def("slo_job")

    def limits() -> dg.ExecuteInProcessResult:
        return job.execute_in_process(
            instance=live.instance, run_config=QUIET, op_selection=["slo_limits"]
        )

    assert failed(limits()) == {}
    live.execute("update installation set created_at = '2000-01-01Z'")
    outcome = limits()
    live.execute("update installation set created_at = clock_timestamp()")
    assert failed(outcome) == dict.fromkeys(NAMES, dg.AssetCheckSeverity.ERROR)


def test_a_day_that_is_no_session_is_refused(live: World) -> None:
    job = live.definitions.resolve_job_def("slo_job")
    config = {**QUIET, "ops": {"pipeline_slo": {"config": {"session": "2025-02-30"}}}}
    outcome = job.execute_in_process(
        instance=live.instance, run_config=config, raise_on_error=False
    )
    assert not outcome.success
    assert live.value("select count(*) from pipeline_slo_counters") == 0


def test_a_replay_says_that_it_is_not_measured_and_keeps_nothing(world: World) -> None:
    outcome = measure(world)
    assert numbers(outcome) == {
        "measured": MetadataValue.text("a replay is not measured: its clock is the past")
    }
    assert failed(outcome) == {}
    assert world.value("select count(*) from pipeline_slo_counters") == 0
