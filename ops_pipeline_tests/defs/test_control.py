"""Settings and switches in Dagster: told when they change, and found within a tick."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from ops_pipeline.defs.control import CONFIG, SERVICES
from ops_pipeline.defs.schedules import control_sensor
from ops_pipeline.domain.stages import DISPATCH, NEWS
from ops_pipeline.operations.config import change
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.services import Switch, upsert_switch
from ops_pipeline_tests.defs.world import World, open_world


@pytest.fixture
def live(template: Settings) -> Iterator[World]:
    with open_world(template, Mode.SANDBOX) as world:
        yield world


def ask(world: World, cursor: str | None = None) -> tuple[dict[str, dict[str, Any]], str, str]:
    """What the sensor tells, by asset; its cursor; and why it is silent, if it is."""
    with dg.build_sensor_context(
        instance=world.instance, resources={"pipeline": world.pipeline}, cursor=cursor
    ) as context:
        answer = control_sensor(context)
    assert isinstance(answer, dg.SensorResult)
    told = {
        event.asset_key.to_user_string(): {k: v.value for k, v in event.metadata.items()}
        for event in answer.asset_events
    }
    silent = answer.skip_reason.skip_message if answer.skip_reason else None
    return told, answer.cursor or "", silent or ""


def put(world: World, **changes: Any) -> None:
    until = changes.pop("until", None)
    now = clock() - timedelta(seconds=60)
    with world.pipeline.engine.begin() as connection:
        change(
            connection,
            world.pipeline.settings,
            changes,
            who="night",
            why="a try",
            now=now,
            until=until,
        )


def test_settings_and_switches_are_told_once_and_again_when_they_change(live: World) -> None:
    told, cursor, _ = ask(live)
    assert set(told) == {CONFIG, SERVICES}
    assert told[SERVICES]["off"] == 0
    told, cursor, silent = ask(live, cursor)
    assert (told, silent) == ({}, "settings and switches are as they were")
    put(live, confidence_min=0.6)
    told, cursor, _ = ask(live, cursor)
    assert set(told) == {CONFIG}
    shown = told[CONFIG]
    assert (shown["version"], shown["changed_by"], shown["reason"]) == (2, "night", "a try")
    assert "| confidence_min | 0.55 | 0.6 |" in shown["changes"]
    with live.pipeline.engine.begin() as connection:
        off = Switch(NEWS, is_enabled=False, reason="feeds | upkeep", changed_by="night")
        upsert_switch(connection, off)
    told, cursor, _ = ask(live, cursor)
    assert set(told) == {SERVICES}
    assert "| rss-ingest | off |  | night | feeds \\| upkeep |" in told[SERVICES]["switches"]


def test_what_was_set_for_a_time_returns_also_while_the_dispatcher_is_off(live: World) -> None:
    put(live, confidence_min=0.6, until=clock() - timedelta(seconds=1))
    with live.pipeline.engine.begin() as connection:
        upsert_switch(connection, Switch(DISPATCH, is_enabled=False))
    told, _, _ = ask(live)
    assert (told[CONFIG]["source"], told[CONFIG]["version"]) == ("expiry", 3)


def test_what_is_present_but_invalid_is_told_and_the_version_before_shown(live: World) -> None:
    put(live, confidence_min=0.6)
    _, cursor, _ = ask(live)
    live.pipeline.settings = replace(live.pipeline.settings, dispatcher_overrides="tier: tiny")
    told, cursor, _ = ask(live, cursor)
    assert told[CONFIG]["version"] == 2
    assert told[CONFIG]["refused"].startswith("OPS_DISPATCHER_CONFIG is no JSON")
    told, _, silent = ask(live, cursor)
    assert told == {}
    assert silent.startswith("the dispatcher stands: OPS_DISPATCHER_CONFIG is no JSON")


def test_a_dispatcher_run_carries_the_version_and_its_hash(live: World) -> None:
    put(live, confidence_min=0.6)
    run = live.job("dispatch_job")
    assert run.success
    (row,) = live.rows("select distinct config_version, config_hash from dispatcher_runs")
    version, digest = row["config_version"], row["config_hash"]
    tags = live.instance.get_run_by_id(run.run_id).tags  # type: ignore[union-attr]
    assert (tags["ops/config_version"], tags["ops/config_hash"]) == (str(version), digest)
    assert version == 2
    (event,) = live.instance.fetch_materializations(dg.AssetKey("executions"), limit=1).records
    metadata = event.asset_materialization.metadata  # type: ignore[union-attr]
    assert metadata["config_hash"].value == digest
