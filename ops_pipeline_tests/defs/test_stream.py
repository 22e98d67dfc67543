"""The trade stream in Dagster: its checks, what is told of it, and when."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import dagster as dg
import pytest

from ops_pipeline.defs.schedules import stream_sensor
from ops_pipeline.defs.stream import KEY, stream_checks
from ops_pipeline.domain.stream import Difference
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage import stream
from ops_pipeline.storage.dispatch import ACCOUNT
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.stream import Lease, RawFrame
from ops_pipeline_tests.defs.world import World, open_world


@pytest.fixture
def live(template: Settings) -> Iterator[World]:
    with open_world(template, Mode.SANDBOX) as world:
        yield world


def hear(world: World) -> Lease:
    now = clock()
    with world.pipeline.engine.begin() as connection:
        lease = stream.take_lease(connection, ACCOUNT, "test", "1", 60)
        assert lease
        stream.keep_lease(connection, lease, 60, connected_at=now, alive_at=now, reason="")
        stream.keep_pass(connection, lease, now, [])
    return lease


def ask(world: World, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    with dg.build_sensor_context(
        instance=world.instance, resources={"pipeline": world.pipeline}, cursor=cursor
    ) as context:
        return stream_sensor(context)  # type: ignore[return-value]


def events(answer: dg.SensorResult | dg.SkipReason) -> list[str]:
    assert isinstance(answer, dg.SensorResult)
    return [type(event).__name__.removeprefix("Asset") for event in answer.asset_events]


def checks(world: World) -> dict[str | None, tuple[bool, str | None]]:
    found = stream_checks(dg.build_asset_check_context(), pipeline=world.pipeline)
    return {each.check_name: (each.passed, each.description) for each in found}


def test_a_stream_that_is_heard_is_observed_and_materialised(live: World) -> None:
    hear(live)
    with live.pipeline.engine.begin() as connection:
        stream.insert_frames(connection, ACCOUNT, [RawFrame("{", clock()), RawFrame("[", clock())])
    answer = ask(live)
    assert events(answer) == ["CheckEvaluation"] * 2 + ["Observation", "Materialization"]
    assert isinstance(answer, dg.SensorResult)
    told = answer.asset_events[-1]
    assert told.asset_key == dg.AssetKey(KEY)
    assert told.metadata["frames"].value == 2


def test_one_that_is_silent_is_observed_and_not_materialised(live: World) -> None:
    assert events(ask(live)) == ["CheckEvaluation"] * 2 + ["Observation"]


def test_what_was_told_is_told_again_once_it_changes(live: World) -> None:
    first = ask(live)
    assert isinstance(first, dg.SensorResult)
    assert isinstance(ask(live, first.cursor), dg.SkipReason)
    hear(live)
    assert events(ask(live, first.cursor))[:2] == ["CheckEvaluation"] * 2


def test_checks_tell_of_silence_and_of_what_does_not_add_up(live: World) -> None:
    assert checks(live)["stream_is_live"] == (False, "the trade stream was never started")
    lease = hear(live)
    assert checks(live) == {
        "stream_is_live": (True, "followed"),
        "account_adds_up": (True, "positions are what orders come to"),
    }
    found = Difference("AAPL", Decimal(3), Decimal("2.5"), "")
    moved = Difference("MSFT", Decimal(3), Decimal(2), "an order moved meanwhile")
    with live.pipeline.engine.begin() as connection:
        stream.keep_pass(connection, lease, clock() - timedelta(seconds=1), [found, moved])
    assert checks(live)["account_adds_up"] == (False, "AAPL: 2.5 held, 3 by its orders")


def test_a_mode_without_an_account_has_nothing_to_follow(world: World) -> None:
    assert isinstance(ask(world), dg.SkipReason)
    assert {passed for passed, _ in checks(world).values()} == {True}
