"""The summary of a session, as it is sent once after its close."""

from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from ops_pipeline.domain.acceptance import Level
from ops_pipeline.domain.alerts import Kind, Message
from ops_pipeline.domain.session import Calendar, Session, both_zones
from ops_pipeline.operations.summary import SessionSummary, summarize
from ops_pipeline.storage.acceptance import installed_at
from ops_pipeline.storage.alerts import has_summary, insert_message, opened_between

# The last minute of a session is decided after its close; a day later nobody wants to know.
SETTLED_AFTER, STALE_AFTER = timedelta(minutes=10), timedelta(hours=12)


def sum_up(connection: Connection, now: datetime, calendar: Calendar) -> Message | None:
    """Say what the newest session came to, once.

    None where that was said, nothing traded, or the pipeline was installed after its close.
    """
    session, since = closed_session(calendar, now), installed_at(connection)
    if session is None or session.closes_at <= since <= now:
        return None
    if has_summary(connection, session.day):
        return None
    found = summarize(connection, session, calendar)
    if not any(found.rows.values()):
        return None
    message = _message(connection, found, session, calendar)
    if session.opens_at < since <= now:
        begun = f"part of the session: installed at {both_zones(since)}"
        message = replace(message, body=f"{begun}\n{message.body}")
    insert_message(connection, message, now, session_date=session.day)
    return message


def closed_session(calendar: Calendar, now: datetime) -> Session | None:
    """The session that is over and settled, and closed not long ago."""
    settled = now - SETTLED_AFTER
    today = calendar.on(calendar.day(settled))
    is_over = today is not None and today.closes_at <= settled
    session = today if today and is_over else calendar.before(calendar.day(settled))
    return session if settled - session.closes_at < STALE_AFTER else None


def _message(
    connection: Connection, found: SessionSummary, session: Session, calendar: Calendar
) -> Message:
    since = calendar.before(session.day).closes_at
    opened = opened_between(connection, since, session.closes_at)
    count = sum(number for _, number, _ in opened)
    profit = "unknown" if found.profit_usd is None else f"{found.profit_usd:+,.2f} USD"
    alerts = [f"{number} {level} ({left} open)" for level, number, left in opened]
    lines = [
        f"rows: {_counts(found.rows)}",
        f"signals: {found.signals} ({_counts(found.signals_by_action) or 'none'})",
        f"executions: {found.executions} ({found.entries} entries, {found.exits} exits)",
        f"skipped: {_counts(found.skips_by_gate) or 'none'}",
        f"failed: {found.failed}, not done: {found.not_terminal}",
        f"profit: {profit}, positions left: {found.positions_left}",
        f"alerts: {', '.join(alerts) or 'none'}",
    ]
    title = f"[SUMMARY] {session.day}: {found.executions} executions, {profit}, {count} alerts"
    return Message(Kind.SUMMARY, Level.LOW, title, "\n".join(lines))


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
