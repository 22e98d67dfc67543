"""Leases: one holder of a name at a time, until it lets go or its time is over."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine

from ops_pipeline.storage.dispatch import end_lease, take_lease
from ops_pipeline_tests.storage.rows import rows

ONE, OTHER = UUID(int=1), UUID(int=2)
NAME = "dispatcher"


def holders(connection: Connection) -> list[tuple[str, UUID]]:
    return [(row[0], row[1]) for row in rows(connection, "select name, holder from leases")]


def left(connection: Connection) -> float:
    """The seconds that are left."""
    statement = "select extract(epoch from held_until - clock_timestamp()) from leases"
    return float(rows(connection, statement)[0][0])


def test_a_lease_that_nobody_holds_is_taken_for_so_long(connection: Connection) -> None:
    assert take_lease(connection, NAME, ONE, 60.0)
    assert holders(connection) == [(NAME, ONE)]
    assert 55 < left(connection) <= 60


def test_its_holder_takes_a_lease_again_and_holds_it_for_longer(connection: Connection) -> None:
    take_lease(connection, NAME, ONE, 5.0)
    assert take_lease(connection, NAME, ONE, 60.0)
    assert 55 < left(connection) <= 60


def test_its_holder_takes_a_lease_again_that_has_run_out(connection: Connection) -> None:
    take_lease(connection, NAME, ONE, -1.0)
    assert take_lease(connection, NAME, ONE, 60.0)


def test_a_lease_that_is_held_is_refused_to_another_and_stays_as_it_is(
    connection: Connection,
) -> None:
    take_lease(connection, NAME, ONE, 5.0)
    assert not take_lease(connection, NAME, OTHER, 60.0)
    assert holders(connection) == [(NAME, ONE)]
    assert left(connection) <= 5


def test_a_lease_that_has_run_out_passes_on_and_does_not_come_back(connection: Connection) -> None:
    take_lease(connection, NAME, ONE, -1.0)
    assert take_lease(connection, NAME, OTHER, 60.0)
    assert not take_lease(connection, NAME, ONE, 60.0)
    assert holders(connection) == [(NAME, OTHER)]


def test_a_lease_that_its_holder_ends_is_free_at_once(connection: Connection) -> None:
    take_lease(connection, NAME, ONE, 60.0)
    end_lease(connection, NAME, ONE)
    assert take_lease(connection, NAME, OTHER, 60.0)


def test_a_lease_is_not_ended_by_another(connection: Connection) -> None:
    take_lease(connection, NAME, ONE, 60.0)
    end_lease(connection, NAME, OTHER)
    assert holders(connection) == [(NAME, ONE)]


def test_a_lease_that_passed_on_is_not_ended_by_the_one_before(connection: Connection) -> None:
    take_lease(connection, NAME, ONE, -1.0)
    take_lease(connection, NAME, OTHER, 60.0)
    end_lease(connection, NAME, ONE)
    assert holders(connection) == [(NAME, OTHER)]


def test_one_lease_ends_and_the_holders_other_one_stays(connection: Connection) -> None:
    take_lease(connection, NAME, ONE, 60.0)
    take_lease(connection, "another", ONE, 60.0)
    end_lease(connection, NAME, ONE)
    assert holders(connection) == [("another", ONE)]


def test_leases_of_two_names_are_held_by_two(connection: Connection) -> None:
    assert take_lease(connection, NAME, ONE, 60.0)
    assert take_lease(connection, "another", OTHER, 60.0)


def test_of_two_who_take_a_lease_at_once_one_gets_it(engine: Engine) -> None:
    def second() -> bool:
        with engine.begin() as connection:
            return take_lease(connection, NAME, OTHER, 60.0)

    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as first:
            assert take_lease(first, NAME, ONE, 60.0)
            waiting = pool.submit(second)
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
        assert waiting.result(10) is False
