"""What a broker told is kept once, by one process at a time, and does not go back."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from ops_pipeline.domain.orders import OrderState
from ops_pipeline.domain.stream import BrokerOrder, Difference, Holding
from ops_pipeline.storage import stream
from ops_pipeline.storage.dispatch import ACCOUNT
from ops_pipeline.storage.stream import (
    APPLIED,
    LONGEST_FRAME,
    REPEATED,
    UNREADABLE,
    FrameVerdict,
    Lease,
    LeaseLost,
    RawFrame,
)
from ops_pipeline_tests.builders import NOON, a_broker_event, a_broker_order
from ops_pipeline_tests.storage.rows import one, put_order, rows

ACKED, PARTIAL, FILLED = OrderState.ACKED, OrderState.PARTIAL, OrderState.FILLED
CANCELED, REJECTED = OrderState.CANCELED, OrderState.REJECTED
SECOND = timedelta(seconds=1)
NOTHING: dict[str, Decimal] = {}


def take(connection: Connection, seconds: float = 60.0, holder: str = "host/1") -> Lease | None:
    return stream.take_lease(connection, ACCOUNT, holder, "test", seconds)


def taken(connection: Connection, seconds: float = 60.0, holder: str = "host/1") -> Lease:
    lease = take(connection, seconds, holder)
    assert lease is not None
    return lease


def show_life(connection: Connection, lease: Lease, seconds: float = 60.0) -> None:
    stream.keep_lease(
        connection, lease, seconds, connected_at=NOON, alive_at=NOON + SECOND, reason=""
    )


def filled(quantity: int, **changes: Any) -> BrokerOrder:
    changes = {"filled_price": Decimal(200), "state": FILLED} | changes
    return a_broker_order(filled_quantity=Decimal(quantity), **changes)


def hold(connection: Connection, before: dict[str, Decimal] | None, **held: int) -> None:
    holdings = {t: Holding(Decimal(quantity), Decimal(100)) for t, quantity in held.items()}
    stream.put_positions(connection, ACCOUNT, holdings, NOON, before)


def test_an_account_is_followed_by_one(connection: Connection) -> None:
    taken(connection)
    assert take(connection, holder="host/2") is None
    assert take(connection) is None
    holder, seconds = stream.lease_holder(connection, ACCOUNT) or ("", 0.0)
    assert holder == "host/1"
    assert 55 < seconds <= 60


def test_a_lease_that_has_run_out_passes_on_and_fences_who_had_it(connection: Connection) -> None:
    one_, other = taken(connection, -1.0), taken(connection, holder="host/2")
    assert other.epoch == one_.epoch + 1
    stream.require_lease(connection, other)
    for write in (
        lambda: stream.require_lease(connection, one_),
        lambda: show_life(connection, one_),
    ):
        with pytest.raises(LeaseLost, match="another process") as error:
            write()
        assert error.value.exit_code == 6
    stream.keep_pass(connection, one_, NOON, [])
    stream.leave_lease(connection, one_, "gone")
    health = stream.read_health(connection, ACCOUNT)
    assert health is not None
    assert (health.holder, health.is_held, health.passed_at, health.reason) == (
        "host/2",
        True,
        None,
        "",
    )


def test_a_lease_is_kept_for_as_long_as_its_holder_shows_life(connection: Connection) -> None:
    lease = taken(connection, -1.0)
    show_life(connection, lease)
    assert take(connection, holder="host/2") is None
    show_life(connection, lease, -1.0)
    assert take(connection, holder="host/2") is not None


def test_a_lease_that_is_left_is_free_at_once_and_says_why(connection: Connection) -> None:
    stream.leave_lease(connection, taken(connection), "ended")
    health = stream.read_health(connection, ACCOUNT)
    assert health is not None
    assert (health.is_held, health.reason, health.connected_at) == (False, "ended", None)
    assert take(connection, holder="host/2") is not None


def test_nobody_has_a_lease_before_the_first(connection: Connection) -> None:
    assert stream.lease_holder(connection, ACCOUNT) is None
    assert stream.read_health(connection, ACCOUNT) is None
    with pytest.raises(LeaseLost):
        stream.require_lease(connection, Lease(ACCOUNT, 1))


def test_of_many_at_once_one_begins_to_follow(engine: Engine) -> None:
    def race(number: int) -> bool:
        with engine.begin() as connection:
            return take(connection, holder=f"host/{number}") is not None

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(race, range(12))) == 1


def test_nobody_begins_to_follow_while_another_one_writes(engine: Engine) -> None:
    with engine.begin() as connection:
        lease = taken(connection, -1.0)
    writing = engine.connect()
    stream.require_lease(writing, lease)
    with ThreadPoolExecutor(1) as pool, engine.connect() as connection:
        taking = pool.submit(lambda: take(connection, holder="host/2"))
        time.sleep(0.2)
        assert not taking.done()
        writing.commit()
        assert taking.result(5) is not None
        connection.commit()
    with pytest.raises(LeaseLost):
        stream.require_lease(writing, lease)
    writing.close()


def test_two_who_join_wait_for_each_other(engine: Engine) -> None:
    """Both would know nothing of a new order, and the later one would undo what the other told."""
    with engine.begin() as connection:
        lease = taken(connection)

    def join() -> dict[str, BrokerOrder]:
        with engine.begin() as connection:
            stream.require_lease(connection, lease)
            return stream.orders_of(connection, ACCOUNT, ["b-1"])

    with ThreadPoolExecutor(1) as pool, engine.begin() as connection:
        stream.require_lease(connection, lease)
        assert stream.orders_of(connection, ACCOUNT, ["b-1"]) == {}
        joining = pool.submit(join)
        time.sleep(0.2)
        assert not joining.done()
        stream.put_orders(connection, ACCOUNT, [filled(10)])
        connection.commit()
        assert joining.result(5) == {"b-1": filled(10)}


def test_what_a_look_found_is_kept_with_the_lease(connection: Connection) -> None:
    lease = taken(connection)
    show_life(connection, lease)
    found = (Difference("AAPL", Decimal("1.5"), Decimal(-2), "an order moved meanwhile"),)
    stream.keep_pass(connection, lease, NOON, found)
    health = stream.read_health(connection, ACCOUNT)
    assert health is not None
    assert health.differences == found
    assert (health.passed_at, health.connected_at, health.alive_at) == (NOON, NOON, NOON + SECOND)
    assert health.code_version == "test"


FRAMES: list[tuple[str | bytes, str]] = [
    ("plain", "plain"),
    (b"bytes", "bytes"),
    ("", ""),
    ("a\x00b", "a\ufffdb"),
    (b"a\x00b", "a\ufffdb"),
    ("half \ud800", "half ?"),
    (b"\xff\xfe", "\ufffd\ufffd"),
]


@pytest.mark.parametrize(("raw", "kept"), FRAMES)
def test_a_frame_is_kept_as_it_came_but_for_what_no_text_holds(
    connection: Connection, raw: str | bytes, kept: str
) -> None:
    stream.insert_frames(connection, ACCOUNT, [RawFrame(raw, NOON)])
    (found,) = stream.received_frames(connection, ACCOUNT, 10)
    assert (found.body, found.is_whole) == (kept, True)
    assert rows(connection, "select received_at, bytes, outcome from broker_frames") == [
        (NOON, len(raw), "RECEIVED")
    ]


def test_of_a_frame_that_is_too_long_the_beginning_is_kept(connection: Connection) -> None:
    long = RawFrame(b"x" * 10_000_000, NOON)
    just = RawFrame("x" * LONGEST_FRAME, NOON)
    stream.insert_frames(connection, ACCOUNT, [long, just])
    found = stream.received_frames(connection, ACCOUNT, 10)
    assert [(len(f.body), f.is_whole) for f in found] == [
        (LONGEST_FRAME, False),
        (LONGEST_FRAME, True),
    ]
    assert one(connection, "select max(bytes) from broker_frames") == 10_000_000


def test_frames_wait_in_their_order_until_they_are_closed(connection: Connection) -> None:
    frames = [RawFrame(str(number), NOON) for number in range(5)]
    stream.insert_frames(connection, ACCOUNT, frames)
    kept = stream.received_frames(connection, ACCOUNT, 3)
    assert [frame.body for frame in kept] == ["0", "1", "2"]
    outcomes = (APPLIED, REPEATED, UNREADABLE)
    verdicts = [FrameVerdict(f.id, o, "why") for f, o in zip(kept, outcomes, strict=True)]
    stream.close_frames(connection, verdicts)
    assert [f.body for f in stream.received_frames(connection, ACCOUNT, 10)] == ["3", "4"]
    closed = "select outcome, reason from broker_frames where applied_at is not null order by id"
    assert rows(connection, closed) == [(outcome, "why") for outcome in outcomes]


def test_frames_are_counted_by_what_became_of_them(connection: Connection) -> None:
    frames = [RawFrame(str(number), NOON + number * SECOND) for number in range(4)]
    stream.insert_frames(connection, ACCOUNT, frames)
    kept = stream.received_frames(connection, ACCOUNT, 3)
    stream.close_frames(connection, [FrameVerdict(frame.id, APPLIED) for frame in kept])
    connection.execute(text("update broker_frames set applied_at = received_at + '2 s'::interval"))
    stream.insert_events(connection, ACCOUNT, {"e-1": (a_broker_event(), None)})
    counts = stream.frame_counts(connection, ACCOUNT, NOON, NOON + 9 * SECOND)
    assert counts.by_outcome == {APPLIED: 3, "RECEIVED": 1}
    assert (counts.lag_p95, counts.gaps) == (2.0, 1)
    none = stream.frame_counts(connection, ACCOUNT, NOON - SECOND, NOON)
    assert (none.by_outcome, none.lag_p95, none.gaps) == ({}, 0.0, 0)


def test_an_event_is_kept_once_whoever_tells_it(connection: Connection) -> None:
    stream.insert_frames(connection, ACCOUNT, [RawFrame("{}", NOON)])
    frame_id = stream.received_frames(connection, ACCOUNT, 1)[0].id
    fill = a_broker_event()
    events = {"e-1": (fill, frame_id), "e-2": (replace(fill, key="e-2", name="new"), None)}
    assert stream.insert_events(connection, ACCOUNT, events) == {"e-1", "e-2"}
    assert stream.insert_events(connection, ACCOUNT, events) == set()
    # The same fill under another key, as a request may tell it.
    other = {"e-9": (replace(fill, key="e-9"), None)}
    assert stream.insert_events(connection, ACCOUNT, other) == set()
    assert stream.insert_events(connection, ACCOUNT, {}) == set()
    assert rows(connection, "select event_key, frame_id from broker_events order by 1") == [
        ("e-1", frame_id),
        ("e-2", None),
    ]


def test_an_order_comes_back_as_it_was_kept(connection: Connection) -> None:
    orders = [
        filled(4, state=PARTIAL, filled_price=Decimal("187.123456789"), reason="why"),
        a_broker_order(broker_order_id="b-2", side="sell", created_at=NOON - SECOND),
    ]
    stream.put_orders(connection, ACCOUNT, orders)
    stream.put_orders(connection, ACCOUNT, [])
    assert stream.all_orders(connection, ACCOUNT) == orders[::-1]
    assert stream.orders_of(connection, ACCOUNT, ["b-1", "b-9"]) == {"b-1": orders[0]}
    assert all(o.created_at.tzinfo is UTC for o in stream.all_orders(connection, ACCOUNT))


def test_an_order_is_external_unless_it_was_decided_here(connection: Connection) -> None:
    number = put_order(connection)
    ours = one(
        connection,
        "select client_order_id from order_intents where recommendation_id = :n",
        n=number,
    )
    orders = [
        a_broker_order(client_order_id=ours),
        a_broker_order(broker_order_id="b-2", client_order_id="op1-of-another-database"),
    ]
    stream.put_orders(connection, ACCOUNT, orders)
    found = rows(connection, "select broker_order_id, is_external from broker_orders order by 1")
    assert found == [("b-1", False), ("b-2", True)]


BACK = [
    (FILLED, PARTIAL, 10),
    (FILLED, CANCELED, 10),
    (CANCELED, ACKED, 10),
    (REJECTED, PARTIAL, 10),
    (FILLED, FILLED, 9),
    (CANCELED, CANCELED, 9),
]


@pytest.mark.parametrize(("known", "told", "quantity"), BACK)
def test_no_statement_takes_back_what_is_known_of_an_order(
    connection: Connection, known: OrderState, told: OrderState, quantity: int
) -> None:
    stream.put_orders(connection, ACCOUNT, [filled(10, state=known)])
    with pytest.raises(DBAPIError, match="does not go back"):
        stream.put_orders(connection, ACCOUNT, [filled(quantity, state=told)])


def test_an_order_that_was_canceled_may_have_been_filled(connection: Connection) -> None:
    stream.put_orders(connection, ACCOUNT, [filled(4, state=CANCELED)])
    stream.put_orders(connection, ACCOUNT, [filled(10)])
    assert stream.all_orders(connection, ACCOUNT) == [filled(10)]


def test_sums_are_of_all_orders_and_of_what_was_held_before(connection: Connection) -> None:
    orders = [
        filled(10),
        filled(4, broker_order_id="b-2", side="sell"),
        filled(3, broker_order_id="b-3", ticker="MSFT"),
        filled(3, broker_order_id="b-4", ticker="MSFT", side="sell"),
    ]
    stream.put_orders(connection, ACCOUNT, orders)
    assert stream.sums(connection, ACCOUNT) == {"AAPL": 6}
    hold(connection, {"AAPL": Decimal(-6), "TSLA": Decimal("2.5")}, AAPL=0, TSLA=3)
    assert stream.sums(connection, ACCOUNT) == {"TSLA": Decimal("2.5")}


def test_the_past_is_told_by_the_oldest_open_order_and_the_newest_ones(
    connection: Connection,
) -> None:
    assert stream.since(connection, ACCOUNT) == stream.Since(None, None, None)
    instants = [NOON + number * SECOND for number in range(3)]
    orders = [
        a_broker_order(broker_order_id=f"b-{at}", created_at=at, state=state)
        for at, state in zip(instants, (CANCELED, ACKED, PARTIAL), strict=True)
    ]
    stream.put_orders(connection, ACCOUNT, orders)
    events = {"new": (a_broker_event(key="new", name="new", at=instants[2]), None)}
    stream.insert_events(connection, ACCOUNT, events)
    assert stream.since(connection, ACCOUNT) == stream.Since(instants[1], instants[2], None)
    stream.insert_events(connection, ACCOUNT, {"e-1": (a_broker_event(at=instants[0]), None)})
    assert stream.since(connection, ACCOUNT).newest_fill == instants[0]


def test_what_moved_is_told_by_when_it_was_written(connection: Connection) -> None:
    stream.put_orders(connection, ACCOUNT, [filled(1, state=PARTIAL)])
    between: datetime = one(connection, "select clock_timestamp()")
    assert stream.moved_since(connection, ACCOUNT, between) == set()
    stream.put_orders(connection, ACCOUNT, [filled(10), filled(1, broker_order_id="2", ticker="T")])
    assert stream.moved_since(connection, ACCOUNT, between) == {"AAPL", "T"}


def test_positions_are_what_is_held_now_and_what_was_held_first(connection: Connection) -> None:
    held = "select ticker, before_qty, qty from broker_positions order by ticker"
    hold(connection, {"AAPL": Decimal(5)}, AAPL=5, MSFT=1)
    hold(connection, None, AAPL=7)
    assert rows(connection, held) == [("AAPL", 5, 7), ("MSFT", 0, 0)]
    hold(connection, None)
    assert rows(connection, held) == [("AAPL", 5, 0), ("MSFT", 0, 0)]


def test_what_was_held_first_is_forgotten_with_the_account(connection: Connection) -> None:
    held = "select ticker, before_qty, qty from broker_positions order by ticker"
    hold(connection, {"AAPL": Decimal(5), "MSFT": Decimal(1)}, AAPL=5, MSFT=1)
    stream.forget_before(connection, ACCOUNT)
    hold(connection, {"AAPL": Decimal(-2)}, AAPL=3)
    assert rows(connection, held) == [("AAPL", -2, 3), ("MSFT", 0, 0)]


def test_external_is_what_others_bought_and_what_was_held_before(connection: Connection) -> None:
    number = put_order(connection)
    ours = one(
        connection,
        "select client_order_id from order_intents where recommendation_id = :n",
        n=number,
    )
    orders = [
        filled(10, client_order_id=ours),
        filled(4, broker_order_id="b-2", ticker="MSFT"),
        filled(4, broker_order_id="b-3", ticker="TSLA"),
        filled(4, broker_order_id="b-4", ticker="TSLA", side="sell"),
        filled(0, broker_order_id="b-5", ticker="NVDA", state=ACKED, filled_price=None),
    ]
    stream.put_orders(connection, ACCOUNT, orders)
    hold(connection, {"AMZN": Decimal(2)}, AMZN=2, AAPL=10, MSFT=4)
    assert stream.external(connection, ACCOUNT) == {
        "AMZN": Holding(Decimal(2), Decimal(100)),
        "MSFT": Holding(Decimal(4), Decimal(200)),
    }
