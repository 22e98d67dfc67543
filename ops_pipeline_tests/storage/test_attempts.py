"""Attempts: one row for each claim that has ended, and what a run did is counted from them."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from ops_pipeline.domain.dispatch import Decision, Status
from ops_pipeline.storage import dispatch
from ops_pipeline.storage.dispatch import Closed
from ops_pipeline_tests.builders import at
from ops_pipeline_tests.storage.rows import (
    TS,
    claim,
    end_lease,
    put_recommendation,
    put_run,
    rows,
)

WHY = Decision(passed=False, failure_reason="why", gates={})
TERMINAL = [status for status in Status if status.is_terminal]


def attempts(connection: Connection) -> list[tuple[Any, ...]]:
    return rows(
        connection,
        "select recommendation_id, claim_epoch, dispatcher_run_id, claimed_at, outcome"
        " from dispatch_attempts order by recommendation_id, claim_epoch",
    )


def close(connection: Connection, claims: dict[int, int], status: Status = Status.SKIPPED) -> None:
    held = [owned.recommendation for owned in dispatch.owned(connection, claims)]
    dispatch.finish(connection, [Closed(each, status, WHY, None) for each in held], TS)


def release(connection: Connection) -> None:
    end_lease(connection)
    dispatch.release_stuck(connection)


def counts(connection: Connection, run_id: UUID) -> tuple[Any, ...]:
    """What a run that finishes now pulled, processed, simulated, executed, skipped and failed."""
    dispatch.finish_run(connection, run_id, TS, released=0, expired=0)
    return rows(
        connection,
        "select pulled_count, processed_count, simulated_count, executed_count, skipped_count,"
        " failed_count from dispatcher_runs where run_id = :run_id",
        run_id=run_id,
    )[0]


def test_a_claim_that_is_open_is_no_attempt_yet(connection: Connection) -> None:
    put_recommendation(connection)
    claim(connection, put_run(connection))
    assert attempts(connection) == []


@pytest.mark.parametrize("status", TERMINAL)
def test_a_claim_that_closes_its_row_is_one_attempt_with_that_end(
    connection: Connection, status: Status
) -> None:
    row, run_id = put_recommendation(connection), put_run(connection)
    close(connection, claim(connection, run_id), status)
    assert attempts(connection) == [(row, 1, run_id, TS, status.value)]


@pytest.mark.parametrize("give_back", [release, dispatch.release_all])
def test_a_claim_that_is_given_back_is_one_attempt_that_was_released(
    connection: Connection, give_back: Any
) -> None:
    row, run_id = put_recommendation(connection), put_run(connection)
    claim(connection, run_id)
    give_back(connection)
    assert attempts(connection) == [(row, 1, run_id, TS, "RELEASED")]


def test_a_row_that_is_claimed_again_keeps_each_attempt_with_its_run(
    connection: Connection,
) -> None:
    row, runs = put_recommendation(connection), [put_run(connection) for _ in range(3)]
    for run_id in runs[:2]:
        claim(connection, run_id)
        release(connection)
    close(connection, claim(connection, runs[2]))
    ends = ["RELEASED", "RELEASED", "SKIPPED"]
    assert attempts(connection) == [
        (row, epoch, run_id, TS, end)
        for epoch, (run_id, end) in enumerate(zip(runs, ends, strict=True), start=1)
    ]


def test_rows_that_end_in_one_statement_are_one_attempt_each(connection: Connection) -> None:
    ids = [put_recommendation(connection, minute=at(n)) for n in range(5)]
    close(connection, claim(connection, put_run(connection)))
    assert [(row[0], row[-1]) for row in attempts(connection)] == [(row, "SKIPPED") for row in ids]


def test_a_row_that_expires_unclaimed_was_never_attempted(connection: Connection) -> None:
    put_recommendation(connection, expires_at=TS + (at(1) - at(0)))
    assert dispatch.expire(connection, TS + (at(2) - at(0))) == 1
    assert attempts(connection) == []


def test_a_process_that_is_killed_leaves_no_attempt_until_its_row_is_given_back(
    engine: Engine,
) -> None:
    with engine.begin() as connection:
        row, run_id = put_recommendation(connection), put_run(connection)
        claims = claim(connection, run_id)
    killed = engine.connect()
    close(killed, claims)
    with engine.begin() as connection:
        pid = killed.connection.dbapi_connection.info.backend_pid  # type: ignore[union-attr]
        connection.execute(text("select pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    killed.invalidate()
    killed.close()
    with engine.begin() as connection:
        assert attempts(connection) == []
        release(connection)
        assert attempts(connection) == [(row, 1, run_id, TS, "RELEASED")]


def test_a_run_counts_its_attempts_and_nobody_elses(connection: Connection) -> None:
    run_id, other = put_run(connection), put_run(connection)
    for n, status in enumerate(TERMINAL):
        put_recommendation(connection, minute=at(n))
        close(connection, claim(connection, run_id), status)
    put_recommendation(connection, minute=at(9))
    close(connection, claim(connection, other))
    assert counts(connection, run_id) == (4, 4, 2, 1, 1, 1)
    assert counts(connection, other) == (1, 1, 0, 0, 1, 0)


def test_a_claim_that_was_taken_from_a_run_was_pulled_by_it_and_not_processed(
    connection: Connection,
) -> None:
    put_recommendation(connection)
    slow, fast = put_run(connection), put_run(connection)
    claim(connection, slow)
    release(connection)
    close(connection, claim(connection, fast))
    assert counts(connection, slow) == (1, 0, 0, 0, 0, 0)
    assert counts(connection, fast) == (1, 1, 0, 0, 1, 0)


@pytest.mark.parametrize(
    "change",
    ["outcome = 'EXECUTED'", "claimed_at = now()", "dispatcher_run_id = gen_random_uuid()"],
)
def test_an_attempt_never_changes(connection: Connection, change: str) -> None:
    put_recommendation(connection)
    close(connection, claim(connection, put_run(connection)))
    with pytest.raises(DBAPIError, match="dispatch_attempts is a ledger: rows are only added"):
        connection.execute(text(f"update dispatch_attempts set {change}"))


def insert_attempt(connection: Connection, row: int, epoch: int, outcome: str) -> None:
    connection.execute(
        text(
            "insert into dispatch_attempts (recommendation_id, claim_epoch, dispatcher_run_id,"
            " claimed_at, outcome) values (:row, :epoch, gen_random_uuid(), now(), :outcome)"
        ),
        {"row": row, "epoch": epoch, "outcome": outcome},
    )


def test_a_claim_ends_once(connection: Connection) -> None:
    row = put_recommendation(connection)
    close(connection, claim(connection, put_run(connection)))
    with pytest.raises(IntegrityError, match="duplicate key"):
        insert_attempt(connection, row, 1, "RELEASED")


@pytest.mark.parametrize("outcome", ["PENDING", "PROCESSING", "LOST"])
def test_the_database_refuses_an_end_that_is_none(connection: Connection, outcome: str) -> None:
    row = put_recommendation(connection)
    with pytest.raises(IntegrityError, match="violates check constraint"):
        insert_attempt(connection, row, 1, outcome)
