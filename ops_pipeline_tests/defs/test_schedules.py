"""When the schedules and the sensor ask for a run, and when they say why not."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from ops_pipeline.defs.checks import machine
from ops_pipeline.defs.jobs import LANE
from ops_pipeline.defs.partitions import minute_partitions
from ops_pipeline.defs.schedules import (
    acceptance_schedule,
    bars_sensor,
    dispatch_sensor,
    machine_sensor,
    minute_schedule,
    retention_schedule,
    slo_schedule,
)
from ops_pipeline.domain.session import MINUTE, NEW_YORK
from ops_pipeline.domain.stages import DATA_STAGES, DISPATCH, NEWS, SENTIMENT, Stage
from ops_pipeline.settings import Mode, PartitionWindow, Settings
from ops_pipeline.storage.knowledge import insert_stage_minutes
from ops_pipeline.storage.services import Switch, upsert_switch
from ops_pipeline_tests.defs.world import END, STAGES, START, World, open_world

NOW = datetime(2025, 2, 15, 12, 0, 3, tzinfo=UTC)
NEWEST = datetime(2025, 2, 15, 11, 59, tzinfo=UTC)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """An instance on disk, because a schedule wants to open its own by reference."""
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as made:
        yield made


@pytest.fixture
def live(
    template: Settings, kept: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """A sandbox at a fixed instant."""
    with open_world(template, Mode.SANDBOX) as made:
        monkeypatch.setattr(made.pipeline, "now", lambda: NOW)
        made.instance = kept
        yield made
        del made.instance
    for run in kept.get_runs():
        kept.delete_run(run.run_id)


def ask_schedule(
    world: World, schedule: dg.ScheduleDefinition, at: datetime = NOW
) -> dg.RunRequest | dg.SkipReason:
    with dg.build_schedule_context(
        instance=world.instance,
        resources={"pipeline": world.pipeline},
        scheduled_execution_time=at,
    ) as context:
        return schedule(context)


def ask_minutes(world: World) -> dg.RunRequest | dg.SkipReason:
    return ask_schedule(world, minute_schedule)


def ask_dispatch(world: World, cursor: str | None = None) -> dg.RunRequest | dg.SkipReason:
    return ask_dispatch_with(world, cursor)[0]


def ask_dispatch_with(
    world: World, cursor: str | None
) -> tuple[dg.RunRequest | dg.SkipReason, str | None]:
    with dg.build_sensor_context(
        instance=world.instance, resources={"pipeline": world.pipeline}, cursor=cursor
    ) as context:
        return dispatch_sensor(context), context.cursor


def finish(world: World, stages: list[str], *minutes: datetime) -> None:
    for stage in stages:
        for minute in minutes:
            world.execute(
                "insert into stage_minutes values (:s, :m, cast(:m as date), 0, 'r')",
                s=stage,
                m=minute,
            )


def switch_off(world: World, stage: Stage, until: datetime | None = None) -> None:
    with world.pipeline.engine.begin() as connection:
        upsert_switch(connection, Switch(stage, is_enabled=False, disabled_until=until))


def a_run(world: World, lane: str, status: dg.DagsterRunStatus) -> None:
    create_run_for_test(world.instance, status=status, tags={LANE: lane})


def wait_row(world: World) -> None:
    world.execute(
        """
        insert into dispatch_recommendations (
            ts, ticker, minute, session_date, action, instrument_type, intent, confidence, reason,
            expires_at, available_at)
        values (:now, 'AAPL', :now, cast(:now as date), 'BUY', 'STOCK', 'open', 0.9, '{}',
            :now + interval '5 minutes', :now)""",
        now=NOW,
    )


def asked(answer: dg.RunRequest | dg.SkipReason) -> tuple[str, str]:
    assert isinstance(answer, dg.RunRequest), answer
    return answer.tags[START], answer.tags[END]


def reason(answer: dg.RunRequest | dg.SkipReason) -> str:
    assert isinstance(answer, dg.SkipReason), answer
    return answer.skip_message or ""


@pytest.mark.parametrize(
    "schedule", [minute_schedule, acceptance_schedule, slo_schedule, retention_schedule]
)
def test_schedules_leave_a_replay_to_its_driver(
    world: World, schedule: dg.ScheduleDefinition
) -> None:
    assert reason(ask_schedule(world, schedule)) == "replay: the driver is the clock"


def test_sensor_leaves_a_replay_to_its_driver(world: World) -> None:
    wait_row(world)
    assert reason(ask_dispatch(world)) == "replay: the driver is the clock"


def test_first_tick_asks_for_the_newest_closed_minute(live: World) -> None:
    assert asked(ask_minutes(live)) == ("2025-02-15T11:59+0000", "2025-02-15T11:59+0000")


def test_all_missed_minutes_are_asked_for_as_one_range(live: World) -> None:
    finish(live, STAGES, NEWEST - 5 * MINUTE)
    assert asked(ask_minutes(live)) == ("2025-02-15T11:55+0000", "2025-02-15T11:59+0000")


def test_minute_that_one_stage_has_not_finished_is_missed(live: World) -> None:
    finish(live, STAGES, NEWEST - 2 * MINUTE)
    finish(live, STAGES[:-1], NEWEST - MINUTE, NEWEST)
    assert asked(ask_minutes(live)) == ("2025-02-15T11:58+0000", "2025-02-15T11:59+0000")


def test_nothing_is_asked_for_when_all_is_done(live: World) -> None:
    finish(live, STAGES, NEWEST)
    assert reason(ask_minutes(live)) == "nothing to do"


def test_services_that_are_off_are_left_out(live: World) -> None:
    switch_off(live, SENTIMENT)
    answer = ask_minutes(live)
    assert isinstance(answer, dg.RunRequest)
    names = [key.to_user_string() for key in answer.asset_selection or ()]
    assert answer.asset_check_keys == []
    assert names == [name for name in STAGES if name != "sentiment"]


def test_minutes_are_not_missed_by_a_service_that_is_off(live: World) -> None:
    switch_off(live, NEWS)
    finish(live, [name for name in STAGES if name != "news"], NEWEST)
    assert reason(ask_minutes(live)) == "nothing to do"


def test_service_comes_back_when_its_time_is_over(live: World) -> None:
    switch_off(live, NEWS, until=NOW - timedelta(seconds=1))
    answer = ask_minutes(live)
    assert isinstance(answer, dg.RunRequest)
    assert dg.AssetKey("news") in (answer.asset_selection or ())


def test_each_of_the_seven_is_left_out_while_it_is_off_and_comes_back(live: World) -> None:
    for stage in DATA_STAGES:
        switch_off(live, stage, until=NOW + MINUTE)
        answer = ask_minutes(live)
        assert isinstance(answer, dg.RunRequest)
        asked_for = {key.to_user_string() for key in answer.asset_selection or ()}
        assert asked_for == set(STAGES) - {stage.name}
        switch_off(live, stage, until=NOW)
    assert isinstance(ask_dispatch(live), dg.RunRequest)
    switch_off(live, DISPATCH, until=NOW + MINUTE)
    assert reason(ask_dispatch(live)) == "the dispatcher is switched off"
    switch_off(live, DISPATCH, until=NOW)
    assert isinstance(ask_dispatch(live), dg.RunRequest)


def test_nothing_is_asked_for_when_all_services_are_off(live: World) -> None:
    for stage in DATA_STAGES:
        switch_off(live, stage)
    assert reason(ask_minutes(live)) == "every data service is off"


@pytest.mark.parametrize(
    "status",
    [
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ],
)
def test_no_minutes_are_asked_for_while_a_minute_run_is_unfinished(
    live: World, status: dg.DagsterRunStatus
) -> None:
    a_run(live, "minute", status)
    assert "is not done" in reason(ask_minutes(live))


def test_run_of_the_other_lane_holds_nothing_up(live: World) -> None:
    a_run(live, "dispatch", dg.DagsterRunStatus.STARTED)
    a_run(live, "minute", dg.DagsterRunStatus.SUCCESS)
    assert asked(ask_minutes(live))


def test_catch_up_reaches_back_into_the_session_before(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(live, STAGES, datetime(2025, 2, 14, 23, 58, tzinfo=UTC))
    just_after = datetime(2025, 2, 15, 0, 2, 3, tzinfo=UTC)
    monkeypatch.setattr(live.pipeline, "now", lambda: just_after)
    assert asked(ask_minutes(live)) == ("2025-02-14T23:59+0000", "2025-02-15T00:01+0000")


def test_a_tick_that_hangs_is_ended_and_a_catch_up_has_longer(live: World) -> None:
    alone = ask_minutes(live)
    assert isinstance(alone, dg.RunRequest)
    finish(live, STAGES, NEWEST - 100 * MINUTE)
    many = ask_minutes(live)
    assert isinstance(many, dg.RunRequest)
    assert [each.tags["dagster/max_runtime"] for each in (alone, many)] == ["182", "380"]


def test_catch_up_of_a_long_gap_takes_its_newest_minutes(live: World) -> None:
    finish(live, STAGES, NEWEST - 500 * MINUTE)
    first, last = asked(ask_minutes(live))
    assert last == NEWEST.strftime("%Y-%m-%dT%H:%M+0000")
    assert first == (NEWEST - 389 * MINUTE).strftime("%Y-%m-%dT%H:%M+0000")


def test_acceptance_is_asked_for_in_live_modes(live: World) -> None:
    assert isinstance(ask_schedule(live, acceptance_schedule), dg.RunRequest)
    assert isinstance(ask_schedule(live, retention_schedule), dg.RunRequest)


def test_run_requests_carry_the_mode(live: World) -> None:
    wait_row(live)
    answers = ask_minutes(live), ask_dispatch(live)
    assert [answer.tags["ops/mode"] for answer in answers] == ["sandbox", "sandbox"]


def test_sensor_asks_once_a_minute_without_rows(live: World) -> None:
    first, cursor = ask_dispatch_with(live, None)
    assert isinstance(first, dg.RunRequest)
    assert reason(ask_dispatch(live, cursor)) == "no recommendation waits"


def test_sensor_asks_again_in_the_next_minute(live: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _, cursor = ask_dispatch_with(live, None)
    monkeypatch.setattr(live.pipeline, "now", lambda: NOW + MINUTE)
    assert isinstance(ask_dispatch(live, cursor), dg.RunRequest)


def test_sensor_asks_when_rows_wait(live: World) -> None:
    _, cursor = ask_dispatch_with(live, None)
    wait_row(live)
    assert isinstance(ask_dispatch(live, cursor), dg.RunRequest)


def test_sensor_waits_for_the_dispatcher_at_work(live: World) -> None:
    wait_row(live)
    a_run(live, "dispatch", dg.DagsterRunStatus.STARTED)
    assert reason(ask_dispatch(live)) == "a dispatcher run is at work"


def test_sensor_leaves_a_dispatcher_that_is_off_alone(live: World) -> None:
    wait_row(live)
    switch_off(live, DISPATCH)
    assert reason(ask_dispatch(live)) == "the dispatcher is switched off"


def ask_bars(world: World, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    with dg.build_sensor_context(
        instance=world.instance, resources={"pipeline": world.pipeline}, cursor=cursor
    ) as context:
        return bars_sensor(context)


def test_the_checks_of_the_bars_are_told_when_they_change_and_else_not(live: World) -> None:
    first = ask_bars(live)
    assert isinstance(first, dg.SensorResult)
    told = {each.check_name: each.passed for each in first.asset_events}  # type: ignore[union-attr]
    assert told == {"bars_are_fresh": False, "no_ticker_is_quarantined": True}
    assert isinstance(ask_bars(live, first.cursor), dg.SkipReason)
    live.execute(
        "insert into quarantines (ticker, session_date, cause, observed, available_at)"
        " values ('AAPL', :day, 'overnight_gap', 0.4, :known)",
        day=NOW.date(),
        known=NOW,
    )
    changed = ask_bars(live, first.cursor)
    assert isinstance(changed, dg.SensorResult)
    (_, found) = changed.asset_events
    assert isinstance(found, dg.AssetCheckEvaluation)
    assert (found.passed, found.description) == (False, "not traded: AAPL")


def test_the_checks_of_the_bars_are_silent_in_a_replay(world: World) -> None:
    assert isinstance(ask_bars(world), dg.SkipReason)


def ask_machine(world: World, cursor: str | None = None) -> dg.SensorResult | dg.SkipReason:
    with dg.build_sensor_context(
        instance=world.instance, resources={"pipeline": world.pipeline}, cursor=cursor
    ) as context:
        return machine_sensor(context)


def told_of(answer: dg.SensorResult | dg.SkipReason) -> dict[str, tuple[bool, str]]:
    assert isinstance(answer, dg.SensorResult)
    return {e.check_name: (e.passed, e.description) for e in answer.asset_events}  # type: ignore[union-attr]


def moved(answer: dg.SensorResult | dg.SkipReason, **by: float) -> str:
    """The cursor as if its clocks had been read at other times."""
    assert isinstance(answer, dg.SensorResult)
    assert answer.cursor
    cursor = json.loads(answer.cursor)
    for name, seconds in by.items():
        cursor["clocks"][name] += seconds
    return json.dumps(cursor)


def test_machine_that_is_well_is_told_once(live: World) -> None:
    first = ask_machine(live)
    assert {name: passed for name, (passed, _) in told_of(first).items()} == {
        "clock_is_steady": True,
        "disk_has_room": True,
    }
    again = ask_machine(live, moved(first))
    assert told_of(again) == {}
    assert live.rows("select * from machine_events") == []


def test_sleep_is_kept_and_told_once(live: World) -> None:
    slept = ask_machine(live, moved(ask_machine(live), wall=-600, since_start=-600))
    passed, description = told_of(slept)["clock_is_steady"]
    assert not passed
    assert description.startswith("the machine slept for 0:10:00")
    assert told_of(ask_machine(live, moved(slept))) == {}
    (row,) = live.rows("select what, seconds from machine_events")
    assert row == {"what": "slept", "seconds": pytest.approx(600, abs=1)}


def test_jump_of_the_clock_is_kept_and_told(live: World) -> None:
    back = ask_machine(live, moved(ask_machine(live), wall=7_200))
    passed, description = told_of(back)["clock_is_steady"]
    assert not passed
    assert description.startswith("the clock jumped back by 2:00:00")


def test_little_room_on_the_disk_is_told_at_once_and_its_end_too(
    live: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask_machine(live)
    with monkeypatch.context() as full:
        full.setattr(machine, "free_bytes", lambda _: 1_000_000_000)
        told = ask_machine(live, moved(first))
    assert told_of(told)["disk_has_room"] == (False, "1.0 GB free")
    assert told_of(ask_machine(live, moved(told)))["disk_has_room"][0]


def test_machine_is_not_watched_in_a_replay(world: World) -> None:
    assert isinstance(ask_machine(world), dg.SkipReason)


def measured(answer: dg.RunRequest | dg.SkipReason) -> str:
    assert isinstance(answer, dg.RunRequest), answer
    return str(answer.run_config["ops"]["pipeline_slo"]["config"]["session"])


def utc(day: int, hour: int) -> datetime:
    """Five minutes past an hour in November 2025."""
    return datetime(2025, 11, day, hour, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("hour", "day"), [(0, "2025-11-27"), (1, "2025-11-28"), (23, "2025-11-28")]
)
def test_sandbox_is_measured_each_hour(live: World, hour: int, day: str) -> None:
    assert measured(ask_schedule(live, slo_schedule, utc(28, hour))) == day


@pytest.fixture
def market_hours(live: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The same, on the calendar of the exchange."""
    monkeypatch.setattr(live.pipeline, "mode", Mode.SIMULATED)
    monkeypatch.setattr(live.pipeline, "calendar", Mode.SIMULATED.calendar)
    return live


@pytest.mark.parametrize(
    ("at", "day"),
    [
        (utc(26, 21), "2025-11-26"),
        (utc(28, 18), "2025-11-28"),  # a half day
        (datetime(2025, 10, 31, 20, 5, tzinfo=UTC), "2025-10-31"),  # before the clocks go back
        (datetime(2025, 11, 3, 21, 5, tzinfo=UTC), "2025-11-03"),
    ],
)
def test_session_is_measured_five_minutes_after_its_close(
    market_hours: World, at: datetime, day: str
) -> None:
    assert measured(ask_schedule(market_hours, slo_schedule, at)) == day


@pytest.mark.parametrize("at", [utc(26, 20), utc(26, 22), utc(28, 21), utc(27, 21), utc(30, 21)])
def test_nothing_is_measured_at_another_hour(market_hours: World, at: datetime) -> None:
    answer = ask_schedule(market_hours, slo_schedule, at)
    assert reason(answer) == "no session has closed in the last hour"


def test_a_session_that_was_slept_through_is_measured_in_the_next_hour_that_is_not(
    market_hours: World,
) -> None:
    session = market_hours.pipeline.calendar.on(date(2025, 11, 26))
    assert session is not None
    with market_hours.pipeline.engine.begin() as connection:
        minutes = [(session, session.opens_at)]
        insert_stage_minutes(connection, "signals", minutes, {}, "a run")
    # The day after is a holiday, the next one has begun.
    assert measured(ask_schedule(market_hours, slo_schedule, utc(28, 16))) == "2025-11-26"


def new_york(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("2025-11-14", "2025-11-17"),  # a weekend
        ("2025-03-07", "2025-03-10"),  # the clocks go forward
        ("2025-10-31", "2025-11-03"),  # the clocks go back
        ("2025-11-26", "2025-11-28"),  # a holiday, then a half day
        ("2025-11-28", "2025-12-01"),  # a half day, then a weekend
    ],
)
@pytest.mark.parametrize("is_down", [False, True], ids=["it ticks on", "it is down in between"])
def test_ticks_from_one_session_to_the_next_ask_for_each_of_its_minutes_once(
    market_hours: World,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    after: str,
    is_down: bool,  # noqa: FBT001
) -> None:
    """Five minutes before the close, through the night, to five minutes after the open."""
    calendar = market_hours.pipeline.calendar
    old, new = (calendar.on(date.fromisoformat(day)) for day in (before, after))
    assert old
    assert new
    finish(market_hours, STAGES, old.closes_at - 6 * MINUTE)
    nights = [old.closes_at + timedelta(hours=hours) for hours in (1, 5, 12)]
    ends = [old.closes_at + n * MINUTE for n in range(-4, 4)]
    starts = [new.opens_at + n * MINUTE for n in range(-2, 6)]
    ticks = [starts[-1]] if is_down else [*ends, *nights, *starts]
    keys = partition_keys(PartitionWindow(old.day, new.day))
    told: list[datetime] = []
    for tick in ticks:
        monkeypatch.setattr(market_hours.pipeline, "now", lambda tick=tick: tick)
        answer = ask_minutes(market_hours)
        if isinstance(answer, dg.RunRequest):
            first, last = (datetime.strptime(key, "%Y-%m-%dT%H:%M%z") for key in asked(answer))
            assert set(asked(answer)) <= keys
            minutes = [m for _, m in calendar.minutes_between(first, last + MINUTE)]
            finish(market_hours, STAGES, *minutes)
            told += minutes
    assert told == old.minutes()[-5:] + new.minutes()[:5]


def partition_keys(window: PartitionWindow) -> set[str]:
    settings = replace(Settings(Mode.SIMULATED, Path(), None), window=window)
    return set(minute_partitions(settings).get_partition_keys())


@pytest.mark.parametrize(
    ("at", "key"),
    [
        ("2025-11-17T09:31:01", "2025-11-17T09:30-0500"),
        ("2025-03-10T09:31:01", "2025-03-10T09:30-0400"),
        ("2025-11-03T09:31:01", "2025-11-03T09:30-0500"),
        ("2025-11-28T13:00:01", "2025-11-28T12:59-0500"),
    ],
)
def test_the_first_tick_of_all_asks_for_the_minute_that_has_just_ended(
    market_hours: World, monkeypatch: pytest.MonkeyPatch, at: str, key: str
) -> None:
    monkeypatch.setattr(market_hours.pipeline, "now", lambda: new_york(at))
    assert asked(ask_minutes(market_hours)) == (key, key)


@pytest.mark.parametrize(
    "at", ["2025-11-15T12:00", "2025-11-27T12:00", "2025-11-28T13:02", "2025-11-17T09:30"]
)
def test_nothing_is_asked_for_while_the_market_is_closed(
    market_hours: World, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    monkeypatch.setattr(market_hours.pipeline, "now", lambda: new_york(at))
    assert "nothing to do" in reason(ask_minutes(market_hours))
