"""The quick health check: services, backlog, trading state, processes; without Dagster."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError, ProgrammingError

from ops_pipeline.domain.alerts import Alert
from ops_pipeline.domain.errors import NotRunning
from ops_pipeline.domain.session import MINUTE, Calendar, Session
from ops_pipeline.domain.stages import DISPATCH, SERVICES
from ops_pipeline.domain.stream import stream_state, stricter
from ops_pipeline.local.keeper import table_of
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.operations.universe import unserved
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage import dispatch, knowledge, orders
from ops_pipeline.storage.acceptance import expected_from
from ops_pipeline.storage.alerts import open_alerts
from ops_pipeline.storage.config import newest_version, read_state
from ops_pipeline.storage.dispatch import ACCOUNT, DispatcherRun, StateChange
from ops_pipeline.storage.engine import opened, reachable
from ops_pipeline.storage.knowledge import Progress, clock
from ops_pipeline.storage.migrate import migrated
from ops_pipeline.storage.runs import newest_starts, steps_of
from ops_pipeline.storage.services import Switch, switches
from ops_pipeline.storage.stream import read_health

POSTGRES = "postgres"
# The runbook's own: logs within the last 5 to 10 minutes are normal.
SILENT_AFTER = timedelta(minutes=10)
RUNS_SHOWN = 3


@dataclass(frozen=True)
class ServiceStatus:
    """One service: its switch, when it last began, and the newest minute that it has finished.

    `last_tick` is of Dagster's clock; `lag_seconds` counts from the minute's end to the present.
    """

    switch: Switch
    last_tick: datetime | None
    last_minute: datetime | None
    last_success: datetime | None
    lag_seconds: float | None


@dataclass(frozen=True)
class StreamStatus:
    """The trade stream: whether it is heard, or in words why not, and by whom since when."""

    is_heard: bool
    told: str
    holder: str = ""
    connected_at: datetime | None = None
    alive_at: datetime | None = None
    lag_seconds: float | None = None


@dataclass(frozen=True)
class ProcessStatus:
    """One process of this machine."""

    name: str
    pid: int | None

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.pid is not None


@dataclass(frozen=True)
class Status:
    """What the pipeline does at one instant; the last change of the trading state is with it.

    The trading state is the one in force: the stricter of the operator's and of what the trade
    stream allows. `stream` is None where no account is followed. `problems` are what needs a look.
    """

    mode: Mode
    now: datetime | None
    session: Session | None
    trading_state: str
    last_change: StateChange | None
    stream: StreamStatus | None
    backlog: dict[str, int]
    orders: dict[str, int]
    services: list[ServiceStatus]
    dispatcher_runs: list[DispatcherRun]
    alerts: list[Alert]
    # Empty before the dispatcher's first run; and why what is set cannot be used, if it cannot.
    settings_version: str
    settings_problem: str
    # When it was installed or brought up last: before it nothing was due.
    expected_from: datetime | None = None
    processes: list[ProcessStatus] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def look(settings: Settings) -> Status:
    """Everything that the quick health check shows.

    Raises:
        NotRunning: the database does not answer; `processes_of` knows what runs, all the same.
        BadConfiguration: it is older than this version.
    """
    if settings.is_embedded:
        server = EmbeddedServer.in_folder(settings.var_dir)
        if not server.is_running() or settings.server is None:
            raise NotRunning("the embedded PostgreSQL does not run", "run: ops-pipeline up")
    with (
        reachable(settings),
        migrated(settings),
        opened(settings) as engine,
        engine.connect() as connection,
    ):
        ticks = _ticks(settings)
        calendar = settings.mode.calendar
        found = read_status(connection, settings.mode, calendar, ticks, processes_of(settings))
        if unknown := unserved(connection, settings):
            found.problems.append(
                f"the sandbox does not have {', '.join(unknown)}: ops-pipeline universe apply"
            )
        return found


def processes_of(settings: Settings) -> list[ProcessStatus]:
    """The processes of a mode on this machine, and its own PostgreSQL."""
    table = table_of(settings)
    found = [(name, table.find(name)) for name in settings.mode.processes]
    own = [ProcessStatus(name, process.pid if process else None) for name, process in found]
    if settings.is_embedded:
        own.append(ProcessStatus(POSTGRES, EmbeddedServer.in_folder(settings.var_dir).pid()))
    return own


def read_status(
    connection: Connection,
    mode: Mode,
    calendar: Calendar,
    ticks: Mapping[str, datetime] | None = None,
    processes: list[ProcessStatus] | None = None,
) -> Status:
    """Read what the pipeline's database knows; a replay that never ran has no present.

    Args:
        connection: the pipeline's database.
        mode: whose.
        calendar: its sessions.
        ticks: when each stage last began, by its word.
        processes: those of this machine.
    """
    now = knowledge.find_now(connection, mode)
    runs = dispatch.newest_runs(connection, RUNS_SHOWN)
    operators = dispatch.read_trading_state(connection)
    stream, allowed = _stream(connection, mode)
    at = now or datetime.min.replace(tzinfo=calendar.zone)
    services = _services(connection, switches(connection, at), ticks or {}, runs, now)
    session = calendar.at(now) if now else None
    version = newest_version(connection)
    found = Status(
        mode=mode,
        now=now,
        session=session,
        trading_state=stricter(operators, allowed) if mode.needs_stream else operators,
        last_change=next(iter(dispatch.trading_state_changes(connection, 1)), None),
        stream=stream,
        backlog=dispatch.status_counts(connection),
        orders=orders.state_counts(connection),
        services=services,
        dispatcher_runs=runs,
        alerts=open_alerts(connection),
        settings_version=f"{version.version}, hash {version.config_hash}" if version else "",
        settings_problem=read_state(connection).invalid,
        expected_from=expected_from(connection),
        processes=processes or [],
    )
    found.problems.extend(_problems(found))
    return found


def _ticks(settings: Settings) -> dict[str, datetime]:
    steps = {steps_of(stage)[0]: stage.name for stage in SERVICES}
    try:
        with opened(settings, settings.dagster_database) as dagster, dagster.connect() as events:
            return {steps[step]: at for step, at in newest_starts(events, list(steps)).items()}
    except (ProgrammingError, OperationalError):
        # Dagster makes its tables when it first starts; the rest is known without it.
        return {}


def _services(
    connection: Connection,
    found: list[Switch],
    ticks: Mapping[str, datetime],
    runs: list[DispatcherRun],
    now: datetime | None,
) -> list[ServiceStatus]:
    progress = knowledge.newest_stage_minutes(connection)
    if runs:
        finished = next((run.finished_at for run in runs if run.finished_at), None)
        progress[DISPATCH.name] = Progress(DISPATCH.name, runs[0].started_at, finished)
    return [_service(one, ticks.get(one.stage.name), progress, now) for one in found]


def _service(
    switch: Switch,
    last_tick: datetime | None,
    all_progress: Mapping[str, Progress],
    now: datetime | None,
) -> ServiceStatus:
    progress = all_progress.get(switch.stage.name)
    if progress is None:
        return ServiceStatus(switch, last_tick, None, None, None)
    # A minute's work can begin when it has ended; the dispatcher's run is an instant.
    due = progress.minute if switch.stage == DISPATCH else progress.minute + MINUTE
    lag = (now - due).total_seconds() if now else None
    return ServiceStatus(switch, last_tick, progress.minute, progress.written_at, lag)


def _stream(connection: Connection, mode: Mode) -> tuple[StreamStatus | None, str]:
    """How the trade stream is, and the trading state that it allows."""
    health = read_health(connection, ACCOUNT) if mode.is_followed else None
    present = clock()
    allowed, silent = stream_state(health, present)
    if not mode.is_followed:
        return None, allowed
    if health is None:
        return StreamStatus(is_heard=False, told=silent), allowed
    lag = (present - health.alive_at).total_seconds() if health.alive_at else None
    told = silent or "the trade stream is heard"
    status = StreamStatus(
        not silent, told, health.holder, health.connected_at, health.alive_at, lag
    )
    return status, allowed


def _problems(found: Status) -> Iterator[str]:
    """What needs a look. A session's first minutes and a closed market prove no service silent."""
    dead = [one.name for one in found.processes if not one.is_alive]
    if dead and found.mode.is_live and len(dead) < len(found.processes):
        yield f"does not run: {', '.join(dead)}"
    if found.settings_problem:
        yield f"the dispatcher stands: {found.settings_problem}"
    if found.stream and not found.stream.is_heard:
        yield found.stream.told
    for alert in found.alerts:
        if alert.level.is_error and not alert.suppressed_by:
            yield f"{alert.level.value}: {alert.cause}: {alert.finding}"
    session, now = found.session, found.now
    due = session and max(session.opens_at, found.expected_from or session.opens_at)
    if due and now and found.mode.is_live and now - due > SILENT_AFTER:
        limit = SILENT_AFTER.total_seconds()
        for one in found.services:
            name, lag = one.switch.stage.service, one.lag_seconds
            if one.switch.is_enabled and (lag is None or lag > limit):
                ago = f"for {lag / 60:.0f} min" if lag is not None else "yet"
                yield f"{name} has finished no minute {ago}"
