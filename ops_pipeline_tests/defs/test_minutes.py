"""Which minutes a run is about: half days, holidays, weeks in which the clocks change."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from ops_pipeline.defs.partitions import minute_partitions, partition_key
from ops_pipeline.settings import Mode, PartitionWindow, Settings
from ops_pipeline_tests.defs.markets import generated, plain, warm_up
from ops_pipeline_tests.defs.world import STAGES, World

HALF_DAY = date(2025, 11, 28)
HOLIDAY = date(2025, 2, 17)


def materialized(outcome: dg.ExecuteInProcessResult) -> dict[str, list[dg.AssetMaterialization]]:
    """The materialisations of each asset."""
    events = [event.materialization for event in outcome.get_asset_materialization_events()]
    return {
        name: [event for event in events if event.asset_key == dg.AssetKey(name)] for name in STAGES
    }


def rows(found: dict[str, list[dg.AssetMaterialization]]) -> set[object]:
    """How many rows the runs of all assets tell of."""
    return {event.metadata["rows"].value for events in found.values() for event in events}


def test_each_stage_materializes_every_key_of_a_range(world: World) -> None:
    session = world.session(date(2025, 2, 12))
    minutes = session.minutes()[:3]
    world.open_market(plain(warm_up(world.calendar, session, 60) + minutes))
    found = materialized(world.range(minutes[0], minutes[-1]))
    keys = [partition_key(minute, world.calendar) for minute in minutes]
    assert set(found) == set(STAGES)
    assert all([event.partition for event in events] == keys for events in found.values())


def test_closed_day_materializes_with_zero_rows(world: World) -> None:
    friday = world.calendar.before(HOLIDAY)
    world.open_market(plain(friday.minutes()[-60:]), days=(HOLIDAY, HOLIDAY))
    found = materialized(world.range("2025-02-17T09:30-0500", "2025-02-17T09:32-0500"))
    assert {name: len(events) for name, events in found.items()} == dict.fromkeys(STAGES, 3)
    assert rows(found) == {0}


def test_closed_day_finishes_no_minutes(world: World) -> None:
    world.open_market(plain(world.calendar.before(HOLIDAY).minutes()[-60:]))
    start = datetime(2025, 2, 17, 14, 30, tzinfo=UTC)
    world.stages(start, start + timedelta(minutes=389))
    counts = world.hashes()
    assert {name for name, digest in counts.items() if not digest.startswith("0 ")} == set()


def test_range_across_an_early_close_has_rows_before_it_alone(world: World) -> None:
    session = world.session(HALF_DAY)
    last = session.minutes()[-60:]
    after = [session.closes_at + timedelta(minutes=n) for n in range(3)]
    world.open_market(plain([*last, *after]), days=(HALF_DAY, HALF_DAY))
    outcome = world.range("2025-11-28T12:58-0500", "2025-11-28T13:02-0500")
    assert {len(events) for events in materialized(outcome).values()} == {5}
    made = {minute for _, minute in world.features()}
    assert made == {datetime(2025, 11, 28, 17, m, tzinfo=UTC) for m in (58, 59)}


def test_key_after_an_early_close_is_a_minute_without_rows(world: World) -> None:
    world.open_market(plain(world.session(HALF_DAY).minutes()[-60:]), days=(HALF_DAY, HALF_DAY))
    found = materialized(world.range("2025-11-28T15:59-0500", "2025-11-28T15:59-0500"))
    assert rows(found) == {0}


@pytest.mark.parametrize(
    ("before", "after", "first_keys", "opens"),
    [
        (
            date(2025, 3, 7),
            date(2025, 3, 10),
            ["2025-03-07T09:30-0500", "2025-03-10T09:30-0400"],
            datetime(2025, 3, 10, 13, 30, tzinfo=UTC),
        ),
        (
            date(2025, 10, 31),
            date(2025, 11, 3),
            ["2025-10-31T09:30-0400", "2025-11-03T09:30-0500"],
            datetime(2025, 11, 3, 14, 30, tzinfo=UTC),
        ),
    ],
    ids=["spring", "autumn"],
)
class TestWhenTheClocksChange:
    """Friday before and Monday after."""

    def test_first_keys_carry_the_offset_of_their_day(
        self,
        template: Settings,
        before: date,
        after: date,
        first_keys: list[str],
        opens: datetime,
    ) -> None:
        from dataclasses import replace

        window = replace(template, window=PartitionWindow(before, after))
        keys = minute_partitions(window).get_partition_keys()
        assert len(keys) == 780
        assert [keys[0], keys[390]] == first_keys

    def test_first_minute_of_monday_is_played_at_its_utc_instant(
        self, world: World, before: date, after: date, first_keys: list[str], opens: datetime
    ) -> None:
        evening = world.session(before).minutes()[-60:]
        world.open_market(plain([*evening, opens]), days=(before, after))
        world.range(first_keys[1], first_keys[1])
        assert {minute for _, minute in world.features()} == {opens}


def test_sandbox_minute_has_a_utc_key(template: Settings) -> None:
    minute = datetime(2025, 2, 15, 23, 59, tzinfo=UTC)
    assert partition_key(minute, Mode.SANDBOX.calendar) == "2025-02-15T23:59+0000"


def test_minutes_whose_features_were_not_made_are_not_decided(world: World) -> None:
    """A service that is switched off leaves minutes that its successors take up later."""
    world.open_market(*generated(date(2025, 2, 12)))
    minutes = world.session(date(2025, 2, 12)).minutes()
    world.stages(minutes[0], minutes[0])
    said = world.stages(minutes[0], minutes[5], ["watchlist", "signals"])
    assert [said[name]["minutes"] for name in ("watchlist", "signals")] == [1, 1]
    decided = "select count(*) from stage_minutes where stage in ('watchlist', 'signals')"
    assert world.value(decided) == 2
    world.stages(minutes[1], minutes[5])
    assert world.value(decided) == 12


def test_a_recording_that_says_when_a_bar_was_known_is_believed(world: World) -> None:
    session = world.session(date(2025, 2, 12))
    first, second = session.minutes()[:2]
    late = second + timedelta(minutes=7)
    bars = plain([*warm_up(world.calendar, session, 60), first, second])
    world.open_market(
        [replace(bar, available_at=late if bar.minute == second else None) for bar in bars]
    )
    world.stages(first, second)
    known = world.rows(
        "select distinct minute, available_at from bars_1m where minute >= :m", m=first
    )
    assert {row["minute"]: row["available_at"] for row in known} == {
        first: first + timedelta(seconds=65),
        second: late,
    }
    decided_on = {row["bar_at"] for row in world.features().values() if row["minute"] == second}
    assert decided_on == {first}


def test_later_versions_of_a_recording_are_revisions_at_their_time(world: World) -> None:
    session = world.session(date(2025, 2, 12))
    first, late = session.opens_at, session.opens_at + timedelta(minutes=9)
    (bar,) = plain([first], ["AAPL"])
    revised = replace(bar, close=bar.high, available_at=late)
    world.open_market([bar, revised])
    world.stages(first, first, ["bars"])
    assert world.value("select close from bars_1m") == bar.close
    assert world.rows("select close, available_at from bar_revisions") == [
        {"close": revised.close, "available_at": late}
    ]


@pytest.mark.parametrize(("jump", "count"), [(1.31, 1), (1.29, 0), (0.69, 1)])
def test_a_ticker_that_opens_far_from_its_last_close_is_quarantined(
    world: World, jump: float, count: int
) -> None:
    session = world.session(date(2025, 2, 12))
    first, second = session.minutes()[:2]
    before = world.calendar.before(session.day).minutes()[-1]
    (last, calm), (opening, steady) = plain([before]), plain([first])
    price = round(last.close * jump, 2)
    jumped = replace(opening, open=price, high=price, low=price, close=price)
    calm_open = replace(steady, open=calm.close, high=calm.close, low=calm.close, close=calm.close)
    world.open_market([last, calm, jumped, calm_open])
    said = world.stages(first, second, ["bars"])["bars"]
    assert said["quarantined"] == "AAPL" * count
    found = world.rows("select ticker, cause, available_at from quarantines")
    told = {
        "ticker": "AAPL",
        "cause": "overnight_gap",
        "available_at": first + timedelta(seconds=65),
    }
    assert found == [told] * count
    world.stages(first, second, ["bars"])
    assert world.value("select count(*) from quarantines") == count


def test_features_tell_what_each_model_wrote_and_how_long_it_took(world: World) -> None:
    session = world.session(date(2025, 2, 12))
    minutes = session.minutes()[:2]
    world.open_market(plain(warm_up(world.calendar, session, 60) + minutes))
    made = world.range(*minutes).asset_materializations_for_node("features")[0]
    said = {name: value.value for name, value in made.metadata.items()}
    assert said["models"]["features_1m"]["rows"] == said["rows"] == 2 * len({"AAPL", "MSFT"})
    assert 0 < said["model_seconds"] == said["models"]["features_1m"]["seconds"]
