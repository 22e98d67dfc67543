"""Stage dispatch: recommendations through the gates, each executed at most once."""

from datetime import date

import dagster as dg

from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.dispatcher.replay import Played, play
from ops_pipeline.dispatcher.run import run_until_idle
from ops_pipeline.domain.errors import BadInput


class DispatchConfig(dg.Config):
    """What a run of the dispatcher may be told: in a replay, which session to play."""

    session: str | None = None


def materialize(
    context: dg.AssetExecutionContext, config: DispatchConfig, pipeline: Pipeline
) -> dg.MaterializeResult[object]:
    """One row for each executed recommendation; running again finds nothing left to do."""
    desk = pipeline.desk(context.run.run_id)
    if config.session is None:
        played = Played()
        for report in run_until_idle(desk):
            played = played.plus(report)
    else:
        session = pipeline.calendar.on(date.fromisoformat(config.session))
        if session is None:
            raise BadInput(f"{config.session} is no session")
        minutes = session.minutes()
        played = play(
            desk,
            minutes,
            pipeline.timing,
            on_minute=lambda _: pipeline.progress("dispatch", 1 / len(minutes)),
        )
    return dg.MaterializeResult(metadata={**played.__dict__, "mode": pipeline.mode.value})
