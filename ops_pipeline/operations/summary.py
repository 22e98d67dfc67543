"""One session in a few numbers: rows, signals, executions, skips by gate, profit."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date

from sqlalchemy import Connection

from ops_pipeline.domain.dispatch import gate_of
from ops_pipeline.domain.execution import Book
from ops_pipeline.domain.session import Calendar, Session
from ops_pipeline.storage import summary as storage
from ops_pipeline.storage.execution import fills_until
from ops_pipeline.storage.summary import Outcome


@dataclass(frozen=True)
class SessionSummary:
    """What one session came to."""

    day: date
    rows: dict[str, int]
    signals: int
    signals_by_action: dict[str, int]
    executions: int
    entries: int
    exits: int
    skips_by_gate: dict[str, int] = field(default_factory=dict)
    not_terminal: int = 0
    failed: int = 0
    profit_usd: float | None = None
    positions_left: int = 0


def summarize(connection: Connection, session: Session, calendar: Calendar) -> SessionSummary:
    """Count a session's rows; profit is realised, plus what is open at the session's last close."""
    since = calendar.before(session.day).closes_at
    rows = storage.rows_of_session(connection, session.day, since, session.closes_at)
    outcomes = storage.outcomes_of_session(connection, session.day)
    held = Book(fills_until(connection, session.day))
    executed = [o for o in outcomes if o.status in ("SIMULATED", "EXECUTED")]
    return SessionSummary(
        day=session.day,
        rows=rows,
        signals=_count(o for o in outcomes if o.intent == "open"),
        signals_by_action=_group((o.action, o) for o in outcomes if o.intent == "open"),
        executions=_count(executed),
        entries=_count(o for o in executed if o.intent == "open"),
        exits=_count(o for o in executed if o.intent == "close"),
        skips_by_gate=_group(
            (gate_of(o.failure_reason), o) for o in outcomes if o.status == "SKIPPED"
        ),
        not_terminal=_count(o for o in outcomes if o.status in ("PENDING", "PROCESSING")),
        failed=_count(o for o in outcomes if o.status == "FAILED"),
        profit_usd=held.session_pnl(
            session.day, storage.closes_of_session(connection, session.day)
        ),
        positions_left=len(held.positions),
    )


def _count(outcomes: Iterable[Outcome]) -> int:
    return sum(outcome.rows_count for outcome in outcomes)


def _group(pairs: Iterable[tuple[str, Outcome]]) -> dict[str, int]:
    groups: dict[str, int] = {}
    for key, outcome in pairs:
        groups[key] = groups.get(key, 0) + outcome.rows_count
    return dict(sorted(groups.items(), key=lambda item: (-item[1], item[0])))
