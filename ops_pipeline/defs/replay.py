"""Plays sessions through Dagster in this process: data in one run, then dispatch, then checks."""

from typing import Any

import dagster as dg
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from ops_pipeline.defs.partitions import range_of
from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.session import Calendar, Session
from ops_pipeline.domain.stages import FEATURES
from ops_pipeline.settings import Mode

FEATURES_KEY = dg.AssetKey(FEATURES.name)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Player:
    """Runs the jobs of one code location over sessions, and keeps their events in its instance."""

    def __init__(
        self, definitions: dg.Definitions, instance: dg.DagsterInstance, calendar: Calendar
    ) -> None:
        self._definitions = definitions
        self._instance = instance
        self._calendar = calendar

    def data(self, session: Session) -> None:
        """All data stages of a session, as one range run."""
        first, last = range_of(session, self._calendar)
        self._execute(
            "minute_job",
            tags={ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last},
        )

    def dispatch(self, session: Session) -> None:
        """The dispatcher over each minute of a session, and the acceptance queries at its end."""
        config = {"ops": {"executions": {"config": {"session": session.day.isoformat()}}}}
        self._execute("dispatch_job", run_config=config)

    def check(self) -> list[Verdict]:
        """Ask every check at the present of the replay. Returns the verdicts of dbt's tests."""
        outcome = self._execute("acceptance_job")
        found = outcome.get_asset_check_evaluations()
        return [_verdict(e) for e in found if e.asset_key == FEATURES_KEY]

    def _execute(
        self,
        job: str,
        tags: dict[str, str] | None = None,
        run_config: dict[str, Any] | None = None,
    ) -> dg.ExecuteInProcessResult:
        return self._definitions.resolve_job_def(job).execute_in_process(
            instance=self._instance,
            run_config={**QUIET, **(run_config or {})},
            tags={"ops/mode": Mode.REPLAY.value, **(tags or {})},
        )


def _verdict(evaluation: dg.AssetCheckEvaluation) -> Verdict:
    level = Level.NORMAL if evaluation.passed else Level.PROBLEM
    return Verdict(evaluation.check_name, level, str(evaluation.metadata["dbt"].value))
