"""What the minute loop promises an operator: which minutes count, and where its limits lie."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.session import MINUTE, Calendar, Session, Timing, both_zones, floor_minute
from ops_pipeline.domain.thresholds import SloRules

# The phases of a minute, each from one instant to another, and of the run that takes it.
CLOSE_TO_BARS, BARS_TO_FEATURES = "close_to_bars", "bars_to_features"
FEATURES_TO_SIGNALS, SIGNALS_TO_TERMINAL = "features_to_signals", "signals_to_terminal"
SETTLE_TO_SIGNALS, RUN_LAUNCH = "settle_to_signals", "run_launch"
MINUTE_PHASES = (
    CLOSE_TO_BARS,
    BARS_TO_FEATURES,
    FEATURES_TO_SIGNALS,
    SIGNALS_TO_TERMINAL,
    SETTLE_TO_SIGNALS,
)
PHASES = (*MINUTE_PHASES, RUN_LAUNCH)

PROMPT, SKIPPED = "signals_are_prompt", "no_minute_is_skipped"
LATE, GROWTH = "no_minute_is_late", "event_log_growth_is_bounded"
NAMES = (PROMPT, SKIPPED, LATE, GROWTH)

IN_A_REPLAY = "a replay is not measured: its clock is the past"
# Percentiles of fewer minutes say little.
FIRST_LOOK = timedelta(hours=1)
# Nor do percentiles of so few: a pipeline may have been installed in the middle of a session.
LEAST_MINUTES = 30
# Measured each hour, from an hour after the open on: by then it is due.
MEASURED_WITHIN = timedelta(hours=2)
# Files grow in steps; over less time than this a day's growth cannot be told.
GROWTH_MINUTES = 30
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Phase:
    """Seconds that a phase took, over so many minutes; None where it was none."""

    phase: str
    count: int
    p50_seconds: float | None = None
    p95_seconds: float | None = None
    p99_seconds: float | None = None
    max_seconds: float | None = None


@dataclass(frozen=True)
class Turns:
    """Count how a session's minutes were taken: due, skipped, late."""

    minutes: int
    skipped: int = 0
    late: int = 0
    first_skipped: datetime | None = None
    first_late: datetime | None = None
    # From when to when an operator had all of it down: those minutes were not due.
    operator_down: str = ""


@dataclass(frozen=True)
class Sizes:
    """Bytes on disk of Dagster's event log and of the pipeline's database, at an instant."""

    at: datetime
    event_log_bytes: int
    database_bytes: int


@dataclass(frozen=True)
class Growth:
    """Bytes on disk, and by how many of them a whole session lets them grow; None: not known."""

    event_log_bytes: int | None = None
    database_bytes: int | None = None
    event_log_growth_bytes: int | None = None
    database_growth_bytes: int | None = None


@dataclass(frozen=True)
class Measurement:
    """A session's phases and counts, as they were at an instant."""

    session_date: date
    measured_at: datetime
    turns: Turns
    growth: Growth
    phases: tuple[Phase, ...] = ()

    def phase(self, name: str) -> Phase:
        """One of the phases; without any minute where it is not among them."""
        return next((phase for phase in self.phases if phase.phase == name), Phase(name, 0))


def session_to_measure(calendar: Calendar, at: datetime) -> Session:
    """The newest session that has been open for an hour, whether or not it is over."""
    before = at - FIRST_LOOK
    day = calendar.day(before)
    session = calendar.on(day)
    return session if session and session.opens_at <= before else calendar.before(day)


def due_until(session: Session, timing: Timing, now: datetime) -> datetime:
    """Where the minutes end whose turn is over: when the next one settles, a minute is due."""
    newest = floor_minute(now - (timing.as_of(session.opens_at + MINUTE) - session.opens_at))
    return max(min(newest + MINUTE, session.closes_at), session.opens_at)


def growth_of(calendar: Calendar, session: Session, since: Sizes | None, sizes: Sizes) -> Growth:
    """How much a whole session adds, from what the minutes between two looks have added."""
    told = Growth(sizes.event_log_bytes, sizes.database_bytes)
    if since is None:
        return told
    minutes = sum(1 for _ in calendar.minutes_between(since.at, sizes.at))
    if minutes < GROWTH_MINUTES:
        return told
    share = len(session.minutes()) / minutes
    return Growth(
        sizes.event_log_bytes,
        sizes.database_bytes,
        round((sizes.event_log_bytes - since.event_log_bytes) * share),
        round((sizes.database_bytes - since.database_bytes) * share),
    )


def measurement_is_due(calendar: Calendar, expected_from: datetime, now: datetime) -> bool:
    """Return True if a session was open for so long since then that it must have been measured."""
    day = calendar.day(now)
    sessions = (calendar.on(day), calendar.before(day))
    return any(
        one is not None
        and min(now, one.closes_at) - max(one.opens_at, expected_from) > MEASURED_WITHIN
        for one in sessions
    )


def verdicts(
    measured: Measurement | None, rules: SloRules, *, is_due: bool = True
) -> list[Verdict]:
    """Return the four verdicts on a session; one that was due and never measured passes none.

    A session of which no minute was due has nothing to be judged by: all four say so, and pass.
    """
    if measured is None and not is_due:
        found = "not measured yet: a session is measured from an hour after its open on"
        return [_verdict(name, Level.UNMEASURED, found, "-") for name in NAMES]
    if measured is None:
        return [_verdict(name, Level.HIGH, "no session was measured", "-") for name in NAMES]
    if measured.turns.minutes == 0:
        found = f"not run: {measured.session_date} has no minute that was due"
        return [_verdict(name, Level.UNMEASURED, found, "-") for name in NAMES]
    return [
        _prompt(measured, rules),
        _skipped(measured.turns, rules),
        _late(measured.turns, rules),
        _growth(measured.growth, rules),
    ]


def _prompt(measured: Measurement, rules: SloRules) -> Verdict:
    phase = measured.phase(SETTLE_TO_SIGNALS)
    warn, error = rules.signals_warn_seconds, rules.signals_error_seconds
    expected = f"p95 from settling to signals <= {warn:g} s, at worst {error:g} s"
    p95, minutes = phase.p95_seconds, measured.turns.minutes
    if minutes < LEAST_MINUTES:
        found = f"not measured yet: {minutes} of the {LEAST_MINUTES} minutes that it needs"
        return _verdict(PROMPT, Level.UNMEASURED, found, expected, minutes=minutes)
    if p95 is None:
        found = f"no minute of {measured.session_date} was decided in its own turn"
        return _verdict(PROMPT, Level.HIGH, found, expected)
    level = Level.NORMAL if p95 <= warn else Level.LOW if p95 <= error else Level.HIGH
    found = f"p95 {p95:.1f} s over {phase.count} minutes"
    return _verdict(PROMPT, level, found, expected, p95_seconds=round(p95, 3), minutes=phase.count)


def _skipped(turns: Turns, rules: SloRules) -> Verdict:
    limit = rules.max_skipped_minutes
    level = Level.NORMAL if turns.skipped <= limit else Level.HIGH
    found = _count(turns.skipped, turns.minutes, turns.first_skipped)
    found += f"; {turns.operator_down}" if turns.operator_down else ""
    return _verdict(SKIPPED, level, found, f"<= {limit}", skipped=turns.skipped)


def _late(turns: Turns, rules: SloRules) -> Verdict:
    limit = rules.max_late_minutes
    level = Level.NORMAL if turns.late <= limit else Level.LOW
    found = _count(turns.late, turns.minutes, turns.first_late)
    return _verdict(LATE, level, found, f"<= {limit}", late=turns.late)


def _growth(growth: Growth, rules: SloRules) -> Verdict:
    expected = f"<= {rules.max_event_log_mb_per_day:g} MB a day"
    if growth.event_log_bytes is None:
        return _verdict(GROWTH, Level.LOW, "its size was not measured", expected)
    grown = growth.event_log_growth_bytes
    if grown is None:
        found = "the first look at its size; growth is known from the next one on"
        return _verdict(GROWTH, Level.NORMAL, found, expected)
    megabytes = grown / MEGABYTE
    level = Level.NORMAL if megabytes <= rules.max_event_log_mb_per_day else Level.LOW
    found = f"{megabytes:.1f} MB a day"
    return _verdict(GROWTH, level, found, expected, mb_per_day=round(megabytes, 1))


def _count(count: int, minutes: int, first: datetime | None) -> str:
    where = f", the first at {both_zones(first)}" if first else ""
    return f"{count} of {minutes} minutes{where}"


def _verdict(name: str, level: Level, found: str, expected: str, **observed: float) -> Verdict:
    return Verdict(name, level, found, dict(observed), expected)
