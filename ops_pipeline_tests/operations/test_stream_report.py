"""Both sides of an account beside each other: what orders come to, and what the broker says."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from ops_pipeline.clients.alpaca_books import Books
from ops_pipeline.dispatcher.told import take_in
from ops_pipeline.domain.adjustments import Adjustment, said
from ops_pipeline.domain.errors import Unsafe
from ops_pipeline.domain.stream import Holding
from ops_pipeline.operations.stream import StreamReport, accept, markdown, report
from ops_pipeline.storage import stream as storage
from ops_pipeline.storage.dispatch import ACCOUNT
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.stream import LOOKS_KEPT, Lease, Looked
from ops_pipeline_tests.clients.told import a_frame, an_order
from ops_pipeline_tests.dispatcher.paper import Paper
from ops_pipeline_tests.dispatcher.test_told import SHARES, books, decided, follow, hear, life_of
from ops_pipeline_tests.dispatcher.world import World


@pytest.fixture
def paper(world: World) -> Paper:
    world.trade()
    return Paper(world)


@pytest.fixture
def world(engine: object) -> World:
    return World(engine)  # type: ignore[arg-type]


@pytest.fixture
def lease(world: World) -> Lease:
    return follow(world)


def reported(world: World) -> StreamReport:
    with world.engine.connect() as connection:
        return report(connection, ACCOUNT, clock())


def test_of_an_account_that_nobody_follows_that_is_said(world: World) -> None:
    found = reported(world)
    assert not found.is_normal
    assert "the trade stream was never started" in found.said
    assert (found.tickers, found.open_orders, found.looks) == ([], [], [])


def test_a_ticker_is_what_was_before_and_what_each_sides_orders_added(
    paper: Paper, lease: Lease
) -> None:
    world = paper.world
    take_in(world.engine, lease, books(AAPL=5), clock())
    own = life_of(decided(paper))[-1]
    by_hand = a_frame(an_order(), execution_id="hand")
    hear(world, lease, own, by_hand)
    orders = own["data"]["order"], by_hand["data"]["order"]
    world.execute("update broker_orders set written_at = written_at - interval '1 day'")
    held = 5 + SHARES + 4 + 2
    drifted = replace(books(*orders, AAPL=held), begun_at=clock())
    take_in(world.engine, lease, drifted, clock())
    (found,) = reported(world).tickers
    shares = (found.before, found.ours, found.others, found.broker, found.difference)
    assert [int(one) for one in shares] == [5, SHARES, 4, held, 2]
    assert found.explanation == "not explained"
    assert not reported(world).adds_up
    assert f"| AAPL | 5 | {SHARES} | 4 | 0 | {held} | 2 | not explained |" in markdown(
        reported(world)
    )


def test_what_moved_since_the_last_look_explains_itself(world: World, lease: Lease) -> None:
    take_in(world.engine, lease, books(), clock())
    hear(world, lease, a_frame())
    (found,) = reported(world).tickers
    assert (found.difference, found.explanation) == (-4, "an order moved since the last look")


def test_open_orders_stand_with_both_sides(paper: Paper, lease: Lease) -> None:
    order_id = decided(paper)
    take_in(paper.world.engine, lease, books(), clock())
    hear(paper.world, lease, a_frame())
    found = {one.client_order_id: one for one in reported(paper.world).open_orders}
    assert set(found) == {order_id, "by-hand-1"}
    by_hand, ours = found["by-hand-1"], found[order_id]
    assert (by_hand.broker_state, by_hand.our_state) == ("PARTIAL", None)
    assert (ours.broker_state, ours.our_state) == (None, "ACKED")


def test_a_fill_of_which_a_request_told_first_is_a_gap(world: World, lease: Lease) -> None:
    take_in(world.engine, lease, books(), clock())
    at = (clock() - timedelta(minutes=1)).isoformat()
    frame = a_frame(an_order(updated_at=at, created_at=at), timestamp=at)
    hear(world, lease, frame)
    assert reported(world).gaps_last_hour == 0
    world.execute("update broker_events set frame_id = null")
    found = reported(world)
    assert (found.gaps_last_hour, [gap.filled_qty for gap in found.gaps]) == (1, [Decimal(4)])
    assert found.frames_last_hour == {}


def test_looks_older_than_a_week_go_with_the_next_one(world: World) -> None:
    now = clock()
    with world.engine.begin() as connection:
        for at in (now - LOOKS_KEPT - timedelta(seconds=1), now - timedelta(days=6), now):
            storage.insert_look(connection, ACCOUNT, Looked(at, "connected", "SETTLED", 12))
        kept = storage.looks(connection, ACCOUNT, 10)
    assert [look.looked_at for look in kept] == [now, now - timedelta(days=6)]


def test_a_report_is_json(world: World, lease: Lease) -> None:
    from ops_pipeline.cli.console import plain

    take_in(world.engine, lease, books(AAPL=5), clock())
    document = json.loads(json.dumps(plain(reported(world))))
    assert document["tickers"][0]["ticker"] == "AAPL"


def looked(world: World, lease: Lease, found: Books) -> None:
    """Look at the account, of which the broker was heard just now."""
    now = clock()
    take_in(world.engine, lease, replace(found, begun_at=now), now)
    with world.engine.begin() as connection:
        storage.keep_lease(connection, lease, 60, connected_at=now, alive_at=now, reason="")


def accepted(world: World, ticker: str = "AAPL", **changes: bool) -> Adjustment:
    with world.engine.begin() as connection:
        return accept(
            connection, ACCOUNT, ticker, clock(), who="ops", reason="the broker is right", **changes
        )


def differing(paper: Paper, lease: Lease, held: int, price: float) -> None:
    """Our 49 shares at 201.125 USD, of which the broker says that there are so many, at that."""
    world = paper.world
    looked(world, lease, books())
    order = life_of(decided(paper))[-1]["data"]["order"]
    hear(world, lease, a_frame(order, event="fill", execution_id="whole"))
    world.execute("update broker_orders set written_at = written_at - interval '1 day'")
    holdings = {"AAPL": Holding(Decimal(held), Decimal(str(price)))}
    looked(world, lease, replace(books(order), holdings=holdings))
    assert not reported(world).adds_up


def test_what_differs_is_accepted_once_and_a_split_is_known_by_its_cost(
    paper: Paper, lease: Lease
) -> None:
    differing(paper, lease, 10 * SHARES, 20.1125)
    made = accepted(paper.world)
    assert (made.quantity, made.ledger_quantity, made.split_ratio) == (9 * SHARES, 9 * SHARES, 10)
    assert any("split of 10 for 1" in line for line in said(made))
    with pytest.raises(Unsafe, match=r"nothing to accept: AAPL adds up; ops accepted it at"):
        accepted(paper.world)
    kept = paper.world.ask(
        "select kind, by_orders, by_broker, adjusted_by, reason from account_adjustments"
    )
    assert kept == [("accepted", SHARES, 10 * SHARES, "ops", "the broker is right")]
    (found,) = reported(paper.world).tickers
    assert (found.adjusted, found.difference) == (9 * SHARES, 0)


@pytest.mark.parametrize(("held", "price", "ours"), [(20, 201.125, 0), (2 * SHARES, 201.0, 0)])
def test_shares_at_the_old_price_are_no_split(
    paper: Paper, lease: Lease, held: int, price: float, ours: int
) -> None:
    differing(paper, lease, held, price)
    made = accepted(paper.world)
    assert (made.quantity, made.ledger_quantity) == (held - SHARES, ours)


def test_a_split_may_be_named_where_its_cost_does_not_tell(paper: Paper, lease: Lease) -> None:
    differing(paper, lease, 2 * SHARES, 201.125)
    assert accepted(paper.world, is_split=True).ledger_quantity == SHARES


def test_nothing_is_accepted_while_an_order_is_at_work_or_nobody_follows(
    paper: Paper, lease: Lease
) -> None:
    looked(paper.world, lease, books())
    with pytest.raises(Unsafe, match=r"nothing to accept: MSFT adds up\n"):
        accepted(paper.world, "MSFT")
    decided(paper)
    with pytest.raises(Unsafe, match="is at work"):
        accepted(paper.world)
    paper.world.execute("update stream_leases set alive_at = alive_at - interval '1 hour'")
    with pytest.raises(Unsafe, match="the trade stream is silent"):
        accepted(paper.world)
    assert paper.world.ask("select count(*) from account_adjustments") == [(0,)]
