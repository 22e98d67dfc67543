"""How long a session takes, data and dispatch: as one range, and minute by minute."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from benchmarks.measure.memory import peak_mb, resident_mb
from benchmarks.measure.minutes import rows_of
from ops_pipeline.defs.replay import Player
from ops_pipeline.domain.session import Session
from ops_pipeline.settings import Settings

RANGE = "range"
BY_MINUTE = "by minute"
DOES = {
    RANGE: "as replay does: the data of the session in one Dagster run, then the dispatcher in one",
    BY_MINUTE: (
        "the naive way: each minute's stages called by themselves, then the dispatcher;"
        " without a Dagster run around them"
    ),
}


@dataclass(frozen=True)
class Played:
    """Minutes that were played one way, in a process of its own; memory is that process's.

    Seconds begin when everything is loaded; `loaded_mb` is what is resident by then.
    """

    way: str
    minutes: int
    rows: int
    data_seconds: float
    dispatch_seconds: float
    loaded_mb: float
    peak_mb: float

    @property
    def seconds(self) -> float:
        """Of these minutes."""
        return self.data_seconds + self.dispatch_seconds

    @property
    def per_second(self) -> float:
        """Rows of all stages a second."""
        return self.rows / self.seconds

    def seconds_of(self, minutes: int) -> float:
        """Of so many minutes that cost as much."""
        return self.seconds / self.minutes * minutes


def as_range(player: Player, settings: Settings, session: Session) -> Played:
    """Play a session as a replay plays it."""
    loaded, begun = resident_mb(), time.monotonic()
    player.data(session)
    made = time.monotonic()
    player.dispatch(session)
    done = time.monotonic()
    minutes = session.minutes()
    rows = rows_of(settings, minutes)
    return Played(RANGE, len(minutes), rows, made - begun, done - made, loaded, peak_mb())


def by_minute(
    player: Player, settings: Settings, session: Session, sample: Sequence[datetime]
) -> Played:
    """Play a sample of a session's minutes one by one, after those before it as a range."""
    before = [minute for minute in session.minutes() if minute < sample[0]]
    if before:
        player.minutes(before[0], before[-1])
        player.trade(before, lambda _: None)
    loaded = resident_mb()
    data = dispatch = 0.0
    for minute in sample:
        begun = time.monotonic()
        player.tick(minute)
        made = time.monotonic()
        player.trade([minute], lambda _: None)
        data += made - begun
        dispatch += time.monotonic() - made
    rows = rows_of(settings, sample)
    return Played(BY_MINUTE, len(sample), rows, data, dispatch, loaded, peak_mb())
