"""Puts together what a broker tells of an account: by frames, by requests, in any order.

Frames are kept before anybody looks at them. Requests tell the same again, and what no frame told.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ops_pipeline.clients.alpaca_books import Books, Update, read_frame
from ops_pipeline.clients.alpaca_fields import Unreadable
from ops_pipeline.dispatcher.outage import is_outage
from ops_pipeline.domain.adjustments import Activity, explained
from ops_pipeline.domain.execution import Book
from ops_pipeline.domain.gates import HALTED
from ops_pipeline.domain.orders import (
    CLIENT_ID_PREFIX,
    OrderReport,
    OrderState,
    OrderTicket,
    learnt,
)
from ops_pipeline.domain.session import NEW_YORK
from ops_pipeline.domain.stream import (
    ZERO,
    BrokerEvent,
    BrokerOrder,
    Difference,
    Holding,
    differences,
    joined,
)
from ops_pipeline.domain.values import Position
from ops_pipeline.storage import dispatch, orders
from ops_pipeline.storage import stream as storage
from ops_pipeline.storage.execution import live_fills
from ops_pipeline.storage.stream import (
    APPLIED,
    REPEATED,
    UNREADABLE,
    FrameVerdict,
    KeptFrame,
    Lease,
    RawFrame,
)

log = logging.getLogger(__name__)

AT_ONCE = 500
# Orders and fills are asked for from so long before the newest that is known: the broker's clock
# and ours may differ. What a look reads, it holds in memory.
OVERLAP, FIRST_LOOK = timedelta(minutes=1), timedelta(days=7)
# The database's clock may be behind ours by so much.
CLOCKS = timedelta(seconds=1)
FOLLOWED_BY = "trade-stream"


@dataclass(frozen=True)
class Applied:
    """What became of frames: how many told something, how many could not be read."""

    frames: int = 0
    unreadable: int = 0


@dataclass(frozen=True)
class Look:
    """What a look at the account has found: what no frame had told, and what does not add up.

    The first look counts when nothing moved meanwhile; until then it is not `is_settled`, and
    neither is one that did not read all fills.
    """

    healed: int
    differences: tuple[Difference, ...]
    unreadable: tuple[str, ...]
    is_settled: bool = True


def keep_frames(engine: Engine, lease: Lease, frames: Sequence[RawFrame]) -> None:
    """Keep frames as they came, before anybody looks at them.

    Raises:
        LeaseLost: another process follows the account.
    """
    with engine.begin() as connection:
        storage.require_lease(connection, lease)
        storage.insert_frames(connection, lease.account, frames)


def apply_frames(engine: Engine, lease: Lease) -> Applied:
    """Look at all frames that were kept; one that harms the others is looked at alone.

    Raises:
        LeaseLost: another process follows the account.
    """
    total = Applied()
    while True:
        with engine.connect() as connection:
            kept = storage.received_frames(connection, lease.account, AT_ONCE)
        if not kept:
            return total
        verdicts = _applied(engine, lease, kept)
        unreadable = sum(one.outcome == UNREADABLE for one in verdicts)
        total = Applied(total.frames + len(kept), total.unreadable + unreadable)


def _applied(engine: Engine, lease: Lease, kept: Sequence[KeptFrame]) -> list[FrameVerdict]:
    try:
        with engine.begin() as connection:
            storage.require_lease(connection, lease)
            verdicts = _tell(connection, lease.account, kept)
            storage.close_frames(connection, verdicts)
            return verdicts
    except DBAPIError as error:
        if is_outage(error):
            raise
        if len(kept) > 1:
            return [verdict for one in kept for verdict in _applied(engine, lease, [one])]
        log.exception("frame_refused", extra={"data": {"frame": kept[0].id}})
        reason = f"the database refuses it: {type(error.orig).__name__}"
    verdict = FrameVerdict(kept[0].id, UNREADABLE, reason)
    with engine.begin() as connection:
        storage.require_lease(connection, lease)
        storage.close_frames(connection, [verdict])
    return [verdict]


def _tell(connection: Connection, account: str, kept: Sequence[KeptFrame]) -> list[FrameVerdict]:
    verdicts: list[FrameVerdict] = []
    events: dict[str, tuple[BrokerEvent, int | None]] = {}
    told: list[BrokerOrder] = []
    keys: dict[int, str] = {}
    for frame in kept:
        try:
            update = _read(frame)
        except Unreadable as error:
            log.warning("frame_unreadable", extra={"data": {"frame": frame.id, "of": str(error)}})
            verdicts.append(FrameVerdict(frame.id, UNREADABLE, str(error)))
            continue
        if update is None:
            verdicts.append(FrameVerdict(frame.id, UNREADABLE, "it tells of no order"))
            continue
        keys[frame.id] = update.event.key
        events.setdefault(update.event.key, (update.event, frame.id))
        told.append(update.order)
    new = storage.insert_events(connection, account, events)
    apply_orders(connection, account, told)
    for frame_id, key in keys.items():
        is_first = key in new and events[key][1] == frame_id
        verdicts.append(FrameVerdict(frame_id, APPLIED if is_first else REPEATED))
    return verdicts


def _read(frame: KeptFrame) -> Update | None:
    if not frame.is_whole:
        raise Unreadable("it is too long")
    return read_frame(frame.body)


def apply_orders(
    connection: Connection, account: str, told: Iterable[BrokerOrder]
) -> list[BrokerOrder]:
    """Join what was told of orders to what is known, and to our ledger. Returns what is new."""
    by_id: dict[str, BrokerOrder] = {}
    for one in told:
        by_id[one.broker_order_id] = joined(by_id.get(one.broker_order_id), one)
    known = storage.orders_of(connection, account, by_id)
    now = {order_id: joined(known.get(order_id), one) for order_id, one in by_id.items()}
    changed = [order for order_id, order in now.items() if order != known.get(order_id)]
    storage.put_orders(connection, account, changed)
    for order in changed:
        _to_ledger(connection, order)
    return changed


def _to_ledger(connection: Connection, order: BrokerOrder) -> None:
    """What is known of an order of ours becomes known of its execution."""
    if not order.client_order_id.startswith(CLIENT_ID_PREFIX):
        return
    ours = orders.take_told(connection, order.client_order_id)
    # The same id under another one of the broker's replaced ours; the dispatcher asks for it.
    if ours is None or ours.broker_order_id not in (None, order.broker_order_id):
        return
    report = _report(order)
    if report.ticket != ours.ticket:
        reason = f"the broker has another order under the id {order.client_order_id}"
        log.critical("trading_halted", extra={"data": {"reason": reason}})
        dispatch.set_trading_state(connection, HALTED, "trade-stream", reason)
        return
    # Of an order that was replaced the dispatcher asks which one came in its place.
    is_replaced = order.state is OrderState.CANCELED and order.reason.startswith("replaced")
    after = ours.known if is_replaced else learnt(ours.known, report)
    if after != ours.known:
        orders.record(connection, ours, after)


def _report(order: BrokerOrder) -> OrderReport:
    ticket = OrderTicket(order.client_order_id, order.ticker, order.side, _whole(order.quantity))
    price = float(order.filled_price) if order.filled_price else None
    return OrderReport(
        ticket,
        order.broker_order_id,
        order.state,
        _whole(order.filled_quantity),
        price,
        order.told_at if order.filled_quantity else None,
        order.reason,
    )


def _whole(quantity: Decimal) -> int:
    """Shares as our orders count them; a part of one is an order that is not ours."""
    return int(quantity) if quantity % 1 == 0 else -1


def asked_from(
    engine: Engine, account: str, now: datetime, *, is_doubted: bool = False
) -> tuple[datetime, datetime]:
    """From when on orders and fills have to be asked for, so that nothing can be missed.

    A frame may have told of what is new before anybody asked for what came before it: what counts
    is the last look. Once it did not add up, a trade of the last days may have been busted.
    """
    with engine.connect() as connection:
        since = storage.since(connection, account)
        health = storage.read_health(connection, account)
    passed_at = health.passed_at if health else None
    if passed_at is None:
        return now - FIRST_LOOK, now - FIRST_LOOK
    known = [passed_at, *filter(None, (since.oldest_open, since.newest_order))]
    fills_from = min(passed_at, since.newest_fill or passed_at)
    orders_from = min(known) - OVERLAP
    return min(orders_from, now - FIRST_LOOK) if is_doubted else orders_from, fills_from - OVERLAP


def take_in(engine: Engine, lease: Lease, books: Books, now: datetime) -> Look:
    """Join what the broker was asked for to what is known, and compare positions with it.

    What the account held before the first look is kept as that, and so is what another account
    holds, as which it comes back once it was reset; nothing else is ever put right to fit, but by
    what the broker itself names: a corporate action, or a trade that was busted.

    Raises:
        LeaseLost: another process follows the account.
    """
    account = lease.account
    with engine.begin() as connection:
        storage.require_lease(connection, lease)
        health = storage.read_health(connection, account)
        moving = _moving(connection, account, books)
        fills = {fill.key: (fill, None) for fill in books.fills}
        storage.insert_events(connection, account, fills)
        changed = apply_orders(connection, account, books.orders)
        is_first = health is None or health.passed_at is None
        if health and health.broker_account not in ("", books.account):
            log.warning("account_is_another", extra={"data": {"account": account}})
            storage.forget_before(connection, account)
            changed += apply_orders(connection, account, _gone(connection, account, books))
            is_first = True
        by_orders = storage.sums(connection, account)
        by_broker = {ticker: one.quantity for ticker, one in books.holdings.items()}
        if is_first and moving:
            return Look(0, (), books.unreadable, is_settled=False)
        before = _before(by_orders, by_broker) if is_first else None
        moving |= {order.ticker for order in changed}
        found = [] if is_first else differences(by_orders, by_broker, moving)
        found = _adjusted(connection, account, books, found, now)
        nothing = Holding(ZERO, ZERO)
        held = {t: books.holdings.get(t, nothing) for t in {*books.holdings, *(before or ())}}
        storage.put_positions(connection, account, held, now, before)
        storage.keep_pass(connection, lease, _whole_until(books, now), found, books.account)
    healed, is_settled = 0 if is_first else len(changed), books.fills_until is None
    return Look(healed, tuple(found), books.unreadable, is_settled)


def _adjusted(
    connection: Connection,
    account: str,
    books: Books,
    found: Sequence[Difference],
    now: datetime,
) -> list[Difference]:
    """What still does not add up once the broker's own activities are counted."""
    if all(one.is_explained for one in found):
        return list(found)
    counted = storage.counted_activities(connection, account)
    # What came before the first look is in what the account held then.
    first = storage.first_looked_at(connection, account)
    known = [
        one
        for one in books.activities
        if one.id not in counted and not (first and one.day < first.date())
    ]
    made = explained(
        found,
        [*known, *_busts(connection, account, books, now)],
        lots_of(connection, now),
        FOLLOWED_BY,
    )
    storage.insert_adjustments(connection, account, made, now)
    for one in made:
        data = {"ticker": one.ticker, "qty": f"{one.quantity:f}", "because": one.reason}
        log.warning("account_adjusted", extra={"data": data})
    settled = {one.ticker for one in made}
    return [one for one in found if one.ticker not in settled]


def _busts(connection: Connection, account: str, books: Books, now: datetime) -> Iterator[Activity]:
    """Orders of which less is filled than was told before, in answers no older than that."""
    known = storage.orders_of(connection, account, [one.broker_order_id for one in books.orders])
    busted = storage.busted(connection, account)
    for told in books.orders:
        before = known[told.broker_order_id]
        change = told.signed - before.signed - busted.get(told.broker_order_id, ZERO)
        if change and told.told_at >= before.told_at:
            yield Activity(
                f"bust-{told.broker_order_id}",
                "bust",
                told.ticker,
                change,
                now.date(),
                told.broker_order_id,
            )


def lots_of(connection: Connection, now: datetime) -> dict[str, Position]:
    """What the ledger holds, by ticker."""
    return Book(live_fills(connection, now.astimezone(NEW_YORK).date())).positions


def _gone(connection: Connection, account: str, books: Books) -> list[BrokerOrder]:
    """What was open in the account before it was reset, as it has ended: with that account."""
    there = {order.broker_order_id for order in books.orders}
    return [
        replace(order, state=OrderState.CANCELED, reason="the account was reset")
        for order in storage.all_orders(connection, account)
        if not order.state.is_final and order.broker_order_id not in there
    ]


def _whole_until(books: Books, now: datetime) -> datetime:
    """Up to when nothing is missing: what came while they were read may be, and later fills."""
    return min(filter(None, (now, books.begun_at, books.fills_until)))


def _moving(connection: Connection, account: str, books: Books) -> set[str]:
    """Tickers of which orders and positions may have been told at different instants."""
    told = books.begun_at and storage.moved_since(connection, account, books.begun_at - CLOCKS)
    return {*books.moving, *(told or ())}


def _before(by_orders: dict[str, Decimal], by_broker: dict[str, Decimal]) -> dict[str, Decimal]:
    tickers = {*by_orders, *by_broker}
    return {t: by_broker.get(t, ZERO) - by_orders.get(t, ZERO) for t in tickers}
