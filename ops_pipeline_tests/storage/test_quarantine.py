"""A quarantined ticker stays so from the instant it was known until a person releases it."""

from datetime import timedelta

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from ops_pipeline.domain.session import MINUTE
from ops_pipeline.storage.quarantine import (
    OVERNIGHT_GAP,
    SPLIT,
    Quarantine,
    insert_quarantine,
    open_quarantines,
    quarantined,
    release,
)
from ops_pipeline_tests.builders import DAY, NOON

GAP = Quarantine("AAPL", DAY, OVERNIGHT_GAP, -0.5, NOON)
SPLIT_OF_IT = Quarantine("AAPL", DAY, SPLIT, 2.0, NOON + MINUTE)


def test_a_ticker_is_quarantined_from_the_instant_that_it_was_known(
    connection: Connection,
) -> None:
    assert insert_quarantine(connection, GAP)
    assert quarantined(connection, NOON - timedelta(seconds=1)) == frozenset()
    assert quarantined(connection, NOON) == {"AAPL"}


def test_a_cause_counts_once(connection: Connection) -> None:
    insert_quarantine(connection, GAP)
    assert not insert_quarantine(connection, GAP)
    assert open_quarantines(connection) == [GAP]


def test_a_release_settles_every_cause_and_counts_from_its_instant(
    connection: Connection,
) -> None:
    insert_quarantine(connection, GAP)
    insert_quarantine(connection, SPLIT_OF_IT)
    late = SPLIT_OF_IT.available_at + timedelta(minutes=9)
    assert release(connection, "AAPL", late, "a real split, history is adjusted") == 2
    assert open_quarantines(connection) == []
    assert quarantined(connection, late - timedelta(seconds=1)) == {"AAPL"}
    assert quarantined(connection, late) == frozenset()


def test_another_ticker_is_not_released(connection: Connection) -> None:
    insert_quarantine(connection, GAP)
    assert release(connection, "MSFT", NOON + 9 * MINUTE, "") == 0
    assert quarantined(connection, NOON + 99 * MINUTE) == {"AAPL"}


def test_the_same_cause_is_not_raised_again_after_a_release(connection: Connection) -> None:
    insert_quarantine(connection, GAP)
    release(connection, "AAPL", NOON + 5 * MINUTE, "looked at it")
    assert not insert_quarantine(connection, GAP)
    assert quarantined(connection, NOON + 6 * MINUTE) == frozenset()


def test_an_unknown_cause_is_refused(connection: Connection) -> None:
    with pytest.raises(IntegrityError):
        insert_quarantine(connection, Quarantine("AAPL", DAY, "mood", 1.0, NOON))
