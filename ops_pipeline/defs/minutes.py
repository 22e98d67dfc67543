"""The minutes that a run of an asset is about, and what every stage does with them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any

import dagster as dg
from sqlalchemy import Connection

from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.session import MINUTE, Session
from ops_pipeline.domain.stages import Stage
from ops_pipeline.storage import knowledge


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

    def by_session(self) -> list[tuple[Session, list[datetime]]]:
        """The minutes of each session, in order."""
        groups = groupby(self.pairs, key=lambda pair: pair[0])
        return [(session, [minute for _, minute in pairs]) for session, pairs in groups]


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


def finish(
    connection: Connection,
    stage: Stage,
    minutes: Minutes,
    counts: Mapping[datetime, int],
) -> None:
    """Keep that the stage has finished with these minutes."""
    knowledge.insert_stage_minutes(connection, stage.name, minutes.pairs, counts, minutes.run_id)


def result(minutes: Minutes, rows: int, **more: Any) -> dg.MaterializeResult[Any]:
    """What Dagster shows of a run of a stage: how many minutes and rows, and what else matters."""
    return dg.MaterializeResult(metadata={"minutes": len(minutes.pairs), "rows": rows, **more})
