"""Ways to play a stretch of a day, and what each comes to."""

from collections.abc import Callable, Sequence
from datetime import date, datetime

from ops_pipeline.settings import Settings
from ops_pipeline_tests.defs.markets import generated
from ops_pipeline_tests.defs.world import World, open_world

HALF_DAY = date(2025, 11, 28)
DAY = date(2025, 2, 12)
Play = Callable[[World, Sequence[datetime]], None]


def as_range(world: World, minutes: Sequence[datetime]) -> None:
    """One run of all minutes, then the dispatcher over them."""
    world.range(minutes[0], minutes[-1])
    world.dispatch(minutes)


def as_minutes(world: World, minutes: Sequence[datetime]) -> None:
    """Minute after minute as in live operation: a run, then the dispatcher."""
    for minute in minutes:
        world.minute(minute)
        world.dispatch([minute])


def as_minutes_by_hand(world: World, minutes: Sequence[datetime]) -> None:
    """Minute after minute without Dagster: a run takes most of a second around its stages."""
    for minute in minutes:
        world.stages(minute, minute)
        world.dispatch([minute])


def as_range_by_hand(world: World, minutes: Sequence[datetime]) -> None:
    world.stages(minutes[0], minutes[-1])
    world.dispatch(minutes)


def by_minute_at_the_ends(world: World, minutes: Sequence[datetime]) -> None:
    """The first 20 and the last 40 minutes one by one, and those between as one range."""
    as_minutes_by_hand(world, minutes[:20])
    as_range_by_hand(world, minutes[20:-40])
    as_minutes_by_hand(world, minutes[-40:])


def hashes(template: Settings, day: date, play: Play, *pieces: slice) -> dict[str, str]:
    """What a play of these pieces of a generated day comes to."""
    with open_world(template) as world:
        world.open_market(*generated(day), days=(day, day))
        minutes = world.session(day).minutes()
        for piece in pieces:
            play(world, minutes[piece])
        return world.hashes()


def require_rows(found: dict[str, str], *, executions: bool = True) -> None:
    """Equal hashes of empty tables would prove nothing."""
    empty = {name for name, digest in found.items() if digest.startswith("0 ")}
    allowed = {"bar_revisions", "quarantines"} | (set() if executions else {"dispatch_executions"})
    assert empty <= allowed
