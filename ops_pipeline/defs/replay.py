"""Plays sessions through Dagster in this process: data, dispatch and checks, each as one run."""

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from ops_pipeline.defs.jobs import LANE
from ops_pipeline.defs.partitions import partition_key
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.defs.tick import tick
from ops_pipeline.dispatcher.replay import play
from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.checks import NAMES
from ops_pipeline.domain.session import Session
from ops_pipeline.engine.forks import Worker
from ops_pipeline.engine.launcher import worker_tags
from ops_pipeline.settings import Mode

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Player:
    """Runs the jobs of one code location over sessions, and keeps their events in its instance."""

    def __init__(
        self, definitions: dg.Definitions, instance: dg.DagsterInstance, mode: Mode
    ) -> None:
        self._definitions = definitions
        self._instance = instance
        self._mode = mode
        self._pipeline: Pipeline = (definitions.resources or {})["pipeline"]

    def beside(self, instance: dg.DagsterInstance) -> "Player":
        """The same, with its events in another instance."""
        return Player(self._definitions, instance, self._mode)

    def data(self, session: Session) -> None:
        """All data stages of a session, as one range run.

        It has a lane of its own: the tick of the live minute does not wait for it.
        """
        minutes = session.minutes()
        self.minutes(minutes[0], minutes[-1])

    def minutes(self, first: datetime, last: datetime) -> None:
        """All data stages from one minute to another, as one run."""
        start, end = (partition_key(at, self._mode.calendar) for at in (first, last))
        self._execute(
            "minute_job",
            tags={
                ASSET_PARTITION_RANGE_START_TAG: start,
                ASSET_PARTITION_RANGE_END_TAG: end,
                LANE: "backfill",
            },
        )

    def dispatch(self, session: Session) -> None:
        """The dispatcher over each minute of a session, and the acceptance queries at its end."""
        config = {"ops": {"executions": {"config": {"session": session.day.isoformat()}}}}
        self._execute("dispatch_job", run_config=config)

    def tick(self, minute: datetime) -> None:
        """The data stages of one minute, without a run around them."""
        tick(self._pipeline, minute, minute)

    def trade(self, minutes: Sequence[datetime], on_minute: Callable[[datetime], None]) -> None:
        """The dispatcher over each of these minutes, without a run around it."""
        play(self._pipeline.desk(""), minutes, self._pipeline.timing, on_minute)

    def check(self) -> list[Verdict]:
        """Ask every check at the present of the replay.

        Returns:
            The verdicts of the checks that do not stand in the catalogue.
        """
        outcome = self._execute("acceptance_job")
        found = outcome.get_asset_check_evaluations()
        return [_verdict(e) for e in found if e.check_name not in NAMES]

    def _execute(
        self,
        job: str,
        tags: dict[str, str] | None = None,
        run_config: dict[str, Any] | None = None,
    ) -> dg.ExecuteInProcessResult:
        # A daemon of this mode, if one runs, sees that somebody is at work.
        by = worker_tags(Worker.current(os.getpid()))
        return self._definitions.resolve_job_def(job).execute_in_process(
            instance=self._instance,
            run_config={**QUIET, **(run_config or {})},
            tags={"ops/mode": self._mode.value, **by, **(tags or {})},
        )


def _verdict(evaluation: dg.AssetCheckEvaluation) -> Verdict:
    told = evaluation.metadata.get("level")
    level = Level.NORMAL if evaluation.passed else Level.HIGH
    if told and Level(str(told.value)).is_normal:
        level = Level(str(told.value))
    finding = evaluation.description or str(evaluation.metadata["dbt"].value)
    return Verdict(evaluation.check_name, level, finding)
