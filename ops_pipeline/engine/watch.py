"""What an instance of Dagster says of itself: what was stopped, who lives, how runs ended."""

from dataclasses import dataclass
from datetime import datetime

from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus

LONGEST = 500
ENDED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]


@dataclass(frozen=True)
class EndedRun:
    """A run that has ended, and its error in one line."""

    run_id: str
    status: str
    error: str = ""


@dataclass(frozen=True)
class Watch:
    """One instance, asked by the names of schedules, sensors and jobs."""

    instance: DagsterInstance

    def stopped(self) -> list[str]:
        """Schedules and sensors that somebody has stopped."""
        return sorted(state.instigator_name for state in self._stopped())

    def start(self, name: str) -> None:
        """Let it run as the code says, from now on."""
        for state in self._stopped():
            if state.instigator_name == name:
                running = state.with_status(InstigatorStatus.DECLARED_IN_CODE)
                self.instance.update_instigator_state(running)

    def silent_seconds(self, now: datetime) -> float | None:
        """How long ago the daemon that was heard last gave a sign; None where none ever did."""
        beats = [beat.timestamp for beat in self.instance.get_daemon_heartbeats().values()]
        return now.timestamp() - max(beats) if beats else None

    def last_run(self, job: str) -> EndedRun | None:
        """The newest run of a job that has ended."""
        wanted = RunsFilter(job_name=job, statuses=ENDED)
        runs = self.instance.get_runs(wanted, limit=1)
        if not runs:
            return None
        (run,) = runs
        return EndedRun(run.run_id, run.status.value, self._error(run.run_id, run.is_success))

    def _error(self, run_id: str, is_success: bool) -> str:  # noqa: FBT001 - of one run
        kinds = {DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE}
        events = [] if is_success else self.instance.all_logs(run_id, of_type=kinds)
        for event in events:
            failure = event.dagster_event and event.dagster_event.event_specific_data
            error = getattr(failure, "error", None)
            while error is not None and error.cause is not None:
                error = error.cause
            if error is not None:
                return _one_line(str(error.message))
        return _one_line(events[0].message or "") if events else ""

    def _stopped(self) -> list[InstigatorState]:
        states = self.instance.all_instigator_state()
        return [state for state in states if state.status is InstigatorStatus.STOPPED]


def _one_line(text: str) -> str:
    return " ".join(text.split())[:LONGEST]
