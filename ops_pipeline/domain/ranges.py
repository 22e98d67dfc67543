"""Where normal ends: the numbers of the checks, and what they grow with.

The runbook's numbers are those of seven tickers and a session of 390 minutes; a larger universe and
another session move them in proportion.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from ops_pipeline.domain.session import MINUTE, Calendar, Session

RUNBOOK_TICKERS, RUNBOOK_MINUTES = 7, 390

PENDING_MAX = 20
STUCK_MINUTES = 10
EXECUTIONS_MAX, EXECUTIONS_RUNAWAY = 100, 200
RUN_AGE_MINUTES = 5
# What is at work for longer than Dagster lets a run of the dispatcher live has died.
RUN_SECONDS = 120
BAR_AGE_SECONDS = 120
# A minute to become complete, one to be fetched, and one to be late.
SERVICE_SECONDS = 180
# The last minutes of a session are finished after its close.
WATCHED_AFTER_CLOSE = timedelta(minutes=10)
# By then every process has read the newest settings, and ended what was set for a time.
SETTINGS_SECONDS = 120
# Fewer rows than this say nothing.
SKIPPED_MIN = 5
SKIPPED_FOR = timedelta(minutes=60)
BARS_MINUTES, BARS_SHARE = 30, 0.8
FEATURES_MINUTES = 15
NAMED_TICKERS = 10
# The share of a session from which on a day's count says something.
JUDGED_FROM = 0.5
# The runbook gives a day's normal ranges and no problems. Days vary, so a problem begins at a fifth
# of the low end and at twice the high end; news come in bursts, and may be ten times as many.
NEWS_MIN, NEWS_MAX = 10, 2_000
SIGNALS_MIN, SIGNALS_MAX = 2, 200
EXECUTED_MIN, EXECUTED_MAX = 1, 100
SKIPS_MIN, SKIPS_MAX = 4, 400
FAILED_MAX = 5
GROWTH_MIN = 5
# Longer than it takes a run to be given up for dead by the next one.
OPEN_MINUTES = 15
DURATIONS_MIN = 10
# Seconds of each service, as the runbook has them.
BASELINES = {
    "rss-ingest": 10,
    "classifier-worker": 30,
    "telemetry-1m": 10,
    "feature-computer-1m": 5,
    "watchlist-engine-5m": 15,
    "signal-engine-1m": 10,
    "dispatcher": 10,
}
# A close is tried each minute; of a thin name the simulation waits for the next bar.
CLOSE_MINUTES = 10
SKEW_SECONDS, SKEW_WORST_SECONDS = 2.0, 30.0


@dataclass(frozen=True)
class Present:
    """The instant at which checks are asked, and where it lies.

    `today` is midnight at the exchange; `session` is the one that is open, or else the newest one
    that was; `off` are the services that are switched off, or that came back a moment ago;
    `installed_at` is when the database was made, and `resumed_at` when an operator brought it up
    once more.
    """

    now: datetime
    today: datetime
    session: Session
    before: Session
    tickers: int = RUNBOOK_TICKERS
    off: frozenset[str] = frozenset()
    is_live: bool = True
    installed_at: datetime | None = None
    resumed_at: datetime | None = None

    @property
    def expected_since(self) -> datetime:
        """From when on something is expected: the open, or when it was installed or resumed."""
        known = (self.session.opens_at, self.installed_at, self.resumed_at)
        return max(at for at in known if at and (at <= self.now or at is known[0]))

    @property
    def is_open(self) -> bool:
        """Whether the market is open."""
        return self.session.is_open(self.now)

    @property
    def is_watched(self) -> bool:
        """Whether minutes are due: from the open until a moment after the close."""
        return self.now < self.session.closes_at + WATCHED_AFTER_CLOSE

    @property
    def minutes(self) -> int:
        """The minutes of the whole session."""
        return (self.session.closes_at - self.session.opens_at) // MINUTE

    @property
    def size(self) -> float:
        """How much larger the universe is than the runbook's."""
        return self.tickers / RUNBOOK_TICKERS

    def at_most(self, count: float) -> int:
        """A limit from above, grown with the universe; never below the runbook's own."""
        return round(count * max(self.size, 1.0))


def present_at(
    calendar: Calendar,
    now: datetime,
    *,
    tickers: int = RUNBOOK_TICKERS,
    off: frozenset[str] = frozenset(),
    is_live: bool = True,
    installed_at: datetime | None = None,
    resumed_at: datetime | None = None,
) -> Present:
    """Where an instant lies in the calendar."""
    day = calendar.day(now)
    session = calendar.on(day)
    if session is None or session.opens_at > now:
        session = calendar.before(day)
    before = calendar.before(session.day)
    today = calendar.day_starts_at(day)
    return Present(now, today, session, before, tickers, off, is_live, installed_at, resumed_at)
