"""Stage dispatch: recommendations through the gates, each executed at most once."""

from datetime import date, datetime

import dagster as dg

from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.dispatcher.replay import Played, play
from ops_pipeline.dispatcher.run import Desk
from ops_pipeline.dispatcher.turn import sweep, take_turn
from ops_pipeline.domain.errors import BadInput, OperatorError
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.stages import SIGNALS
from ops_pipeline.engine.logs import told_events
from ops_pipeline.operations.explain import explain_run
from ops_pipeline.operations.explain_page import as_note
from ops_pipeline.storage.knowledge import finished_minutes


class DispatchConfig(dg.Config):
    """What a run of the dispatcher may be told: in a replay, which session to play."""

    session: str | None = None


def materialize(
    context: dg.AssetExecutionContext, config: DispatchConfig, pipeline: Pipeline
) -> dg.MaterializeResult[object]:
    """One row for each executed recommendation; running again finds nothing left to do."""
    if config.session is None:
        with told_events("ops_pipeline"):
            desk = _desk(context, pipeline)
            settings = _tagged(context, desk)
            played = _turn(desk)
    else:
        desk = pipeline.desk(context.run.run_id)
        settings = _tagged(context, desk)
        session = pipeline.calendar.on(date.fromisoformat(config.session))
        if session is None:
            raise BadInput(f"{config.session} is no session")
        minutes = session.minutes()
        _require_signals(pipeline, minutes)
        played = play(
            desk,
            minutes,
            pipeline.timing,
            on_minute=lambda _: pipeline.progress("dispatch", 1 / len(minutes)),
        )
    explained = _explained(pipeline, context.run.run_id)
    return dg.MaterializeResult(
        metadata={
            **played.__dict__,
            **settings,
            "mode": pipeline.mode.value,
            "explained": explained,
        }
    )


def _tagged(context: dg.AssetExecutionContext, desk: Desk) -> dict[str, str]:
    """Let the run tell under which settings it decides."""
    settings = {
        "config_version": str(desk.config_version),
        "config_hash": desk.config.fingerprint(),
    }
    tags = {f"ops/{name}": value for name, value in settings.items()}
    context.instance.add_run_tags(context.run.run_id, tags)
    return settings


def _turn(desk: Desk) -> Played:
    played = Played()
    for report in take_turn(desk):
        played = played.plus(report)
    return played


def _desk(context: dg.AssetExecutionContext, pipeline: Pipeline) -> Desk:
    """The desk; without usable settings or a broker nothing trades, and what is old still ends."""
    try:
        return pipeline.desk(context.run.run_id)
    except OperatorError:
        sweep(pipeline.engine, pipeline.now())
        raise


def _require_signals(pipeline: Pipeline, minutes: list[datetime]) -> None:
    """A minute is played once: what would be recommended in it later would wait for ever."""
    with pipeline.engine.connect() as connection:
        done = finished_minutes(connection, [SIGNALS.name], minutes[0], minutes[-1] + MINUTE)
    if len(done) < len(minutes):
        raise BadInput(f"signals are there for {len(done)} of {len(minutes)} minutes")


def _explained(pipeline: Pipeline, run_id: str) -> dg.MetadataValue[str]:
    """The newest executions of this run, each in a few lines."""
    with pipeline.engine.connect() as connection:
        notes = [as_note(found) for found in explain_run(connection, run_id)]
    return dg.MetadataValue.md("\n\n".join(notes) or "no execution in this run")
