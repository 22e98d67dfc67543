"""What becomes of verdicts: when an alert opens, what is said of it, and when it is over.

An alert opens at the first bad verdict and is over after some good ones in a row. It is told once,
again only where it grows worse, and once more when it is over. Alerts that say that something did
not run are one incident while one of them is open: an outage shows itself in many places.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase

from ops_pipeline.domain import checks, slo, stream
from ops_pipeline.domain.acceptance import BACKLOG, RUNS, STUCK, Level, Verdict
from ops_pipeline.domain.checks import CHECKS as CATALOGUE
from ops_pipeline.domain.sentiment import SCORED
from ops_pipeline.domain.session import NEW_YORK, both_zones
from ops_pipeline.domain.stages import DISPATCH, stage_of_service

# Good verdicts in a row that end an alert; twice as many for each time that it came back lately.
CALM, LONGEST_CALM = 2, 40
FLAPS_WITHIN = timedelta(hours=1)
FIRST_RETRY, LONGEST_RETRY = timedelta(seconds=15), timedelta(minutes=15)
# With the waits between them, about four hours.
MAX_ATTEMPTS = 20
LONGEST_TEXT = 500
# The channel that is always there: lines of the log of the process that sends.
CONSOLE = "console"
ACCEPTANCE, DATABASE, PROCESSES = "acceptance", "database", "processes"
STREAM, MACHINE, CHECKS, JOBS = "stream", "machine", "checks", "jobs"
CHANNELS, DEAD_MAN, WATCH, SUMMARY = "channels", "dead_man", "watch", "summary"
# The worst symptom of an outage: by itself it names no cause.
_SYMPTOM = checks.SERVICES_RUN
# A look that failed: it says nothing of what it would have found.
_BLIND = "look_works"
# What an outage leaves behind: it is seen late, and lasts longer than the outage.
_AFTERMATH = frozenset(
    {
        *(slo.PROMPT, slo.SKIPPED, slo.LATE, checks.ABANDONED, checks.DURATIONS),
        *(checks.BAR_VOLUME, checks.NEWS_VOLUME, checks.SCORE_VOLUME, checks.SIGNAL_VOLUME),
        *(checks.DECISIONS, SCORED),
    }
)
# Only what did not run or came late: what was traded or counted wrongly is never part of an outage.
_OUTAGE = _AFTERMATH | {
    *("database_answers", "process_runs", _BLIND, stream.IS_LIVE, _SYMPTOM),
    *(RUNS, checks.FRESH, checks.COMPLETENESS, checks.CADENCE),
    *(BACKLOG, STUCK, checks.GROWTH),
}
# An incident may grow worse for so long before what is worse is another one.
DEVELOPING = timedelta(minutes=15)
# What somebody has to act on today is part of it for so long: hours later it has another cause.
SPREADING = timedelta(minutes=30)
# So long after an incident its late symptoms still belong to it; what it left behind, until the
# session's minutes were measured once more.
SETTLING, AFTERMATH_SEEN = timedelta(minutes=10), timedelta(minutes=75)
_SERVICES = {each.name: each.services[0].service for each in CATALOGUE if each.services}
_OF_CHECK = {each.name: each.next_step for each in CATALOGUE}
# Where a cause is no check of the catalogue.
NEXT_STEPS = {
    DATABASE: "runbook diagnose check-rds-connectivity",
    PROCESSES: "runbook diagnose service-wont-start",
    STREAM: "runbook diagnose trade-stream-not-running",
    CHECKS: "status",
    JOBS: "status",
    CHANNELS: "alerts test",
    MACHINE: "doctor",
    DEAD_MAN: "doctor",
    WATCH: "doctor",
}


class Kind(StrEnum):
    """Why something is said."""

    OPENED = "opened"
    RAISED = "raised"
    RESOLVED = "resolved"
    SUMMARY = "summary"
    TEST = "test"


@dataclass(frozen=True)
class Alert:
    """One cause, from its first bad verdict to its last; `level` is the worst so far.

    `told_level` is the worst that was told, NORMAL where nothing was; `suppressed_by` says why.
    A link is a path of the web UI.
    """

    cause: str
    source: str
    level: Level
    finding: str
    opened_at: datetime
    last_seen_at: datetime
    expected: str = ""
    link: str = ""
    told_level: Level = Level.NORMAL
    suppressed_by: str = ""
    seen_count: int = 1
    calm_count: int = 0
    calm_needed: int = CALM
    resolved_at: datetime | None = None
    # The alert that opened the incident which this one joined; and when that was told to be over.
    incident_id: int | None = None
    over_at: datetime | None = None
    id: int = 0

    @property
    def is_outage(self) -> bool:
        """Return True if this says that something did not run, or came late."""
        return self.source == JOBS or _check_of(self.cause) in _OUTAGE

    @property
    def is_aftermath(self) -> bool:
        """Return True if this is what an outage leaves behind."""
        return _check_of(self.cause) in _AFTERMATH

    @property
    def is_blind(self) -> bool:
        """Return True if this says that a look failed, and nothing of what it looks at."""
        return _check_of(self.cause) == _BLIND

    @property
    def is_root(self) -> bool:
        """Return True if somebody has to hear of this by its own name, whatever else is told."""
        return self.level is Level.CRITICAL and _check_of(self.cause) != _SYMPTOM

    @property
    def service(self) -> str:
        """The service that this is about; empty where it is about none, or about several."""
        return service_of(self.cause)

    @property
    def next_command(self) -> str:
        """The one command to run next."""
        of_check = _OF_CHECK.get(self.cause.split(":")[0])
        return f"ops-pipeline {of_check or NEXT_STEPS.get(self.source, 'doctor')}"


@dataclass(frozen=True)
class Incident:
    """An outage: the alert that opened it, by which it is told; and all that are part of it."""

    lead: Alert
    everything: Sequence[Alert] = ()

    @property
    def members(self) -> list[Alert]:
        """What is open of it now."""
        return [one for one in self.everything if not one.resolved_at]

    @property
    def open_level(self) -> Level:
        """How bad the worst is that is open now, but for what it left behind."""
        return worst(one.level for one in self.members if not one.is_aftermath)

    @property
    def is_over(self) -> bool:
        """Return True if nothing is open that had to be acted on, but for what it left behind."""
        least = Level.HIGH if self.lead.told_level.is_error else self.lead.told_level
        return not any(
            one.id == self.lead.id or not (one.is_aftermath or is_worse(least, one.level))
            for one in self.members
        )

    def takes(self, alert: Alert, now: datetime) -> bool:
        """Return True if an alert belongs to it, and is told by it or makes it worse.

        Nothing is hidden behind what is over, or less bad by now: that is another incident. Nor
        is it behind a look that failed, but for other looks that did.
        """
        if self.lead.is_aftermath or (self.lead.is_blind and not alert.is_blind):
            return False
        told = not is_worse(alert.level, self.lead.told_level)
        if self.lead.over_at:
            since = now - self.lead.over_at
            if alert.is_aftermath:
                return told and since <= AFTERMATH_SEEN
            return told and not alert.level.is_error and since <= SETTLING
        if alert.is_aftermath and told:
            return True
        age = now - self.lead.opened_at
        if is_worse(alert.level, self.open_level):
            return not told and age <= DEVELOPING
        return not alert.level.is_error or age <= SPREADING


def incident_of(alert: Alert, incidents: Iterable[Incident], now: datetime) -> Incident | None:
    """Return the incident that an alert joins, the worst first; None where it opens its own."""
    if not alert.is_outage:
        return None
    taking = [one for one in incidents if one.lead.is_outage and one.takes(alert, now)]
    levels = tuple(Level)
    return max(
        taking,
        key=lambda one: (
            not one.lead.over_at,
            levels.index(one.open_level),
            one.lead.opened_at,
        ),
        default=None,
    )


def worst(found: Iterable[Level]) -> Level:
    """Return the worst of some levels; NORMAL where there is none."""
    return max(found, key=tuple(Level).index, default=Level.NORMAL)


def _check_of(cause: str) -> str:
    return cause.partition(":")[0].rpartition("/")[2]


@dataclass(frozen=True)
class Message:
    """What is said once, to all who want to hear of its level."""

    kind: Kind
    level: Level
    title: str
    body: str
    link: str = ""
    id: int = 0


@dataclass(frozen=True)
class Silence:
    """A cause that nobody is told of until then; with a star at its end, all that begin so."""

    cause: str
    until: datetime
    reason: str
    silenced_by: str


@dataclass(frozen=True)
class Channel:
    """Where messages go, by name alone, and the least level that it wants to hear of."""

    name: str
    least: Level = Level.LOW

    def wants(self, level: Level) -> bool:
        """Whether it is told of this level."""
        return not is_worse(self.least, level)


@dataclass(frozen=True)
class Quiet:
    """The hours in New York in which nothing below HIGH is sent; they may span midnight."""

    begins: time
    ends: time

    def held_until(self, level: Level, now: datetime) -> datetime:
        """When a message of this level may be sent: now, or when the quiet hours end."""
        local = now.astimezone(NEW_YORK)
        at, spans = local.time(), self.begins > self.ends
        is_quiet = self.begins <= at or at < self.ends if spans else self.begins <= at < self.ends
        if level.is_error or not is_quiet:
            return now
        day = local.date() + timedelta(days=spans and at >= self.begins)
        return datetime.combine(day, self.ends, NEW_YORK).astimezone(now.tzinfo)


def is_worse(one: Level, other: Level) -> bool:
    """Whether one level is above another."""
    levels = tuple(Level)
    return levels.index(one) > levels.index(other)


def service_of(cause: str) -> str:
    """The service that a cause is about, by its subject or by its name; empty for none."""
    name, _, subject = cause.partition(":")
    asset = name.partition("/")[0]
    if name in _SERVICES:
        return _SERVICES[name]
    if name == "dispatch_job" or asset == "executions":
        return DISPATCH.service
    stage = stage_of_service(subject) or stage_of_service(asset)
    return stage.service if stage else ""


def opened(source: str, verdict: Verdict, now: datetime, *, flaps: int, link: str = "") -> Alert:
    """A new alert; `flaps` is how many of the same cause there were in the last hour."""
    return Alert(
        cause=verdict.name,
        source=source,
        level=verdict.level,
        finding=verdict.finding[:LONGEST_TEXT],
        expected=verdict.expected[:LONGEST_TEXT],
        opened_at=now,
        last_seen_at=now,
        calm_needed=min(CALM * 2 ** min(flaps, 10), LONGEST_CALM),
        link=link,
    )


def followed(alert: Alert, verdict: Verdict, now: datetime) -> Alert:
    """An open alert after one more look at its cause."""
    if verdict.is_normal:
        calm = alert.calm_count + 1
        return replace(
            alert, calm_count=calm, resolved_at=now if calm >= alert.calm_needed else None
        )
    return replace(
        alert,
        level=verdict.level if is_worse(verdict.level, alert.level) else alert.level,
        finding=verdict.finding[:LONGEST_TEXT],
        expected=verdict.expected[:LONGEST_TEXT],
        last_seen_at=now,
        seen_count=alert.seen_count + 1,
        calm_count=0,
    )


def due(alert: Alert) -> Kind | None:
    """What is to be said of an alert now; of one that was never told, not its end either."""
    was_told = alert.told_level is not Level.NORMAL
    if alert.resolved_at:
        return Kind.RESOLVED if was_told else None
    if alert.suppressed_by or not is_worse(alert.level, alert.told_level):
        return None
    return Kind.RAISED if was_told else Kind.OPENED


def silenced_by(cause: str, silences: list[Silence]) -> str:
    """Who wants nothing to be said of a cause, and why; empty where nobody does."""
    for one in silences:
        if fnmatchcase(cause, one.cause):
            return f"silenced by {one.silenced_by}: {one.reason}"
    return ""


def message_of(alert: Alert, kind: Kind, now: datetime, others: Iterable[Alert] = ()) -> Message:
    """What is said: level, cause, what was found, since when, how often, and what to do next.

    `others` are the alerts of the same incident.
    """
    word = kind.value if kind is Kind.RESOLVED else alert.level.value
    normal = f" (normal: {alert.expected})" if alert.expected else ""
    lines = [
        f"level: {alert.level.value}",
        f"cause: {alert.cause}",
        f"found: {alert.finding}{normal}",
        f"since: {both_zones(alert.opened_at)}",
        f"seen: {_times(alert.seen_count)}, the last at {both_zones(alert.last_seen_at)}",
    ]
    more = [one for one in others if one.id != alert.id]
    for one in more:
        open_still = ", open still" if kind is Kind.RESOLVED and not one.resolved_at else ""
        lines.append(f"with it: {one.level.value} {one.cause}: {one.finding}{open_still}")
    if kind is Kind.RESOLVED:
        lasted = timedelta(seconds=round((now - alert.opened_at).total_seconds()))
        lines.append(f"resolved: {both_zones(now)}, after {lasted}")
    else:
        lines.append(f"next: {alert.next_command}")
    return Message(
        kind,
        alert.level,
        f"[{word.upper()}] {alert.cause}: {alert.finding}" + (f" (+{len(more)})" if more else ""),
        "\n".join([*lines, *([f"alert {alert.id}"] if alert.id else [])]),
        alert.link,
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def retry_at(attempts: int, now: datetime) -> datetime | None:
    """When a message is tried again after so many attempts that failed; None where it is not."""
    if attempts >= MAX_ATTEMPTS:
        return None
    doublings = min(attempts - 1, 10)
    return now + min(FIRST_RETRY * int(2**doublings), LONGEST_RETRY)


def read_quiet(text: str) -> Quiet:
    """Quiet hours as an operator writes them: 22:00-07:00, in New York.

    Raises:
        ValueError: they read otherwise.
    """
    begins, ends = (time.fromisoformat(part.strip()) for part in text.split("-", 1))
    if begins == ends or begins.tzinfo or ends.tzinfo:
        raise ValueError("quiet hours begin and end at two times of the day, like 22:00-07:00")
    return Quiet(begins, ends)
