"""What the present is, what was known when, and how far each stage has come."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from sqlalchemy import Connection

from ops_pipeline.domain.errors import NotRunning
from ops_pipeline.domain.features import MAX_BAR_AGE_MINUTES, WINDOW_SESSIONS
from ops_pipeline.domain.session import Calendar, Session
from ops_pipeline.settings import Mode
from ops_pipeline.storage import orders
from ops_pipeline.storage.engine import lock_knowledge
from ops_pipeline.storage.queries import query


@dataclass(frozen=True)
class Cutoff:
    """A minute, the session that it belongs to, and the instant up to which it may know."""

    minute: datetime
    session_date: date
    cutoff: datetime


@dataclass(frozen=True)
class Progress:
    """How far a stage has come, and when it last wrote; None where it has finished nothing yet."""

    stage: str
    minute: datetime
    written_at: datetime | None


def clock() -> datetime:
    """The wall clock, aware and UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the one place that reads it


def server_clock(connection: Connection) -> datetime:
    """Return the clock of the database server, aware and UTC: the present of all processes."""
    return orders.server_clock(connection).astimezone(UTC)


def read_now(connection: Connection, mode: Mode) -> datetime:
    """The present, aware and UTC: the database server's clock, or in a replay the driver's.

    Raises:
        NotRunning: a replay that has not begun.
    """
    present = find_now(connection, mode)
    if present is None:
        raise NotRunning("the replay has no present yet", "run: ops-pipeline demo")
    return present


def find_now(connection: Connection, mode: Mode) -> datetime | None:
    """The present as read_now gives it; none in a replay that has not begun."""
    if mode.is_live:
        return server_clock(connection)
    present: datetime | None = connection.execute(query("knowledge", "read_present")).scalar()
    return present.astimezone(UTC) if present else None


def clock_skew_seconds(connection: Connection, mode: Mode) -> float:
    """Return how far the database server's clock is ahead of this process's; 0 in a replay.

    A round trip may take any time: only what lies outside of it counts.
    """
    if not mode.is_live:
        return 0.0
    before, now, after = clock(), read_now(connection, mode), clock()
    return (now - min(max(now, min(before, after)), max(before, after))).total_seconds()


def stamp_now(connection: Connection, mode: Mode) -> datetime:
    """The instant of receipt for rows of this transaction; cut-offs wait until it has ended."""
    lock_knowledge(connection, exclusive=False)
    return read_now(connection, mode)


def set_present(connection: Connection, present: datetime) -> None:
    """Move the present of a replay."""
    connection.execute(query("knowledge", "set_present"), {"present": present})


def stamp_cutoffs(
    connection: Connection,
    minutes: Sequence[tuple[Session, datetime]],
    cutoffs: Mapping[datetime, datetime],
    run_id: str,
    calendar: Calendar | None = None,
) -> None:
    """Keep the cut-off of each minute, and how far back it may look; the first write wins.

    Without a calendar the minutes may look back without bounds.
    """
    rows = [
        {
            "minute": minute,
            "session_date": session.day,
            "session_opens_at": session.opens_at,
            **_bounds(calendar, session, minute),
            "cutoff": cutoffs[minute],
            "run_id": run_id,
        }
        for session, minute in minutes
    ]
    if rows:
        connection.execute(query("knowledge", "insert_cutoffs"), rows)


def _bounds(
    calendar: Calendar | None, session: Session, minute: datetime
) -> dict[str, datetime | None]:
    """Return the first instant of the windows, and the start of the oldest bar that is current."""
    if calendar is None:
        return {"window_starts_at": None, "oldest_bar_at": None}
    return {
        "window_starts_at": calendar.back(session.day, WINDOW_SESSIONS - 1).opens_at,
        "oldest_bar_at": calendar.minutes_back(minute, MAX_BAR_AGE_MINUTES),
    }


def cutoffs_between(connection: Connection, start: datetime, end: datetime) -> list[Cutoff]:
    """The stored cut-offs of minutes in [start, end), in order."""
    rows = connection.execute(
        query("knowledge", "cutoffs_between"), {"start": start, "end": end}
    ).mappings()
    return [
        Cutoff(r["minute"].astimezone(UTC), r["session_date"], r["cutoff"].astimezone(UTC))
        for r in rows
    ]


def insert_stage_minutes(
    connection: Connection,
    stage: str,
    minutes: Iterable[tuple[Session, datetime]],
    counts: Mapping[datetime, int],
    run_id: str,
) -> None:
    """Keep that a stage has finished with these minutes, and how many rows each gave."""
    rows = [
        {
            "stage": stage,
            "minute": minute,
            "session_date": session.day,
            "rows_count": counts.get(minute, 0),
            "run_id": run_id,
        }
        for session, minute in minutes
    ]
    if rows:
        connection.execute(query("knowledge", "insert_stage_minutes"), rows)


def newest_stage_minutes(connection: Connection) -> dict[str, Progress]:
    """How far each stage has come, by its word."""
    rows = connection.execute(query("knowledge", "newest_stage_minutes")).mappings()
    return {row["stage"]: Progress(row["stage"], row["minute"], row["written_at"]) for row in rows}


def finished_minutes(
    connection: Connection, stages: Sequence[str], start: datetime, end: datetime
) -> set[datetime]:
    """The minutes in [start, end) that every one of these stages has finished."""
    rows = connection.execute(
        query("knowledge", "finished_minutes"),
        {"stages": list(stages), "start": start, "end": end},
    )
    return {row[0].astimezone(UTC) for row in rows}


def finished_since(
    connection: Connection, stage: str, start: datetime, end: datetime
) -> dict[datetime, datetime]:
    """The minutes in [start, end) that a stage has finished, and when it did last."""
    rows = connection.execute(
        query("knowledge", "finished_since"), {"stage": stage, "start": start, "end": end}
    )
    return {row[0].astimezone(UTC): row[1].astimezone(UTC) for row in rows}


def finished_counts(
    connection: Connection, stage: str, start: datetime, end: datetime
) -> dict[datetime, int]:
    """How many rows a stage has made for each minute in [start, end) that it has finished."""
    rows = connection.execute(
        query("knowledge", "finished_counts"), {"stage": stage, "start": start, "end": end}
    )
    return {row[0].astimezone(UTC): row[1] for row in rows}


def passed_minutes(
    connection: Connection,
    stages: Sequence[str],
    session_date: date,
    start: datetime,
    end: datetime,
) -> set[datetime]:
    """The minutes of a session in [start, end) that one of these stages has gone past.

    It has finished one of them, or a later one that may know as much: what is decided for the
    minute from now on was not there then.
    """
    rows = connection.execute(
        query("knowledge", "passed_minutes"),
        {"stages": list(stages), "session_date": session_date, "start": start, "end": end},
    )
    return {row[0].astimezone(UTC) for row in rows}


def late_decisions(
    connection: Connection, stage: str, session_date: date, start: datetime, end: datetime
) -> dict[datetime, datetime]:
    """When a stage's decisions in [start, end) that came after their cut-off could be known."""
    rows = connection.execute(
        query(stage, "late_decisions"), {"session_date": session_date, "start": start, "end": end}
    )
    return {row[0].astimezone(UTC): row[1].astimezone(UTC) for row in rows}


def finished_rows(connection: Connection, start: datetime, end: datetime) -> int:
    """How many rows all stages have made for the minutes in [start, end)."""
    parameters = {"start": start, "end": end}
    return int(connection.execute(query("knowledge", "finished_rows"), parameters).scalar_one())


def counts_by_minute(
    connection: Connection, stage: str, start: datetime, end: datetime
) -> dict[datetime, int]:
    """How many rows a stage has for each minute of [start, end)."""
    rows = connection.execute(query(stage, "count_by_minute"), {"start": start, "end": end})
    return {row[0].astimezone(UTC): row[1] for row in rows}


def insert_replay_session(connection: Connection, session_date: date, market: str) -> None:
    """Keep which market a session is played on."""
    row = {"session_date": session_date, "market": market}
    connection.execute(query("knowledge", "insert_replay_session"), row)


def replay_sessions(connection: Connection) -> dict[date, str]:
    """Which market each session was played on."""
    return {row[0]: row[1] for row in connection.execute(query("knowledge", "replay_sessions"))}
