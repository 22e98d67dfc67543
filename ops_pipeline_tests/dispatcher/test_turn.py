"""One dispatcher works at a time; whoever dies lets the next one in after a minute."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from ops_pipeline.dispatcher import turn
from ops_pipeline.dispatcher.brokers import SimulatedBroker
from ops_pipeline.dispatcher.replay import Played
from ops_pipeline.dispatcher.run import Desk
from ops_pipeline.dispatcher.turn import LEASE, LEASE_SECONDS, take_turn
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.storage import dispatch, knowledge
from ops_pipeline_tests.builders import a_bar
from ops_pipeline_tests.dispatcher.paper import ACCEPT, BAD_KEY, Paper
from ops_pipeline_tests.dispatcher.world import TS, World, features

LEASES = "select count(*) from leases"


@pytest.fixture
def world(world: World) -> World:
    """A world in which it is TS, and AAPL may be bought."""
    with world.engine.begin() as connection:
        knowledge.set_present(connection, TS)
    world.trade()
    world.recommend()
    return world


class Watched(SimulatedBroker):
    """Lets a test look on when orders would be followed."""

    def __init__(self, look: Callable[[], object]) -> None:
        self.look = look

    def follow(
        self, engine: Engine, now: Callable[[], datetime], is_still_ours: Callable[[], bool]
    ) -> None:
        self.look()


def watched(world: World, look: Callable[[], object]) -> Desk:
    return replace(world.desk, broker=Watched(look))


def take(world: World, seconds: float = LEASE_SECONDS) -> Any:
    """Hold the turn as one who is never heard of again."""
    holder = uuid4()
    with world.engine.begin() as connection:
        assert dispatch.take_lease(connection, LEASE, holder, seconds)
    return holder


def test_a_turn_works_until_nothing_is_left_and_gives_the_lease_back(world: World) -> None:
    reports = take_turn(world.desk)
    assert [(report.pulled, report.simulated) for report in reports] == [(1, 1), (0, 0)]
    assert reports[-1].is_idle
    assert world.ask(LEASES) == [(0,)]


def test_while_a_dispatcher_works_another_one_gets_no_turn(world: World) -> None:
    others: list[Any] = []
    reports = take_turn(watched(world, lambda: others.append(take_turn(world.desk))))
    assert others == [[]] * 3
    assert [report.simulated for report in reports] == [1, 0]
    assert world.ask("select count(*) from dispatcher_runs") == [(2,)]


def test_of_many_that_come_at_once_one_gets_the_turn(world: World) -> None:
    inside, done = threading.Event(), threading.Event()

    def stay() -> None:
        inside.set()
        assert done.wait(20)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(take_turn, watched(world, stay))
        assert inside.wait(20)
        others = [take_turn(world.desk) for _ in range(4)]
        done.set()
        assert len(first.result(20)) == 2
    assert others == [[]] * 4


def test_a_dead_holders_turn_passes_on_after_its_time_and_not_before(world: World) -> None:
    take(world)
    assert take_turn(world.desk) == []
    assert world.outcomes() == [("PENDING", None)]
    world.execute("update leases set held_until = clock_timestamp() - interval '1 millisecond'")
    assert [report.simulated for report in take_turn(world.desk)] == [1, 0]


def test_each_step_renews_the_lease(world: World) -> None:
    left: list[float] = []

    def look() -> None:
        statement = "select extract(epoch from held_until - clock_timestamp()) from leases"
        left.append(float(world.ask(statement)[0][0]))
        # As if the step had taken so long.
        world.execute("update leases set held_until = held_until - interval '50 seconds'")

    take_turn(watched(world, look))
    assert len(left) == 3
    assert min(left) > LEASE_SECONDS - 5


def test_a_holder_that_lost_its_turn_ends_it_and_leaves_the_new_one_alone(world: World) -> None:
    def lose() -> None:
        world.execute("update leases set held_until = clock_timestamp() - interval '1 second'")
        take(world)

    world.recommend(ticker="MSFT")
    reports = take_turn(watched(world, lose))
    assert len(reports) == 1
    assert world.ask(LEASES) == [(1,)]


def test_a_turn_that_fails_gives_the_lease_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(turn, "run_once", fail)
        with pytest.raises(ZeroDivisionError):
            take_turn(world.desk)
    assert world.ask(LEASES) == [(0,)]
    assert [report.simulated for report in take_turn(world.desk)] == [1, 0]


def test_other_leases_are_no_turn(world: World) -> None:
    with world.engine.begin() as connection:
        assert dispatch.take_lease(connection, "another", uuid4(), 60)
    assert len(take_turn(world.desk)) == 2
    assert world.ask(LEASES) == [(1,)]


# --- with a broker


def test_a_turn_decides_hands_over_and_comes_to_an_end(world: World) -> None:
    paper = Paper(world)
    reports = take_turn(paper.desk)
    assert [(report.executed, report.simulated) for report in reports] == [(1, 0), (0, 0)]
    assert paper.order() == ("FILLED", 1)
    assert len(paper.broker.posts) == 1


def test_open_orders_are_asked_about_before_recommendations_are_decided(world: World) -> None:
    """What was filled meanwhile counts in the decision."""
    paper = Paper(world)
    paper.broker.script = [ACCEPT]
    take_turn(paper.desk)
    order_id = paper.order("client_order_id")[0]
    paper.broker.fill(order_id, price=150.0)
    paper.pass_time(10)
    minute = paper.world.ask("select max(minute) from bars_1m")[0][0]
    world.recommend(ticker="MSFT", features_snapshot=features(ts=minute.isoformat()))
    world.trade(a_bar(ticker="MSFT"))
    take_turn(paper.desk)
    assert paper.broker.asked == [order_id]
    exposures = world.ask(
        "select (snapshot_json -> 'exposure_usd')::float from dispatch_recommendations order by id"
    )
    assert exposures == [(0.0,), (49 * 150.0,)]


def test_the_last_decision_of_a_turn_is_handed_over_in_it(world: World) -> None:
    world.configure(max_signals_per_run=1)
    world.trade(*[a_bar(ticker=f"T{number}") for number in range(3)])
    for number in range(3):
        world.recommend(ticker=f"T{number}")
    paper = Paper(world)
    take_turn(paper.desk)
    assert paper.orders() == [("FILLED",)] * 4
    assert set(paper.broker.post_counts.values()) == {1}


def test_a_refused_key_ends_the_turn_with_its_error_and_gives_the_lease_back(world: World) -> None:
    paper = Paper(world)
    paper.broker.script = [BAD_KEY]
    with pytest.raises(BadConfiguration):
        take_turn(paper.desk)
    assert paper.order() == ("UNKNOWN", 1)
    assert world.ask(LEASES) == [(0,)]


def test_who_lost_the_turn_hands_nothing_over(world: World) -> None:
    world.trade(a_bar(ticker="MSFT"))
    world.recommend(ticker="MSFT")
    paper = Paper(world)

    def lose(_: object) -> None:
        world.execute("update leases set held_until = clock_timestamp() - interval '1 second'")
        take(world)

    paper.broker.on_submit = lose
    take_turn(paper.desk)
    assert paper.orders() == [("FILLED",), ("READY",)]


def test_what_was_executed_is_counted_in_reports_runs_and_plays(world: World) -> None:
    world.recommend(ticker="MSFT")
    reports = take_turn(Paper(world).desk)
    played = Played()
    for report in reports:
        played = played.plus(report)
    assert (played.pulled, played.executed, played.simulated, played.skipped) == (2, 1, 0, 1)
    assert reports[0].counts["executed_count"] == 1
    statement = (
        "select pulled_count, processed_count, simulated_count, executed_count, skipped_count"
        " from dispatcher_runs order by pulled_count desc"
    )
    assert world.ask(statement) == [(2, 2, 1, 1, 1), (0, 0, 0, 0, 0)]


def test_what_was_simulated_is_not_counted_as_executed(world: World) -> None:
    assert [(each.executed, each.simulated) for each in take_turn(world.desk)] == [(0, 1), (0, 0)]
    statement = "select simulated_count, executed_count from dispatcher_runs order by 1 desc"
    assert world.ask(statement) == [(1, 0), (0, 0)]
