"""The quick health check: services, backlog, trading state, from the database alone."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from ops_pipeline.domain.errors import NotRunning
from ops_pipeline.domain.session import Calendar, Session
from ops_pipeline.domain.stages import DISPATCH
from ops_pipeline.domain.stream import stream_state, stricter
from ops_pipeline.settings import Mode
from ops_pipeline.storage import dispatch, knowledge, orders
from ops_pipeline.storage.dispatch import ACCOUNT, StateChange
from ops_pipeline.storage.knowledge import Progress, clock
from ops_pipeline.storage.services import Switch, switches
from ops_pipeline.storage.stream import read_health


@dataclass(frozen=True)
class ServiceStatus:
    """One service: its switch, and the newest minute that it has finished."""

    switch: Switch
    last_minute: datetime | None
    last_written_at: datetime | None
    lag_seconds: float | None


@dataclass(frozen=True)
class Status:
    """What the pipeline does at one instant; the last change of the trading state is with it.

    The trading state is the one in force: the stricter of the operator's and of what the trade
    stream allows. `stream` is None where no account is followed.
    """

    mode: Mode
    now: datetime | None
    session: Session | None
    trading_state: str
    last_change: StateChange | None
    stream: str | None
    backlog: dict[str, int]
    orders: dict[str, int]
    services: list[ServiceStatus]


def read_status(connection: Connection, mode: Mode, calendar: Calendar) -> Status:
    """Read everything that the quick health check shows; a replay that never ran has no present."""
    now = _present(connection, mode)
    progress = knowledge.newest_stage_minutes(connection)
    newest_run = dispatch.newest_run(connection)
    if newest_run:
        progress[DISPATCH.name] = Progress(DISPATCH.name, newest_run, newest_run)
    operators = dispatch.read_trading_state(connection)
    health = read_health(connection, ACCOUNT) if mode.is_followed else None
    allowed, silent = stream_state(health, clock())
    at = now or datetime.min.replace(tzinfo=calendar.zone)
    return Status(
        mode=mode,
        now=now,
        session=calendar.at(now) if now else None,
        trading_state=stricter(operators, allowed) if mode.needs_stream else operators,
        last_change=next(iter(dispatch.trading_state_changes(connection, 1)), None),
        stream=(silent or "the trade stream is heard") if mode.is_followed else None,
        backlog=dispatch.status_counts(connection),
        orders=orders.state_counts(connection),
        services=[
            _service(switch, progress.get(switch.stage.name), now)
            for switch in switches(connection, at)
        ],
    )


def _present(connection: Connection, mode: Mode) -> datetime | None:
    try:
        return knowledge.read_now(connection, mode)
    except NotRunning:
        return None


def _service(switch: Switch, progress: Progress | None, now: datetime | None) -> ServiceStatus:
    if progress is None:
        return ServiceStatus(switch, None, None, None)
    lag = (now - progress.minute).total_seconds() if now else None
    return ServiceStatus(switch, progress.minute, progress.written_at, lag)
