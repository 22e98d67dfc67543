"""What becomes of verdicts: when an alert opens, what is said of it, and when it is over.

An alert opens at the first bad verdict and is over after some good ones in a row. It is told once,
again only where it grows worse, and once more when it is over.
"""

from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase

from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.checks import CHECKS as CATALOGUE
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
    id: int = 0

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


def message_of(alert: Alert, kind: Kind, now: datetime) -> Message:
    """What is said: level, cause, what was found, since when, how often, and what to do next."""
    word = kind.value if kind is Kind.RESOLVED else alert.level.value
    normal = f" (normal: {alert.expected})" if alert.expected else ""
    lines = [
        f"level: {alert.level.value}",
        f"cause: {alert.cause}",
        f"found: {alert.finding}{normal}",
        f"since: {both_zones(alert.opened_at)}",
        f"seen: {_times(alert.seen_count)}, the last at {both_zones(alert.last_seen_at)}",
    ]
    if kind is Kind.RESOLVED:
        lasted = timedelta(seconds=round((now - alert.opened_at).total_seconds()))
        lines.append(f"resolved: {both_zones(now)}, after {lasted}")
    else:
        lines.append(f"next: {alert.next_command}")
    return Message(
        kind,
        alert.level,
        f"[{word.upper()}] {alert.cause}: {alert.finding}",
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
