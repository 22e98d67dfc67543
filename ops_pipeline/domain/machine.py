"""What a machine goes through while it trades: it sleeps, its clock jumps, its disk fills up."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.session import both_zones

CLOCK, DISK = "clock_is_steady", "disk_has_room"
SLEPT, JUMPED, RESTARTED = "slept", "jumped", "restarted"
# Less than these is how clocks are read and corrected.
SLEEP_SECONDS, JUMP_SECONDS = 5.0, 2.0
# So long an operator is told of what happened.
TOLD_FOR = timedelta(hours=1)
LOW_BYTES, FULL_BYTES = 5_000_000_000, 2_000_000_000


@dataclass(frozen=True)
class Clocks:
    """Three clocks of one machine in seconds: of the day, since its start, and of that awake."""

    wall: float
    since_start: float
    awake: float


@dataclass(frozen=True)
class MachineEvent:
    """Something that happened to the machine, seen at an instant, and how many seconds of it."""

    what: str
    seconds: float
    at: datetime

    @property
    def text(self) -> str:
        """In words."""
        long = timedelta(seconds=round(abs(self.seconds)))
        told = {
            SLEPT: f"the machine slept for {long}",
            JUMPED: f"the clock jumped {'forward' if self.seconds > 0 else 'back'} by {long}",
            RESTARTED: "the machine was started anew",
        }
        return f"{told[self.what]}, seen at {both_zones(self.at)}"


def events_between(before: Clocks, now: Clocks, at: datetime) -> Iterator[MachineEvent]:
    """What happened between two readings: a sleep, a jump of the clock, a start of the machine."""
    if now.since_start < before.since_start:
        yield MachineEvent(RESTARTED, now.since_start, at)
        return
    passed = now.since_start - before.since_start
    slept = passed - (now.awake - before.awake)
    jumped = now.wall - before.wall - passed
    if slept > SLEEP_SECONDS:
        yield MachineEvent(SLEPT, slept, at)
    if abs(jumped) > JUMP_SECONDS:
        yield MachineEvent(JUMPED, jumped, at)


def clock_verdict(newest: MachineEvent | None, now: datetime) -> Verdict:
    """Whether the clock ran steadily within the last hour.

    Minutes that were missed are caught up, recommendations of that time run out untraded: an
    operator has to know of it, and nothing to do.
    """
    if newest is None or now - newest.at > TOLD_FOR:
        return Verdict(CLOCK, Level.NORMAL, "it runs steadily")
    return Verdict(CLOCK, Level.MEDIUM, newest.text, {"seconds": newest.seconds})


def disk_verdict(free_bytes: int) -> Verdict:
    """Whether there is room on the disk, before there is none."""
    found, observed = f"{free_bytes / 1e9:.1f} GB free", {"free_bytes": free_bytes}
    expected = f"> {LOW_BYTES / 1e9:g} GB, at worst {FULL_BYTES / 1e9:g} GB"
    if free_bytes < FULL_BYTES:
        return Verdict(DISK, Level.CRITICAL, found, observed, expected)
    level = Level.MEDIUM if free_bytes < LOW_BYTES else Level.NORMAL
    return Verdict(DISK, level, found, observed, expected)
