from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ops_pipeline.domain.acceptance import Level
from ops_pipeline.domain.machine import (
    CLOCK,
    DISK,
    JUMPED,
    RESTARTED,
    SLEPT,
    Clocks,
    MachineEvent,
    clock_verdict,
    disk_verdict,
    events_between,
)

AT = datetime(2026, 11, 24, 15, 0, tzinfo=UTC)
BEFORE = Clocks(wall=1_000_000.0, since_start=5_000.0, awake=4_000.0)


def after(seconds: float, *, slept: float = 0.0, jumped: float = 0.0) -> Clocks:
    passed = seconds + slept
    return Clocks(
        BEFORE.wall + passed + jumped, BEFORE.since_start + passed, BEFORE.awake + seconds
    )


def seen(now: Clocks) -> list[tuple[str, float]]:
    return [(event.what, event.seconds) for event in events_between(BEFORE, now, AT)]


@pytest.mark.parametrize("seconds", [0.0, 15.0, 86_400.0])
@pytest.mark.parametrize(("slept", "jumped"), [(0.0, 0.0), (5.0, 2.0), (0.0, -2.0)])
def test_a_clock_that_runs_is_no_event(seconds: float, slept: float, jumped: float) -> None:
    assert seen(after(seconds, slept=slept, jumped=jumped)) == []


def test_sleep_is_told_with_its_seconds() -> None:
    assert seen(after(15, slept=5.5)) == [(SLEPT, 5.5)]
    assert seen(after(15, slept=11_520)) == [(SLEPT, 11_520.0)]


@pytest.mark.parametrize("jumped", [2.5, -2.5, 3_600.0, -86_400.0])
def test_jump_is_told_with_its_direction(jumped: float) -> None:
    assert seen(after(15, jumped=jumped)) == [(JUMPED, jumped)]


def test_sleep_and_jump_at_once_are_two_events() -> None:
    assert seen(after(15, slept=60, jumped=3_600)) == [(SLEPT, 60.0), (JUMPED, 3_600.0)]


def test_start_of_the_machine_is_one_event_whatever_the_clock_says() -> None:
    assert seen(Clocks(5.0, since_start=40.0, awake=40.0)) == [(RESTARTED, 40.0)]


def test_start_long_ago_counts_as_no_sleep() -> None:
    # The new machine has been on for longer than the old one was, at the last look.
    now = replace(after(9_000), awake=BEFORE.awake + 9_000)
    assert seen(now) == []


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (MachineEvent(SLEPT, 11_520, AT), "the machine slept for 3:12:00, seen at "),
        (MachineEvent(JUMPED, 3_600, AT), "the clock jumped forward by 1:00:00, seen at "),
        (MachineEvent(JUMPED, -90, AT), "the clock jumped back by 0:01:30, seen at "),
        (MachineEvent(RESTARTED, 40, AT), "the machine was started anew, seen at "),
    ],
)
def test_event_is_told_for_an_hour(event: MachineEvent, text: str) -> None:
    told = clock_verdict(event, AT + timedelta(hours=1))
    assert (told.name, told.level) == (CLOCK, Level.MEDIUM)
    assert told.finding.startswith(text)
    later = clock_verdict(event, AT + timedelta(hours=1, seconds=1))
    assert (later.level, later.finding) == (Level.NORMAL, "it runs steadily")


def test_clock_that_nothing_happened_to_is_normal() -> None:
    assert clock_verdict(None, AT).is_normal


@pytest.mark.parametrize(
    ("free", "level"),
    [
        (5_000_000_000, Level.NORMAL),
        (4_999_999_999, Level.MEDIUM),
        (2_000_000_000, Level.MEDIUM),
        (1_999_999_999, Level.CRITICAL),
        (0, Level.CRITICAL),
    ],
)
def test_disk_warns_before_it_is_full(free: int, level: Level) -> None:
    found = disk_verdict(free)
    assert (found.name, found.level, found.observed) == (DISK, level, {"free_bytes": free})
