"""What a broker tells, by frames and by requests, reaches the books and our own ledger."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from ops_pipeline.clients.alpaca_books import Books, read_frame, read_order
from ops_pipeline.dispatcher import told
from ops_pipeline.dispatcher.run import run_once
from ops_pipeline.dispatcher.told import (
    AT_ONCE,
    FIRST_LOOK,
    OVERLAP,
    Applied,
    Look,
    apply_frames,
    asked_from,
    keep_frames,
    lots_of,
    take_in,
)
from ops_pipeline.domain.adjustments import Activity
from ops_pipeline.domain.orders import OrderTicket
from ops_pipeline.domain.stream import Difference, Holding
from ops_pipeline.storage import stream as storage
from ops_pipeline.storage.dispatch import ACCOUNT
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.stream import Lease, LeaseLost, RawFrame
from ops_pipeline_tests.clients.told import BAD_FRAMES, ORDER_ID, a_frame, an_order
from ops_pipeline_tests.dispatcher.paper import ACCEPT, LOSE_ANSWER, Paper
from ops_pipeline_tests.dispatcher.world import TS, World

SHARES = 49
CREATED_AT = datetime(2021, 3, 16, 18, 38, tzinfo=UTC)
PRICES = {10: "199.5", 30: "200.25", SHARES: "201.125"}
MOVED = "an order moved meanwhile"


@pytest.fixture
def paper(world: World) -> Paper:
    """A market of one ticker that is worth 200 USD, and a paper account."""
    world.trade()
    return Paper(world)


@pytest.fixture
def lease(world: World) -> Lease:
    """The right to follow the account."""
    return follow(world)


def follow(world: World, seconds: float = 60.0) -> Lease:
    with world.engine.begin() as connection:
        found = storage.take_lease(connection, ACCOUNT, "host/1", "test", seconds)
    assert found is not None
    return found


def hear(world: World, lease: Lease, *frames: Any) -> Applied:
    """Keep these frames and look at them; what is no text is made one."""
    raw = [frame if isinstance(frame, str | bytes) else json.dumps(frame) for frame in frames]
    keep_frames(world.engine, lease, [RawFrame(one, TS) for one in raw])
    return apply_frames(world.engine, lease)


def outcomes(world: World) -> list[tuple[Any, ...]]:
    return world.ask(
        "select outcome, count(*) from broker_frames group by outcome order by outcome"
    )


def decided(paper: Paper, **changes: Any) -> str:
    """Decide to buy AAPL, and hand it over: the broker works on it. Gives the order's id."""
    row = paper.world.recommend(**changes)
    assert run_once(paper.desk, TS).executed == 1
    paper.broker.script = [ACCEPT]
    paper.follow()
    return paper.order_id(row)


def ours(order_id: str) -> dict[str, Any]:
    """What stays the same of the one order of ours, under the id that its broker gave it."""
    return {"id": f"b0-{order_id[-6:]}", "client_order_id": order_id, "qty": str(SHARES)}


def life_of(order_id: str, **changes: Any) -> list[dict[str, Any]]:
    """The frames of an order of ours: it is new, and filled in three parts."""
    common = ours(order_id) | changes
    new = {"status": "new", "filled_qty": "0", "filled_avg_price": None}
    frames = [a_frame(an_order(**common, **new), event="new", execution_id=f"{order_id}/new")]
    before = 0
    for filled, price in PRICES.items():
        is_whole = filled == SHARES
        fill = {
            "status": "filled" if is_whole else "partially_filled",
            "filled_qty": str(filled),
            "filled_avg_price": price,
        }
        event = {
            "event": "fill" if is_whole else "partial_fill",
            "execution_id": f"{order_id}/{filled}",
            "qty": str(filled - before),
        }
        frames.append(a_frame(an_order(**common, **fill), **event))
        before = filled
    return frames


def books(*orders: dict[str, Any], moving: Sequence[str] = (), **held: int) -> Books:
    """What an account is asked for; held at 100 USD a share."""
    holdings = {t: Holding(Decimal(quantity), Decimal(100)) for t, quantity in held.items()}
    found = tuple(read_order(order) for order in orders)
    return Books(found, (), holdings, (), frozenset(moving), TS)


def look(world: World, lease: Lease, found: Books, now: datetime = TS) -> Look:
    return take_in(world.engine, lease, found, now)


def positions(world: World) -> list[tuple[Any, ...]]:
    return world.ask("select ticker, before_qty, qty from broker_positions order by ticker")


def test_an_account_that_was_reset_begins_anew_and_is_no_difference(
    world: World, lease: Lease
) -> None:
    bought = an_order(status="filled", qty="6", filled_qty="6", filled_avg_price="100")
    first = replace(books(bought, AAPL=6), account="one")
    assert look(world, lease, first).differences == ()
    later = clock() + timedelta(minutes=1)
    other = replace(books(MSFT=2), account="other", begun_at=later)
    assert look(world, lease, other).differences == ()
    assert positions(world) == [("AAPL", -6, 0), ("MSFT", 2, 2)]
    assert look(world, lease, other).differences == ()
    drifted_to = {"MSFT": Holding(Decimal(3), Decimal(100))}
    (drifted,) = look(world, lease, replace(other, holdings=drifted_to)).differences
    assert (drifted.ticker, drifted.is_explained) == ("MSFT", False)


# --- frames


def test_a_frame_is_on_disk_before_anybody_looks_at_it(world: World, lease: Lease) -> None:
    keep_frames(world.engine, lease, [RawFrame(json.dumps(a_frame()), TS)])
    assert outcomes(world) == [("RECEIVED", 1)]
    assert world.ask("select 1 from broker_orders") == []
    assert apply_frames(world.engine, lease) == Applied(1, 0)
    assert outcomes(world) == [("APPLIED", 1)]
    known = "select state, filled_qty, filled_price, is_external from broker_orders"
    assert world.ask(known) == [("PARTIAL", 4, Decimal("187.25"), True)]


def test_what_is_told_again_is_repeated_and_changes_nothing(world: World, lease: Lease) -> None:
    hear(world, lease, a_frame(), a_frame())
    before = world.ask("select * from broker_orders")
    hear(world, lease, a_frame())
    assert outcomes(world) == [("APPLIED", 1), ("REPEATED", 2)]
    assert world.ask("select * from broker_orders") == before
    assert world.ask("select count(*) from broker_events") == [(1,)]


def test_frames_that_nobody_can_read_are_kept_and_counted_and_the_others_apply(
    world: World, lease: Lease
) -> None:
    frames: list[Any] = []
    for number, bad in enumerate(BAD_FRAMES.values()):
        frames += [bad, a_frame(an_order(id=f"o{number}"), execution_id=f"e{number}")]
    count = len(BAD_FRAMES)
    assert hear(world, lease, *frames) == Applied(2 * count, count)
    assert outcomes(world) == [("APPLIED", count), ("UNREADABLE", count)]
    assert world.ask("select count(*) from broker_orders") == [(count,)]
    reasons = world.ask("select reason from broker_frames where outcome = 'UNREADABLE'")
    assert all(reason for (reason,) in reasons)
    assert world.ask("select max(bytes), max(length(body)) from broker_frames") == [
        (max(len(bad) for bad in BAD_FRAMES.values()), storage.LONGEST_FRAME)
    ]


def test_a_frame_about_the_connection_that_was_kept_tells_of_no_order(
    world: World, lease: Lease
) -> None:
    frame = {"stream": "listening", "data": {"streams": ["trade_updates"]}}
    assert hear(world, lease, frame) == Applied(1, 1)


def test_a_frame_that_the_database_refuses_stands_alone(
    world: World, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    def negative(body: str) -> Any:
        update = read_frame(body)
        assert update is not None
        is_bad = update.order.broker_order_id == "bad"
        order = replace(update.order, quantity=Decimal(-1)) if is_bad else update.order
        return replace(update, order=order)

    monkeypatch.setattr(told, "read_frame", negative)
    frames = [a_frame(an_order(id=i), execution_id=i) for i in ("a", "bad", "c")]
    assert hear(world, lease, *frames) == Applied(3, 1)
    found = world.ask("select outcome, reason from broker_frames order by id")
    assert [outcome for outcome, _ in found] == ["APPLIED", "UNREADABLE", "APPLIED"]
    assert "CheckViolation" in found[1][1]


def test_frames_wait_while_the_database_is_away(
    world: World, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise OperationalError("", {}, Exception())

    with monkeypatch.context() as broken:
        broken.setattr(storage, "close_frames", away)
        with pytest.raises(OperationalError):
            hear(world, lease, a_frame())
    assert outcomes(world) == [("RECEIVED", 1)]
    assert apply_frames(world.engine, lease) == Applied(1, 0)


def test_more_frames_than_are_looked_at_at_once_are_looked_at(world: World, lease: Lease) -> None:
    frames = [a_frame(execution_id=str(number)) for number in range(AT_ONCE + 1)]
    assert hear(world, lease, *frames) == Applied(AT_ONCE + 1, 0)


# --- the fence


def test_one_that_lost_its_lease_writes_nothing_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = follow(world, -1.0)
    keep_frames(world.engine, lost, [RawFrame(json.dumps(a_frame()), TS)])
    follow(world)
    tables = ("broker_frames", "broker_events", "broker_orders", "broker_positions")
    tables += ("stream_leases",)

    def everything() -> list[Any]:
        return [world.ask(f"select * from {table}") for table in tables]

    before = everything()
    for write in (
        lambda: keep_frames(world.engine, lost, [RawFrame("{}", TS)]),
        lambda: apply_frames(world.engine, lost),
        lambda: look(world, lost, books(an_order(), AAPL=4)),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert everything() == before
    # Nor what the database refuses.
    monkeypatch.setattr(told, "_tell", lambda *_: world.execute("select 1 / 0"))
    with pytest.raises(LeaseLost):
        apply_frames(world.engine, lost)
    assert everything() == before


# --- our own ledger

FILLED = ("FILLED", SHARES, 201.125, True, True)
KNOWN = "state, filled_qty, filled_price, filled_at is not null, settled_at is not null"


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_a_fill_reaches_the_ledger_in_whatever_order_frames_come(
    paper: Paper, lease: Lease, order: tuple[int, ...]
) -> None:
    frames = life_of(decided(paper))
    for number in order:
        hear(paper.world, lease, frames[number], frames[order[0]])
    assert paper.order(KNOWN) == FILLED
    assert paper.world.ask("select is_external, state, filled_qty from broker_orders") == [
        (False, "FILLED", SHARES)
    ]
    assert paper.world.ask("select state from trading_state") == [("ACTIVE",)]


def test_the_last_frame_alone_tells_all(paper: Paper, lease: Lease) -> None:
    hear(paper.world, lease, life_of(decided(paper))[-1])
    assert paper.order(KNOWN) == FILLED


def test_a_request_tells_what_no_frame_did(paper: Paper, lease: Lease) -> None:
    last = life_of(decided(paper))[-1]
    found = look(paper.world, lease, books(last["data"]["order"], AAPL=SHARES))
    assert found == Look(0, (), ())
    assert paper.order(KNOWN) == FILLED
    assert positions(paper.world) == [("AAPL", 0, SHARES)]


def test_a_fill_that_is_told_before_the_answer_to_its_order_stays(
    paper: Paper, lease: Lease
) -> None:
    def tell(ticket: OrderTicket) -> None:
        hear(paper.world, lease, life_of(ticket.client_order_id)[-1])

    paper.broker.on_submit = tell
    decided(paper)
    assert paper.order(KNOWN) == FILLED
    paper.pass_time(60)
    paper.follow()
    assert paper.order(KNOWN) == FILLED


def test_a_frame_tells_of_an_order_whose_answer_was_lost(paper: Paper, lease: Lease) -> None:
    row = paper.world.recommend()
    run_once(paper.desk, TS)
    paper.broker.script = [LOSE_ANSWER]
    paper.follow()
    assert paper.order("state") == ("UNKNOWN",)
    hear(paper.world, lease, life_of(paper.order_id(row))[-1])
    assert paper.order(KNOWN) == FILLED
    assert len(paper.broker.posts) == 1


def test_dispatcher_and_stream_come_to_the_same_at_the_same_time(
    paper: Paper, lease: Lease
) -> None:
    order_id = decided(paper)
    frames = life_of(order_id)
    paper.broker.fill(order_id, SHARES, 201.125)

    def ask() -> None:
        for _ in range(12):
            paper.pass_time(60)
            paper.follow()

    def tell() -> None:
        for _ in range(3):
            for frame in frames:
                hear(paper.world, lease, frame)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(ask), pool.submit(tell)]:
            done.result(60)
    assert paper.order("state, filled_qty, filled_price") == ("FILLED", SHARES, 201.125)
    assert paper.world.ask("select state from trading_state") == [("ACTIVE",)]


def test_frames_and_requests_that_are_joined_at_the_same_time_undo_nothing(
    world: World, lease: Lease
) -> None:
    """A request that was answered before the fill comes with the frame that tells of it."""
    look(world, lease, books())
    ids = [f"op1-{number:032}" for number in range(30)]
    lives = [life_of(one) for one in ids]

    def tell() -> None:
        for life in lives:
            hear(world, lease, life[-1])

    def ask() -> None:
        for life in lives:
            look(world, lease, books(life[0]["data"]["order"]))

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(tell), pool.submit(ask)]:
            done.result(60)
    assert world.ask("select state, count(*) from broker_orders group by state") == [("FILLED", 30)]


@pytest.mark.parametrize("changes", [{"qty": "50"}, {"qty": "48.5"}, {"symbol": "MSFT"}])
def test_another_order_under_our_id_halts_trading(
    paper: Paper, lease: Lease, changes: dict[str, Any]
) -> None:
    order_id = decided(paper)
    hear(paper.world, lease, life_of(order_id, **changes)[0])
    assert paper.world.ask("select state, reason from trading_state") == [
        ("HALTED", f"the broker has another order under the id {order_id}")
    ]
    assert paper.order("state, filled_qty") == ("ACKED", 0)


def test_an_order_that_was_replaced_is_left_to_who_asks_for_the_other(
    paper: Paper, lease: Lease
) -> None:
    order_id = decided(paper)
    order = an_order(
        **ours(order_id),
        status="replaced",
        filled_qty="0",
        replaced_by=ORDER_ID,
    )
    hear(paper.world, lease, a_frame(order, event="replaced"))
    assert paper.order("state") == ("ACKED",)
    assert paper.world.ask("select state from broker_orders") == [("CANCELED",)]


@pytest.mark.parametrize(
    ("status", "state"),
    [("canceled", "CANCELED"), ("rejected", "REJECTED"), ("expired", "CANCELED")],
)
def test_an_order_that_ends_without_a_fill_ends_in_the_ledger(
    paper: Paper, lease: Lease, status: str, state: str
) -> None:
    order_id = decided(paper)
    order = an_order(**ours(order_id), status=status, filled_qty="0")
    hear(paper.world, lease, a_frame(order, event=status))
    assert paper.order("state, filled_qty, reason") == (state, 0, f"Alpaca calls it {status}")


def test_another_order_under_our_id_that_replaced_ours_is_left_to_who_asks_for_it(
    paper: Paper, lease: Lease
) -> None:
    order_id = decided(paper)
    frame = life_of(order_id, id="another")[-1]
    assert hear(paper.world, lease, frame) == Applied(1, 0)
    look(paper.world, lease, books(frame["data"]["order"]))
    assert paper.order("state, filled_qty") == ("ACKED", 0)
    assert paper.world.ask("select state from broker_orders") == [("FILLED",)]


def test_an_order_with_our_prefix_that_nobody_decided_is_external(
    world: World, lease: Lease
) -> None:
    hear(world, lease, a_frame(an_order(client_order_id="op1-of-another-database")))
    assert world.ask("select is_external from broker_orders") == [(True,)]


def test_an_order_that_was_not_handed_over_yet_is_not_taken(paper: Paper, lease: Lease) -> None:
    row = paper.world.recommend()
    run_once(paper.desk, TS)
    hear(paper.world, lease, life_of(paper.order_id(row))[-1])
    assert paper.order("state, filled_qty") == ("READY", 0)


# --- the whole account


def test_what_was_held_before_the_first_look_is_no_difference(world: World, lease: Lease) -> None:
    filled = an_order(status="filled", filled_qty="10")
    assert look(world, lease, books(filled, AAPL=13, MSFT=-2)) == Look(0, (), ())
    assert positions(world) == [("AAPL", 3, 13), ("MSFT", -2, -2)]
    assert look(world, lease, books(filled, AAPL=13, MSFT=-2)) == Look(0, (), ())


def test_what_was_sold_before_the_first_look_is_what_was_held_before(
    world: World, lease: Lease
) -> None:
    sold = an_order(status="filled", filled_qty="10", side="sell")
    assert look(world, lease, books(sold)).differences == ()
    assert positions(world) == [("AAPL", 10, 0)]
    assert look(world, lease, books(sold)).differences == ()


def test_the_first_look_counts_when_nothing_moved_meanwhile(world: World, lease: Lease) -> None:
    """An order that is filled while it is read would count as held before, for ever."""
    half, whole = an_order(), an_order(status="filled", filled_qty="10")
    found = look(world, lease, books(half, moving=["AAPL"], AAPL=10))
    assert (found.is_settled, positions(world)) == (False, [])
    assert world.ask("select filled_qty from broker_orders") == [(4,)]
    hear(world, lease, a_frame(whole, event="fill", execution_id="e-2"))
    # A frame told more than the answers, which are older.
    late = replace(books(half, AAPL=4), begun_at=clock())
    assert not look(world, lease, late).is_settled
    world.execute("update broker_orders set written_at = written_at - interval '9 s'")
    settled = replace(books(whole, AAPL=10), begun_at=clock())
    assert look(world, lease, settled).is_settled
    assert positions(world) == [("AAPL", 0, 10)]


def test_an_order_that_moved_meanwhile_explains_a_difference(world: World, lease: Lease) -> None:
    look(world, lease, books())
    found = look(world, lease, books(an_order(), AAPL=5))
    assert found.healed == 1
    assert found.differences == (Difference("AAPL", Decimal(4), Decimal(5), MOVED),)
    # By the answers themselves, and by a frame since they were asked for.
    world.execute("update broker_orders set written_at = written_at - interval '9 s'")
    for asked in (
        replace(books(an_order(), moving=["AAPL"], AAPL=5), begun_at=clock()),
        replace(books(an_order(), AAPL=5), begun_at=clock() - timedelta(minutes=1)),
    ):
        assert [one.is_explained for one in look(world, lease, asked).differences] == [True]


def test_a_real_drift_is_told_and_not_put_right(world: World, lease: Lease) -> None:
    filled = an_order(status="filled", filled_qty="10")
    look(world, lease, books(filled, AAPL=10))
    world.execute("update broker_orders set written_at = written_at - interval '1 day'")
    drifted = replace(books(filled, AAPL=7, TSLA=1), begun_at=clock())
    drift = (
        Difference("AAPL", Decimal(10), Decimal(7), ""),
        Difference("TSLA", Decimal(0), Decimal(1), ""),
    )
    for _ in range(3):
        assert look(world, lease, drifted) == Look(0, drift, ())
    with world.engine.connect() as connection:
        health = storage.read_health(connection, ACCOUNT)
        assert health is not None
        assert health.differences == drift
        assert storage.sums(connection, ACCOUNT) == {"AAPL": 10}
    assert world.ask("select filled_qty from broker_orders") == [(10,)]
    assert positions(world) == [("AAPL", 0, 7), ("TSLA", 0, 1)]
    assert look(world, lease, books(filled, AAPL=10)).differences == ()


def test_orders_by_hand_are_external_and_no_difference(paper: Paper, lease: Lease) -> None:
    look(paper.world, lease, books())
    own = life_of(decided(paper))[-1]
    by_hand = a_frame(an_order(status="filled", filled_qty="10"), execution_id="hand")
    hear(paper.world, lease, own, by_hand)
    orders = own["data"]["order"], by_hand["data"]["order"]
    assert look(paper.world, lease, books(*orders, AAPL=SHARES + 10)) == Look(0, (), ())
    found = "select is_external, filled_qty from broker_orders order by filled_qty"
    assert paper.world.ask(found) == [(True, 10), (False, SHARES)]
    with paper.world.engine.connect() as connection:
        external = storage.external(connection, ACCOUNT)
    assert external == {"AAPL": Holding(Decimal(10), Decimal("187.25"))}


def test_what_no_frame_told_is_healed_and_counted(world: World, lease: Lease) -> None:
    look(world, lease, books())
    hear(world, lease, a_frame())
    whole = an_order(status="filled", filled_qty="10")
    assert look(world, lease, books(whole, AAPL=10)).healed == 1
    assert look(world, lease, books(whole, AAPL=10)).healed == 0


# --- since when


def since(world: World, now: datetime = TS) -> tuple[datetime, datetime]:
    return asked_from(world.engine, ACCOUNT, now)


def test_before_the_first_look_a_week_is_asked_for(world: World, lease: Lease) -> None:
    assert since(world) == (TS - FIRST_LOOK, TS - FIRST_LOOK)
    hear(world, lease, a_frame())
    assert since(world) == (TS - FIRST_LOOK, TS - FIRST_LOOK)


def test_after_a_look_what_came_shortly_before_it_is_asked_for_again(
    world: World, lease: Lease
) -> None:
    look(world, lease, books())
    assert since(world) == (TS - OVERLAP, TS - OVERLAP)


def test_an_order_that_is_open_is_asked_for_however_old_it_is(world: World, lease: Lease) -> None:
    look(world, lease, books(an_order()))
    assert since(world)[0] == CREATED_AT - OVERLAP


def test_a_frame_of_a_new_order_does_not_hide_those_before_it(world: World, lease: Lease) -> None:
    """They were made while nobody listened, and the frame came before the first look."""
    look(world, lease, books())
    hour = timedelta(hours=1)
    newer = an_order(
        status="filled", created_at=(TS + hour).isoformat(), updated_at=(TS + hour).isoformat()
    )
    hear(world, lease, a_frame(newer, event="fill", timestamp=(TS + hour).isoformat()))
    assert since(world, TS + hour) == (TS - OVERLAP, TS - OVERLAP)


def test_a_look_that_did_not_read_all_fills_goes_on_where_it_ended(
    world: World, lease: Lease
) -> None:
    look(world, lease, books())
    until = TS - timedelta(hours=1)
    assert not look(world, lease, replace(books(), fills_until=until)).is_settled
    assert since(world) == (until - OVERLAP, until - OVERLAP)
    assert look(world, lease, books()).is_settled
    assert since(world) == (TS - OVERLAP, TS - OVERLAP)


def test_what_came_while_a_look_was_read_is_asked_for_again(world: World, lease: Lease) -> None:
    begun = TS - timedelta(minutes=3)
    look(world, lease, replace(books(), begun_at=begun))
    assert since(world) == (begun - OVERLAP, begun - OVERLAP)


def test_an_order_that_was_partly_filled_long_before_the_first_look_is_counted_once(
    world: World, lease: Lease
) -> None:
    """It is open, so it is among the answers; its four shares are no holding from before it."""
    old = {"created_at": (TS - timedelta(days=40)).isoformat()}
    look(world, lease, books(an_order(**old), AAPL=4))
    assert positions(world) == [("AAPL", 0, 4)]
    whole = an_order(status="filled", filled_qty="10", **old)
    hear(world, lease, a_frame(whole, event="fill", execution_id="e-9"))
    assert look(world, lease, books(whole, AAPL=10)).differences == ()


def bought(paper: Paper, lease: Lease) -> dict[str, Any]:
    """49 shares of AAPL of our own at 201.125 USD in an account that is looked at; its order."""
    look(paper.world, lease, books())
    order: dict[str, Any] = life_of(decided(paper))[-1]["data"]["order"]
    hear(paper.world, lease, a_frame(order, event="fill", execution_id="whole"))
    rest(paper.world)
    return order


def rest(world: World) -> None:
    """Let all that was told of orders be long ago."""
    world.execute("update broker_orders set written_at = '2000-01-01Z'")


def moved(kind: str, shares: int, number: int = 1, ticker: str = "AAPL") -> Activity:
    return Activity(f"{kind}-{number}", kind, ticker, Decimal(shares), TS.date())


def adjusted(world: World) -> list[tuple[Any, ...]]:
    return world.ask(
        "select ticker, kind, qty, ledger_qty, adjusted_by from account_adjustments order by id"
    )


def lot_and_others(paper: Paper) -> tuple[Any, ...]:
    with paper.world.engine.connect() as connection:
        return lots_of(connection, TS), storage.external(connection, ACCOUNT)


def test_a_split_that_the_broker_names_scales_the_lot_its_stop_and_its_target(
    paper: Paper, lease: Lease
) -> None:
    order = bought(paper, lease)
    before = lot_and_others(paper)[0]["AAPL"]
    split = replace(
        books(order, AAPL=10 * SHARES),
        activities=(moved("SPLIT", -SHARES), moved("SPLIT", 10 * SHARES, 2)),
    )
    for _ in range(2):
        assert look(paper.world, lease, split).differences == ()
    assert adjusted(paper.world) == [
        ("AAPL", "activity", 9 * SHARES, 9 * SHARES, "trade-stream"),
    ]
    lots, others = lot_and_others(paper)
    lot = lots["AAPL"]
    assert (lot.quantity, others) == (10 * SHARES, {})
    assert lot.average_price == pytest.approx(before.average_price / 10)
    assert lot.notional == pytest.approx(before.notional)
    assert lot.stop_price == pytest.approx(before.stop_price / 10, abs=0.006)
    assert lot.target_price == pytest.approx(before.target_price / 10, abs=0.006)
    assert lot.max_hold_minutes == before.max_hold_minutes


def test_an_activity_waits_until_the_account_holds_what_it_says(paper: Paper, lease: Lease) -> None:
    order = bought(paper, lease)
    announced = replace(books(order, AAPL=SHARES), activities=(moved("SPLIT", SHARES),))
    assert look(paper.world, lease, announced).differences == ()
    assert adjusted(paper.world) == []
    (found,) = look(paper.world, lease, replace(announced, **held_now(AAPL=SHARES + 1))).differences
    assert (found.by_orders, found.by_broker) == (SHARES, SHARES + 1)
    done = replace(announced, **held_now(AAPL=2 * SHARES))
    assert look(paper.world, lease, done).differences == ()
    assert [row[2] for row in adjusted(paper.world)] == [SHARES]


def held_now(**held: int) -> dict[str, Any]:
    return {"holdings": books(**held).holdings}


def test_a_symbol_that_changes_takes_the_lot_along(paper: Paper, lease: Lease) -> None:
    order = bought(paper, lease)
    before = lot_and_others(paper)[0]["AAPL"]
    renamed = replace(
        books(order, AAPX=SHARES),
        activities=(moved("NC", -SHARES), moved("NC", SHARES, 2, "AAPX")),
    )
    assert look(paper.world, lease, renamed).differences == ()
    lots, others = lot_and_others(paper)
    assert (set(lots), others) == ({"AAPX"}, {})
    was, now = before.__dict__ | {"ticker": "AAPX"}, lots["AAPX"].__dict__
    for name in ("quantity", "average_price", "stop_price", "target_price", "max_hold_minutes"):
        assert now[name] == was[name]


def test_shares_of_another_company_are_not_traded_from_here(paper: Paper, lease: Lease) -> None:
    order = bought(paper, lease)
    spun = replace(books(order, AAPL=SHARES, SPUN=7), activities=(moved("SPIN", 7, ticker="SPUN"),))
    assert look(paper.world, lease, spun).differences == ()
    lots, others = lot_and_others(paper)
    assert (lots["AAPL"].quantity, others["SPUN"].quantity) == (SHARES, 7)


@pytest.mark.parametrize("told_at", ["2021-03-16T18:38:01.942282Z", "2021-03-17T00:00:00Z"])
def test_a_trade_that_was_busted_is_no_difference_for_ever(
    world: World, lease: Lease, told_at: str
) -> None:
    order = an_order(status="filled", filled_qty="10")
    look(world, lease, books())
    hear(world, lease, a_frame(order))
    rest(world)
    busted = books(an_order(status="filled", filled_qty="4", updated_at=told_at), AAPL=4)
    # What was told just now may be on its way.
    assert all(one.is_explained for one in look(world, lease, busted).differences)
    for _ in range(2):
        rest(world)
        assert look(world, lease, busted).differences == ()
    assert adjusted(world) == [("AAPL", "bust", -6, 0, "trade-stream")]
    assert world.ask("select filled_qty from broker_orders") == [(10,)]


def test_an_answer_that_is_older_than_what_is_known_busts_nothing(
    world: World, lease: Lease
) -> None:
    look(world, lease, books())
    hear(world, lease, a_frame(an_order(status="filled", filled_qty="10")))
    rest(world)
    old = books(an_order(filled_qty="4", updated_at="2021-03-16T18:38:00.5Z"), AAPL=4)
    assert len(look(world, lease, old).differences) == 1
    assert adjusted(world) == []


def test_once_it_does_not_add_up_older_orders_are_read_again(world: World, lease: Lease) -> None:
    now = clock()
    look(world, lease, replace(books(), begun_at=now), now)
    from_now, _ = asked_from(world.engine, ACCOUNT, now)
    from_then, _ = asked_from(world.engine, ACCOUNT, now, is_doubted=True)
    assert from_now > now - FIRST_LOOK >= from_then
