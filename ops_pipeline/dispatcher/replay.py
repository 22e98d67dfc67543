"""Plays the dispatcher over past minutes: the driver is the clock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ops_pipeline.dispatcher.run import Desk, RunReport, run_until_idle
from ops_pipeline.domain.errors import Unsafe
from ops_pipeline.domain.session import Timing
from ops_pipeline.settings import Mode
from ops_pipeline.storage import knowledge


@dataclass(frozen=True)
class Played:
    """What the runs over a stretch of minutes did together."""

    runs: int = 0
    pulled: int = 0
    simulated: int = 0
    skipped: int = 0
    failed: int = 0
    expired: int = 0

    def plus(self, report: RunReport) -> "Played":
        """The same with one more run."""
        return Played(
            self.runs + 1,
            self.pulled + report.pulled,
            self.simulated + report.simulated,
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

    Raises:
        Unsafe: the mode is not replay; only there is the present ours to move.
    """
    if desk.mode is not Mode.REPLAY:
        raise Unsafe(f"the past is not traded in {desk.mode.value} mode")
    played = Played()
    for minute in minutes:
        present = timing.as_of(minute)
        with desk.engine.begin() as connection:
            knowledge.set_present(connection, present)
        for report in run_until_idle(desk, present):
            played = played.plus(report)
        if on_minute:
            on_minute(minute)
    return played
