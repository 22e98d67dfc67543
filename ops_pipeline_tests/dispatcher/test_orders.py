"""Each order is on disk before it is handed over, handed over once, and never guessed at."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from ops_pipeline.dispatcher.orders import Pace
from ops_pipeline.dispatcher.run import run_once, run_until_idle
from ops_pipeline.dispatcher.snapshot import Account, read_account
from ops_pipeline.domain.checks import UNCLOSED
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.domain.orders import OrderState, OrderTicket, OrderUnknown
from ops_pipeline.storage import acceptance, dispatch
from ops_pipeline.storage.knowledge import set_present
from ops_pipeline_tests.builders import DAY, NOON, a_bar
from ops_pipeline_tests.dispatcher.paper import (
    ACCEPT,
    BAD_KEY,
    BREAK,
    FILL,
    LATE,
    LOSE_ANSWER,
    LOSE_REQUEST,
    PRICE,
    REFUSE,
    FakeBroker,
    Paper,
)
from ops_pipeline_tests.dispatcher.world import SETTLE, TS, World, features

LATER = TS + timedelta(seconds=20)
EXPIRED = TS + timedelta(seconds=300)
SHARES = 49
ASKING, SENDING, HORIZON, DENIED = 6, 21, 31, 301


@pytest.fixture
def paper(world: World) -> Paper:
    """A market of one ticker that is worth 200 USD, and a paper account."""
    world.trade()
    return Paper(world)


def decided(paper: Paper, **changes: Any) -> str:
    """Decide to buy AAPL; gives the id of the order, which is not handed over yet."""
    row = paper.world.recommend(**changes)
    report = run_once(paper.desk, changes.get("ts", TS))
    assert report.executed == 1
    return paper.order_id(row)


def account(paper: Paper, now: datetime = TS) -> Account:
    with paper.world.engine.connect() as connection:
        return read_account(connection, now, paper.desk.calendar)


def positions(paper: Paper) -> dict[str, tuple[int, float]]:
    found = account(paper).book.positions
    return {ticker: (each.quantity, each.average_price) for ticker, each in found.items()}


def tickets(paper: Paper) -> list[str]:
    return [ticket.client_order_id for ticket in paper.broker.posts]


def minute_later(paper: Paper, close: float = 200.0, minutes: int = 1) -> datetime:
    """Let minutes pass in the market; gives the instant at which the last one is decided."""
    minute = NOON + timedelta(minutes=minutes)
    price = {"open": close, "high": close, "low": close, "close": close}
    paper.world.trade(a_bar(minute=minute, **price))
    paper.world.feature(minute=minute)
    return minute + SETTLE


def states(paper: Paper) -> list[str]:
    return [state for (state,) in paper.orders()]


# --- handing over


def test_a_decision_is_an_order_on_disk_and_no_request(paper: Paper) -> None:
    order_id = decided(paper)
    assert paper.order("state, tries, side, qty, ticker, client_order_id, intent") == (
        "READY",
        0,
        "buy",
        SHARES,
        "AAPL",
        order_id,
        "open",
    )
    assert (paper.broker.posts, paper.broker.asked) == ([], [])
    assert paper.world.outcomes() == [("EXECUTED", None)]


def test_the_intent_is_on_disk_before_the_first_request(paper: Paper) -> None:
    seen: list[Any] = []

    def look(ticket: OrderTicket) -> None:
        seen.extend(paper.orders("state, tries, client_order_id, posted_at is not null"))
        seen.extend(paper.world.outcomes())
        seen.append(paper.world.executions())

    paper.broker.on_submit = look
    order_id = decided(paper)
    paper.follow()
    assert seen == [("SENT", 1, order_id, True), ("EXECUTED", None), 1]


def test_an_order_is_handed_over_once_and_filled(paper: Paper) -> None:
    order_id = decided(paper)
    for _ in range(3):
        paper.follow()
        paper.pass_time(DENIED)
    assert paper.broker.posts == [OrderTicket(order_id, "AAPL", "buy", SHARES)]
    assert paper.order("state, tries, filled_qty, filled_price, settled_at is not null") == (
        "FILLED",
        1,
        SHARES,
        PRICE,
        True,
    )
    assert positions(paper) == {"AAPL": (SHARES, PRICE)}


def test_an_accepted_order_is_asked_about_until_it_is_filled(paper: Paper) -> None:
    paper.broker.script = [ACCEPT]
    order_id = decided(paper)
    paper.follow()
    assert paper.order() == ("ACKED", 1)
    paper.follow()
    assert paper.broker.asked == []
    paper.pass_time(ASKING)
    paper.follow()
    assert paper.order() == ("ACKED", 1)
    paper.broker.fill(order_id)
    paper.pass_time(ASKING)
    paper.follow()
    assert (paper.order(), paper.broker.asked) == (("FILLED", 1), [order_id] * 2)
    assert tickets(paper) == [order_id]


def test_orders_are_asked_about_before_others_are_handed_over(paper: Paper) -> None:
    paper.broker.script = [ACCEPT]
    first = decided(paper)
    paper.follow()
    paper.pass_time(ASKING)
    paper.world.trade(a_bar(ticker="MSFT"))
    decided(paper, ticker="MSFT")
    asked_by_then: list[list[str]] = []
    paper.broker.on_submit = lambda _: asked_by_then.append(list(paper.broker.asked))
    paper.follow()
    assert asked_by_then == [[first]]


def test_one_pass_hands_over_all_that_is_ready(paper: Paper) -> None:
    for number in range(4):
        paper.world.trade(a_bar(ticker=f"T{number}"))
        paper.world.recommend(ticker=f"T{number}")
    run_until_idle(paper.desk, TS)
    paper.follow()
    assert states(paper) == ["FILLED"] * 4
    assert [ticket.ticker for ticket in paper.broker.posts] == ["T0", "T1", "T2", "T3"]


def test_what_is_ordered_in_a_run_is_not_held_yet_by_its_later_decisions(paper: Paper) -> None:
    world = paper.world
    world.configure(allowed_actions=("BUY_STOCK", "SELL_STOCK"), ticker_cooldown_minutes=0)
    world.recommend(confidence=0.9)
    world.recommend(action="SELL", minute=NOON + timedelta(minutes=1))
    run_until_idle(paper.desk, TS)
    refusal = ("SKIPPED", "short_position: Shorting disabled")
    assert world.outcomes() == [("EXECUTED", None), refusal]


# --- lost requests and lost answers


def test_a_lost_answer_is_looked_for_and_found(paper: Paper) -> None:
    paper.broker.script = [LOSE_ANSWER]
    order_id = decided(paper)
    paper.follow()
    assert paper.order("state, reason") == ("UNKNOWN", "no answer within 13 s")
    paper.pass_time(ASKING)
    paper.follow(LATER)
    assert paper.order() == ("FILLED", 1)
    assert (tickets(paper), list(paper.broker.orders)) == ([order_id], [order_id])


def test_while_nothing_is_known_of_an_order_it_counts_as_if_it_were_there(paper: Paper) -> None:
    paper.broker.script = [LOSE_ANSWER]
    decided(paper)
    paper.follow()
    book = account(paper).book
    assert (book.positions, book.tickers) == ({}, {"AAPL"})
    assert book.exposure_usd == pytest.approx(SHARES * 200.1)


def test_a_lost_request_is_handed_over_again_under_the_same_id(paper: Paper) -> None:
    paper.broker.script = [LOSE_REQUEST, LOSE_REQUEST]
    order_id = decided(paper)
    paper.follow()
    for _ in range(2):
        paper.pass_time(ASKING)
        paper.follow(LATER)
    assert paper.order() == ("FILLED", 3)
    assert tickets(paper) == [order_id] * 3
    assert list(paper.broker.orders) == [order_id]
    assert positions(paper) == {"AAPL": (SHARES, PRICE)}


def test_a_question_without_an_answer_changes_nothing_and_is_asked_again(paper: Paper) -> None:
    paper.broker.script = [LOSE_ANSWER]
    paper.broker.answers = [OrderUnknown("no answer within 6 s")] * 2
    decided(paper)
    paper.follow()
    for _ in range(2):
        paper.pass_time(ASKING)
        paper.follow(LATER)
        assert paper.order("state, tries, reason") == ("UNKNOWN", 1, "no answer within 6 s")
    paper.pass_time(ASKING)
    paper.follow(LATER)
    assert paper.order() == ("FILLED", 1)


def test_a_second_try_that_meets_the_first_one_is_not_a_second_order(paper: Paper) -> None:
    """The first request is late: the broker denies it, and has it when the second one comes."""
    paper.broker.script = [LATE, FILL]
    order_id = decided(paper)
    paper.follow()
    paper.broker.on_submit = lambda _: paper.broker.arrive()
    paper.pass_time(ASKING)
    paper.follow(LATER)
    assert paper.order("state, reason") == ("UNKNOWN", "the id is taken (422)")
    paper.pass_time(ASKING)
    paper.follow(LATER)
    assert paper.order() == ("FILLED", 2)
    assert (tickets(paper), list(paper.broker.orders)) == ([order_id] * 2, [order_id])


def test_a_second_try_that_is_refused_says_nothing_of_the_first(paper: Paper) -> None:
    """The first request is late, and has used the funds that the second one lacks."""
    paper.broker.script = [LATE, REFUSE]
    order_id = decided(paper)
    paper.follow()
    paper.broker.on_submit = lambda _: paper.broker.arrive()
    paper.pass_time(ASKING)
    paper.follow(LATER)
    assert paper.order() == ("FILLED", 2)
    assert (tickets(paper), list(paper.broker.orders)) == ([order_id] * 2, [order_id])


def test_a_second_try_that_is_refused_is_no_outcome_while_the_broker_is_silent(
    paper: Paper,
) -> None:
    paper.broker.script = [LATE, REFUSE]
    decided(paper)
    paper.follow()

    def fall_silent(_: OrderTicket) -> None:
        paper.broker.arrive()
        paper.broker.answers = [OrderUnknown("silence")]

    paper.broker.on_submit = fall_silent
    paper.pass_time(ASKING)
    paper.follow(LATER)
    assert paper.order("state, reason") == ("UNKNOWN", "insufficient buying power (403)")
    paper.pass_time(ASKING)
    paper.follow(LATER)
    assert paper.order() == ("FILLED", 2)


def test_a_second_try_that_is_refused_is_rejected_where_there_is_no_first(paper: Paper) -> None:
    paper.broker.script = [LOSE_REQUEST, REFUSE]
    decided(paper)
    paper.follow()
    paper.pass_time(ASKING)
    paper.follow(LATER)
    assert paper.order("state, reason") == ("REJECTED", "insufficient buying power (403)")
    assert account(paper).book.tickers == frozenset()


def test_a_sender_that_was_killed_is_made_good_after_its_time(paper: Paper) -> None:
    order_id = decided(paper)

    def die(_: OrderTicket) -> None:
        raise KeyboardInterrupt

    paper.broker.on_submit = die
    with pytest.raises(KeyboardInterrupt):
        paper.follow()
    paper.broker.on_submit = lambda _: None
    assert paper.order() == ("SENT", 1)
    paper.pass_time(ASKING)
    paper.follow(LATER)
    assert (paper.order(), paper.broker.asked) == (("SENT", 1), [])
    paper.pass_time(SENDING - ASKING)
    paper.follow(LATER)
    assert (paper.order(), paper.broker.asked) == (("FILLED", 2), [order_id])
    assert list(paper.broker.orders) == [order_id]


# --- too late


def test_what_was_not_handed_over_in_time_never_is(paper: Paper) -> None:
    decided(paper)
    paper.follow(EXPIRED)
    paper.follow(TS)
    assert paper.order("state, tries, reason") == ("ABSENT", 0, "not handed over in time")
    assert (paper.broker.posts, positions(paper)) == ([], {})


def test_until_its_last_instant_an_order_is_handed_over(paper: Paper) -> None:
    decided(paper)
    paper.follow(EXPIRED - timedelta(microseconds=1))
    assert paper.order() == ("FILLED", 1)


def test_a_lost_request_is_not_repeated_once_it_is_too_late(paper: Paper) -> None:
    paper.broker.script = [LOSE_REQUEST]
    order_id = decided(paper)
    paper.follow()
    for seconds, state, denials in ((ASKING, "UNKNOWN", 1), (HORIZON, "ABSENT", 2)):
        paper.pass_time(seconds)
        paper.follow(EXPIRED)
        known = (state, denials, "the broker does not have it")
        assert paper.order("state, not_found, reason") == known
    assert (tickets(paper), paper.broker.asked) == ([order_id], [order_id] * 2)
    assert (account(paper).book.tickers, positions(paper)) == (frozenset(), {})


def test_an_order_is_absent_after_two_denials_and_its_horizon_and_not_before(
    paper: Paper,
) -> None:
    paper.broker.script = [LOSE_REQUEST]
    decided(paper)
    paper.follow()
    seen = []
    # Denied so many seconds after it was handed over.
    for _ in (6, 12, 18, 24, 30):
        paper.pass_time(ASKING)
        paper.follow(EXPIRED)
        seen.append(paper.order("state")[0])
    assert seen[:4] == ["UNKNOWN"] * 4
    assert seen[4] == "ABSENT"


def test_one_denial_is_not_enough_however_late_it_comes(paper: Paper) -> None:
    paper.broker.script = [LOSE_REQUEST]
    decided(paper)
    paper.follow()
    paper.pass_time(10 * HORIZON)
    paper.follow(EXPIRED)
    assert paper.order("state, not_found") == ("UNKNOWN", 1)
    paper.pass_time(ASKING)
    paper.follow(EXPIRED)
    assert paper.order("state, not_found") == ("ABSENT", 2)


def test_a_denial_that_no_denial_follows_does_not_count(paper: Paper) -> None:
    paper.broker.script = [LOSE_REQUEST]
    decided(paper)
    paper.follow()
    for answers in ([], [OrderUnknown("silence")], []):
        paper.broker.answers = list(answers)
        paper.pass_time(HORIZON)
        paper.follow(EXPIRED)
        assert paper.order("state")[0] == "UNKNOWN"
    paper.pass_time(HORIZON)
    paper.follow(EXPIRED)
    assert paper.order("state")[0] == "ABSENT"


def given_up(paper: Paper, step: str = LOSE_REQUEST) -> str:
    """An order that was handed over, denied twice and given up."""
    paper.broker.script = [step]
    order_id = decided(paper)
    paper.follow()
    for _ in range(2):
        paper.pass_time(HORIZON)
        paper.follow(EXPIRED)
    assert paper.order() == ("ABSENT", 1)
    return order_id


def test_an_order_that_turns_up_after_all_is_adopted_and_said(
    paper: Paper, caplog: pytest.LogCaptureFixture
) -> None:
    order_id = given_up(paper, LATE)
    paper.broker.arrive()
    paper.pass_time(DENIED)
    with caplog.at_level(logging.INFO):
        paper.follow(EXPIRED)
    assert paper.order("state, filled_qty, tries") == ("FILLED", SHARES, 1)
    assert positions(paper) == {"AAPL": (SHARES, PRICE)}
    said = [(each.levelname, each.msg) for each in caplog.records if each.name.endswith("orders")]
    assert ("ERROR", "order_turned_up") in said
    assert tickets(paper) == [order_id]


def test_what_was_given_up_is_asked_about_now_and_then_for_a_day(paper: Paper) -> None:
    given_up(paper)
    before = len(paper.broker.asked)
    for seconds, questions in ((DENIED - 2, 0), (2, 1), (DENIED, 2), (86_400, 2), (DENIED, 2)):
        paper.pass_time(seconds)
        paper.follow(EXPIRED)
        assert len(paper.broker.asked) - before == questions
    assert (paper.order(), len(paper.broker.posts)) == (("ABSENT", 1), 1)


def test_a_silent_broker_leaves_given_up_what_was_given_up(paper: Paper) -> None:
    given_up(paper)
    paper.broker.answers = [OrderUnknown("silence")]
    paper.pass_time(DENIED)
    paper.follow(EXPIRED)
    assert paper.order("state, reason") == ("ABSENT", "the broker does not have it")


def test_what_was_never_handed_over_is_not_asked_about(paper: Paper) -> None:
    decided(paper)
    paper.follow(EXPIRED)
    paper.pass_time(DENIED)
    paper.follow(EXPIRED)
    assert (paper.order("state"), paper.broker.asked) == (("ABSENT",), [])


def test_an_order_that_the_broker_had_and_denies_stays_as_it_is_known(
    paper: Paper, caplog: pytest.LogCaptureFixture
) -> None:
    paper.broker.script = [ACCEPT]
    order_id = decided(paper)
    paper.follow()
    del paper.broker.orders[order_id]
    for _ in range(3):
        paper.pass_time(HORIZON)
        paper.follow(EXPIRED)
    assert paper.order() == ("ACKED", 1)
    assert "order_denied" in [record.msg for record in caplog.records]
    assert tickets(paper) == [order_id]


# --- refused


def test_a_refused_order_is_rejected_and_uses_no_limit(paper: Paper) -> None:
    paper.broker.script = [REFUSE]
    world = paper.world
    world.configure(max_open_positions=1, max_trades_per_ticker_per_day=1)
    world.configure(max_notional_exposure=0.15)
    decided(paper)
    paper.follow()
    reason = "insufficient buying power (403)"
    assert paper.order("state, tries, reason, filled_qty") == ("REJECTED", 1, reason, 0)
    assert world.outcomes() == [("EXECUTED", None)]
    book = account(paper).book
    assert (book.positions, book.tickers, book.exposure_usd) == ({}, frozenset(), 0.0)
    assert (book.opened["AAPL", DAY], book.traded_at) == (0, {})
    now = minute_later(paper)
    made_on = features(ts=(NOON + timedelta(minutes=1)).isoformat())
    world.recommend(minute=NOON + timedelta(minutes=1), ts=now, features_snapshot=made_on)
    assert run_once(paper.desk, now).executed == 1
    paper.follow(now)
    assert states(paper) == ["REJECTED", "FILLED"]


def test_nothing_is_ever_simulated_in_a_brokers_stead(paper: Paper) -> None:
    tickers = ("T0", "T1", "T2", "T3", "T4")
    paper.world.trade(*[a_bar(ticker=ticker) for ticker in tickers])
    for ticker in tickers:
        paper.world.recommend(ticker=ticker)
    run_until_idle(paper.desk, TS)
    paper.broker.script = [REFUSE, LOSE_REQUEST, LOSE_ANSWER, ACCEPT]
    for seconds in (0, ASKING, HORIZON, DENIED, DENIED):
        paper.pass_time(seconds)
        paper.follow(EXPIRED if seconds else TS)
    assert states(paper) == ["REJECTED", "ABSENT", "FILLED", "ACKED", "FILLED"]
    modes = "select distinct execution_mode, fill_model from dispatch_executions"
    assert paper.world.ask(modes) == [("ALPACA_PAPER", "broker")]
    assert set(paper.world.outcomes()) == {("EXECUTED", None)}
    assert set(positions(paper)) == {"T2", "T4"}


# --- parts


def test_a_part_that_is_filled_is_held_and_the_rest_is_exposure(paper: Paper) -> None:
    paper.broker.script = [ACCEPT]
    order_id = decided(paper)
    paper.follow()
    paper.broker.fill(order_id, 20, 201.5)
    paper.pass_time(ASKING)
    paper.follow(LATER)
    assert paper.order("state, filled_qty, filled_price") == ("PARTIAL", 20, 201.5)
    assert positions(paper) == {"AAPL": (20, 201.5)}
    assert account(paper).book.exposure_usd == pytest.approx(20 * 201.5 + 29 * 201.5)
    paper.broker.fill(order_id, price=202.0)
    paper.pass_time(ASKING)
    paper.follow(LATER)
    assert paper.order("state, filled_qty") == ("FILLED", SHARES)
    assert positions(paper) == {"AAPL": (SHARES, 202.0)}
    assert account(paper).book.exposure_usd == pytest.approx(SHARES * 202.0)


def test_what_is_cancelled_after_a_part_leaves_that_part(paper: Paper) -> None:
    paper.broker.script = [ACCEPT]
    order_id = decided(paper)
    paper.follow()
    paper.broker.fill(order_id, 20, 201.5)
    paper.broker.change(order_id, state=OrderState.CANCELED, reason="expired")
    paper.pass_time(ASKING)
    paper.follow(LATER)
    assert paper.order("state, filled_qty, reason") == ("CANCELED", 20, "expired")
    assert positions(paper) == {"AAPL": (20, 201.5)}
    assert account(paper).book.exposure_usd == pytest.approx(20 * 201.5)


def test_what_is_cancelled_before_any_part_uses_no_limit(paper: Paper) -> None:
    paper.broker.script = [ACCEPT]
    order_id = decided(paper)
    paper.follow()
    paper.broker.change(order_id, state=OrderState.CANCELED)
    paper.pass_time(ASKING)
    paper.follow(LATER)
    book = account(paper).book
    assert (book.positions, book.tickers, book.opened["AAPL", DAY]) == ({}, frozenset(), 0)


def test_an_older_report_takes_nothing_back(paper: Paper, caplog: pytest.LogCaptureFixture) -> None:
    paper.broker.script = [ACCEPT]
    order_id = decided(paper)
    paper.follow()
    paper.broker.fill(order_id, 20, 201.5)
    paper.pass_time(ASKING)
    paper.follow(LATER)
    paper.broker.change(
        order_id, state=OrderState.ACKED, filled_quantity=0, filled_price=None, filled_at=None
    )
    paper.pass_time(ASKING)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        paper.follow(LATER)
    assert paper.order("state, filled_qty, filled_price") == ("PARTIAL", 20, 201.5)
    assert "order_moved" not in [record.msg for record in caplog.records]


# --- closing


@pytest.fixture
def held(paper: Paper) -> Paper:
    """49 shares that are held; the next close is below their stop."""
    decided(paper)
    paper.follow()
    return paper


def closes(paper: Paper) -> list[tuple[Any, ...]]:
    return paper.orders("state, side, qty")[1:]


def test_while_a_closing_order_works_no_second_exit_is_proposed(held: Paper) -> None:
    held.broker.script = [ACCEPT]
    now = minute_later(held, 190.0)
    assert run_once(held.desk, now).exits == ("stop",)
    for minutes in (2, 3):
        assert run_once(held.desk, minute_later(held, 190.0, minutes)).exits == ()
        held.follow(now)
        assert closes(held) == [("ACKED", "sell", SHARES)]
    held.broker.fill(tickets(held)[1], 9, 190.0)
    held.pass_time(ASKING)
    held.follow(now)
    assert closes(held) == [("PARTIAL", "sell", SHARES)]
    assert run_once(held.desk, minute_later(held, 190.0, 4)).exits == ()
    held.broker.fill(tickets(held)[1], price=190.0)
    held.pass_time(ASKING)
    held.follow(now)
    assert (closes(held), positions(held)) == ([("FILLED", "sell", SHARES)], {})
    assert run_once(held.desk, minute_later(held, 190.0, 5)).exits == ()


def test_an_exit_that_the_broker_refused_is_proposed_again_in_a_later_minute(held: Paper) -> None:
    held.broker.script = [REFUSE]
    now = minute_later(held, 190.0)
    assert run_once(held.desk, now).exits == ("stop",)
    held.follow(now)
    assert closes(held) == [("REJECTED", "sell", SHARES)]
    assert run_once(held.desk, now + timedelta(seconds=20)).exits == ()
    now = minute_later(held, 190.0, 2)
    assert run_once(held.desk, now).exits == ("stop",)
    held.follow(now)
    assert closes(held) == [("REJECTED", "sell", SHARES), ("FILLED", "sell", SHARES)]
    assert positions(held) == {}


def test_what_a_cancelled_exit_has_left_is_closed_by_the_next_one(held: Paper) -> None:
    held.broker.script = [ACCEPT]
    now = minute_later(held, 190.0)
    run_once(held.desk, now)
    held.follow(now)
    order_id = tickets(held)[1]
    held.broker.fill(order_id, 40, 190.0)
    held.broker.change(order_id, state=OrderState.CANCELED)
    held.pass_time(ASKING)
    held.follow(now)
    now = minute_later(held, 190.0, 2)
    run_once(held.desk, now)
    held.follow(now)
    assert closes(held) == [("CANCELED", "sell", SHARES), ("FILLED", "sell", 9)]
    assert positions(held) == {}


def next_day(paper: Paper) -> datetime:
    """A quarter of an hour after the next session's open, with a bar and features."""
    minute = datetime.fromisoformat(f"{DAY + timedelta(days=1)}T14:45:00+00:00")
    paper.world.trade(a_bar(minute=minute))
    paper.world.feature(minute=minute)
    return minute + SETTLE


def test_a_position_whose_exit_came_to_nothing_is_still_held_the_next_day(held: Paper) -> None:
    held.broker.script = [REFUSE]
    now = minute_later(held, 190.0)
    run_once(held.desk, now)
    held.follow(now)
    morning = next_day(held)
    assert account(held, morning).book.held("AAPL") == SHARES
    assert run_once(held.desk, morning).exits == ("overnight",)
    held.follow(morning)
    assert account(held, morning).book.positions == {}


def flatten(paper: Paper) -> None:
    with paper.world.engine.begin() as connection:
        dispatch.set_trading_state(connection, "REDUCING", "test", "flatten", must_be_flat=True)


def unclosed(paper: Paper, now: datetime) -> tuple[str, str]:
    """What the check of unclosed positions says."""
    with paper.world.engine.connect() as connection:
        (found,) = acceptance.verdicts(
            connection, now, paper.desk.calendar, is_live=False, names=[UNCLOSED]
        )
    return found.level.value, found.finding


def step(paper: Paper, now: datetime) -> tuple[str, ...]:
    """What one run proposes to close, decided and handed over."""
    exits = run_once(paper.desk, now).exits
    paper.follow(now)
    return exits


def test_a_refused_close_is_tried_again_with_back_off_until_flat_and_is_critical_until_then(
    held: Paper,
) -> None:
    flatten(held)
    held.broker.script = [REFUSE] * 5
    now = minute_later(held)
    tried = []
    for seconds in range(0, 1_000, 5):
        at = now + timedelta(seconds=seconds)
        if step(held, at):
            tried.append(seconds)
            if not positions(held):
                break
            level, finding = unclosed(held, at)
            assert level == "critical"
            assert "AAPL +49" in finding
            assert "rejected: insufficient buying power (403)" in finding
    # 15, 30, 60, 120, 240 s after the one before, and at most one in each minute.
    assert tried == [0, 40, 100, 160, 280, 520]
    assert [state for state, *_ in closes(held)] == ["REJECTED"] * 5 + ["FILLED"]
    assert unclosed(held, now + timedelta(seconds=520)) == ("normal", "0 being closed")
    assert len(set(tickets(held))) == len(tickets(held))


def test_to_resume_ends_a_flatten_and_its_alert(held: Paper) -> None:
    flatten(held)
    held.broker.script = [REFUSE]
    now = minute_later(held)
    step(held, now)
    with held.world.engine.begin() as connection:
        dispatch.set_trading_state(connection, "ACTIVE", "test", "")
    assert step(held, now + timedelta(minutes=2)) == ()
    assert unclosed(held, now + timedelta(minutes=2))[0] == "normal"


def test_towards_the_end_of_the_session_the_waits_grow_shorter_again(held: Paper) -> None:
    held.broker.script = [REFUSE] * 50
    closing = datetime.fromisoformat(f"{DAY}T20:55:00+00:00")
    tried = [
        seconds for seconds in range(0, 305, 5) if step(held, closing + timedelta(seconds=seconds))
    ]
    assert tried == [0, 60, 120, 180, 240]


@pytest.mark.parametrize("state", [OrderState.CANCELED, OrderState.REJECTED])
def test_a_close_that_the_broker_accepts_and_ends_is_tried_again(
    held: Paper, state: OrderState
) -> None:
    flatten(held)
    held.broker.script = [ACCEPT]
    now = minute_later(held)
    step(held, now)
    held.broker.change(tickets(held)[-1], state=state, reason=f"Alpaca calls it {state.lower()}")
    held.pass_time(ASKING)
    held.follow(now)
    assert unclosed(held, now)[0] == "critical"
    assert step(held, now + timedelta(seconds=60)) == ("flatten",)
    assert (positions(held), closes(held)[-1]) == ({}, ("FILLED", "sell", SHARES))


def test_a_close_that_waits_for_a_halt_to_be_lifted_is_alone_for_ten_minutes(held: Paper) -> None:
    flatten(held)
    held.broker.script = [ACCEPT]
    now = minute_later(held)
    step(held, now)
    for minutes in range(1, 11):
        held.pass_time(ASKING)
        assert step(held, now + minutes * timedelta(minutes=1)) == ()
    assert unclosed(held, now + timedelta(minutes=11))[0] == "high"
    held.broker.fill(tickets(held)[-1])
    held.pass_time(ASKING)
    held.follow(now + timedelta(minutes=11))
    assert (positions(held), len(closes(held))) == ({}, 1)


def test_while_nothing_is_known_of_a_close_no_second_one_is_made(held: Paper) -> None:
    flatten(held)
    held.broker.script = [LOSE_ANSWER]
    held.broker.answers = [OrderUnknown("no answer within 6 s")] * 20
    now = minute_later(held)
    step(held, now)
    for minutes in range(1, 8):
        held.pass_time(ASKING)
        assert step(held, now + minutes * timedelta(minutes=1)) == ()
    held.broker.answers.clear()
    held.pass_time(ASKING)
    held.follow(now + timedelta(minutes=8))
    assert (positions(held), len(closes(held))) == ({}, 1)


def test_what_an_open_buy_still_adds_after_a_flatten_is_closed_too(held: Paper) -> None:
    """The broker refuses to sell while the buy is at work; it fills, and all of it is sold."""
    paper = held
    paper.world.configure(ticker_cooldown_minutes=0)
    now = minute_later(paper)
    paper.broker.script = [ACCEPT, REFUSE]
    buy = decided(paper, minute=NOON + timedelta(minutes=1), ts=now)
    paper.follow(now)
    flatten(paper)
    assert step(paper, now + timedelta(seconds=5)) == ("flatten",)
    assert paper.orders() == [("FILLED",), ("ACKED",), ("REJECTED",)]
    paper.broker.fill(buy)
    paper.pass_time(ASKING)
    paper.follow(now + timedelta(seconds=10))
    bought = positions(paper)["AAPL"][0]
    assert bought > SHARES
    assert step(paper, now + timedelta(seconds=60)) == ("flatten",)
    assert (positions(paper), paper.orders("side, qty")[-1]) == ({}, ("sell", bought))


def test_a_close_at_a_broker_needs_no_bar(held: Paper) -> None:
    flatten(held)
    held.world.execute("delete from bars_1m")
    assert step(held, minute_later(held) + timedelta(hours=1)) == ("flatten",)
    assert positions(held) == {}


def test_the_database_refuses_a_second_close_at_work(held: Paper) -> None:
    held.broker.script = [ACCEPT]
    flatten(held)
    step(held, minute_later(held))
    with pytest.raises(DBAPIError, match="a closing order of AAPL is at work"):
        held.world.execute(
            "insert into order_intents select (jsonb_populate_record(placed, jsonb_build_object("
            "'recommendation_id', 0, 'client_order_id', 'op1-another'))).*"
            " from order_intents as placed where intent = 'close'"
        )


def test_a_clock_that_was_set_back_an_hour_holds_up_no_close(held: Paper) -> None:
    flatten(held)
    held.broker.script = [REFUSE] * 4
    now = minute_later(held, minutes=90)
    for minutes in range(4):
        step(held, now + minutes * timedelta(minutes=1))
    assert step(held, now - timedelta(minutes=59)) == ("flatten",)


def test_a_sender_that_stood_still_after_it_took_an_order_does_not_hand_it_over_late(
    paper: Paper,
) -> None:
    decided(paper)

    def clock() -> datetime:
        return TS if states(paper) == ["READY"] else EXPIRED

    paper.desk.broker.follow(paper.world.engine, clock, lambda: True)
    assert paper.order("state, tries, reason") == ("ABSENT", 1, "not handed over in time")
    assert paper.broker.posts == []


def test_a_decision_that_took_long_is_not_kept(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process stands still while it decides, or the laptop sleeps: the market went on."""
    finish = dispatch.finish

    def sleep(connection: Connection, closed: Any, now: datetime) -> None:
        finish(connection, closed, now)
        set_present(connection, TS + timedelta(seconds=60))

    with paper.world.engine.begin() as connection:
        set_present(connection, TS)
    monkeypatch.setattr(dispatch, "finish", sleep)
    paper.world.recommend()
    with pytest.raises(dispatch.FenceLost, match="the decision took 60 s"):
        run_once(paper.desk)
    assert (paper.world.executions(), paper.orders()) == (0, [])


# --- the trading state


@pytest.mark.parametrize("state", ["HALTED", "REDUCING"])
def test_what_was_decided_before_a_halt_is_not_handed_over_after_it(
    paper: Paper, state: str
) -> None:
    decided(paper)
    set_state(paper, state)
    paper.follow(LATER)
    assert (paper.order(), paper.broker.posts) == (("READY", 0), [])
    paper.follow(EXPIRED)
    assert (paper.order(), paper.broker.posts) == (("ABSENT", 0), [])
    assert positions(paper) == {}


def test_a_halt_also_ends_second_tries_and_not_the_questions(paper: Paper) -> None:
    paper.broker.script = [LATE]
    order_id = decided(paper)
    paper.follow()
    set_state(paper, "HALTED")
    for _ in range(3):
        paper.pass_time(HORIZON)
        paper.follow(LATER)
    assert (paper.order(), tickets(paper)) == (("UNKNOWN", 1), [order_id])
    paper.broker.arrive()
    paper.pass_time(ASKING)
    paper.follow(LATER)
    assert (paper.order(), tickets(paper)) == (("FILLED", 1), [order_id])


def test_reducing_hands_over_what_closes_and_nothing_else(held: Paper) -> None:
    now = minute_later(held, 195.0)
    held.world.trade(a_bar(ticker="MSFT", minute=NOON + timedelta(minutes=1)))
    made_on = features(ts=(NOON + timedelta(minutes=1)).isoformat())
    held.world.recommend(ticker="MSFT", ts=now, features_snapshot=made_on)
    assert run_once(held.desk, now).executed == 2
    set_state(held, "REDUCING")
    held.follow(now)
    assert sorted(held.orders("ticker, intent, state")) == [
        ("AAPL", "close", "FILLED"),
        ("AAPL", "open", "FILLED"),
        ("MSFT", "open", "READY"),
    ]
    assert [ticket.ticker for ticket in held.broker.posts] == ["AAPL", "AAPL"]


def test_reducing_repeats_a_lost_close_and_not_a_lost_opening(held: Paper) -> None:
    held.broker.script = [LOSE_REQUEST, LOSE_REQUEST]
    now = minute_later(held, 195.0)
    held.world.trade(a_bar(ticker="MSFT", minute=NOON + timedelta(minutes=1)))
    made_on = features(ts=(NOON + timedelta(minutes=1)).isoformat())
    held.world.recommend(ticker="MSFT", ts=now, features_snapshot=made_on)
    run_once(held.desk, now)
    held.follow(now)
    set_state(held, "REDUCING")
    held.pass_time(ASKING)
    held.follow(now)
    assert sorted(held.orders("ticker, state, tries")) == [
        ("AAPL", "FILLED", 1),
        ("AAPL", "FILLED", 2),
        ("MSFT", "UNKNOWN", 1),
    ]


def set_state(paper: Paper, state: str) -> None:
    with paper.world.engine.begin() as connection:
        dispatch.set_trading_state(connection, state, "test", "")


# --- an order that is not ours


@pytest.mark.parametrize(
    "changes",
    [{"ticker": "MSFT"}, {"side": "sell"}, {"quantity": 7}, {"client_order_id": "op1-another"}],
    ids=str,
)
@pytest.mark.parametrize("when", ["submit", "find", "turned up"])
def test_another_order_under_our_id_halts_trading_and_is_not_adopted(
    paper: Paper, changes: dict[str, Any], when: str
) -> None:
    if when == "submit":
        order_id = decided(paper)
        paper.broker.take = wrong(paper.broker, changes)  # type: ignore[method-assign]
        paper.follow()
    elif when == "find":
        paper.broker.script = [LATE]
        order_id = decided(paper)
        paper.follow()
        paper.broker.take = wrong(paper.broker, changes)  # type: ignore[method-assign]
        paper.broker.arrive()
        paper.pass_time(ASKING)
        paper.follow(LATER)
    else:
        order_id = given_up(paper, LATE)
        paper.broker.take = wrong(paper.broker, changes)  # type: ignore[method-assign]
        paper.broker.arrive()
        paper.pass_time(DENIED)
        paper.follow(EXPIRED)
    reason = f"the broker has another order under the id {order_id}"
    assert paper.order("state, filled_qty, reason") == ("ABSENT", 0, reason)
    state, by, why = paper.world.ask("select state, changed_by, reason from trading_state")[0]
    assert (state, by, why) == ("HALTED", "dispatcher", reason)
    assert len(paper.broker.posts) == 1


def replaced(paper: Paper, **changes: Any) -> str:
    """An order that the broker works on, and that somebody has replaced there by hand."""
    paper.broker.script = [ACCEPT]
    order_id = decided(paper)
    paper.follow()
    ticket = replace(paper.broker.orders[order_id].ticket, **changes)
    paper.broker.change(order_id, broker_order_id="replaced", ticket=ticket)
    return order_id


def ask_again(paper: Paper, reply: str = "ACTIVE") -> str:
    """Set a trading state, have the broker asked once more, and give the state after it."""
    set_state(paper, reply)
    paper.pass_time(DENIED)
    paper.follow(LATER)
    return str(paper.world.ask("select state from trading_state")[0][0])


def test_an_order_that_is_replaced_by_hand_is_followed_under_its_first_id(paper: Paper) -> None:
    order_id = replaced(paper)
    before = paper.order("broker_order_id")
    assert ask_again(paper) == "ACTIVE"
    paper.broker.fill(order_id)
    assert ask_again(paper) == "ACTIVE"
    assert paper.order("state, filled_qty") == ("FILLED", SHARES)
    assert paper.order("broker_order_id") == before


def test_a_halt_for_another_order_is_lifted_for_good_and_ours_ends_with_it(paper: Paper) -> None:
    order_id = replaced(paper, quantity=7)
    assert ask_again(paper) == "HALTED"
    assert ask_again(paper) == "ACTIVE"
    paper.broker.answers = [OrderUnknown("no answer within 6 s")]
    assert ask_again(paper) == "ACTIVE"
    assert paper.order("state") == ("ACKED",)
    paper.broker.change(order_id, state=OrderState.CANCELED)
    assert ask_again(paper) == "ACTIVE"
    assert paper.order("state, filled_qty, settled_at is not null") == ("CANCELED", 0, True)


def test_an_order_that_the_database_refuses_holds_up_no_other(
    paper: Paper, caplog: pytest.LogCaptureFixture
) -> None:
    paper.world.configure(max_notional_per_trade=0.01)
    paper.world.trade(a_bar(ticker="MSFT"))
    paper.broker.script = [ACCEPT, ACCEPT]
    first = paper.order_id(paper.world.recommend())
    other = paper.order_id(paper.world.recommend(ticker="MSFT"))
    run_until_idle(paper.desk, TS)
    paper.follow()
    no_price = {"filled_quantity": 1, "filled_price": float("nan"), "filled_at": TS}
    paper.broker.change(first, state=OrderState.PARTIAL, **no_price)
    paper.broker.fill(other)
    paper.pass_time(ASKING)
    paper.follow()
    assert states(paper) == ["ACKED", "FILLED"]
    assert "order_not_kept" in caplog.text


def wrong(broker: FakeBroker, changes: dict[str, Any]) -> Any:
    """Takes orders, and has them as something else than what was asked for."""

    def take(ticket: OrderTicket, *, is_filled: bool = False) -> Any:
        report = FakeBroker.take(broker, ticket, is_filled=is_filled)
        changed = replace(report.ticket, **changes)
        quantity = min(report.filled_quantity, changed.quantity)
        return broker.change(ticket.client_order_id, ticket=changed, filled_quantity=quantity)

    return take


def test_the_halt_is_kept_in_the_transaction_that_keeps_the_order(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ops_pipeline.storage import orders

    decided(paper)
    paper.broker.take = wrong(paper.broker, {"ticker": "MSFT"})  # type: ignore[method-assign]

    def die(*_: object, **__: object) -> bool:
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(orders, "record", die)
        with pytest.raises(ZeroDivisionError):
            paper.follow()
    assert paper.world.ask("select state from trading_state") == [("ACTIVE",)]
    assert paper.order("state") == ("SENT",)


# --- a key that is refused, and what breaks


def test_a_key_that_is_refused_stops_the_pass_and_leaves_the_order_unknown(paper: Paper) -> None:
    paper.broker.script = [BAD_KEY]
    order_id = decided(paper)
    with pytest.raises(BadConfiguration):
        paper.follow()
    assert paper.order("state, tries, reason") == ("UNKNOWN", 1, "handing it over broke off")
    paper.pass_time(ASKING)
    paper.follow(LATER)
    assert (paper.order(), tickets(paper)) == (("FILLED", 2), [order_id] * 2)


def test_a_key_that_is_refused_when_asking_leaves_the_order_as_it_is(paper: Paper) -> None:
    paper.broker.script = [ACCEPT]
    decided(paper)
    paper.follow()
    paper.broker.answers = [BadConfiguration("Alpaca refuses the key")]
    paper.pass_time(ASKING)
    with pytest.raises(BadConfiguration):
        paper.follow(LATER)
    assert paper.order() == ("ACKED", 1)


def test_an_unforeseen_error_leaves_the_order_unknown_and_the_next_one_unsent(
    paper: Paper,
) -> None:
    paper.world.trade(a_bar(ticker="MSFT"))
    paper.world.recommend(confidence=0.9)
    paper.world.recommend(ticker="MSFT")
    run_until_idle(paper.desk, TS)
    paper.broker.script = [BREAK]
    with pytest.raises(ZeroDivisionError):
        paper.follow()
    assert states(paper) == ["UNKNOWN", "READY"]


# --- who may go on


def test_who_is_no_longer_the_one_stops_at_once(paper: Paper) -> None:
    for number in range(5):
        paper.world.trade(a_bar(ticker=f"T{number}"))
        paper.world.recommend(ticker=f"T{number}")
    run_until_idle(paper.desk, TS)
    paper.broker.script = [ACCEPT] * 5
    asked = count(1)
    # Asked once before each of the three steps that nothing is due for, then before each order.
    paper.follow(is_still_ours=lambda: next(asked) <= 5)
    assert sorted(states(paper)) == ["ACKED", "ACKED", "READY", "READY", "READY"]
    assert next(asked) == 7
    paper.pass_time(ASKING)
    paper.follow(is_still_ours=lambda: False)
    assert (len(paper.broker.posts), paper.broker.asked) == (2, [])


def test_who_lost_the_turn_does_not_go_on_with_another_step(paper: Paper) -> None:
    decided(paper)
    answers = iter([False, True, True, True])
    paper.follow(is_still_ours=lambda: next(answers))
    assert (paper.order("state"), list(answers)) == (("READY",), [True] * 3)


def test_a_pass_asks_about_each_order_once_however_slow_the_broker(world: World) -> None:
    world.trade()
    paper = Paper(world, pace=Pace(asking=0.0))
    paper.broker.script = [ACCEPT]
    decided(paper)
    paper.follow()
    paper.follow()
    assert len(paper.broker.asked) == 1


def test_closing_orders_do_not_wait_for_a_broker_that_is_slow_to_answer(world: World) -> None:
    world.trade()
    paper = Paper(world, pace=Pace(patience=-1.0))
    decided(paper)
    paper.follow()
    now = minute_later(paper, 195.0)
    assert run_once(paper.desk, now).executed == 1
    paper.pass_time(ASKING)
    asked = count(1)
    # The turn is lost right after the first request.
    paper.follow(now, is_still_ours=lambda: next(asked) == 1)
    assert (states(paper), paper.broker.asked) == (["FILLED", "FILLED"], [])


def test_an_order_is_not_handed_over_after_the_close(paper: Paper) -> None:
    session = paper.desk.calendar.at(TS)
    assert session is not None
    close = session.closes_at
    now = close - timedelta(seconds=150)
    paper.world.trade(a_bar(minute=close - timedelta(minutes=4)))
    paper.world.configure(closing_block_minutes=0)
    made_on = features(ts=(close - timedelta(minutes=4)).isoformat())
    paper.world.recommend(ts=now, features_snapshot=made_on)
    run_once(paper.desk, now)
    assert paper.world.outcomes() == [("EXECUTED", None)]
    paper.follow(close)
    assert (states(paper), paper.broker.posts) == (["ABSENT"], [])


def test_what_was_claimed_before_a_sleep_is_decided_by_the_clock_after_it(
    paper: Paper, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = dispatch.lock_account

    def sleep(connection: Connection) -> None:
        lock(connection)
        set_present(connection, TS + timedelta(hours=14))

    with paper.world.engine.begin() as connection:
        set_present(connection, TS)
    monkeypatch.setattr(dispatch, "lock_account", sleep)
    paper.world.recommend()
    report = run_once(paper.desk)
    assert (report.pulled, report.executed, report.skipped) == (1, 0, 1)


def test_two_that_follow_at_once_hand_over_each_order_once(paper: Paper) -> None:
    world, number = paper.world, 12
    world.configure(max_open_positions=number, max_notional_per_trade=0.01, max_signals_per_run=50)
    world.trade(*[a_bar(ticker=f"T{each}") for each in range(number)])
    for each in range(number):
        world.recommend(ticker=f"T{each}")
    run_until_idle(paper.desk, TS)
    both = threading.Barrier(2, timeout=20)
    first = [True, True]

    def meet(_: OrderTicket) -> None:
        # The first two requests are on their way at the same time.
        if first:
            first.pop()
            both.wait()

    paper.broker.on_submit = meet
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: paper.follow(), range(2)))
    assert states(paper) == ["FILLED"] * number
    assert set(paper.broker.post_counts.values()) == {1}
    assert len(paper.broker.posts) == number


@pytest.mark.parametrize("attempt", range(3))
def test_two_that_ask_and_repeat_at_once_hand_over_each_order_once_for_each_denial(
    paper: Paper, attempt: int
) -> None:
    world, number = paper.world, 8
    world.configure(max_open_positions=number, max_notional_per_trade=0.01, max_signals_per_run=50)
    world.trade(*[a_bar(ticker=f"T{each}") for each in range(number)])
    for each in range(number):
        world.recommend(ticker=f"T{each}")
    run_until_idle(paper.desk, TS)
    paper.broker.script = [LOSE_REQUEST] * number
    paper.follow()
    paper.pass_time(ASKING)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: paper.follow(LATER), range(3)))
    assert states(paper) == ["FILLED"] * number
    assert set(paper.broker.post_counts.values()) == {2}
    assert len(paper.broker.orders) == number


@pytest.mark.parametrize("step", [FILL, ACCEPT, REFUSE, LOSE_REQUEST, LOSE_ANSWER, BREAK])
def test_a_sender_that_wakes_after_it_was_taken_over_records_nothing(
    paper: Paper, step: str
) -> None:
    """It is frozen with its request on the way, for longer than the others leave it alone."""
    order_id = decided(paper)
    frozen, woken = threading.Event(), threading.Event()

    def freeze(_: OrderTicket) -> None:
        paper.broker.on_submit = lambda _: None
        frozen.set()
        assert woken.wait(20)

    paper.broker.on_submit = freeze
    paper.broker.script = [step]
    with ThreadPoolExecutor(1) as pool:
        sender = pool.submit(paper.follow)
        assert frozen.wait(20)
        paper.pass_time(SENDING)
        paper.follow(LATER)
        before = paper.order("*")
        woken.set()
        error = sender.exception(20)
    assert (error is None) == (step != BREAK)
    assert paper.order("*") == before
    assert paper.order("state, tries, filled_qty") == ("FILLED", 2, SHARES)
    assert (list(paper.broker.orders), tickets(paper)) == ([order_id], [order_id] * 2)
