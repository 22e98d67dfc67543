"""Orders: who may hand one over or ask about it, what may follow what, and what nobody may do."""

from collections.abc import Callable
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from ops_pipeline.domain.dispatch import Decision, Status
from ops_pipeline.domain.orders import (
    FINAL,
    OrderReport,
    OrderState,
    OrderTicket,
    client_order_id,
    is_legal,
    learnt,
)
from ops_pipeline.storage import dispatch, orders
from ops_pipeline.storage.dispatch import ACCOUNT, Closed
from ops_pipeline.storage.execution import ALPACA_PAPER
from ops_pipeline.storage.orders import DecidedOrder, PlacedOrder, TakenOrder
from ops_pipeline_tests.builders import NOON, at
from ops_pipeline_tests.storage.rows import (
    TS,
    ago,
    one,
    put_executed,
    put_execution,
    put_order,
    put_order_of,
    put_recommendation,
    put_run,
    rows,
    take,
)

AT_COMMIT = text("set constraints all immediate")
READY, SENT, UNKNOWN = OrderState.READY, OrderState.SENT, OrderState.UNKNOWN
ACKED, PARTIAL, FILLED = OrderState.ACKED, OrderState.PARTIAL, OrderState.FILLED
CANCELED, REJECTED, ABSENT = OrderState.CANCELED, OrderState.REJECTED, OrderState.ABSENT
STATES = list(OrderState)
PAIRS = list(product(OrderState, OrderState))
LATER = TS + timedelta(seconds=300)
JUST_BEFORE = LATER - timedelta(microseconds=1)
PASSED = Decision(passed=True, failure_reason=None, gates={})


def ask(connection: Connection, asking_seconds: float = 5.0) -> TakenOrder | None:
    """Take the next order to ask about, in a pass that begins now."""
    began = orders.server_clock(connection)
    return orders.take_open(connection, began, sending_seconds=20.0, asking_seconds=asking_seconds)


def put(connection: Connection, state: OrderState = READY, **changes: Any) -> int:
    """An order in a state, which has what every order in this state has; out since now."""
    known: dict[str, Any] = {"state": state.value}
    if state is not READY:
        known |= {"epoch": 1, "tries": 1, "posted_at": ago(connection, 0)}
        known |= {"asked_at": ago(connection, 0)}
    if state in FINAL:
        known["settled_at"] = ago(connection, 0)
    if state in (PARTIAL, FILLED):
        known |= {"filled_qty": 4 if state is PARTIAL else 10, "filled_price": 200.0}
    return put_order(connection, **(known | changes))


def out_since(connection: Connection, state: OrderState, seconds: float, **changes: Any) -> int:
    """An order that was handed over, and asked about, so long ago."""
    since = ago(connection, seconds)
    return put(connection, state, posted_at=since, asked_at=since, **changes)


def move(connection: Connection, row: int, to: OrderState) -> None:
    """Let an order go to a state, with all that this state needs, so that only a guard refuses."""
    filled = {PARTIAL: "4", FILLED: "qty"}.get(to, "filled_qty")
    connection.execute(
        text(
            f"update order_intents set state = '{to}', filled_qty = {filled},"
            f" filled_price = case when {filled} > 0 then 200.0 end,"
            f" settled_at = {'now()' if to in FINAL else 'null'} where recommendation_id = :row"
        ),
        {"row": row},
    )


def state_of(connection: Connection, row: int) -> str:
    statement = "select state from order_intents where recommendation_id = :row"
    return str(one(connection, statement, row=row))


def everything(connection: Connection) -> list[tuple[Any, ...]]:
    return rows(connection, "select * from order_intents order by recommendation_id")


def set_state(connection: Connection, state: str) -> None:
    dispatch.set_trading_state(connection, state, "test", "")


def known(order: TakenOrder, state: OrderState, filled: int = 0, **changes: Any) -> OrderReport:
    price = 201.5 if filled else None
    told = {"filled_quantity": filled, "filled_price": price, "filled_at": TS if filled else None}
    return OrderReport(order.ticket, "b-1", state, **(told | changes))


def taken(connection: Connection) -> TakenOrder:
    """An order that was just taken to be handed over."""
    put(connection)
    order = orders.take_ready(connection, TS)
    assert order is not None
    return order


@pytest.mark.parametrize(("before", "after"), [pair for pair in PAIRS if is_legal(*pair)])
def test_a_legal_move_is_made(
    connection: Connection, before: OrderState, after: OrderState
) -> None:
    row = put(connection, before)
    move(connection, row, after)
    assert state_of(connection, row) == after


@pytest.mark.parametrize(("before", "after"), [pair for pair in PAIRS if not is_legal(*pair)])
def test_the_database_refuses_an_illegal_move(
    connection: Connection, before: OrderState, after: OrderState
) -> None:
    row = put(connection, before)
    with pytest.raises(DBAPIError, match=f"may not go from {before} to {after}"):
        move(connection, row, after)


DECIDED = {
    "recommendation_id": "recommendation_id + 1000000",
    "client_order_id": "'op1-another'",
    "account": "'other'",
    "ticker": "'MSFT'",
    "intent": "'close'",
    "side": "'sell'",
    "qty": "qty + 1",
    "decided_at": "decided_at + interval '1 second'",
    "expires_at": "expires_at + interval '1 second'",
}


@pytest.mark.parametrize("move_too", ["", "state = 'SENT', "])
@pytest.mark.parametrize("column", DECIDED)
def test_what_was_decided_of_an_order_never_changes(
    connection: Connection, column: str, move_too: str
) -> None:
    put(connection)
    with pytest.raises(DBAPIError, match="was decided, and does not change"):
        connection.execute(text(f"update order_intents set {move_too}{column} = {DECIDED[column]}"))


@pytest.mark.parametrize(
    "change", ["filled_qty = 3", "filled_qty = 0, filled_price = null", "tries = 0", "epoch = 0"]
)
def test_what_an_order_has_come_to_does_not_go_back(connection: Connection, change: str) -> None:
    put(connection, PARTIAL)
    with pytest.raises(DBAPIError, match="does not go back"):
        connection.execute(text(f"update order_intents set {change}"))


@pytest.mark.parametrize("change", ["'another'", "null"])
def test_the_brokers_id_of_an_order_is_learnt_once(connection: Connection, change: str) -> None:
    put(connection, PARTIAL)
    connection.execute(text("update order_intents set broker_order_id = 'theirs'"))
    with pytest.raises(DBAPIError, match="has its broker's id"):
        connection.execute(text(f"update order_intents set broker_order_id = {change}"))


@pytest.mark.parametrize("changes", [{"ticker": "MSFT"}, {"side": "sell"}, {"qty": 11}])
def test_an_order_is_for_what_was_executed(connection: Connection, changes: dict[str, Any]) -> None:
    number = put_executed(connection, execution_mode=ALPACA_PAPER)
    put_order_of(connection, number, **changes)
    with pytest.raises(IntegrityError, match="is not what was executed"):
        connection.execute(AT_COMMIT)


@pytest.mark.parametrize("statement", ["delete from order_intents", "truncate order_intents"])
@pytest.mark.parametrize("state", [READY, FILLED])
def test_an_order_is_never_deleted(
    connection: Connection, state: OrderState, statement: str
) -> None:
    put(connection, state)
    connection.execute(AT_COMMIT)
    with pytest.raises(DBAPIError, match="order_intents is a ledger: rows are only added"):
        connection.execute(text(statement))


@pytest.mark.parametrize(
    "changes",
    [
        {"qty": 0},
        {"side": "hold"},
        {"intent": "add"},
        {"state": "LOST"},
        {"account": "real"},
        {"client_order_id": "op1-abc"},
        {"client_order_id": "x" * 49},
        {"filled_qty": -1},
        {"filled_qty": 11, "filled_price": 1.0, "state": "ACKED"},
        {"filled_qty": 4, "filled_price": None, "state": "PARTIAL"},
        {"filled_qty": 4, "filled_price": float("nan"), "state": "PARTIAL"},
        {"filled_qty": 4, "filled_price": float("inf"), "state": "PARTIAL"},
        {"filled_qty": 4, "filled_price": 0.0, "state": "PARTIAL"},
        {"filled_price": 1.0, "state": "ACKED"},
        {"filled_qty": 4, "filled_price": 1.0},
        {"filled_qty": 4, "filled_price": 1.0, "state": "REJECTED", "settled_at": TS},
        {"filled_qty": 4, "filled_price": 1.0, "state": "ABSENT", "settled_at": TS},
        {"filled_qty": 4, "filled_price": 1.0, "state": "FILLED", "settled_at": TS},
        {"state": "CANCELED"},
        {"state": "ACKED", "settled_at": TS},
    ],
    ids=str,
)
def test_the_database_refuses_what_is_no_order(
    connection: Connection, changes: dict[str, Any]
) -> None:
    row = put_executed(connection, execution_mode=ALPACA_PAPER)
    order = {
        "recommendation_id": row,
        "client_order_id": "op1-12345",
        "account": "paper",
        "ticker": "AAPL",
        "intent": "open",
        "side": "buy",
        "qty": 10,
        "expires_at": LATER,
        "decided_at": TS,
    } | changes
    names = ", ".join(order)
    values = ", ".join(f":{name}" for name in order)
    with pytest.raises(IntegrityError, match=r"violates (check|foreign key) constraint"):
        connection.execute(text(f"insert into order_intents ({names}) values ({values})"), order)


@pytest.mark.parametrize("column", ["client_order_id", "broker_order_id"])
def test_two_orders_never_have_the_same_id(connection: Connection, column: str) -> None:
    put(connection, ACKED, **{column: "op1-the-same"})
    with pytest.raises(IntegrityError, match="duplicate key"):
        put(connection, ACKED, ticker="MSFT", **{column: "op1-the-same"})


Step = Callable[[], Any]


@pytest.mark.parametrize("turn", range(3))
@pytest.mark.parametrize("order", [1, -1])
def test_decision_execution_and_order_may_be_written_in_any_order(
    connection: Connection, turn: int, order: int
) -> None:
    put_recommendation(connection)
    held = take(connection)
    decided = DecidedOrder(held, OrderTicket("op1-12345", "AAPL", "buy", 10), held.expires_at)
    steps: list[Step] = [
        lambda: dispatch.finish(connection, [Closed(held, Status.EXECUTED, PASSED, None)], TS),
        lambda: put_execution(connection, held.id, execution_mode=ALPACA_PAPER),
        lambda: orders.insert_orders(connection, [decided], ACCOUNT, TS),
    ]
    for step in (steps[turn:] + steps[:turn])[::order]:
        step()
    connection.execute(AT_COMMIT)


@pytest.mark.parametrize(
    ("status", "mode", "has_order", "is_refused"),
    [
        ("SIMULATED", "SIMULATED", False, False),
        ("SIMULATED", "SIMULATED", True, True),
        ("SIMULATED", "ALPACA_PAPER", False, True),
        ("SIMULATED", "ALPACA_PAPER", True, True),
        ("EXECUTED", "ALPACA_PAPER", True, False),
        ("EXECUTED", "ALPACA_PAPER", False, True),
        ("EXECUTED", "SIMULATED", True, True),
        ("EXECUTED", "SIMULATED", False, True),
    ],
)
def test_simulated_has_no_order_and_executed_has_one(
    connection: Connection,
    status: str,
    mode: str,
    has_order: bool,  # noqa: FBT001
    is_refused: bool,  # noqa: FBT001
) -> None:
    row = put_recommendation(connection, status=status, claim_epoch=1, processed_at=TS)
    put_execution(connection, row, execution_mode=mode)
    if has_order:
        insert_order(connection, row)
    if is_refused:
        words = f"is {status}, executed as {mode}, and {'has' if has_order else 'lacks'} an order"
        with pytest.raises(IntegrityError, match=words):
            connection.execute(AT_COMMIT)
    else:
        connection.execute(AT_COMMIT)


@pytest.mark.parametrize("status", [s.value for s in Status if s is not Status.EXECUTED])
def test_a_row_that_was_not_executed_gets_no_order(engine: Engine, status: str) -> None:
    changes = {
        "PENDING": {},
        "PROCESSING": {"claim_epoch": 1, "lease_until": TS, "claimed_at": TS},
    }.get(status, {"claim_epoch": 1, "processed_at": TS, "failure_reason": "why"})
    with engine.begin() as connection:
        row = put_recommendation(
            connection, status=status, dispatcher_run_id=put_run(connection), **changes
        )
        if status == "SIMULATED":
            put_execution(connection, row)
    with pytest.raises(IntegrityError, match=f"is {status}.* an order"), engine.begin() as made:
        insert_order(made, row)


def insert_order(connection: Connection, row: int) -> None:
    connection.execute(
        text(
            "insert into order_intents (recommendation_id, client_order_id, account, ticker,"
            " intent, side, qty, expires_at, decided_at)"
            " values (:row, 'op1-12345', 'paper', 'AAPL', 'open', 'buy', 10, :ts, :ts)"
        ),
        {"row": row, "ts": TS},
    )


def test_no_orders_are_nothing(connection: Connection) -> None:
    orders.insert_orders(connection, [], ACCOUNT, TS)
    assert everything(connection) == []


def test_an_order_that_is_decided_comes_back_to_be_handed_over(connection: Connection) -> None:
    put_recommendation(connection)
    held = take(connection)
    ours = orders.installation(connection)
    ticket = OrderTicket(client_order_id(ours, "live", ACCOUNT, held.id), "AAPL", "sell", 7)
    orders.insert_orders(connection, [DecidedOrder(held, ticket, held.expires_at)], ACCOUNT, TS)
    assert orders.take_ready(connection, TS) == TakenOrder(
        recommendation_id=held.id,
        epoch=1,
        ticket=ticket,
        state=SENT,
        broker_order_id=None,
        filled_quantity=0,
        filled_price=None,
        filled_at=None,
        reason="",
        expires_at=held.expires_at,
        tries=1,
        not_found=0,
        since_posted=pytest.approx(0.0, abs=0.01),
    )


def test_an_installation_is_the_same_each_time_it_is_asked(connection: Connection) -> None:
    assert orders.installation(connection) == orders.installation(connection)


def test_there_is_one_installation(connection: Connection) -> None:
    with pytest.raises(IntegrityError):
        connection.execute(text("insert into installation default values"))


def test_orders_are_handed_over_oldest_first_and_once(connection: Connection) -> None:
    ids = [
        put(connection, ticker=ticker, decided_at=TS + timedelta(seconds=second))
        for ticker, second in (("A", 2), ("B", 1), ("C", 2))
    ]
    found = [orders.take_ready(connection, TS) for _ in range(4)]
    assert [order and ids.index(order.recommendation_id) for order in found] == [1, 0, 2, None]


def test_an_order_that_is_taken_is_on_disk_as_handed_over(connection: Connection) -> None:
    taken(connection)
    found = rows(
        connection,
        "select state, epoch, tries, clock_timestamp() - least(posted_at, asked_at) < '5 s'"
        " from order_intents",
    )
    assert found == [("SENT", 1, 1, True)]


@pytest.mark.parametrize("state", [state for state in STATES if state is not READY])
def test_only_an_order_that_is_ready_is_handed_over(
    connection: Connection, state: OrderState
) -> None:
    out_since(connection, state, 1_000_000)
    assert orders.take_ready(connection, TS) is None


@pytest.mark.parametrize(
    ("now", "is_taken"), [(LATER, False), (LATER - timedelta(microseconds=1), True)]
)
def test_an_order_is_handed_over_before_its_instant_of_expiry_only(
    connection: Connection,
    now: Any,
    is_taken: bool,  # noqa: FBT001
) -> None:
    put(connection)
    assert (orders.take_ready(connection, now) is not None) is is_taken


ALLOWED = [
    ("ACTIVE", "open", True),
    ("ACTIVE", "close", True),
    ("REDUCING", "open", False),
    ("REDUCING", "close", True),
    ("HALTED", "open", False),
    ("HALTED", "close", False),
]


@pytest.mark.parametrize(("trading_state", "intent", "is_taken"), ALLOWED)
def test_an_order_is_handed_over_where_the_trading_state_allows_it(
    connection: Connection,
    trading_state: str,
    intent: str,
    is_taken: bool,  # noqa: FBT001
) -> None:
    put(connection, intent=intent)
    set_state(connection, trading_state)
    assert (orders.take_ready(connection, TS) is not None) is is_taken


def test_what_may_not_be_handed_over_does_not_stand_in_the_way(connection: Connection) -> None:
    put(connection, ticker="A", decided_at=TS - timedelta(seconds=1))
    closing = put(connection, ticker="B", intent="close")
    set_state(connection, "REDUCING")
    order = orders.take_ready(connection, TS)
    assert order is not None
    assert order.recommendation_id == closing


TAKES: dict[str, Callable[[Connection], TakenOrder | None]] = {
    "ready": lambda connection: orders.take_ready(connection, TS),
    "open": ask,
    "denied": lambda connection: orders.take_denied(
        connection, asking_seconds=5.0, watched_seconds=1_000.0
    ),
}


@pytest.mark.parametrize(
    ("name", "state"), [("ready", READY), ("open", SENT), ("open", ACKED), ("denied", ABSENT)]
)
def test_two_who_take_at_once_never_get_the_same_order(
    engine: Engine, name: str, state: OrderState
) -> None:
    with engine.begin() as connection:
        ids = {out_since(connection, state, 60, ticker=ticker) for ticker in ("A", "B")}
    with engine.begin() as first, engine.begin() as second, engine.begin() as third:
        found = [TAKES[name](each) for each in (first, second, third)]
    assert {order and order.recommendation_id for order in found} == {*ids, None}


def test_an_order_that_was_taken_meanwhile_is_not_taken_again(engine: Engine) -> None:
    with engine.begin() as connection:
        taken(connection)
    with engine.begin() as connection:
        assert orders.take_ready(connection, TS) is None


@pytest.mark.parametrize(
    ("state", "seconds", "is_due"),
    [
        (SENT, 19, False),
        (SENT, 21, True),
        (UNKNOWN, 4, False),
        (UNKNOWN, 6, True),
        (ACKED, 4, False),
        (ACKED, 6, True),
        (PARTIAL, 4, False),
        (PARTIAL, 6, True),
    ],
)
def test_an_order_is_asked_about_after_its_time(
    connection: Connection,
    state: OrderState,
    seconds: float,
    is_due: bool,  # noqa: FBT001
) -> None:
    out_since(connection, state, seconds)
    assert (ask(connection) is not None) is is_due


@pytest.mark.parametrize("state", [READY, *sorted(FINAL)])
def test_an_order_that_is_not_out_is_not_asked_about(
    connection: Connection, state: OrderState
) -> None:
    out_since(connection, state, 1_000_000)
    assert ask(connection) is None


@pytest.mark.parametrize("state", [SENT, UNKNOWN, ACKED, PARTIAL])
def test_an_order_whose_sender_was_not_heard_of_is_unknown_and_the_others_stay(
    connection: Connection, state: OrderState
) -> None:
    out_since(connection, state, 60)
    order = ask(connection)
    assert order is not None
    assert order.state is (UNKNOWN if state is SENT else state)


def test_the_oldest_question_is_asked_first_and_each_starts_its_time_anew(
    connection: Connection,
) -> None:
    ids = [
        out_since(connection, ACKED, seconds, ticker=ticker)
        for ticker, seconds in (("A", 10), ("B", 30), ("C", 20))
    ]
    found = [ask(connection) for _ in range(4)]
    assert [order and ids.index(order.recommendation_id) for order in found] == [1, 2, 0, None]


def test_a_pass_asks_about_an_order_once_however_soon_it_is_due_again(
    connection: Connection,
) -> None:
    out_since(connection, ACKED, 10)
    began, due = orders.server_clock(connection), {"sending_seconds": 0.0, "asking_seconds": 0.0}
    assert orders.take_open(connection, began, **due) is not None
    assert orders.take_open(connection, began, **due) is None
    assert ask(connection, asking_seconds=0.0) is not None


def test_a_question_is_a_claim_of_its_own_and_no_try(connection: Connection) -> None:
    out_since(connection, ACKED, 60, broker_order_id="b-1")
    order = ask(connection)
    assert order is not None
    assert (order.epoch, order.tries, order.broker_order_id) == (2, 1, "b-1")
    assert order.since_posted == pytest.approx(60, abs=1)


def test_an_order_is_asked_about_whatever_the_trading_state(connection: Connection) -> None:
    out_since(connection, ACKED, 60)
    set_state(connection, "HALTED")
    assert ask(connection) is not None


def unknown(connection: Connection, **changes: Any) -> TakenOrder:
    """An order that was asked about, and of which nobody knows."""
    out_since(connection, UNKNOWN, 60, not_found=1, **changes)
    order = ask(connection)
    assert order is not None
    return order


def test_an_order_without_an_outcome_is_handed_over_once_more_under_its_id(
    connection: Connection,
) -> None:
    order = unknown(connection)
    again = orders.take_again(connection, order, TS)
    assert again is not None
    assert again.ticket == order.ticket
    assert (again.state, again.tries, again.epoch) == (SENT, order.tries + 1, order.epoch + 1)
    assert (again.not_found, again.since_posted) == (0, pytest.approx(0.0, abs=0.01))


@pytest.mark.parametrize("step", [-1, 1])
def test_an_order_that_changed_hands_is_not_handed_over_once_more(
    connection: Connection, step: int
) -> None:
    order = unknown(connection)
    connection.execute(text("update order_intents set epoch = epoch + 5"))
    before = everything(connection)
    stale = TakenOrder(**{**vars(order), "epoch": order.epoch + 5 + step})
    assert orders.take_again(connection, stale, TS) is None
    assert everything(connection) == before


def test_of_two_who_hand_over_once_more_one_does(connection: Connection) -> None:
    order = unknown(connection)
    assert orders.take_again(connection, order, TS) is not None
    assert orders.take_again(connection, order, TS) is None


@pytest.mark.parametrize("state", [SENT, ACKED, PARTIAL, FILLED, CANCELED, REJECTED, ABSENT])
def test_an_order_with_an_outcome_is_not_handed_over_once_more(
    connection: Connection, state: OrderState
) -> None:
    order = unknown(connection)
    move(connection, order.recommendation_id, state)
    assert orders.take_again(connection, order, TS) is None


@pytest.mark.parametrize(
    ("now", "is_taken"), [(LATER, False), (LATER - timedelta(microseconds=1), True)]
)
def test_an_order_that_is_no_longer_fresh_is_not_handed_over_once_more(
    connection: Connection,
    now: Any,
    is_taken: bool,  # noqa: FBT001
) -> None:
    order = unknown(connection)
    assert (orders.take_again(connection, order, now) is not None) is is_taken


@pytest.mark.parametrize(("trading_state", "intent", "is_taken"), ALLOWED)
def test_an_order_is_handed_over_once_more_where_the_trading_state_allows_it(
    connection: Connection,
    trading_state: str,
    intent: str,
    is_taken: bool,  # noqa: FBT001
) -> None:
    order = unknown(connection, intent=intent)
    set_state(connection, trading_state)
    assert (orders.take_again(connection, order, TS) is not None) is is_taken


def test_what_was_learnt_is_kept(connection: Connection) -> None:
    order = taken(connection)
    assert orders.record(connection, order, known(order, PARTIAL, 4, reason="so far"), not_found=1)
    found = rows(
        connection,
        "select state, broker_order_id, filled_qty, filled_price, filled_at, reason, not_found,"
        " settled_at from order_intents",
    )
    assert found == [("PARTIAL", "b-1", 4, 201.5, TS, "so far", 1, None)]


def test_a_report_without_the_brokers_id_leaves_it_as_it_is(connection: Connection) -> None:
    order = taken(connection)
    orders.record(connection, order, known(order, ACKED))
    report = OrderReport(order.ticket, "", PARTIAL, 4, 201.5)
    assert orders.record(connection, order, report)
    assert one(connection, "select broker_order_id from order_intents") == "b-1"


def test_what_was_learnt_under_an_overtaken_claim_changes_nothing(connection: Connection) -> None:
    order = taken(connection)
    rows(
        connection, "update order_intents set asked_at = asked_at - interval '1 minute' returning 1"
    )
    assert ask(connection) is not None
    before = everything(connection)
    assert orders.record(connection, order, known(order, FILLED, 10)) is False
    assert everything(connection) == before


@pytest.mark.parametrize("state", sorted(FINAL))
def test_an_order_is_settled_when_it_is_over(connection: Connection, state: OrderState) -> None:
    order = taken(connection)
    orders.record(connection, order, known(order, state, 10 if state is FILLED else 0))
    assert one(connection, "select clock_timestamp() - settled_at < '5 s' from order_intents")


@pytest.mark.parametrize("state", [UNKNOWN, ACKED, PARTIAL])
def test_an_order_is_not_settled_before_it_is_over(
    connection: Connection, state: OrderState
) -> None:
    order = taken(connection)
    orders.record(connection, order, known(order, state, 4 if state is PARTIAL else 0))
    assert one(connection, "select settled_at from order_intents") is None


def test_an_order_is_settled_once(connection: Connection) -> None:
    order = taken(connection)
    settled = set()
    for price in (201.5, 201.6):
        orders.record(connection, order, known(order, FILLED, 10, filled_price=price))
        settled.add(one(connection, "select settled_at from order_intents"))
    assert len(settled) == 1


@pytest.mark.parametrize("state", [ACKED, PARTIAL])
def test_an_order_that_turns_up_after_all_and_is_worked_on_is_not_settled(
    connection: Connection, state: OrderState
) -> None:
    order = taken(connection)
    orders.record(connection, order, known(order, ABSENT))
    assert one(connection, "select settled_at from order_intents") is not None
    orders.record(connection, order, known(order, state, 4 if state is PARTIAL else 0))
    assert one(connection, "select settled_at from order_intents") is None


@pytest.mark.parametrize("state", [FILLED, CANCELED])
def test_an_order_that_turns_up_after_all_and_is_over_is_settled(
    connection: Connection, state: OrderState
) -> None:
    order = taken(connection)
    orders.record(connection, order, known(order, ABSENT))
    orders.record(connection, order, known(order, state, 10 if state is FILLED else 0))
    assert one(connection, "select settled_at from order_intents") is not None


# What a broker may tell of ten shares, by state.
FILLS = {PARTIAL: (1, 9), FILLED: (10, 10), CANCELED: (0, 9)}
told = st.sampled_from(STATES).flatmap(
    lambda state: st.tuples(st.just(state), st.integers(*FILLS.get(state, (0, 0))))
)


@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(told, max_size=8))
def test_whatever_a_broker_tells_the_database_takes_what_is_learnt_of_it(
    connection: Connection, history: list[tuple[OrderState, int]]
) -> None:
    with connection.begin_nested() as tried:
        order = taken(connection)
        report = order.known
        for state, filled in history:
            report = learnt(report, known(order, state, filled))
            assert orders.record(connection, order, report)
        assert state_of(connection, order.recommendation_id) == report.state
        tried.rollback()


def test_an_order_that_was_never_handed_over_is_given_up_at_its_instant_of_expiry(
    connection: Connection,
) -> None:
    old = put(connection, ticker="A")
    put(connection, ticker="B", expires_at=LATER + timedelta(microseconds=1))
    assert orders.give_up_unsent(connection, LATER) == 1
    found = rows(
        connection,
        "select recommendation_id, reason, settled_at is not null from order_intents"
        " where state = 'ABSENT'",
    )
    assert found == [(old, "not handed over in time", True)]


@pytest.mark.parametrize("state", [state for state in STATES if state is not READY])
def test_an_order_that_was_handed_over_is_not_given_up(
    connection: Connection, state: OrderState
) -> None:
    put(connection, state)
    before = everything(connection)
    assert orders.give_up_unsent(connection, LATER + timedelta(days=1)) == 0
    assert everything(connection) == before


def denied(connection: Connection, **seconds: float) -> TakenOrder | None:
    asked = {"asking_seconds": 300.0, "watched_seconds": 86_400.0} | seconds
    return orders.take_denied(connection, **asked)


@pytest.mark.parametrize(("asked", "is_due"), [(299, False), (301, True)])
def test_an_order_that_was_denied_is_asked_about_every_so_often(
    connection: Connection,
    asked: float,
    is_due: bool,  # noqa: FBT001
) -> None:
    out_since(connection, ABSENT, asked)
    assert (denied(connection) is not None) is is_due


@pytest.mark.parametrize(("settled", "is_due"), [(86_390, True), (86_410, False)])
def test_an_order_that_was_denied_is_watched_for_so_long_after_it_was_given_up(
    connection: Connection,
    settled: float,
    is_due: bool,  # noqa: FBT001
) -> None:
    out_since(connection, ABSENT, 90_000, settled_at=ago(connection, settled))
    assert (denied(connection) is not None) is is_due


def test_an_order_that_was_never_handed_over_is_not_asked_about(connection: Connection) -> None:
    put(connection)
    orders.give_up_unsent(connection, LATER)
    assert denied(connection, asking_seconds=-1.0) is None


@pytest.mark.parametrize("state", [state for state in STATES if state is not ABSENT])
def test_only_an_order_that_was_denied_is_watched(
    connection: Connection, state: OrderState
) -> None:
    out_since(connection, state, 1_000)
    assert denied(connection) is None


def test_an_order_that_was_denied_is_asked_about_under_a_claim_of_its_own(
    connection: Connection,
) -> None:
    out_since(connection, ABSENT, 1_000)
    order = denied(connection)
    assert order is not None
    assert (order.state, order.epoch, order.tries) == (ABSENT, 2, 1)
    assert denied(connection) is None


def test_orders_are_counted_by_state(connection: Connection) -> None:
    for ticker, state in (("A", READY), ("B", READY), ("C", FILLED)):
        put(connection, state, ticker=ticker)
    assert orders.state_counts(connection) == {"READY": 2, "FILLED": 1}


def test_a_recommendation_tells_of_its_order(connection: Connection) -> None:
    row = put(connection, PARTIAL, broker_order_id="b-1", filled_at=TS, reason="so far")
    assert orders.order_of(connection, row) == PlacedOrder(
        client_order_id=f"op1-{row:032}",
        broker_order_id="b-1",
        state="PARTIAL",
        side="buy",
        quantity=10,
        filled_quantity=4,
        filled_price=200.0,
        filled_at=TS,
        tries=1,
        reason="so far",
    )


def test_a_recommendation_without_an_order_tells_of_none(connection: Connection) -> None:
    row = put_executed(connection, minute=NOON)
    put(connection, ticker="MSFT", minute=at(0))
    assert orders.order_of(connection, row) is None
