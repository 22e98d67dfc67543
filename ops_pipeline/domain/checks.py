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
from ops_pipeline.domain.bars import FRESH_SECONDS
from ops_pipeline.domain.features import MAX_BAR_AGE_MINUTES, WINDOW_SESSIONS
from ops_pipeline.domain.judges import Found, Rows
from ops_pipeline.domain.ranges import BASELINES, Present
from ops_pipeline.domain.sentiment import FEW_STORIES, LEAST_LINKED, LEAST_SCORED, LINKED, SCORED
from ops_pipeline.domain.stages import (
    BARS,
    DISPATCH,
    FEATURES,
    NEWS,
    SENTIMENT,
    SIGNALS,
    WATCHLIST,
    Stage,
)

COST = "cost_per_day"
SERVICES_RUN, SKIPS, BAR_AGE = "services_are_running", "skip_reasons", "execution_freshness"
FRESH, BAR_VOLUME, COMPLETENESS = "bars_are_fresh", "bar_volume", "feature_completeness"
CADENCE, NEWS_VOLUME, SCORE_VOLUME = "watchlist_cadence", "news_volume", "sentiment_volume"
SIGNAL_VOLUME, DECISIONS, GROWTH = "signal_volume", "decision_volume", "backlog_growth"
ABANDONED, ORDERS, DURATIONS = "abandoned_runs", "duplicate_orders", "run_durations"
SKEW, UNCLOSED, TICKERS_HAVE_BARS = "clock_skew", "unclosed_positions", "tickers_have_bars"
VARIES = (
    "A day's normal range, and no problem, is what the runbook gives. Days vary, so a problem"
    " begins at a fifth of the low end and at twice the high end, and only from half of a session"
    " on; finished minutes count, so a day that began at noon is held to its half."
)
IN_A_REPLAY = "a replay's clock is the past"
DRIFT = "config_drift"
EXECUTIONS, SLO, STREAM = "executions", "pipeline_slo", "trade_stream"


class Kept(StrEnum):
    """What became of the runbook's number."""

    KEPT = "kept"
    SCALED = "scaled"
    CORRECTED = "corrected"
    ADDED = "added"


@dataclass(frozen=True)
class Check:
    """One check: what it says of which asset, what is normal, and how bad it is if not.

    `level` is its worst one; `next_step` is the verb that looks closer, without the program's name.
    A check of services says nothing while one of them is switched off. Its rows are those of
    `queries`, or else of the query of its own name; `judge` takes the rows of each.
    """

    name: str
    asset: str
    section: str
    says: str
    normal: str
    problem: str
    level: Level
    next_step: str
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
        return f"{off[0]} is switched off, or came back a moment ago" if off else None

    def verdict(self, present: Present, *rows: Rows) -> Verdict:
        """What the rows of its queries mean at a present."""
        found = self.judge(present, *rows)
        return Verdict(self.name, found.level, found.finding, found.observed, found.expected)

    def silent(self, reason: str) -> Verdict:
        """The verdict of a check that says nothing."""
        return Verdict(self.name, Level.NOT_APPLICABLE, reason, {}, self.normal)


CHECKS = (
    Check(
        name=BACKLOG,
        asset=EXECUTIONS,
        section="Query 1: Backlog State",
        says="Few recommendations wait.",
        normal=f"PENDING 0-{ranges.PENDING_MAX}",
        problem=f"PENDING > {ranges.PENDING_MAX}",
        level=Level.HIGH,
        next_step="runbook diagnose backlog-growing",
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
        next_step="runbook diagnose stuck-processing",
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
        next_step="runbook diagnose duplicate-executions",
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
        next_step="runbook diagnose backlog-growing",
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
        next_step="status",
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
        " session, an hour after its first decision",
        level=Level.MEDIUM,
        next_step="runbook diagnose no-trades-happening",
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
        says="No order of the last hour was opened on an old bar.",
        normal=f"<= {ranges.BAR_AGE_SECONDS} s",
        problem=f"> {ranges.BAR_AGE_SECONDS} s, or without its bar",
        level=Level.HIGH,
        next_step="runbook diagnose data-freshness-violations",
        runbook="executions using bars > 120s old",
        kept=Kept.KEPT,
        why="Counted from the bar's end, as the gate bar_freshness does; counted from its start no"
        " execution could keep it. Closing orders need no fresh bar.",
        judge=judges.execution_freshness,
        queries=(BAR_AGE, "opening_freshness"),
    ),
    Check(
        name=SERVICES_RUN,
        asset=SLO,
        section="Check If Service Executed Recently",
        says="Each service that is on has finished a minute lately.",
        normal=f"within {ranges.SERVICE_SECONDS} s of the minute's end",
        problem="later: one service (high), every service (critical)",
        level=Level.CRITICAL,
        next_step="runbook diagnose check-if-service-executed-recently",
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
        name=GROWTH,
        asset=EXECUTIONS,
        section="Issue: Backlog Growing",
        says="What waits does not grow from hour to hour.",
        normal="no growth",
        problem=f"more than an hour ago, then more than two hours ago, and > {ranges.GROWTH_MIN}",
        level=Level.HIGH,
        next_step="runbook diagnose backlog-growing",
        runbook="PENDING count increases hour over hour",
        kept=Kept.KEPT,
        why="There is no history of the queue's depth to be kept: each row tells from when to when"
        f" it waited. Up to {ranges.GROWTH_MIN} rows are those of the minute.",
        judge=judges.backlog_growth,
        services=(DISPATCH,),
    ),
    Check(
        name=DECISIONS,
        asset=EXECUTIONS,
        section="Normal Operating Ranges: Daily Volumes",
        says="A day's executions, skips and failures are those of a usual day.",
        normal=f"executed 5-50, skipped 20-200, FAILED 0-{ranges.FAILED_MAX}",
        problem=f"executed outside {ranges.EXECUTED_MIN}-{ranges.EXECUTED_MAX}, skipped outside"
        f" {ranges.SKIPS_MIN}-{ranges.SKIPS_MAX}, FAILED > {ranges.FAILED_MAX}",
        level=Level.LOW,
        next_step="runbook diagnose no-executions",
        runbook="executions 5-50, skipped 20-200",
        kept=Kept.SCALED,
        why=f"{VARIES} A runaway of executions is query 5's to find.",
        judge=judges.decision_volume,
        scales="session, tickers (skips)",
        services=(DISPATCH,),
    ),
    Check(
        name=ABANDONED,
        asset=EXECUTIONS,
        section="Query 4: Recent Dispatcher Runs",
        says="The dispatcher's runs end by themselves.",
        normal="none",
        problem="one that was given up for dead in the last day (low), or that nobody closes for"
        f" {ranges.OPEN_MINUTES} min (high)",
        level=Level.HIGH,
        next_step="runbook diagnose backlog-growing",
        runbook="NULL finished_at",
        kept=Kept.ADDED,
        why="Ten runs are ten minutes: query 4 forgets a run that died before. The next run closes"
        " what a dead one left open, so an open one means that there is no next run.",
        judge=judges.abandoned_runs,
    ),
    Check(
        name=FRESH,
        asset="bars",
        section="Issue: Data Freshness Violations",
        says=f"While the market is open, the newest bar ended at most {FRESH_SECONDS} s ago.",
        normal=f"<= {FRESH_SECONDS} s",
        problem=f"> {FRESH_SECONDS} s",
        level=Level.HIGH,
        next_step="runbook diagnose data-freshness-violations",
        runbook="telemetry service not running",
        kept=Kept.ADDED,
        why="A service may run and fetch nothing: the age of the data is what trading stands on.",
        judge=judges.bars_are_fresh,
        services=(BARS,),
    ),
    Check(
        name=BAR_VOLUME,
        asset="bars",
        section="Normal Operating Ranges: Daily Volumes",
        says="Of each tracked ticker and finished minute there is a bar, mostly.",
        normal="7 tickers x 390 minutes = 2,730 a day",
        problem=f"< {ranges.BARS_SHARE:.0%} of tickers x minutes, from {ranges.BARS_MINUTES}"
        " minutes on",
        level=Level.MEDIUM,
        next_step="doctor",
        runbook="5,000-10,000 (7 tickers x 390 minutes x 1.2)",
        kept=Kept.CORRECTED,
        why="Its own arithmetic gives 3,276, and there is one bar for each minute, not 1.2: 2,730"
        " is the most that there can be. A minute without a trade has no bar.",
        judge=judges.bar_volume,
        scales="session, tickers",
        services=(BARS,),
    ),
    Check(
        name=TICKERS_HAVE_BARS,
        asset=BARS.name,
        section="Normal Operating Ranges: Daily Volumes",
        says=f"Each tracked ticker has had a bar in the last {MAX_BAR_AGE_MINUTES} minutes in which"
        " others had some.",
        normal="every ticker",
        problem=f"a ticker has no bar in the session, or (low) none for {MAX_BAR_AGE_MINUTES}"
        " minutes",
        level=Level.MEDIUM,
        next_step="universe list",
        runbook="nothing",
        kept=Kept.ADDED,
        why="One ticker of many may stop, be renamed or be halted, and no total shows it. Its"
        " features stop then, it leaves the watchlist, and nothing opens on it.",
        judge=judges.tickers_have_bars,
        services=(BARS,),
    ),
    Check(
        name=COMPLETENESS,
        asset=FEATURES.name,
        section="Normal Operating Ranges: Daily Volumes",
        says="Each ticker with 50 bars has a row in each minute that was finished lately.",
        normal="one row for each ticker and minute",
        problem=f"a row is missing in the last {ranges.FEATURES_MINUTES} minutes",
        level=Level.MEDIUM,
        next_step="runbook diagnose check-if-service-executed-recently",
        runbook="7 tickers per minute",
        kept=Kept.SCALED,
        why=f"With fewer than 50 bars in {WINDOW_SESSIONS} sessions, or none in the last"
        f" {MAX_BAR_AGE_MINUTES} minutes of trading, there is no row to expect: tickers_have_bars"
        " names such a ticker.",
        judge=judges.feature_completeness,
        scales="tickers",
        services=(FEATURES,),
    ),
    Check(
        name=CADENCE,
        asset=WATCHLIST.name,
        section="Normal Operating Ranges: Daily Volumes",
        says="Each fifth minute of the last hour was decided.",
        normal="12 an hour",
        problem="a decision is missing four minutes after its minute began",
        level=Level.MEDIUM,
        next_step="runbook diagnose check-if-service-executed-recently",
        runbook="12 per hour (every 5 min)",
        kept=Kept.KEPT,
        why="Counted from the open: the first hour, and that of a half day's end, hold fewer.",
        judge=judges.watchlist_cadence,
        services=(WATCHLIST,),
    ),
    Check(
        name=SIGNAL_VOLUME,
        asset=SIGNALS.name,
        section="Normal Operating Ranges: Daily Volumes",
        says="A day's signals to buy or to sell are those of a usual day.",
        normal="10-100",
        problem=f"outside {ranges.SIGNALS_MIN}-{ranges.SIGNALS_MAX}",
        level=Level.LOW,
        next_step="runbook diagnose no-trades-happening",
        runbook="10-100",
        kept=Kept.SCALED,
        why=f"{VARIES} The cool-down of 15 minutes lets 26 a day through for each ticker.",
        judge=judges.signal_volume,
        scales="session, tickers (high end)",
        services=(SIGNALS,),
    ),
    Check(
        name=NEWS_VOLUME,
        asset=NEWS.name,
        section="Normal Operating Ranges: Daily Volumes",
        says="The feeds are neither silent nor flooding.",
        normal="50-200",
        problem=f"outside {ranges.NEWS_MIN:,}-{ranges.NEWS_MAX:,}",
        level=Level.LOW,
        next_step="runbook diagnose check-if-service-executed-recently",
        runbook="RSS items fetched 50-200",
        kept=Kept.SCALED,
        why=f"{VARIES} News come in bursts: what a night left is fetched at the open, so the high"
        " end is ten times the runbook's.",
        judge=judges.news_volume,
        scales="session",
        services=(NEWS,),
    ),
    Check(
        name=SCORE_VOLUME,
        asset=SENTIMENT.name,
        section="Normal Operating Ranges: Daily Volumes",
        says="The stories of a day are scored.",
        normal="50-200",
        problem=f"outside {ranges.NEWS_MIN:,}-{ranges.NEWS_MAX:,}",
        level=Level.LOW,
        next_step="runbook diagnose check-if-service-executed-recently",
        runbook="sentiment classifications 50-200",
        kept=Kept.SCALED,
        why=f"{VARIES} As news_volume, of whose stories these are.",
        judge=judges.sentiment_volume,
        scales="session",
        services=(SENTIMENT, NEWS),
    ),
    Check(
        name=SCORED,
        asset=SENTIMENT.name,
        section="Normal Operating Ranges: Daily Volumes",
        says="The stories of the last day are scored, and no text was given up.",
        normal=f">= {LEAST_SCORED:.0%}, none given up",
        problem=f"< {LEAST_SCORED:.0%}, or one given up",
        level=Level.MEDIUM,
        next_step="doctor",
        runbook="sentiment classifications as many as RSS items",
        kept=Kept.ADDED,
        why="Two counts of a day may agree and be of other texts: each story's own score counts.",
        judge=judges.news_are_scored,
        services=(SENTIMENT,),
    ),
    Check(
        name=LINKED,
        asset=SENTIMENT.name,
        section="Normal Operating Ranges: Daily Volumes",
        says="The stories of the last day speak of tickers of the universe.",
        normal=f">= {LEAST_LINKED:.0%}, from {FEW_STORIES} stories on",
        problem=f"< {LEAST_LINKED:.0%}",
        level=Level.MEDIUM,
        next_step="universe list",
        runbook="nothing",
        kept=Kept.ADDED,
        why="Stories that name no ticker move no signal, however many come.",
        judge=judges.news_name_tickers,
    ),
    Check(
        name=DURATIONS,
        asset=SLO,
        section="Normal Operating Ranges: Performance Baselines",
        says="Half of the last hour's runs of each service keep the runbook's baseline.",
        normal=", ".join(f"{name} < {most} s" for name, most in BASELINES.items()),
        problem=f"the median is above, over {ranges.DURATIONS_MIN} runs or more",
        level=Level.LOW,
        next_step="slo",
        runbook="the same, and < 30 s for the classifier with FinBERT",
        kept=Kept.KEPT,
        why="News and bars are counted from the minute's end, features from its decision instant,"
        " the others from the stage before: there is no container to be started. One slow run is"
        " no baseline, so the median counts; single minutes are the SLO's (docs/runbook.md).",
        judge=judges.run_durations,
        is_for_replay=False,
    ),
    Check(
        name=SKEW,
        asset=SLO,
        section="Issue: Data Freshness Violations",
        says="Our clock and the database server's agree.",
        normal=f"within {ranges.SKEW_SECONDS:g} s",
        problem=f"further apart (medium), by more than {ranges.SKEW_WORST_SECONDS:g} s, or a"
        " dispatcher that opens nothing for it (high)",
        level=Level.HIGH,
        next_step="doctor",
        runbook="cause: clock skew",
        kept=Kept.ADDED,
        why="The runbook names the cause and measures nothing. Freshness compares stamps of both"
        " clocks; jumps and sleeps of this machine are told by clock_is_steady, the vendor's clock"
        " by ops-pipeline doctor.",
        judge=judges.clock_skew,
        is_for_replay=False,
    ),
    Check(
        name=UNCLOSED,
        asset=EXECUTIONS,
        section="Issue: No Trades Happening",
        says="Each position that had to be closed is closed.",
        normal=f"flat within {ranges.CLOSE_MINUTES} min",
        problem="held longer (high); a closing order was rejected, canceled or not handed over"
        " (critical, with the broker's message)",
        level=Level.CRITICAL,
        next_step="flatten",
        runbook="names no failed closing order",
        kept=Kept.ADDED,
        why="A position that stays after its stop, a flatten or the end of the session has no limit"
        " to its loss. The close is proposed again until the position is flat.",
        judge=judges.unclosed_positions,
    ),
    Check(
        name=ORDERS,
        asset=STREAM,
        section="Issue: Duplicate Executions",
        says="No order of ours stands twice at the broker; one that does sets HALTED at once.",
        normal="no rows",
        problem="any row",
        level=Level.CRITICAL,
        next_step="trade-stream --report",
        runbook="duplicate executions are a critical bug",
        kept=Kept.ADDED,
        why="The ledger holds what we decided once; that the broker took it once is the broker's to"
        " tell, by the id that each order carries.",
        judge=judges.duplicate_orders,
    ),
    Check(
        name=COST,
        asset=SLO,
        section="Cost Baselines",
        says="A day's work would cost no more on AWS than it should.",
        normal=f"<= {cost.NORMAL_USD:.2f} USD",
        problem=f"> {cost.NORMAL_USD:.2f} USD (low), > {cost.CRITICAL_USD:.2f} USD (critical)",
        level=Level.CRITICAL,
        next_step="cost",
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
        next_step="config show",
        runbook="log all changes",
        kept=Kept.ADDED,
        why="A change by hand is recorded as a version within a tick; what cannot be used stops the"
        " dispatcher rather than being left out.",
        judge=judges.config_drift,
        is_for_replay=False,
    ),
)
NAMES = tuple(check.name for check in CHECKS)
