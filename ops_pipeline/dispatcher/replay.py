"""Plays the dispatcher over past minutes: the driver is the clock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from ops_pipeline.dispatcher.run import Desk, RunReport, run_until_idle
from ops_pipeline.domain.errors import Unsafe
from ops_pipeline.domain.session import MINUTE, Timing
from ops_pipeline.domain.stages import DISPATCH
from ops_pipeline.settings import Mode
from ops_pipeline.storage import dispatch, knowledge
from ops_pipeline.storage.engine import sole_driver


@dataclass(frozen=True)
class Played:
    """What the runs over a stretch of minutes did together."""

    runs: int = 0
    pulled: int = 0
    simulated: int = 0
    executed: int = 0
    skipped: int = 0
    failed: int = 0
    expired: int = 0

    def plus(self, report: RunReport) -> "Played":
        """The same with one more run."""
        return Played(
            self.runs + 1,
            self.pulled + report.pulled,
            self.simulated + report.simulated,
            self.executed + report.executed,
            self.skipped + report.skipped,
            self.failed + report.failed,
            self.expired + report.expired,
        )


def play(
    desk: Desk,
    minutes: Sequence[datetime],
    timing: Timing,
    on_minute: Callable[[datetime], None] | None = None,
) -> Played:
    """Step through minutes in order: set the present to as_of(M), run until idle, go on.

    A minute that was played stays as it is. What a driver held when it died is given back first.

    Raises:
        Unsafe: the mode is not replay, where alone the present is ours to move; or another driver
            is at work.
    """
    if desk.mode is not Mode.REPLAY:
        raise Unsafe(f"the past is not traded in {desk.mode.value} mode")
    played = Played()
    with sole_driver(desk.engine):
        with desk.engine.begin() as connection:
            dispatch.release_all(connection)
            done = _played(connection, minutes)
        for minute in minutes:
            if minute not in done:
                played = _step(desk, minute, timing.as_of(minute), played)
            if on_minute:
                on_minute(minute)
        if minutes:
            with desk.engine.begin() as connection:
                knowledge.set_present(connection, timing.as_of(minutes[-1]))
    return played


def _played(connection: Connection, minutes: Sequence[datetime]) -> set[datetime]:
    if not minutes:
        return set()
    end = minutes[-1] + MINUTE
    return knowledge.finished_minutes(connection, [DISPATCH.name], minutes[0], end)


def _step(desk: Desk, minute: datetime, present: datetime, played: Played) -> Played:
    with desk.engine.begin() as connection:
        knowledge.set_present(connection, present)
    executed = -played.simulated - played.executed
    for report in run_until_idle(desk, present):
        played = played.plus(report)
    executed += played.simulated + played.executed
    session = desk.calendar.at(minute)
    if session:
        with desk.engine.begin() as connection:
            knowledge.insert_stage_minutes(
                connection,
                DISPATCH.name,
                [(session, minute)],
                {minute: executed},
                desk.orchestrator_run_id,
            )
    return played
