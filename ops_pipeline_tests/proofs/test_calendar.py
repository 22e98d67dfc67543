"""The checks are silent through the years while all is well, and find each outage in time."""

import os
import sys
from datetime import date

import pytest
from sqlalchemy import Engine

from ops_pipeline.domain.session import Calendar
from ops_pipeline_tests.proofs.calendar import world
from ops_pipeline_tests.proofs.calendar.play import Played, find, outages, play

# OPS_CALENDAR_DAYS=2024-01-01:2026-12-31 and OPS_CALENDAR_OUTAGES=50 play all of it, in an hour.
DAYS = [
    tuple(map(date.fromisoformat, span.split(":")))
    for span in os.environ.get(
        "OPS_CALENDAR_DAYS",
        # Summer time begins on a Sunday, and ends on one; Thanksgiving and its half day.
        "2025-03-09:2025-03-10 2024-11-03:2024-11-04 2026-11-26:2026-11-27",
    ).split()
]
OUTAGES = int(os.environ.get("OPS_CALENDAR_OUTAGES", "2"))
# All of it takes an hour; each of its tests may.
pytestmark = pytest.mark.timeout(7_200)
YEARS = (date(2024, 1, 1), date(2026, 12, 31))


@pytest.fixture
def built(engine: Engine) -> Engine:
    with engine.begin() as connection:
        world.build(connection)
    return engine


@pytest.mark.parametrize(("first", "last"), DAYS)
def test_a_healthy_pipeline_is_silent_on_all_these_days(
    built: Engine, xnys: Calendar, first: date, last: date
) -> None:
    played = play(built, xnys, first, last)
    sys.stdout.write(_told(played))
    assert played.off_normal == []
    minutes = [len(session.minutes()) for session in xnys.between(first, last)]
    assert (played.sessions, played.session_minutes) == (len(minutes), sum(minutes))


def _told(played: Played) -> str:
    return (
        f"{played.sessions} sessions, {played.session_minutes} session minutes,"
        f" {played.other_instants} other instants, {played.verdicts} verdicts,"
        f" {len(played.off_normal)} off normal\n"
    )


def test_every_outage_is_found_in_time(built: Engine, xnys: Calendar) -> None:
    found = [find(built, xnys, outage) for outage in outages(xnys, *YEARS, OUTAGES, seed=9)]
    for each in found:
        length = (each.outage.end - each.outage.start).total_seconds() / 60
        told = f"{each.outage.stage.service} {each.outage.start} {length:.0f} min"
        sys.stdout.write(f"{told}: after {each.seconds} s by {each.by}\n")
    assert [each for each in found if not each.is_prompt] == []
    assert [each.elsewhere for each in found if each.elsewhere] == []
