"""The switches of the seven services."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, RowMapping

from ops_pipeline.domain.stages import SERVICES, Stage
from ops_pipeline.storage.queries import query


@dataclass(frozen=True)
class Switch:
    """One service's switch, as it stands at an instant; who moved it last, and why."""

    stage: Stage
    is_enabled: bool
    disabled_until: datetime | None = None
    reason: str = ""
    changed_by: str = ""


@dataclass(frozen=True)
class SwitchChange:
    """A switch that was moved."""

    service: str
    is_enabled: bool
    disabled_until: datetime | None
    changed_by: str
    reason: str
    written_at: datetime


def upsert_switch(connection: Connection, switch: Switch) -> None:
    """Switch a service on or off; each time is kept."""
    row = {
        "service": switch.stage.service,
        "is_enabled": switch.is_enabled,
        "disabled_until": switch.disabled_until,
        "reason": switch.reason,
        "changed_by": switch.changed_by,
    }
    connection.execute(query("services", "upsert_service"), row)


def switches(connection: Connection, now: datetime) -> list[Switch]:
    """All seven switches at an instant; one that was off until then is on again."""
    stored = {
        row["service"]: row
        for row in connection.execute(query("services", "all_services")).mappings()
    }
    return [_switch(stage, stored.get(stage.service), now) for stage in SERVICES]


def switch_changes(connection: Connection, limit: int) -> list[SwitchChange]:
    """Who moved a switch, newest first."""
    rows = connection.execute(query("services", "service_changes"), {"limit": limit}).mappings()
    return [
        SwitchChange(**{**row, "written_at": row["written_at"].astimezone(UTC)}) for row in rows
    ]


def _switch(stage: Stage, row: RowMapping | None, now: datetime) -> Switch:
    if row is None or row["is_enabled"]:
        return Switch(stage, is_enabled=True)
    until = row["disabled_until"]
    if until is not None and until <= now:
        return Switch(stage, is_enabled=True)
    return Switch(
        stage,
        is_enabled=False,
        disabled_until=until,
        reason=row["reason"],
        changed_by=row["changed_by"],
    )
