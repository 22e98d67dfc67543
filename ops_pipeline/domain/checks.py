"""The catalogue of checks: read by the command line, the asset checks, the docs and the tests.

To add one: a function in judges.py that turns its rows into a level, numbers in ranges.py, an entry
in CHECKS here, a query of the same name in storage/sql/acceptance.sql (asked with :now and, where
it names them, :today, :day, :opens_at, :closes_at, :before), and a violation in the tests' table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from ops_pipeline.domain import cost, judges, ranges
from ops_pipeline.domain.acceptance import (
    BACKLOG,
    DUPLICATES,
    RUNS,
    STUCK,
    VOLUME,
    Level,
    Verdict,
)
from ops_pipeline.domain.judges import Found, Rows
from ops_pipeline.domain.ranges import Present
from ops_pipeline.domain.stages import DISPATCH, Stage

COST = "cost_per_day"
SERVICES_RUN, SKIPS, BAR_AGE = "services_are_running", "skip_reasons", "execution_freshness"
IN_A_REPLAY = "not run: a replay's clock is the past"
DRIFT = "config_drift"
EXECUTIONS, SLO = "executions", "pipeline_slo"


class Kept(StrEnum):
    """What became of the runbook's number."""

    KEPT = "kept"
    SCALED = "scaled"
    CORRECTED = "corrected"
    ADDED = "added"


@dataclass(frozen=True)
class Check:
    """One check: what it says of which asset, what is normal, and how bad it is if not.

    `level` is its worst one. A check of services says nothing while one of them is switched off.
    Its rows are those of `queries`, or else of the query of its own name; `judge` takes the rows of
    each.
    """

    name: str
    asset: str
    section: str
    says: str
    normal: str
    problem: str
    level: Level
    runbook: str
    kept: Kept
    why: str
    judge: Callable[..., Found]
    scales: str = "-"
    services: tuple[Stage, ...] = ()
    is_for_replay: bool = True
    queries: tuple[str, ...] = ()

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of its queries."""
        return self.queries or (self.name,)

    def silence(self, present: Present) -> str | None:
        """Why it says nothing at a present; None where it speaks."""
        if not (present.is_live or self.is_for_replay):
            return IN_A_REPLAY
        off = [stage.service for stage in self.services if stage.service in present.off]
        return f"not run: {off[0]} is switched off, or came back a moment ago" if off else None

    def verdict(self, present: Present, *rows: Rows) -> Verdict:
        """What the rows of its queries mean at a present."""
        found = self.judge(present, *rows)
        return Verdict(self.name, found.level, found.finding, found.observed, found.expected)

    def silent(self, reason: str) -> Verdict:
        """The verdict of a check that says nothing."""
        return Verdict(self.name, Level.NORMAL, reason, {}, self.normal)


CHECKS = (
    Check(
        name=BACKLOG,
        asset=EXECUTIONS,
        section="Query 1: Backlog State",
        says="Few recommendations wait.",
        normal=f"PENDING 0-{ranges.PENDING_MAX}",
        problem=f"PENDING > {ranges.PENDING_MAX}",
        level=Level.HIGH,
        runbook="PENDING 0-20, SIMULATED 10-200, SKIPPED 50-500, PROCESSING 0",
        kept=Kept.SCALED,
        why="SIMULATED and SKIPPED are counts of all time, which only grow: days are judged by"
        " decision_volume. A run that is at work holds rows for a moment, so PROCESSING is judged"
        " by its age, as the runbook's own problem says, in query 2.",
        judge=judges.backlog_state,
        scales="tickers",
        services=(DISPATCH,),
    ),
    Check(
        name=STUCK,
        asset=EXECUTIONS,
        section="Query 2: Stuck Processing",
        says="Nothing has been PROCESSING for more than ten minutes.",
        normal="0",
        problem="> 0",
        level=Level.HIGH,
        runbook="0",
        kept=Kept.KEPT,
        why="The lease of a claim gives a row back within five minutes; ten mean that no run does.",
        judge=judges.stuck_processing,
    ),
    Check(
        name=DUPLICATES,
        asset=EXECUTIONS,
        section="Query 3: Duplicate Executions",
        says="No recommendation was executed twice; one that was sets HALTED at once.",
        normal="no rows",
        problem="any row",
        level=Level.CRITICAL,
        runbook="empty result",
        kept=Kept.KEPT,
        why="The ledger's unique constraint refuses it; a database without it must not trade on.",
        judge=judges.duplicate_executions,
    ),
    Check(
        name=RUNS,
        asset=EXECUTIONS,
        section="Query 4: Recent Dispatcher Runs",
        says="The dispatcher's runs finish, and while the market is open one is recent.",
        normal=f"all finished, one in the last {ranges.RUN_AGE_MINUTES} min while open",
        problem=f"unfinished for {ranges.RUN_SECONDS} s, or none for {ranges.RUN_AGE_MINUTES} min",
        level=Level.HIGH,
        runbook="all have finished_at, duration 2-10 s",
        kept=Kept.CORRECTED,
        why="A container took 2 s to start; a run here takes tens of milliseconds, so there is no"
        " low end, and run_durations judges the high one. A run at work has no finished_at yet:"
        f" {ranges.RUN_SECONDS} s are the longest that Dagster lets it live.",
        judge=judges.recent_dispatcher_runs,
        services=(DISPATCH,),
    ),
    Check(
        name=VOLUME,
        asset=EXECUTIONS,
        section="Query 5: Execution Volume",
        says="Neither a runaway nor a stall.",
        normal=f"0-{ranges.EXECUTIONS_MAX} a day",
        problem=f"> {ranges.EXECUTIONS_RUNAWAY} today (runaway, high), or 0 since the session"
        " before opened (stall, medium)",
        level=Level.HIGH,
        runbook="0-100 per day; problem > 200, or 0 for 24+ hours",
        kept=Kept.CORRECTED,
        why="CURRENT_DATE begins at midnight UTC, which is 19:00 or 20:00 in New York: today begins"
        " at midnight at the exchange. Twenty-four hours of a weekend hold no trading: a stall is"
        " counted from the open of the session before.",
        judge=judges.execution_volume,
        scales="tickers",
        services=(DISPATCH,),
        queries=(VOLUME, "executions_since"),
    ),
    Check(
        name=SKIPS,
        asset=EXECUTIONS,
        section="Issue: No Trades Happening",
        says="Not everything is skipped.",
        normal="an execution in the session",
        problem=f"{ranges.SKIPPED_MIN} skips or more in the last hour, and no execution in the"
        " session",
        level=Level.MEDIUM,
        runbook="all SKIPPED, or no PENDING within the last 60 minutes",
        kept=Kept.CORRECTED,
        why="On a good day the gates skip eight of ten, and limits that trades have reached skip"
        " the rest of the day: an hour of skips alone is no fault. What a halt skips does not"
        " count. A row waits for seconds: that none is PENDING is normal.",
        judge=judges.skip_reasons,
        services=(DISPATCH,),
    ),
    Check(
        name=BAR_AGE,
        asset=EXECUTIONS,
        section="Issue: Data Freshness Violations",
        says="No execution of the last hour was priced by an old bar.",
        normal=f"<= {ranges.BAR_AGE_SECONDS} s",
        problem=f"> {ranges.BAR_AGE_SECONDS} s, or without its bar",
        level=Level.HIGH,
        runbook="executions using bars > 120s old",
        kept=Kept.KEPT,
        why="Counted from the bar's end, as the gate bar_freshness does; counted from its start no"
        " execution could keep it.",
        judge=judges.execution_freshness,
    ),
    Check(
        name=SERVICES_RUN,
        asset=SLO,
        section="Check If Service Executed Recently",
        says="Each service that is on has finished a minute lately.",
        normal=f"within {ranges.SERVICE_SECONDS} s of the minute's end",
        problem="later: one service (high), every service (critical)",
        level=Level.CRITICAL,
        runbook="logs within last 5-10 minutes; 7 schedules ENABLED, 0 persistent tasks",
        kept=Kept.CORRECTED,
        why="A log line is no work done: the newest finished minute is. A minute is finished within"
        f" two minutes of its start; {ranges.SERVICE_SECONDS} s from its end leave one to be late,"
        " and find an outage of three minutes. There is one schedule for six services and a sensor"
        " for the seventh, and the daemon that ticks them has to persist.",
        judge=judges.services_are_running,
        is_for_replay=False,
    ),
    Check(
        name=COST,
        asset=SLO,
        section="Cost Baselines",
        says="A day's work would cost no more on AWS than it should.",
        normal=f"<= {cost.NORMAL_USD:.2f} USD",
        problem=f"> {cost.NORMAL_USD:.2f} USD (low), > {cost.CRITICAL_USD:.2f} USD (critical)",
        level=Level.CRITICAL,
        runbook="daily $1.00-$1.50, monthly $35-$40, cost spike > $5/day",
        kept=Kept.CORRECTED,
        why="Measured task-seconds at the prices of a table, as if each service were a container of"
        " its own: no bill, and on one machine nothing is paid. Half a dollar more than the"
        " runbook's is normal, since addresses are billed and the trade stream runs all day; less"
        " is no problem. 5 USD are kept.",
        judge=judges.cost_per_day,
        scales="session",
        is_for_replay=False,
    ),
    Check(
        name=DRIFT,
        asset=EXECUTIONS,
        section="Configuration Management",
        says="What runs is the newest version of the settings, and all of them can be used.",
        normal="the newest version runs",
        problem="something is present but invalid (high); an older version runs, or what was set"
        f" for a time is {ranges.SETTINGS_SECONDS} s late (medium); SSM does not answer (low)",
        level=Level.HIGH,
        runbook="log all changes",
        kept=Kept.ADDED,
        why="A change by hand is recorded as a version within a tick; what cannot be used stops the"
        " dispatcher rather than being left out.",
        judge=judges.config_drift,
        is_for_replay=False,
    ),
)
NAMES = tuple(check.name for check in CHECKS)
