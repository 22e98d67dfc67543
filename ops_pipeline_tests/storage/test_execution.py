"""The ledger: executions go in once, and come out as fills, simulated or a broker's."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from ops_pipeline.domain.dispatch import Decision, Status
from ops_pipeline.domain.execution import Book, Order
from ops_pipeline.domain.values import Fill, Recommendation
from ops_pipeline.storage import dispatch, execution
from ops_pipeline.storage.dispatch import Closed, FenceLost
from ops_pipeline.storage.execution import ALPACA_PAPER, SIMULATED, Execution
from ops_pipeline_tests.builders import DAY, NOON, at
from ops_pipeline_tests.storage.rows import (
    TS,
    claim,
    one,
    put_executed,
    put_execution,
    put_order,
    put_recommendation,
    put_run,
    rows,
    take,
)

FILLED_AT = TS + timedelta(seconds=3)
OVER = {"settled_at": FILLED_AT}
PART = {"filled_qty": 4, "filled_price": 201.5, "filled_at": FILLED_AT}
WHOLE = PART | {"filled_qty": 10}
TOMORROW = DAY + timedelta(days=1)


def an_execution(held: Recommendation, connection: Connection) -> Execution:
    return Execution(
        recommendation=held,
        run_id=one(connection, "select run_id from dispatcher_runs limit 1"),
        order=Order(-10, 200.1, 199.1, 202.1),
        execution_mode=SIMULATED,
        at=TS,
        session_date=DAY,
        slippage_bps=5.0,
        max_hold_minutes=240,
        simulation={"bar_used": {"timestamp": TS.isoformat()}},
    )


def test_an_execution_comes_back_as_a_fill(connection: Connection) -> None:
    put_recommendation(connection)
    execution.insert_executions(connection, [an_execution(take(connection), connection)])
    fill = execution.live_fills(connection, DAY)[0]
    assert (fill.at, fill.quantity, fill.price, fill.stop_price, fill.target_price) == (
        TS,
        -10,
        200.1,
        199.1,
        202.1,
    )


def test_an_execution_names_the_claim_that_it_was_made_under(connection: Connection) -> None:
    put_recommendation(connection)
    held = take(connection)
    execution.insert_executions(connection, [an_execution(held, connection)])
    found = rows(connection, "select claim_epoch, notional, side from dispatch_executions")
    assert found == [(1, pytest.approx(2_001.0), "sell")]


@pytest.mark.parametrize(("mode", "model"), [(SIMULATED, "close+slip"), (ALPACA_PAPER, "broker")])
def test_an_execution_tells_who_filled_it(connection: Connection, mode: str, model: str) -> None:
    put_recommendation(connection)
    made = replace(an_execution(take(connection), connection), execution_mode=mode)
    execution.insert_executions(connection, [made])
    found = rows(connection, "select execution_mode, fill_model from dispatch_executions")
    assert found == [(mode, model)]


def test_executions_of_one_run_are_written_together(connection: Connection) -> None:
    for n in range(3):
        put_recommendation(connection, minute=at(n))
    claims = claim(connection, put_run(connection))
    held = [owned.recommendation for owned in dispatch.owned(connection, claims)]
    execution.insert_executions(connection, [an_execution(each, connection) for each in held])
    found = rows(connection, "select recommendation_id from dispatch_executions")
    assert {row[0] for row in found} == set(claims)


def test_executions_of_one_instant_are_filled_in_the_order_in_which_they_were_decided(
    connection: Connection,
) -> None:
    tickers = [f"T{n * 7 % 20}" for n in range(20)]
    for ticker in sorted(tickers):
        put_recommendation(connection, ticker=ticker)
    claims = claim(connection, put_run(connection))
    held = {o.recommendation.ticker: o.recommendation for o in dispatch.owned(connection, claims)}
    made = [an_execution(held[ticker], connection) for ticker in tickers]
    execution.insert_executions(connection, made)
    assert [fill.ticker for fill in execution.live_fills(connection, DAY)] == tickers


def test_an_execution_tells_what_was_decided_on_what(connection: Connection) -> None:
    features, reason = {"v": 1, "recent_vol": 1 / 3}, {"rule": "X", "base": 2 / 3}
    gates = {"confidence": {"passed": True, "observed": 1 / 7}}
    put_recommendation(connection, ticker="MSFT", features_snapshot=features, reason=reason)
    held = take(connection)
    passed = Decision(passed=True, failure_reason=None, gates=gates)
    dispatch.finish(connection, [Closed(held, Status.SIMULATED, passed, None)], TS)
    execution.insert_executions(connection, [an_execution(held, connection)])
    found = rows(
        connection,
        "select ticker, action, intent, decision_ts, explain_json, risk_json, sim_json"
        " from dispatch_executions",
    )
    told = {"bar_used": {"timestamp": TS.isoformat()}, "features_used": features}
    risk = {"gates": gates, "all_gates_passed": True}
    assert found == [("MSFT", "BUY_STOCK", "open", TS, reason, risk, told)]


def test_an_execution_of_what_was_never_recommended_is_refused(connection: Connection) -> None:
    put_recommendation(connection)
    held = take(connection)
    stranger = replace(held, id=held.id + 1, minute=NOON + timedelta(minutes=1))
    made = [an_execution(each, connection) for each in (held, stranger)]
    with pytest.raises(FenceLost, match="1 of 2 executions have no recommendation"):
        execution.insert_executions(connection, made)


def test_a_nan_never_enters_an_execution(connection: Connection) -> None:
    put_recommendation(connection)
    made = an_execution(take(connection), connection)
    with pytest.raises(ValueError, match="not JSON compliant"):
        execution.insert_executions(connection, [replace(made, slippage_bps=float("nan"))])


def test_no_executions_are_nothing(connection: Connection) -> None:
    execution.insert_executions(connection, [])
    assert rows(connection, "select 1 from dispatch_executions") == []


def test_an_execution_has_the_same_id_wherever_it_is_replayed(connection: Connection) -> None:
    put_recommendation(connection)
    held = take(connection)
    moved = replace(held, id=held.id + 1, claim_epoch=9)
    assert execution.execution_id(held) == execution.execution_id(moved)


def test_fills_of_a_ticker_that_is_held_are_live_in_every_later_session(
    connection: Connection,
) -> None:
    put_execution(connection, put_recommendation(connection))
    assert len(execution.live_fills(connection, DAY + timedelta(days=9))) == 1


def test_fills_of_a_ticker_that_was_closed_are_live_in_that_session_only(
    connection: Connection,
) -> None:
    put_execution(connection, put_recommendation(connection))
    closing = put_recommendation(connection, intent="close", action="SELL")
    put_execution(connection, closing, side="sell", intent="close")
    assert len(execution.live_fills(connection, DAY)) == 2
    assert execution.live_fills(connection, DAY + timedelta(days=1)) == []


def test_fills_until_a_session_leave_later_ones_out(connection: Connection) -> None:
    for n in range(2):
        row = put_recommendation(connection, minute=at(n))
        put_execution(connection, row, session_date=DAY + timedelta(days=n))
    assert len(execution.fills_until(connection, DAY)) == 1


def test_fills_of_one_instant_stand_in_the_order_in_which_they_were_written(
    connection: Connection,
) -> None:
    for n, ticker in enumerate(["T", "A", "M"]):
        put_execution(connection, put_recommendation(connection, minute=at(n)), ticker=ticker)
    assert [fill.ticker for fill in execution.live_fills(connection, DAY)] == ["T", "A", "M"]


def both(connection: Connection) -> list[Fill]:
    """The fills, as the run of today and as the whole ledger tell them."""
    live = execution.live_fills(connection, DAY)
    assert execution.fills_until(connection, DAY) == live
    return live


def test_what_was_simulated_is_filled_at_its_price(connection: Connection) -> None:
    put_executed(connection)
    assert [(f.quantity, f.working, f.price) for f in both(connection)] == [(10, 0, 200.0)]


@pytest.mark.parametrize(
    ("changes", "filled", "working", "price"),
    [
        ({"state": "READY"}, 0, 10, 200.0),
        ({"state": "SENT"}, 0, 10, 200.0),
        ({"state": "UNKNOWN"}, 0, 10, 200.0),
        ({"state": "ACKED"}, 0, 10, 200.0),
        ({"state": "PARTIAL", **PART}, 4, 6, 201.5),
        ({"state": "FILLED", **WHOLE, **OVER}, 10, 0, 201.5),
        ({"state": "CANCELED", **PART, **OVER}, 4, 0, 201.5),
    ],
    ids=lambda value: value["state"] if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("side", ["buy", "sell"])
def test_an_order_is_a_fill_of_what_the_broker_filled_at_its_price_and_works_on_the_rest(
    connection: Connection,
    changes: dict[str, Any],
    filled: int,
    working: int,
    price: float,
    side: str,
) -> None:
    put_order(connection, side=side, **changes)
    sign = 1 if side == "buy" else -1
    found = [(f.quantity, f.working, f.price) for f in both(connection)]
    assert found == [(sign * filled, sign * working, price)]


@pytest.mark.parametrize("state", ["REJECTED", "ABSENT", "CANCELED"])
def test_an_order_that_ended_with_nothing_filled_is_no_fill(
    connection: Connection, state: str
) -> None:
    put_order(connection, state=state, **OVER)
    assert both(connection) == []


def test_an_order_that_turned_up_after_all_is_a_fill(connection: Connection) -> None:
    put_order(connection, state="ABSENT", **OVER)
    rows(
        connection,
        "update order_intents set state = 'FILLED', filled_qty = 10, filled_price = 201.5"
        " returning 1",
    )
    assert [(f.quantity, f.working) for f in both(connection)] == [(10, 0)]


def test_a_fill_of_an_order_keeps_what_was_decided_of_it(connection: Connection) -> None:
    put_order(connection, state="FILLED", intent="close", side="sell", **WHOLE, **OVER)
    fill = both(connection)[0]
    assert (fill.ticker, fill.at, fill.session_date, fill.intent) == ("AAPL", TS, DAY, "close")


def close_yesterday(connection: Connection, **order: Any) -> None:
    """Ten shares are bought, and an order to sell them ends like this, both in the same session."""
    put_executed(connection)
    put_order(connection, minute=at(200), intent="close", side="sell", **order)


@pytest.mark.parametrize(
    ("order", "held"),
    [
        ({"state": "REJECTED"}, 10),
        ({"state": "ABSENT"}, 10),
        ({"state": "CANCELED"}, 10),
        ({"state": "CANCELED", **PART}, 6),
    ],
    ids=["rejected", "absent", "cancelled", "cancelled after a part"],
)
def test_what_a_broker_did_not_sell_is_still_held_in_the_next_session(
    connection: Connection, order: dict[str, Any], held: int
) -> None:
    close_yesterday(connection, **order, **OVER)
    assert Book(execution.live_fills(connection, TOMORROW)).held("AAPL") == held


@pytest.mark.parametrize(
    ("order", "left"),
    [({"state": "UNKNOWN"}, 0), ({"state": "PARTIAL", **PART}, 0)],
    ids=["unknown", "partial"],
)
def test_an_order_that_still_works_is_live_in_the_next_session(
    connection: Connection, order: dict[str, Any], left: int
) -> None:
    close_yesterday(connection, **order)
    book = Book(execution.live_fills(connection, TOMORROW))
    assert (len(book.working), book.held("AAPL")) == (1, left)


def test_what_a_broker_sold_is_live_in_that_session_only(connection: Connection) -> None:
    close_yesterday(connection, state="FILLED", **WHOLE, **OVER)
    assert execution.live_fills(connection, TOMORROW) == []


def test_an_opening_order_that_still_works_is_live_in_the_next_session(
    connection: Connection,
) -> None:
    put_order(connection, state="UNKNOWN")
    assert [f.working for f in execution.live_fills(connection, TOMORROW)] == [10]


def test_fills_of_another_account_are_left_out(connection: Connection) -> None:
    rows(connection, "insert into accounts (account) values ('other') returning 1")
    put_executed(connection, account="other")
    assert both(connection) == []
