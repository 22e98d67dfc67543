"""Versions of the dispatcher's settings, only ever added; and how the last look at them went."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, text

from ops_pipeline.domain.config import Overrides, Source, Temporary
from ops_pipeline.storage.queries import query

# Held by whoever adds a version until that is committed: of two at once one waits.
CONFIG_LOCK = 7_310_022


@dataclass(frozen=True)
class ConfigVersion:
    """One version: what each layer gave, what came of it, and who wanted it so.

    `base` is what file and environment gave, `effective` every value in force, `changes` the keys
    that differ from the version before, each with both values. One with a `refusal` never was in
    force; its values are those of the version that stayed. Number 0 is not stored yet.
    """

    version: int
    source: Source
    base: Mapping[str, Any]
    overrides: Overrides
    effective: Mapping[str, Any]
    config_hash: str
    changes: Mapping[str, list[Any]]
    changed_by: str
    reason: str
    changed_at: datetime
    refusal: str | None = None


@dataclass(frozen=True)
class ConfigState:
    """How the last look went: the parameter as it was seen, and what was wrong, if anything was.

    `invalid` is what stops the dispatcher; `unread` tells why the parameter was not read or
    written, while the version in force is known all the same.
    """

    seen: str = ""
    invalid: str = ""
    unread: str = ""


def lock_config(connection: Connection) -> None:
    """Be the only one who adds a version, until the transaction ends."""
    connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": CONFIG_LOCK})


def newest_version(connection: Connection) -> ConfigVersion | None:
    """The version in force; None before the first."""
    row = connection.execute(query("config", "newest_version")).mappings().first()
    return _version(row) if row else None


def version_of(connection: Connection, number: int) -> ConfigVersion | None:
    """One version by its number; None where there is no such."""
    parameters = {"version": number, "limit": 1}
    row = connection.execute(query("config", "versions"), parameters).mappings().first()
    return _version(row) if row else None


def versions(connection: Connection, limit: int | None = None) -> list[ConfigVersion]:
    """Versions with what was refused among them, newest first."""
    parameters = {"version": None, "limit": limit}
    return [
        _version(row)
        for row in connection.execute(query("config", "versions"), parameters).mappings()
    ]


def insert_version(connection: Connection, made: ConfigVersion) -> ConfigVersion:
    """Add a version under the next number. Returns it as it is stored."""
    row = {
        "source": made.source.value,
        "base": _json(made.base),
        "overrides": _json(made.overrides.values),
        "temporary": _json({key: _stored(when) for key, when in made.overrides.temporary.items()}),
        "effective": _json(made.effective),
        "config_hash": made.config_hash,
        "changes": _json(made.changes),
        "refusal": made.refusal,
        "changed_by": made.changed_by,
        "reason": made.reason,
        "changed_at": made.changed_at,
    }
    number: int = connection.execute(query("config", "insert_version"), row).scalar_one()
    found = version_of(connection, number)
    assert found is not None  # noqa: S101 - it was written just now
    return found


def read_state(connection: Connection) -> ConfigState:
    """How the last look went."""
    row = connection.execute(query("config", "read_state")).mappings().one()
    return ConfigState(**row)


def update_state(connection: Connection, state: ConfigState, now: datetime) -> None:
    """Keep how a look went."""
    connection.execute(query("config", "update_state"), {**state.__dict__, "now": now})


def _version(row: RowMapping) -> ConfigVersion:
    temporary = {key: _temporary(when) for key, when in row["temporary"].items()}
    return ConfigVersion(
        version=row["version"],
        source=Source(row["source"]),
        base=row["base"],
        overrides=Overrides(row["overrides"], temporary),
        effective=row["effective"],
        config_hash=row["config_hash"],
        changes=row["changes"],
        changed_by=row["changed_by"],
        reason=row["reason"],
        changed_at=row["changed_at"].astimezone(UTC),
        refusal=row["refusal"],
    )


def _stored(when: Temporary) -> dict[str, Any]:
    return {"until": when.until.isoformat(), "back_to": when.back_to}


def _temporary(stored: Mapping[str, Any]) -> Temporary:
    return Temporary(datetime.fromisoformat(stored["until"]), stored["back_to"])


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, allow_nan=False)
