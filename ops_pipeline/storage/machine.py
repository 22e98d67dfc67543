"""What happened to the machine, kept for whoever asks in the morning."""

from collections.abc import Iterable
from datetime import UTC

from sqlalchemy import Connection

from ops_pipeline.domain.machine import MachineEvent
from ops_pipeline.storage.queries import query


def insert_events(connection: Connection, events: Iterable[MachineEvent]) -> None:
    """Keep what happened."""
    for event in events:
        connection.execute(query("machine", "insert_event"), event.__dict__)


def newest_event(connection: Connection) -> MachineEvent | None:
    """What happened last; None where nothing ever did."""
    row = connection.execute(query("machine", "newest_event")).one_or_none()
    return MachineEvent(row[0], row[1], row[2].astimezone(UTC)) if row else None
