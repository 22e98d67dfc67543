"""The minutes that a run of an asset is about, and what every stage does with them."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from math import inf
from typing import Any

import dagster as dg
from sqlalchemy import Connection

from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.session import MINUTE, Session
from ops_pipeline.domain.stages import Stage
from ops_pipeline.storage import knowledge
from ops_pipeline.storage.engine import turn_at

LEAST_SECONDS = 5


@dataclass(frozen=True)
class Minutes:
    """Session minutes in [start, end), in order, and the run that is about them."""

    start: datetime
    end: datetime
    run_id: str
    pairs: tuple[tuple[Session, datetime], ...]

    @property
    def last(self) -> datetime | None:
        """The newest of them."""
        return self.pairs[-1][1] if self.pairs else None

    def by_session(self) -> "list[tuple[Session, Minutes]]":
        """The minutes of each session, in order."""
        groups = groupby(self.pairs, key=lambda pair: pair[0])
        return [(session, self._only(tuple(pairs))) for session, pairs in groups]

    def _only(self, pairs: tuple[tuple[Session, datetime], ...]) -> "Minutes":
        return replace(self, start=pairs[0][1], end=pairs[-1][1] + MINUTE, pairs=pairs)


def minutes_of(context: dg.AssetExecutionContext, pipeline: Pipeline) -> Minutes:
    """The session minutes of this run's partitions."""
    window = context.partition_time_window
    return minutes_between(window.start, window.end, context.run.run_id, pipeline)


def minutes_between(start: datetime, end: datetime, run_id: str, pipeline: Pipeline) -> Minutes:
    """The session minutes in [start, end); none on a closed day."""
    pairs = tuple(pipeline.calendar.minutes_between(start, end))
    return Minutes(start, end, run_id, pairs)


def with_cutoffs(
    connection: Connection, minutes: Minutes
) -> tuple[Minutes, dict[datetime, datetime]]:
    """Those of the minutes that have a cut-off, and what it is.

    The others wait: the stage features stamps it, and nothing is decided before.
    """
    cutoffs = {
        found.minute: found.cutoff
        for found in knowledge.cutoffs_between(connection, minutes.start, minutes.end)
    }
    pairs = tuple(pair for pair in minutes.pairs if pair[1] in cutoffs)
    return replace(minutes, pairs=pairs), cutoffs


def wait_until_settled(minutes: Minutes, pipeline: Pipeline) -> None:
    """In live modes, wait for the decision instant of the newest minute."""
    if not pipeline.mode.is_live or minutes.last is None:
        return
    wait = (pipeline.timing.as_of(minutes.last) - pipeline.now()).total_seconds()
    if wait > 0:
        time.sleep(min(wait, (MINUTE * 2).total_seconds()))


def seconds_left(minutes: Minutes, pipeline: Pipeline) -> float:
    """How long a source may take: until the deadline of the newest minute.

    A run that begins late still has some seconds, and one that catches up a second for each minute.
    """
    if not pipeline.mode.is_live or minutes.last is None:
        return inf
    left = (pipeline.timing.deadline(minutes.last) - pipeline.now()).total_seconds()
    return max(left, LEAST_SECONDS + len(minutes.pairs))


@contextmanager
def alone(
    stage: Stage,
    minutes: Minutes,
    pipeline: Pipeline,
    requested_at: Callable[[], datetime],
    wait_seconds: int | None = None,
) -> Iterator[bool]:
    """Be the only run at this stage, whoever started the others and whatever daemon they have.

    Tells whether there is work: minutes that another run has finished since this one was asked for
    are not done again.

    Raises:
        TurnTaken: another run is at it for longer than this one may wait.
    """
    with turn_at(pipeline.engine, stage.name, wait_seconds):
        with pipeline.engine.connect() as connection:
            done = knowledge.finished_since(connection, stage.name, minutes.start, minutes.end)
        is_done = len(done) == len(minutes.pairs) > 0 and min(done.values()) > requested_at()
        yield not is_done


def finish(
    connection: Connection,
    stage: Stage,
    minutes: Minutes,
    counts: Mapping[datetime, int],
) -> None:
    """Keep that the stage has finished with these minutes."""
    knowledge.insert_stage_minutes(connection, stage.name, minutes.pairs, counts, minutes.run_id)


def done_already(minutes: Minutes) -> dg.MaterializeResult[Any]:
    """What Dagster shows of a run that found its work done."""
    return result(minutes, 0, note="another run has done this meanwhile")


def result(minutes: Minutes, rows: int, **more: Any) -> dg.MaterializeResult[Any]:
    """What Dagster shows of a run of a stage: how many minutes and rows, and what else matters."""
    return dg.MaterializeResult(metadata={"minutes": len(minutes.pairs), "rows": rows, **more})
