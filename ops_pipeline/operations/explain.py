"""Why a trade was made, or was not: from the execution down to the bars and the news."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.execution import Book
from ops_pipeline.domain.features import WINDOWS
from ops_pipeline.domain.gates import CLOSE, GateResult
from ops_pipeline.domain.session import MINUTE, Calendar, both_zones
from ops_pipeline.domain.signals import HOLD, Confidence
from ops_pipeline.domain.values import Signal, WatchlistEntry
from ops_pipeline.storage import explain as storage
from ops_pipeline.storage import orders, signals, universe, watchlist
from ops_pipeline.storage.explain import (
    DispatcherRun,
    Executed,
    Recommended,
    StampedCutoff,
    Story,
    Unresolved,
    VisibleBars,
)
from ops_pipeline.storage.orders import PlacedOrder

# Why the rules hold, in the words of what they looked at.
HOLDS = {
    "NO_FEATURES": "its features are incomplete",
    "NO_SETUP": "no setup at {distance_sma20:+.2%} from sma20 with trend {trend_state:+d}",
    "VOLUME_TOO_LOW": "volume is {volume_ratio:.2f} of its mean",
    "CONFIDENCE_TOO_LOW": "confidence {confidence:.2f} is too low",
    "COOLDOWN": "it was recommended at {last}",
}


@dataclass(frozen=True)
class Basis:
    """What was known and decided of a ticker in a minute, stage by stage."""

    cutoff: StampedCutoff | None
    bars: VisibleBars | None
    features: Mapping[str, Any] | None
    news: tuple[Story, ...]
    decided_at: datetime | None
    watchlist: WatchlistEntry | None
    signal: Signal | None
    stage_runs: Mapping[str, str]

    @property
    def confidence(self) -> Confidence | None:
        """The signal's confidence and its factors; None where the rules got no further."""
        breakdown = self.signal.reason.get("confidence_breakdown") if self.signal else None
        return Confidence(**breakdown) if breakdown else None


@dataclass(frozen=True)
class RoundTrip:
    """The position that an execution closed; None where its opening is not in the ledger."""

    exit: str
    opened_at: datetime | None
    opening_id: UUID | None = None
    opening_price: float | None = None
    average_price: float | None = None
    profit_usd: float | None = None


@dataclass(frozen=True)
class Explanation:
    """One verdict, and everything that it rests on; `unresolved` names what is not there."""

    headline: str
    ticker: str
    minute: datetime
    execution: Executed | None = None
    order: PlacedOrder | None = None
    recommendation: Recommended | None = None
    run: DispatcherRun | None = None
    basis: Basis | None = None
    round_trip: RoundTrip | None = None
    unresolved: tuple[Unresolved, ...] = ()

    @property
    def gates(self) -> tuple[GateResult, ...]:
        """The gates' answers in their order; none where nobody has asked them."""
        return self.recommendation.gates if self.recommendation else ()


def explain_execution(connection: Connection, execution_id: UUID) -> Explanation:
    """Why a trade was made.

    Raises:
        BadInput: the ledger has no such execution.
    """
    executed = storage.execution(connection, execution_id)
    if executed is None:
        raise BadInput(
            f"there is no execution {execution_id}",
            'list them with: ops-pipeline sql "select execution_id from dispatch_executions"',
        )
    recommended = storage.recommendation(connection, executed.recommendation_id)
    assert recommended is not None  # noqa: S101 - the ledger refers to it
    return _explained(connection, recommended, executed)


def explain_recommendation(connection: Connection, recommendation_id: int) -> Explanation:
    """What became of a recommendation, and why.

    Raises:
        BadInput: the queue has no such recommendation.
    """
    recommended = storage.recommendation(connection, recommendation_id)
    if recommended is None:
        raise BadInput(
            f"there is no recommendation {recommendation_id}",
            'list them with: ops-pipeline sql "select id from dispatch_recommendations"',
        )
    executed = storage.execution(connection, recommendation_id=recommendation_id)
    return _explained(connection, recommended, executed)


def explain_minute(
    connection: Connection, ticker: str, minute: datetime, calendar: Calendar
) -> Explanation:
    """Why a ticker was traded in a minute, or the first thing that stood in the way.

    Raises:
        BadInput: the ticker is not tracked, or the minute belongs to no session.
    """
    _require_known(connection, ticker, minute)
    day = _session_day(calendar, minute)
    recommended = storage.recommendation(connection, ticker=ticker, minute=minute)
    if recommended is not None:
        executed = storage.execution(connection, recommendation_id=recommended.id)
        return _explained(connection, recommended, executed)
    basis = _basis(connection, ticker, minute, day)
    obstacle = _obstacle(connection, ticker, minute, basis)
    return Explanation(f"not traded: {obstacle}", ticker, minute, basis=basis)


def explain_run(
    connection: Connection, orchestrator_run_id: str, limit: int = 10
) -> list[Explanation]:
    """The executions that a run of the orchestrator made, the newest first."""
    made = storage.executions_of(connection, orchestrator_run_id, limit)
    return [explain_execution(connection, execution_id) for execution_id in made]


def usd(price: float | None) -> str:
    """A price with the digits that the exchange gives it."""
    if price is None:
        return "-"
    return f"{price:,.2f}" if price >= 1 else f"{price:.4f}"


def _require_known(connection: Connection, ticker: str, minute: datetime) -> None:
    tracked = [known.symbol for known in universe.universe(connection)]
    # Another market may have been played since then.
    if ticker not in tracked and storage.features(connection, ticker, minute) is None:
        raise BadInput(f"{ticker} is not tracked; tracked are {', '.join(tracked)}")


def _session_day(calendar: Calendar, minute: datetime) -> date:
    try:
        session = calendar.at(minute)
    except (ValueError, OverflowError):  # the calendar knows no such year
        session = None
    if session is None:
        raise BadInput(
            f"{minute.isoformat()} is no minute of a session of {calendar.name}",
            "without a zone it is time at the exchange: --minute 2025-02-12T10:15",
        )
    return session.day


def _explained(
    connection: Connection, recommended: Recommended, executed: Executed | None
) -> Explanation:
    ticker, minute, day = recommended.ticker, recommended.minute, recommended.session_date
    is_exit = recommended.intent == CLOSE
    trip = _round_trip(connection, recommended, executed) if is_exit else None
    links = []
    if executed:
        session_date = executed.session_date
        links = storage.unresolved_links(
            connection, session_date, session_date, executed.execution_id
        )
    run_id, order = recommended.run_id, orders.order_of(connection, recommended.id)
    return Explanation(
        headline=_traded(recommended, executed, trip, order)
        if executed
        else _not_traded(recommended),
        ticker=ticker,
        minute=minute,
        execution=executed,
        order=order,
        recommendation=recommended,
        run=storage.dispatcher_run(connection, run_id) if run_id else None,
        basis=None if is_exit else _basis(connection, ticker, minute, day),
        round_trip=trip,
        unresolved=tuple(links),
    )


def _basis(connection: Connection, ticker: str, minute: datetime, day: date) -> Basis:
    known = storage.cutoff(connection, minute)
    row = storage.features(connection, ticker, minute)
    until = row["bar_at"] if row else minute
    decided_at = storage.decided_at(connection, day, minute)
    decided = signals.signals_between(connection, day, minute, minute + MINUTE).get(minute, [])
    return Basis(
        cutoff=known,
        bars=storage.visible_bars(connection, ticker, until, known) if known else None,
        features=row,
        news=storage.stories(connection, ticker, row["news_ids"], row["available_at"])
        if row
        else (),
        decided_at=decided_at,
        watchlist=_watched(connection, ticker, day, decided_at) if decided_at else None,
        signal=next((signal for signal in decided if signal.ticker == ticker), None),
        stage_runs=storage.stage_runs(connection, minute, decided_at),
    )


def _watched(
    connection: Connection, ticker: str, day: date, decided_at: datetime
) -> WatchlistEntry | None:
    found = watchlist.entries_between(connection, day, decided_at, decided_at + MINUTE)
    return next((entry for entry in found.get(decided_at, []) if entry.ticker == ticker), None)


def _round_trip(
    connection: Connection, recommended: Recommended, executed: Executed | None
) -> RoundTrip:
    said, reason = recommended.reason.get("position_opened_at"), recommended.reason.get("exit")
    trip = RoundTrip(reason or "no reason", datetime.fromisoformat(said) if said else None)
    if executed is None or trip.opened_at is None:
        return trip
    found = storage.fills_of_position(connection, executed.execution_id, trip.opened_at)
    if len(found) < 2 or found[0][1].at != trip.opened_at:
        return trip
    (opening_id, opening), fills = found[0], [fill for _, fill in found]
    held = Book(fills[:-1]).positions.get(recommended.ticker)
    return RoundTrip(
        exit=trip.exit,
        opened_at=trip.opened_at,
        opening_id=opening_id,
        opening_price=opening.price,
        average_price=held.average_price if held else None,
        profit_usd=sum(Book(fills).realised_usd.values()),
    )


def _traded(
    recommended: Recommended,
    executed: Executed,
    trip: RoundTrip | None,
    order: PlacedOrder | None,
) -> str:
    verb = "bought" if executed.side == "buy" else "sold"
    what = f"{verb} {executed.quantity} {executed.ticker} at {usd(executed.price)} USD"
    if order:
        filled = f"{order.filled_quantity} of {order.quantity} {executed.ticker}"
        at = f" at {usd(order.filled_price)} USD" if order.filled_price else ""
        what = f"order {order.state}: {verb} {filled}{at}"
    if trip is None:
        passed = sum(gate.passed for gate in recommended.gates)
        rule = recommended.reason.get("rule", "no rule")
        return f"{what}: {rule} with confidence {recommended.confidence:.2f}, {passed} gates passed"
    profit = "unknown profit" if trip.profit_usd is None else f"{trip.profit_usd:+,.2f} USD"
    return f"{what}: exit by {trip.exit}, {profit}"


def _not_traded(recommended: Recommended) -> str:
    what = f"{recommended.action} of {recommended.ticker}"
    refusals = [gate for gate in recommended.gates if not gate.passed]
    if refusals:
        names = ", ".join(gate.gate for gate in refusals)
        return f"not traded: {what} was refused by {names} ({refusals[0].reason})"
    if recommended.failure_reason:
        return f"not traded: {what} is {recommended.status}, {recommended.failure_reason}"
    return f"not traded so far: {what} is {recommended.status}"


def _obstacle(connection: Connection, ticker: str, minute: datetime, basis: Basis) -> str:
    if basis.cutoff is None:
        return "the minute was not decided, it has no cut-off"
    if basis.features is None:
        return f"{ticker} has no features, {_why_no_features(basis)}"
    if basis.decided_at is None:
        return "the watchlist had not decided yet in this session"
    if basis.watchlist is None:
        return (
            f"{ticker} had no features when the watchlist decided, {both_zones(basis.decided_at)}"
        )
    if not basis.watchlist.in_watchlist:
        place = f"rank {basis.watchlist.rank} with score {basis.watchlist.score:.2f}"
        return f"{ticker} was not on the watchlist, {place} ({basis.watchlist.reason})"
    if basis.signal is None:
        return "the stage signals has not decided this minute"
    if basis.signal.action == HOLD:
        return f"HOLD, {basis.signal.rule}: {_why_hold(connection, basis.signal, basis)}"
    return f"the signal {basis.signal.action} of {both_zones(minute)} became no recommendation"


def _why_no_features(basis: Basis) -> str:
    count = basis.bars.count if basis.bars else 0
    if not basis.cutoff or not basis.bars or not count:
        return "no bar was known"
    newest, oldest = basis.bars.newest[0].minute, basis.cutoff.oldest_bar_at
    if oldest and newest < oldest:
        return f"its newest bar, {both_zones(newest)}, is older than {both_zones(oldest)}"
    if count < WINDOWS["min_bars"]:
        return f"only {count} of {WINDOWS['min_bars']} bars were known"
    return "the stage features has not computed this minute"


def _why_hold(connection: Connection, signal: Signal, basis: Basis) -> str:
    assert basis.cutoff is not None  # noqa: S101 - whoever asks has looked
    end = signal.minute + MINUTE
    known_at = signals.actionable_known(
        connection, basis.cutoff.session_date, signal.minute, end
    ).get(signal.ticker)
    since = both_zones(known_at[-1].minute) if known_at else "another minute"
    known = {**(basis.features or {}), "confidence": signal.confidence, "last": since}
    return HOLDS.get(signal.rule, "the rules say so").format(**known)
