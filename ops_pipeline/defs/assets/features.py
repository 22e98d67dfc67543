"""Stage features: what dbt computes from bars and scores."""

from datetime import datetime

import dagster as dg

from ops_pipeline.defs import dbt
from ops_pipeline.defs.minutes import Minutes, finish, result
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.stages import FEATURES
from ops_pipeline.storage import features as storage
from ops_pipeline.storage.engine import lock_knowledge
from ops_pipeline.storage.knowledge import counts_by_minute, read_now, stamp_cutoffs


def materialize(minutes: Minutes, pipeline: Pipeline) -> dg.MaterializeResult[object]:
    """One row for each ticker and minute with enough bars, from what was known at its cut-off."""
    _stamp(pipeline, minutes)
    models = {}
    if minutes.pairs:
        window = dbt.window_vars(minutes.start, minutes.end, pipeline.classifier.model)
        nodes = dbt.run(pipeline.settings, "run", window).values()
        models = {node.name: {"rows": node.rows, "seconds": node.seconds} for node in nodes}
    with pipeline.engine.begin() as connection:
        counts = counts_by_minute(connection, FEATURES.name, minutes.start, minutes.end)
        missing = storage.missing_between(connection, minutes.start, minutes.end)
        finish(connection, FEATURES, minutes, counts)
    seconds = sum(model["seconds"] for model in models.values())
    return result(minutes, sum(counts.values()), models=models, model_seconds=seconds, **missing)


def _stamp(pipeline: Pipeline, minutes: Minutes) -> None:
    """From here on nothing more may be known for these minutes."""
    with pipeline.engine.begin() as connection:
        # Whoever is writing rows with an earlier instant finishes before the cut-off is read.
        lock_knowledge(connection, exclusive=True)
        now = read_now(connection, pipeline.mode) if pipeline.mode.is_live else None
        cutoffs = {m: _cutoff(m, now, pipeline) for _, m in minutes.pairs}
        stamp_cutoffs(connection, minutes.pairs, cutoffs, minutes.run_id, pipeline.calendar)


def _cutoff(minute: datetime, now: datetime | None, pipeline: Pipeline) -> datetime:
    return now or pipeline.timing.as_of(minute)
