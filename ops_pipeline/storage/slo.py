"""How fast a session's minutes were: asked of the stages' own rows, kept by session."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Connection

from ops_pipeline.domain.session import Session
from ops_pipeline.domain.slo import (
    MINUTE_PHASES,
    PHASES,
    RUN_LAUNCH,
    Growth,
    Measurement,
    Phase,
    Sizes,
    Turns,
)
from ops_pipeline.domain.stages import DATA_STAGES
from ops_pipeline.storage.queries import query


@dataclass(frozen=True)
class Taken:
    """What the stages' rows say of a session, and which runs took minutes in their own turn."""

    turns: Turns
    phases: tuple[Phase, ...]
    run_ids: tuple[str, ...]


def measure(
    connection: Connection, session: Session, until: datetime, settle_seconds: float
) -> Taken:
    """The session's minutes before `until`, with percentiles of those taken in their own turn."""
    found = connection.execute(
        query("slo", "measure"),
        {
            "session_date": session.day,
            "opens_at": session.opens_at,
            "until": until,
            "settle": settle_seconds,
            "stages": [stage.name for stage in DATA_STAGES],
            "phases": list(MINUTE_PHASES),
        },
    )
    rows = [dict(row) for row in found.mappings()]
    first = rows[0]
    return Taken(_turns(first), tuple(map(_phase, rows)), tuple(sorted(set(first["run_ids"]))))


def launches(dagster: Connection, run_ids: Sequence[str]) -> Phase:
    """Seconds from the creation of each run to its first step; asked of Dagster's database."""
    found = dagster.execute(query("slo", "launches"), {"run_ids": list(run_ids)}).mappings()
    return _phase({"phase": RUN_LAUNCH, **found.one()})


def sizes(connection: Connection, dagster: Connection, at: datetime) -> Sizes:
    """Bytes on disk, now."""
    return Sizes(
        at,
        int(dagster.execute(query("slo", "event_log_bytes")).scalar_one()),
        int(connection.execute(query("slo", "database_bytes")).scalar_one()),
    )


def is_unmeasured(connection: Connection, session: Session) -> bool:
    """Whether a session that is over had minutes, and was not measured since its close."""
    asked = {
        "session_date": session.day,
        "opens_at": session.opens_at,
        "closes_at": session.closes_at,
    }
    return bool(connection.execute(query("slo", "is_unmeasured"), asked).scalar_one())


def is_newest(connection: Connection, session_date: date) -> bool:
    """Whether no later session was measured; only then are sizes of the present this session's."""
    found = connection.execute(query("slo", "is_newest"), {"session_date": session_date})
    return bool(found.scalar_one())


def sizes_since(connection: Connection, session_date: date) -> Sizes | None:
    """What a session's growth is counted from; None for the first that was ever measured."""
    found = connection.execute(query("slo", "sizes_since"), {"session_date": session_date})
    row = found.mappings().one_or_none()
    if row is None:
        return None
    return Sizes(row["since"].astimezone(UTC), row["event_log_bytes"], row["database_bytes"])


def replace(connection: Connection, measured: Measurement, since: Sizes | None) -> None:
    """Keep a measurement; that of the same session before it is replaced."""
    day = {"session_date": measured.session_date}
    # The counters first: whoever measures the same session waits for that one row.
    connection.execute(
        query("slo", "upsert_counters"),
        {
            **day,
            **asdict(measured.turns),
            **asdict(measured.growth),
            "since": since.at if since else None,
            "event_log_bytes_since": since.event_log_bytes if since else None,
            "database_bytes_since": since.database_bytes if since else None,
            "measured_at": measured.measured_at,
        },
    )
    phases = [{**day, **asdict(phase)} for phase in measured.phases]
    if phases:
        connection.execute(query("slo", "upsert_phase"), phases)


def read(connection: Connection, day: date | None = None) -> Measurement | None:
    """The measurement of a session, or without a day the last one; None where there is none."""
    row = connection.execute(query("slo", "counters"), {"day": day}).mappings().one_or_none()
    if row is None:
        return None
    phases = connection.execute(
        query("slo", "phases"), {"session_date": row["session_date"], "phases": list(PHASES)}
    ).mappings()
    return Measurement(
        row["session_date"],
        row["measured_at"].astimezone(UTC),
        _turns(dict(row)),
        Growth(**{name: row[name] for name in Growth.__dataclass_fields__}),
        tuple(_phase(dict(phase)) for phase in phases),
    )


def _turns(row: Mapping[str, Any]) -> Turns:
    return Turns(
        row["minutes"],
        row["skipped"],
        row["late"],
        _utc(row["first_skipped"]),
        _utc(row["first_late"]),
        row["operator_down"],
    )


def _phase(row: Mapping[str, Any]) -> Phase:
    return Phase(**{name: row[name] for name in Phase.__dataclass_fields__})


def _utc(at: datetime | None) -> datetime | None:
    return at.astimezone(UTC) if at else None
