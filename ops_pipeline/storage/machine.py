"""What happened to the machine, kept for whoever asks in the morning."""

from collections.abc import Iterable
from datetime import UTC, datetime

from sqlalchemy import Connection

from ops_pipeline.domain.machine import MachineEvent
from ops_pipeline.storage.queries import query


def insert_events(connection: Connection, events: Iterable[MachineEvent]) -> None:
    """Keep what happened."""
    for event in events:
        connection.execute(query("machine", "insert_event"), event.__dict__)


def begin_downtime(connection: Connection, at: datetime, stopped_by: str) -> None:
    """Keep that an operator takes all of it down."""
    connection.execute(query("machine", "begin_downtime"), {"at": at, "stopped_by": stopped_by})


def end_downtime(connection: Connection, at: datetime) -> None:
    """Keep that it is brought up again."""
    connection.execute(query("machine", "end_downtime"), {"at": at})


def newest_event(connection: Connection) -> MachineEvent | None:
    """What happened last; None where nothing ever did."""
    row = connection.execute(query("machine", "newest_event")).one_or_none()
    return MachineEvent(row[0], row[1], row[2].astimezone(UTC)) if row else None
