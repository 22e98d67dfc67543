"""What is looked at each time: the checks, the trade stream, the machine, the processes."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Engine

from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.alerts import ACCEPTANCE, CHANNELS, CONSOLE, MACHINE, PROCESSES, STREAM
from ops_pipeline.domain.machine import clock_verdict, disk_verdict
from ops_pipeline.domain.stream import live_verdict, sums_verdict
from ops_pipeline.local.keeper import table_of
from ops_pipeline.local.machine import free_bytes
from ops_pipeline.local.processes import Process, ProcessTable
from ops_pipeline.operations.acceptance import examine
from ops_pipeline.settings import ALERTS, CODE, DAEMON, KEEPER, Settings, alert_channels_of
from ops_pipeline.storage.alerts import ChannelState, channel_states
from ops_pipeline.storage.dispatch import ACCOUNT
from ops_pipeline.storage.machine import newest_event
from ops_pipeline.storage.stream import read_health

# Whatever has just been started needs so long before it has done anything.
STARTING = timedelta(minutes=3)
# So long it is told that a process died and was started again.
TOLD_FOR = timedelta(minutes=1)
# After so many attempts a channel is not only slow.
DOWN_AFTER_ATTEMPTS = 5


@dataclass(frozen=True)
class Look:
    """One kind of look: its source, and what it finds at an instant."""

    source: str
    ask: Callable[[datetime], Sequence[Verdict]]


def looks_of(settings: Settings, engine: Engine) -> list[Look]:
    """All looks of a mode."""
    table = table_of(settings)
    processes = Processes(table, [name for name in settings.mode.processes if name != ALERTS])
    looks = [
        Look(ACCEPTANCE, lambda now: processes.known(_checks(settings, engine, now), now)),
        Look(MACHINE, lambda now: _machine(settings, engine, now)),
        Look(PROCESSES, processes.verdicts),
        Look(CHANNELS, lambda _: _channels(settings, engine)),
    ]
    if settings.mode.is_followed:
        looks.append(Look(STREAM, lambda now: processes.known(_stream(engine, now), now)))
    return looks


@dataclass
class Processes:
    """The processes of this machine, and which of them were seen to be started anew."""

    table: ProcessTable
    names: Sequence[str]
    seen: dict[str, Process] = field(default_factory=dict)
    renewed_at: dict[str, datetime] = field(default_factory=dict)

    def verdicts(self, now: datetime) -> list[Verdict]:
        """One for each that was ever started here; somebody else's are not ours to watch."""
        return [self._verdict(name, now) for name in self.names if self.table.knows(name)]

    def are_starting(self, now: datetime) -> bool:
        """Whether all of it was started a moment ago."""
        began = self.table.began(KEEPER)
        return began is not None and now.timestamp() - began < STARTING.total_seconds()

    def known(self, found: Sequence[Verdict], now: datetime) -> list[Verdict]:
        """What may be said of these: while all of it is starting, nothing bad but the worst."""
        is_starting = self.are_starting(now)
        return [
            one for one in found if one.is_normal or one.level is Level.CRITICAL or not is_starting
        ]

    def _verdict(self, name: str, now: datetime) -> Verdict:
        cause, process = f"process_runs:{name}", self.table.find(name)
        if process is None:
            # Without these two no service runs.
            level = Level.CRITICAL if name in (CODE, DAEMON) else Level.HIGH
            return Verdict(cause, level, f"{name} does not run", {}, "it runs")
        before = self.seen.setdefault(name, process)
        if before != process:
            self.seen[name], self.renewed_at[name] = process, now
        renewed = self.renewed_at.get(name)
        if renewed and now - renewed < TOLD_FOR:
            return Verdict(cause, Level.MEDIUM, f"{name} died and was started again", {}, "it runs")
        return Verdict(cause, Level.NORMAL, f"{name} runs", {}, "it runs")


def _checks(settings: Settings, engine: Engine, now: datetime) -> list[Verdict]:
    # One that has not looked does not end what it has found before.
    found = examine(engine, now, settings.mode.calendar, is_live=True)
    return [verdict for verdict in found if not verdict.is_silent]


def _machine(settings: Settings, engine: Engine, now: datetime) -> list[Verdict]:
    with engine.connect() as connection:
        newest = newest_event(connection)
    return [clock_verdict(newest, now), disk_verdict(free_bytes(settings))]


def _stream(engine: Engine, now: datetime) -> list[Verdict]:
    with engine.connect() as connection:
        health = read_health(connection, ACCOUNT)
    sums = sums_verdict(health)
    return [live_verdict(health, now), *([] if sums.is_silent else [sums])]


def _channels(settings: Settings, engine: Engine) -> list[Verdict]:
    known = {CONSOLE, *(channel.name for channel in alert_channels_of(settings))}
    with engine.connect() as connection:
        return [_channel(state, known) for state in channel_states(connection)]


def _channel(state: ChannelState, known: Collection[str]) -> Verdict:
    """Whether a channel takes what it is sent; what it lost it is held to until it takes more."""
    level, finding = Level.MEDIUM, f"{state.waiting} messages wait: {state.last_error}"
    if state.channel not in known:
        level, finding = Level.NORMAL, "there is no such channel any more"
    elif state.gave_up:
        finding = f"{state.gave_up} messages were given up: {state.last_error}"
    elif state.attempts < DOWN_AFTER_ATTEMPTS:
        level, finding = Level.NORMAL, "it is taken"
    return Verdict(f"channel_works:{state.channel}", level, finding, {}, "it takes all")
