"""Takes out of the ledger what somebody closed by hand at the broker, before it is closed again."""

import logging
from datetime import datetime

from sqlalchemy import Connection

from ops_pipeline.dispatcher.brokers import Broker
from ops_pipeline.dispatcher.snapshot import Account, read_account
from ops_pipeline.domain.execution import closed_by_hand
from ops_pipeline.domain.gates import CLOSE
from ops_pipeline.domain.session import Calendar
from ops_pipeline.domain.values import Fill, Position
from ops_pipeline.storage import dispatch, execution, stream

log = logging.getLogger(__name__)


def read_settled_account(
    connection: Connection, now: datetime, calendar: Calendar, broker: Broker
) -> Account:
    """The account at an instant, once what was closed by hand has left the ledger.

    A ticker of which an order of ours is at work is left until that is over.
    """
    account = read_account(connection, now, calendar, broker=broker)
    if not _closed(account):
        return account
    # Another run may be doing the same.
    dispatch.lock_account(connection)
    account = read_account(connection, now, calendar, broker=broker)
    fills = [
        Fill(
            ticker=position.ticker,
            at=now,
            session_date=calendar.day(now),
            quantity=quantity,
            price=_price(connection, position),
            intent=CLOSE,
        )
        for position, quantity in _closed(account)
    ]
    if not fills:
        return account
    log.warning("closed_by_hand", extra={"data": {fill.ticker: fill.quantity for fill in fills}})
    execution.insert_manual_fills(connection, fills)
    return read_account(connection, now, calendar, broker=broker)


def _closed(account: Account) -> list[tuple[Position, int]]:
    at_work = {order.ticker for order in account.book.working}
    return [
        (position, quantity)
        for ticker, position in sorted(account.book.positions.items())
        if ticker in account.external
        and ticker not in at_work
        and (quantity := closed_by_hand(position.quantity, account.external[ticker].quantity))
    ]


def _price(connection: Connection, position: Position) -> float:
    """What the hand got; where no order tells of it (an account that was reset), what we paid."""
    found = stream.price_by_hand(connection, dispatch.ACCOUNT, position.ticker, position.opened_at)
    return found or position.average_price
