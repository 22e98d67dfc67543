"""Report what became of the orders that close positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from ops_pipeline.domain.dispatch import Status
from ops_pipeline.domain.execution import Book
from ops_pipeline.domain.orders import OrderState
from ops_pipeline.domain.session import MINUTE, Calendar, both_zones, floor_minute
from ops_pipeline.domain.values import Position
from ops_pipeline.settings import Mode
from ops_pipeline.storage import dispatch, knowledge
from ops_pipeline.storage.dispatch import NewestClose
from ops_pipeline.storage.execution import live_fills

UNTRIED = "not tried yet"


@dataclass(frozen=True)
class Outcome:
    """The state of one closing order in words; `is_final` when this attempt has ended."""

    text: str
    is_flat: bool = False
    is_final: bool = False


def read_outcomes(
    connection: Connection, mode: Mode, held: Sequence[Position]
) -> dict[str, Outcome]:
    """Return the outcome of closing each of these positions, by ticker."""
    now = knowledge.read_now(connection, mode)
    left = Book(live_fills(connection, mode.calendar.day(now))).positions
    known = {position.ticker: left.get(position.ticker) for position in held}
    since = min((floor_minute(position.opened_at) for position in held), default=now)
    newest = dispatch.newest_closes(connection, list(known), since)
    tried = dispatch.closings(connection, [position for position in known.values() if position])
    session = mode.calendar.at(now)
    found = dict[str, Outcome]()
    for ticker, position in known.items():
        close, attempts = newest.get(ticker), tried.get(ticker)
        if position is None:
            price = f" at {close.price:,.2f} USD" if close and close.price else ""
            found[ticker] = Outcome(f"closed{price}", is_flat=True, is_final=True)
        elif session is None:
            found[ticker] = Outcome(f"market closed, {_opens(mode.calendar, now)}", is_final=True)
        elif close is None or attempts is None:
            found[ticker] = Outcome(UNTRIED)
        else:
            again = max(attempts.retry_at(session.closes_at), floor_minute(close.ts) + MINUTE)
            found[ticker] = _outcome(close, position.quantity, again)
    return found


def _opens(calendar: Calendar, now: datetime) -> str:
    today = calendar.on(calendar.day(now))
    session = today if today and today.opens_at > now else calendar.after(calendar.day(now))
    return f"will be tried from {both_zones(session.opens_at)} on"


def _outcome(close: NewestClose, left: int, again: datetime) -> Outcome:
    retry = f"{left:+,} left, will be tried again at {both_zones(again)}"
    if close.order_state in (OrderState.REJECTED, OrderState.CANCELED, OrderState.ABSENT):
        return Outcome(f"{close.order_state.lower()}: {close.order_reason}; {retry}", is_final=True)
    if close.order_state == OrderState.FILLED:
        return Outcome(f"filled in part; {retry}", is_final=True)
    if close.order_state:
        return Outcome(f"at the broker, {close.order_state}, {left:+,} left")
    if close.status == Status.PENDING:
        return Outcome("waits for a run of the dispatcher, or in a simulation for the next bar")
    if close.status == Status.PROCESSING:
        return Outcome("being decided")
    return Outcome(f"{close.status}: {close.failure_reason}; {retry}", is_final=True)
