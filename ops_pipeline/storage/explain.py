"""What an execution, a recommendation or a minute stands on, row by row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, RowMapping

from ops_pipeline.domain.features import WINDOWS
from ops_pipeline.domain.gates import GATES, GateResult
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.values import Bar, Fill
from ops_pipeline.storage.execution import FILL_MODELS, SIMULATED
from ops_pipeline.storage.queries import query

SHOWN_BARS = 20


@dataclass(frozen=True)
class Executed:
    """One row of the ledger; quantity is in shares, without sign."""

    execution_id: UUID
    recommendation_id: int
    run_id: UUID
    at: datetime
    session_date: date
    ticker: str
    intent: str
    side: str
    quantity: int
    price: float
    stop_price: float | None
    target_price: float | None
    max_hold_minutes: int | None
    fill_model: str
    slippage_bps: float
    bar_used: Mapping[str, Any] | None

    @property
    def is_simulated(self) -> bool:
        """Whether it was filled at once, at this price; a broker's fills stand with the order."""
        return self.fill_model == FILL_MODELS[SIMULATED]


@dataclass(frozen=True)
class Recommended:
    """One row of the queue, and what became of it."""

    id: int
    ts: datetime
    ticker: str
    minute: datetime
    session_date: date
    action: str
    intent: str
    confidence: float
    status: str
    failure_reason: str | None
    expires_at: datetime
    processed_at: datetime | None
    reason: Mapping[str, Any]
    gates: tuple[GateResult, ...]
    run_id: UUID | None


@dataclass(frozen=True)
class DispatcherRun:
    """A run of the dispatcher, with every setting in force."""

    run_id: UUID
    started_at: datetime
    mode: str
    code_version: str
    config_version: int | None
    config_hash: str
    config: Mapping[str, Any]
    orchestrator_run_id: str


@dataclass(frozen=True)
class StampedCutoff:
    """Up to when a minute may know, how far back, and which run of the orchestrator said so."""

    minute: datetime
    session_date: date
    session_opens_at: datetime
    cutoff: datetime
    run_id: str
    window_starts_at: datetime | None = None
    oldest_bar_at: datetime | None = None

    @property
    def look_back(self) -> int:
        """How many bars the features of this minute look at, at most."""
        minutes = (self.minute + MINUTE - self.session_opens_at) // MINUTE
        return max(WINDOWS["lookback_bars"], minutes)


@dataclass(frozen=True)
class VisibleBars:
    """The bars that a minute could see: how many, since when, and the newest of them."""

    count: int
    first_minute: datetime | None
    newest: tuple[Bar, ...]


@dataclass(frozen=True)
class Story:
    """A story of one ticker: who told it, how the ticker was seen, and what the model said."""

    news_id: str
    title: str
    link: str
    published_at: datetime | None
    available_at: datetime
    feeds: tuple[str, ...]
    match_source: str | None
    span: str | None
    label: str | None
    score: float | None
    probability: float | None
    model: str | None
    revision: str | None


@dataclass(frozen=True)
class Unresolved:
    """A link of an execution that leads nowhere; `missing` names what is not there."""

    execution_id: UUID
    ticker: str
    link: str
    missing: str


def executions_that_begin(connection: Connection, prefix: str) -> list[UUID]:
    """The executions whose id begins with these hexadecimal digits, two of them at most."""
    bounds = {"lowest": UUID(prefix.ljust(32, "0")), "highest": UUID(prefix.ljust(32, "f"))}
    return list(connection.execute(query("explain", "executions_that_begin"), bounds).scalars())


def execution(
    connection: Connection,
    execution_id: UUID | None = None,
    *,
    recommendation_id: int | None = None,
) -> Executed | None:
    """An execution by its own id, or by its recommendation's."""
    wanted = {"execution_id": execution_id, "recommendation_id": recommendation_id}
    row = connection.execute(query("explain", "execution"), wanted).mappings().first()
    return Executed(**_in_utc(row)) if row else None


def executions_of(connection: Connection, orchestrator_run_id: str, limit: int) -> list[UUID]:
    """The executions that a run of the orchestrator made, the newest first."""
    wanted = {"orchestrator_run_id": orchestrator_run_id, "limit": limit}
    return list(connection.execute(query("explain", "executions_of"), wanted).scalars())


def recommendation(
    connection: Connection,
    recommendation_id: int | None = None,
    *,
    ticker: str | None = None,
    minute: datetime | None = None,
) -> Recommended | None:
    """A recommendation by its id, or by the ticker and minute that it opens a position for."""
    wanted = {"id": recommendation_id, "ticker": ticker, "minute": minute}
    row = connection.execute(query("explain", "recommendation"), wanted).mappings().first()
    if row is None:
        return None
    return Recommended(**{**_in_utc(row), "gates": _gates(row["gates"] or {})})


def dispatcher_run(connection: Connection, run_id: UUID) -> DispatcherRun:
    """A run of the dispatcher."""
    row = connection.execute(query("explain", "run"), {"run_id": run_id}).mappings().one()
    return DispatcherRun(**_in_utc(row))


def cutoff(connection: Connection, minute: datetime) -> StampedCutoff | None:
    """The cut-off of a minute; None where nobody has decided it."""
    row = connection.execute(query("explain", "cutoff"), {"minute": minute}).mappings().first()
    return StampedCutoff(**_in_utc(row)) if row else None


def decided_at(connection: Connection, session_date: date, minute: datetime) -> datetime | None:
    """The decision of the watchlist that is in force in a minute; None before the first one."""
    wanted = {"session_date": session_date, "minute": minute}
    found: datetime | None = connection.execute(query("explain", "decided_at"), wanted).scalar()
    return found.astimezone(UTC) if found else None


def stage_runs(
    connection: Connection, minute: datetime, decided: datetime | None
) -> dict[str, str]:
    """Which run of the orchestrator made each data stage of a minute."""
    wanted = {"minute": minute, "decided_at": decided}
    return {row[0]: row[1] for row in connection.execute(query("explain", "stage_runs"), wanted)}


def features(connection: Connection, ticker: str, minute: datetime) -> dict[str, Any] | None:
    """All columns of a feature row."""
    wanted = {"ticker": ticker, "minute": minute}
    row = connection.execute(query("explain", "features"), wanted).mappings().first()
    return _in_utc(row) if row else None


def visible_bars(
    connection: Connection, ticker: str, until: datetime, known: StampedCutoff
) -> VisibleBars:
    """The bars up to a minute that were known at a cut-off, as far as features look back."""
    wanted = {
        "ticker": ticker,
        "minute": until,
        "cutoff": known.cutoff,
        "window_starts_at": known.window_starts_at,
        "look_back": known.look_back,
        "shown": SHOWN_BARS,
    }
    rows = [
        _in_utc(row)
        for row in connection.execute(query("explain", "visible_bars"), wanted).mappings()
    ]
    if not rows:
        return VisibleBars(0, None, ())
    names = [field.name for field in fields(Bar) if field.name in rows[0]]
    newest = tuple(Bar(**{name: row[name] for name in names}) for row in rows)
    return VisibleBars(rows[0]["visible_count"], rows[0]["first_minute"], newest)


def stories(
    connection: Connection, ticker: str, news_ids: Sequence[str], known_at: datetime
) -> tuple[Story, ...]:
    """The stories of these ids that are there, in the ids' order."""
    wanted = {"ticker": ticker, "news_ids": list(news_ids), "cutoff": known_at}
    rows = connection.execute(query("explain", "stories"), wanted).mappings()
    return tuple(Story(**{**_in_utc(row), "feeds": tuple(row["feeds"] or ())}) for row in rows)


def fills_of_position(
    connection: Connection, execution_id: UUID, opened_at: datetime
) -> list[tuple[UUID, Fill]]:
    """The fills from the opening of a position to an execution, each with its id."""
    wanted = {"execution_id": execution_id, "opened_at": opened_at}
    rows = connection.execute(query("explain", "fills_of_position"), wanted).mappings()
    found = [_in_utc(row) for row in rows]
    return [(row.pop("execution_id"), Fill(**row)) for row in found]


def count_executions(connection: Connection, first: date, last: date) -> int:
    """How many executions the sessions from the first day to the last one have."""
    days = {"first": first, "last": last}
    return int(connection.execute(query("explain", "count_executions"), days).scalar_one())


def unresolved_links(
    connection: Connection, first: date, last: date, execution_id: UUID | None = None
) -> list[Unresolved]:
    """What the executions of these sessions stand on and is not there; of all, or of one."""
    wanted = {"first": first, "last": last, "execution_id": execution_id}
    rows = connection.execute(query("explain", "unresolved_links"), wanted).mappings()
    return [Unresolved(**row) for row in rows]


def _gates(answers: Mapping[str, Any]) -> tuple[GateResult, ...]:
    order = [gate.name for gate in GATES]
    known = [name for name in order if name in answers]
    # A gate that is gone since then has still answered.
    return tuple(
        GateResult(gate=name, **answers[name])
        for name in [*known, *sorted(set(answers) - set(order))]
    )


def _in_utc(row: RowMapping) -> dict[str, Any]:
    return {
        name: value.astimezone(UTC) if isinstance(value, datetime) else value
        for name, value in row.items()
    }
