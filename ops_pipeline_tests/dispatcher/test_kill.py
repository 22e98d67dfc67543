"""A process that is killed between any two statements loses nothing and doubles nothing."""

import os
import signal
import time
from typing import Any

from sqlalchemy import event

from ops_pipeline_tests.builders import a_bar
from ops_pipeline_tests.dispatcher.world import World
from ops_pipeline_tests.storage.rows import end_lease

PAIRS = (
    "select row.status, row.claim_epoch, array_agg(made.claim_epoch)"
    " from dispatch_recommendations as row"
    " left join dispatch_executions as made on made.recommendation_id = row.id"
    " where row.id = :id group by row.id"
)


def run_and_die_before(world: World, statement: int) -> bool:
    """Run in a child that is killed before its n-th statement; False where it had fewer."""
    child = os.fork()
    if child:
        _, how = os.waitpid(child, 0)
        assert how in (0, signal.SIGKILL)
        return how == signal.SIGKILL
    try:
        world.engine.dispose(close=False)
        count = 0

        def step(*_: Any) -> None:
            nonlocal count
            count += 1
            if count == statement:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(world.engine, "before_cursor_execute", step)
        event.listen(world.engine, "commit", step)
        world.run()
    except BaseException:  # noqa: BLE001 - a child must never come back into the test
        os._exit(1)
    os._exit(0)


def wait_until_alone(world: World) -> None:
    """The server notices a dead client when it reads from it."""
    statement = (
        "select count(*) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    deadline = time.monotonic() + 10
    while world.ask(statement) != [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_that_is_killed_anywhere_is_made_good_exactly_once_when_its_lease_ends(
    world: World,
) -> None:
    world.configure(max_open_positions=1_000, max_notional_per_trade=0.01)
    killed, left_open = 0, 0
    for number in range(1, 100):
        ticker = f"T{number}"
        world.trade(a_bar(ticker=ticker))
        row = world.recommend(ticker=ticker)
        world.engine.dispose()
        if not run_and_die_before(world, number):
            break
        killed += 1
        wait_until_alone(world)
        left_open += world.ask(
            "select status from dispatch_recommendations where id = :id", id=row
        ) == [("PROCESSING",)]
        with world.engine.begin() as connection:
            end_lease(connection)
        world.drain()
        status, epoch, epochs = world.ask(PAIRS, id=row)[0]
        assert (status, epochs) == ("SIMULATED", [epoch])
    assert killed > 15
    assert left_open > 5
    assert world.executions() == killed + 1


def test_what_a_killed_run_holds_is_left_alone_while_its_lease_runs(world: World) -> None:
    world.trade()
    world.recommend()
    world.engine.dispose()
    number = 1
    while world.outcomes() == [("PENDING", None)]:
        world.engine.dispose()
        assert run_and_die_before(world, number)
        wait_until_alone(world)
        number += 1
    report = world.run()
    assert (report.released, report.pulled) == (0, 0)
    assert world.outcomes() == [("PROCESSING", None)]
