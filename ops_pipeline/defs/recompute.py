"""Computing a minute again is a comparison: equal changes nothing, unequal fails."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

import dagster as dg
from sqlalchemy import Connection

from ops_pipeline.defs.minutes import Minutes, finish, with_cutoffs
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.session import Session
from ops_pipeline.domain.stages import READERS, Stage
from ops_pipeline.storage.knowledge import (
    finished_counts,
    finished_minutes,
    late_decisions,
    passed_minutes,
)

Counts = dict[datetime, int]
Decide = Callable[
    [Connection, Pipeline, Session, Minutes, Mapping[datetime, datetime]], tuple[Counts, int]
]


def decide_sessions(
    stage: Stage, minutes: Minutes, pipeline: Pipeline, decide: Decide
) -> tuple[Minutes, Counts, int]:
    """Decide session after session, each in a transaction: a long range holds no lock for longer.

    Args:
        stage: who decides.
        minutes: of any sessions; those that have no cut-off yet wait.
        pipeline: where.
        decide: decides minutes of one session under their cut-offs; gives the number of rows of
            each, and how many of them are new to those who read them.

    Returns:
        The minutes that were decided, the rows of each, and the sum of what is new.
    """
    with pipeline.engine.connect() as connection:
        minutes, cutoffs = with_cutoffs(connection, minutes)
    counts: Counts = {}
    new = 0
    for session, own in minutes.by_session():
        asking = {minute: cutoffs[minute] for _, minute in own.pairs}
        with pipeline.engine.begin() as connection:
            made, added = decide(connection, pipeline, session, own, asking)
            finish(connection, stage, own, made)
        counts, new = counts | made, new + added
    return minutes, counts, new


def unfinished(connection: Connection, stage: Stage, minutes: Minutes) -> set[datetime]:
    """Those of the minutes that the stage has not decided yet."""
    done = finished_minutes(connection, [stage.name], minutes.start, minutes.end)
    return {minute for _, minute in minutes.pairs if minute not in done}


def known_late(
    connection: Connection,
    stage: Stage,
    session: Session,
    minutes: Minutes,
    new: Collection[datetime],
    pipeline: Pipeline,
) -> dict[datetime, datetime]:
    """From when on the decisions of these minutes could be known that come after their cut-off.

    A new one does that has been decided without it already: by a later minute, or by who reads it
    in the same one. In a replay each counts as made in time, as recorded rows do.
    """
    between = session.day, minutes.start, minutes.end
    late = late_decisions(connection, stage.name, *between)
    readers = [reader.name for reader in READERS[stage]]
    missed = passed_minutes(connection, readers, *between).intersection(new)
    stamp = pipeline.stamp(connection) if missed else None
    return late | dict.fromkeys(missed, stamp) if stamp else late


def require_kept(
    connection: Connection,
    stage: Stage,
    minutes: Minutes,
    stored: Mapping[datetime, Sequence[object]],
) -> None:
    """Say so where rows of these minutes were removed: what is gone cannot be compared.

    Raises:
        BadInput: with the first such minute.
    """
    made = finished_counts(connection, stage.name, minutes.start, minutes.end)
    for minute in sorted(made):
        if len(stored.get(minute, ())) < made[minute]:
            raise BadInput(
                f"{stage.name} of {minute.isoformat()} were decided, and are kept no longer:"
                " this minute cannot be computed again",
                "ask for later minutes only; OPS_KEEP_SIGNALS_DAYS says how many days are kept",
            )


def require_equal(
    stage: Stage,
    computed: Mapping[datetime, Sequence[object]],
    stored: Mapping[datetime, Sequence[object]],
    *,
    except_minutes: Collection[datetime],
) -> None:
    """Fail where a decision that stands reads differently now; what was decided is not rewritten.

    Raises:
        dagster.Failure: with the first minute that differs, and both values.
    """
    for minute in sorted({*computed, *stored} - set(except_minutes)):
        now, then = list(computed.get(minute, ())), list(stored.get(minute, ()))
        if now != then:
            raise dg.Failure(
                f"{stage.name} of {minute.isoformat()} were decided before, and differ now;"
                " start the replay anew with --rebuild",
                metadata={"stored": _first(then, now), "computed": _first(now, then)},
                allow_retries=False,
            )


def _first(ours: Sequence[object], theirs: Sequence[object]) -> str:
    return next((str(value) for value in ours if value not in theirs), "nothing")
