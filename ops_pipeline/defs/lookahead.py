"""Runs the look-ahead proof with the stages' own code, in a scratch."""

from collections.abc import Callable
from datetime import datetime

from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.defs.tick import tick
from ops_pipeline.domain.session import Session
from ops_pipeline.domain.stages import FEATURES, SIGNALS, WATCHLIST
from ops_pipeline.proofs.lookahead import SAMPLES, Lookahead, prove, sample_minutes
from ops_pipeline.proofs.scratch import entered, environment, scratch
from ops_pipeline.settings import Settings
from ops_pipeline.storage.copies import copy_session
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.knowledge import late_decisions

DECIDING = (FEATURES, WATCHLIST, SIGNALS)
# Where the watchlist came too late, the signals had been decided without it.
DECIDING_LATE = (FEATURES, SIGNALS, WATCHLIST)
NAME = "lookahead_check"


def play_and_prove(
    settings: Settings, session: Session, samples: int, on_minute: Callable[[datetime], None]
) -> Lookahead:
    """Play a session's data in a scratch as one range, and prove it."""
    pipeline = Pipeline(settings)
    minutes = session.minutes()
    tick(pipeline, minutes[0], minutes[-1])
    return _prove(pipeline, session, samples, on_minute)


def copy_and_prove(settings: Settings, session: Session) -> Lookahead:
    """Copy a session that was decided into a scratch, and prove it there."""
    with (
        scratch(settings, NAME) as made,
        opened(settings) as source,
        opened(made) as target,
    ):
        copy_session(source, target, session)
        with entered(environment(settings, NAME)) as inside:
            return _prove(Pipeline(inside), session, SAMPLES, lambda _: None)


def _prove(
    pipeline: Pipeline, session: Session, samples: int, on_minute: Callable[[datetime], None]
) -> Lookahead:
    between = session.day, session.opens_at, session.closes_at
    with pipeline.engine.connect() as connection:
        late = late_decisions(connection, WATCHLIST.name, *between)

    def recompute(minute: datetime) -> None:
        tick(pipeline, minute, minute, DECIDING_LATE if minute in late else DECIDING)

    minutes = sample_minutes(session, samples)
    model = pipeline.classifier.model
    try:
        return prove(pipeline.engine, session, minutes, model, recompute, on_minute)
    finally:
        pipeline.engine.dispose()
