"""The queue: who may take a row, who may close it, and what nobody may do."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from ops_pipeline.domain.dispatch import TRANSITIONS, Decision, Status
from ops_pipeline.domain.values import Recommendation
from ops_pipeline.settings import Settings
from ops_pipeline.storage import dispatch, orders, stream
from ops_pipeline.storage.dispatch import Closed, FenceLost
from ops_pipeline.storage.engine import open_engine
from ops_pipeline.storage.queries import texts
from ops_pipeline.storage.stream import RawFrame
from ops_pipeline_tests.builders import DAY, NOON, at
from ops_pipeline_tests.storage.clones import clone
from ops_pipeline_tests.storage.rows import (
    CONFIG,
    TS,
    claim,
    end_lease,
    one,
    put_execution,
    put_order,
    put_recommendation,
    put_run,
    rows,
    status_of,
    take,
)

PASSED = Decision(passed=True, failure_reason=None, gates={"confidence": {"passed": True}})
REFUSED = Decision(passed=False, failure_reason="confidence: Confidence too low", gates={})
PAIRS = [(before, after) for before in Status for after in Status]
# What each status needs besides itself, so that only the guard can refuse the move.
COLUMNS = {
    Status.PENDING: "lease_until = null, processed_at = null",
    Status.PROCESSING: "lease_until = now() + interval '1 minute', processed_at = null,"
    " claim_epoch = claim_epoch + 1, claimed_at = now(), dispatcher_run_id = :run_id",
    Status.SIMULATED: "lease_until = null, processed_at = now()",
    Status.EXECUTED: "lease_until = null, processed_at = now()",
    Status.SKIPPED: "lease_until = null, processed_at = now(), failure_reason = 'why'",
    Status.FAILED: "lease_until = null, processed_at = now(), failure_reason = 'why'",
}


EXECUTED = (Status.SIMULATED, Status.EXECUTED)
PENDING = "dispatch_recommendations_pending"
# What is checked at a commit is checked now.
AT_COMMIT = text("set constraints all immediate")


def move(connection: Connection, row: int, to: Status) -> None:
    known = {"id": row}
    if to is Status.PROCESSING:
        known["run_id"] = put_run(connection)
    statement = f"update dispatch_recommendations set status = '{to}', {COLUMNS[to]}"
    connection.execute(text(f"{statement} where id = :id"), known)


def put_in(connection: Connection, status: Status) -> int:
    row = put_recommendation(connection)
    if status is not Status.PENDING:
        move(connection, row, Status.PROCESSING)
    if status.is_terminal:
        move(connection, row, status)
    return row


def close(
    connection: Connection,
    held: Recommendation,
    status: Status = Status.SKIPPED,
    decision: Decision = REFUSED,
    snapshot: Mapping[str, Any] | None = None,
) -> None:
    dispatch.finish(connection, [Closed(held, status, decision, snapshot)], TS)


def everything(connection: Connection) -> list[tuple[Any, ...]]:
    return rows(connection, "select * from dispatch_recommendations order by id")


@pytest.fixture
def waiting(engine: Engine) -> Engine:
    """A hundred rows that wait, committed."""
    with engine.begin() as connection:
        for n in range(100):
            put_recommendation(connection, minute=at(n))
    return engine


def test_rows_are_decided_oldest_first_then_exits_then_the_most_confident_then_by_ticker(
    connection: Connection,
) -> None:
    older = timedelta(seconds=60)
    order = [
        put_recommendation(connection, ticker="E", ts=TS - older, confidence=0.1),
        put_recommendation(connection, ticker="D", intent="close", action="SELL", confidence=0.5),
        put_recommendation(connection, ticker="C", confidence=0.9),
        put_recommendation(connection, ticker="A", confidence=0.7),
        put_recommendation(connection, ticker="B", confidence=0.7),
    ]
    claims = claim(connection, put_run(connection))
    assert [o.recommendation.id for o in dispatch.owned(connection, claims)] == order


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_limit_takes_the_first_in_that_order(connection: Connection, limit: int) -> None:
    put_recommendation(connection, ticker="D", confidence=0.7)
    put_recommendation(connection, ticker="C", confidence=0.7)
    put_recommendation(connection, ticker="B", confidence=0.5, intent="close", action="SELL")
    put_recommendation(connection, ticker="A", ts=TS - timedelta(seconds=60), confidence=0.1)
    claims = claim(connection, put_run(connection), limit)
    taken = [o.recommendation.ticker for o in dispatch.owned(connection, claims)]
    assert taken == ["A", "B", "C"][:limit]


@pytest.mark.parametrize(
    ("ts", "expires_at", "count"),
    [
        (TS, TS + timedelta(seconds=1), 1),
        (TS - timedelta(seconds=300), TS, 0),
        (TS + timedelta(microseconds=1), TS + timedelta(seconds=300), 0),
    ],
    ids=["now", "expires now", "from the future"],
)
def test_only_a_row_of_the_present_is_claimed(
    connection: Connection, ts: object, expires_at: object, count: int
) -> None:
    put_recommendation(connection, ts=ts, expires_at=expires_at)
    assert len(claim(connection, put_run(connection))) == count


def test_a_claim_names_its_run_and_holds_a_lease(connection: Connection) -> None:
    put_recommendation(connection)
    run_id = put_run(connection)
    claim(connection, run_id)
    found = rows(
        connection,
        "select status, claim_epoch, dispatcher_run_id, claimed_at,"
        " lease_until - clock_timestamp() between '55 s' and '60 s' from dispatch_recommendations",
    )
    assert found == [("PROCESSING", 1, run_id, TS, True)]


def test_a_claimed_row_is_not_claimed_again(connection: Connection) -> None:
    put_recommendation(connection)
    run_id = put_run(connection)
    claim(connection, run_id)
    assert claim(connection, run_id) == {}


def test_a_second_session_skips_what_the_first_one_is_taking(waiting: Engine) -> None:
    with waiting.begin() as one_session, waiting.begin() as other:
        first = claim(one_session, put_run(one_session), 60)
        second = claim(other, put_run(other), 60)
    assert (len(first), len(second), first.keys() & second.keys()) == (60, 40, set())


def test_four_threads_claim_every_row_once(waiting: Engine) -> None:
    def work(_: int) -> list[int]:
        taken: list[int] = []
        while True:
            with waiting.begin() as connection:
                found = claim(connection, put_run(connection), 3)
            if not found:
                return taken
            taken += found

    with ThreadPoolExecutor(4) as pool:
        taken = [row for found in pool.map(work, range(4)) for row in found]
    assert len(taken) == len(set(taken)) == 100


def test_a_row_expires_at_its_instant(connection: Connection) -> None:
    old = put_recommendation(connection, ticker="A", ts=TS - timedelta(seconds=300), expires_at=TS)
    put_recommendation(connection, ticker="B", expires_at=TS + timedelta(microseconds=1))
    assert dispatch.expire(connection, TS) == 1
    found = rows(
        connection,
        "select id, failure_reason, processed_at from dispatch_recommendations"
        " where status = 'SKIPPED'",
    )
    assert found == [(old, "expired", TS)]


def test_of_what_is_too_old_no_more_than_so_much_expires_at_once_and_the_oldest_first(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "EXPIRED_AT_ONCE", 2)
    ids = [
        put_recommendation(connection, minute=at(n), ts=TS - timedelta(minutes=age))
        for n, age in enumerate([20, 40, 30, 50, 1])
    ]
    left = []
    for expected in (2, 2, 0):
        assert dispatch.expire(connection, TS) == expected
        found = "select id from dispatch_recommendations where status = 'PENDING' order by id"
        left.append([ids.index(row[0]) for row in rows(connection, found)])
    assert left == [[0, 2, 4], [4], [4]]


def test_a_row_that_is_worked_on_does_not_expire(connection: Connection) -> None:
    put_recommendation(connection)
    claim(connection, put_run(connection))
    assert dispatch.expire(connection, TS + timedelta(days=1)) == 0


def test_a_row_is_given_back_when_its_lease_has_run_out(connection: Connection) -> None:
    put_recommendation(connection)
    claim(connection, put_run(connection))
    end_lease(connection)
    assert dispatch.release_stuck(connection) == 1
    found = rows(
        connection,
        "select status, lease_until, claimed_at, dispatcher_run_id from dispatch_recommendations",
    )
    assert found == [("PENDING", None, None, None)]


def test_an_old_row_is_not_given_back_while_its_lease_runs(connection: Connection) -> None:
    put_recommendation(connection)
    claim(connection, put_run(connection))
    assert dispatch.release_stuck(connection) == 0


def test_giving_back_does_not_wait_for_whoever_finishes_the_row(engine: Engine) -> None:
    with engine.begin() as connection:
        put_recommendation(connection)
        claims = claim(connection, put_run(connection))
        end_lease(connection)
    with engine.begin() as worker, engine.begin() as reaper:
        dispatch.owned(worker, claims)
        assert dispatch.release_stuck(reaper) == 0


def test_the_epoch_grows_on_each_claim_and_only_there(connection: Connection) -> None:
    row = put_recommendation(connection)
    epochs = []
    for _ in range(3):
        epochs.append(claim(connection, put_run(connection))[row])
        end_lease(connection)
        dispatch.release_stuck(connection)
        epochs.append(one(connection, "select claim_epoch from dispatch_recommendations"))
    assert epochs == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("step", [-1, 0, 2])
def test_the_database_refuses_a_claim_whose_epoch_is_not_the_next(
    connection: Connection, step: int
) -> None:
    put_recommendation(connection)
    with pytest.raises(DBAPIError, match="may not go from epoch"):
        rows(
            connection,
            "update dispatch_recommendations set status = 'PROCESSING', lease_until = now(),"
            f" claim_epoch = claim_epoch + {step} returning 1",
        )


def test_a_finished_row_has_its_gates_and_no_lease(connection: Connection) -> None:
    put_recommendation(connection)
    close(connection, take(connection))
    found = rows(
        connection,
        "select status, failure_reason, risk_gate_json, processed_at, lease_until"
        " from dispatch_recommendations",
    )
    assert found == [("SKIPPED", REFUSED.failure_reason, {}, TS, None)]


def test_a_stale_claim_finishes_nothing(connection: Connection) -> None:
    put_recommendation(connection)
    stale = take(connection)
    end_lease(connection)
    dispatch.release_stuck(connection)
    current = take(connection)
    before = everything(connection)
    assert current.claim_epoch == stale.claim_epoch + 1
    with pytest.raises(FenceLost):
        close(connection, stale, Status.SIMULATED, PASSED)
    assert everything(connection) == before


def test_a_claim_that_was_given_back_finishes_nothing(connection: Connection) -> None:
    put_recommendation(connection)
    stale = take(connection)
    end_lease(connection)
    dispatch.release_stuck(connection)
    before = everything(connection)
    with pytest.raises(FenceLost):
        close(connection, stale)
    assert everything(connection) == before


def test_a_claim_finishes_once(connection: Connection) -> None:
    put_recommendation(connection)
    held = take(connection)
    close(connection, held)
    with pytest.raises(FenceLost):
        close(connection, held, Status.SIMULATED, PASSED)


def test_each_row_that_finishes_has_its_own_end(connection: Connection) -> None:
    first, second = (put_recommendation(connection, ticker=ticker) for ticker in ("A", "B"))
    claims = claim(connection, put_run(connection))
    held = {o.recommendation.id: o.recommendation for o in dispatch.owned(connection, claims)}
    ends = [
        Closed(held[second], Status.SIMULATED, PASSED, {"n": 2}),
        Closed(held[first], Status.SKIPPED, REFUSED, None),
    ]
    dispatch.finish(connection, ends, TS)
    found = rows(
        connection,
        "select id, status, failure_reason, risk_gate_json, snapshot_json"
        " from dispatch_recommendations order by id",
    )
    assert found == [
        (first, "SKIPPED", REFUSED.failure_reason, {}, None),
        (second, "SIMULATED", None, PASSED.gates, {"n": 2}),
    ]


def test_no_row_finishes_when_one_of_them_changed_hands(engine: Engine) -> None:
    with engine.begin() as connection:
        for ticker in ("A", "B"):
            put_recommendation(connection, ticker=ticker)
        claims = claim(connection, put_run(connection))
    with engine.begin() as connection:
        held = [owned.recommendation for owned in dispatch.owned(connection, claims)]
        held[0] = replace(held[0], claim_epoch=2)
    ends = [Closed(each, Status.SKIPPED, REFUSED, None) for each in held]
    with pytest.raises(FenceLost, match="1 of 2 recommendations"), engine.begin() as connection:
        dispatch.finish(connection, ends, TS)
    with engine.begin() as connection:
        assert dispatch.status_counts(connection) == {"PROCESSING": 2}


def test_nothing_to_finish_is_nothing(connection: Connection) -> None:
    dispatch.finish(connection, [], TS)
    assert everything(connection) == []


def test_a_row_keeps_what_it_was_decided_on(connection: Connection) -> None:
    known = {"exposure_usd": 1 / 3, "session_pnl_usd": None, "open_tickers": ["AAPL"]}
    put_recommendation(connection)
    close(connection, take(connection), snapshot=known)
    assert one(connection, "select snapshot_json from dispatch_recommendations") == known


def test_what_a_row_was_decided_on_never_changes(connection: Connection) -> None:
    put_recommendation(connection)
    close(connection, take(connection), snapshot={"exposure_usd": 1.0})
    with pytest.raises(DBAPIError, match="may not go from SKIPPED to SKIPPED"):
        connection.execute(text("update dispatch_recommendations set snapshot_json = '{}'"))


def test_a_nan_never_enters_what_a_row_was_decided_on(connection: Connection) -> None:
    put_recommendation(connection)
    with pytest.raises(ValueError, match="not JSON compliant"):
        close(connection, take(connection), snapshot={"exposure_usd": float("nan")})


FACTS = {
    "ts": "ts - interval '1 second'",
    "ticker": "'MSFT'",
    "minute": "minute - interval '1 minute'",
    "action": "'SELL'",
    "intent": "'close'",
    "confidence": "0.81",
    "expires_at": "expires_at + interval '1 second'",
    "session_date": "session_date + 1",
    "reason": """'{"rule": "other"}'""",
    "features_snapshot": """'{"v": 2}'""",
    "sentiment_snapshot": """'{"v": 2}'""",
}


@pytest.mark.parametrize("to", [Status.PROCESSING, Status.SKIPPED])
@pytest.mark.parametrize("column", FACTS)
def test_what_was_recommended_does_not_change_with_a_move(
    connection: Connection, column: str, to: Status
) -> None:
    row = put_recommendation(connection, features_snapshot=None)
    change = f"status = '{to}', {COLUMNS[to]}, {column} = {FACTS[column]}"
    known = {"run_id": put_run(connection)} if to is Status.PROCESSING else {}
    with pytest.raises(DBAPIError, match=f"recommendation {row} was made, and does not change"):
        connection.execute(text(f"update dispatch_recommendations set {change}"), known)


def test_a_stale_claim_owns_nothing(connection: Connection) -> None:
    row = put_recommendation(connection)
    take(connection)
    assert dispatch.owned(connection, {row: 0}) == []


def test_a_claimed_row_comes_back_as_it_went_in(connection: Connection) -> None:
    features = {"v": 1, "ts": NOON.isoformat(), "recent_vol": None}
    row = put_recommendation(connection, features_snapshot=features, reason={"rule": "X"})
    claims = claim(connection, put_run(connection))
    owned = dispatch.owned(connection, claims)[0]
    expected = Recommendation(
        id=row,
        ts=TS,
        ticker="AAPL",
        minute=NOON,
        action="BUY",
        instrument_type="STOCK",
        intent="open",
        confidence=0.8,
        expires_at=TS + timedelta(seconds=300),
        claim_epoch=1,
        reason={"rule": "X"},
    )
    assert owned == dispatch.Owned(expected, DAY, features)


@pytest.mark.parametrize(("before", "after"), sorted(TRANSITIONS))
def test_a_legal_move_is_made(connection: Connection, before: Status, after: Status) -> None:
    row = put_in(connection, before)
    move(connection, row, after)
    assert status_of(connection, row) == after


@pytest.mark.parametrize(("before", "after"), [p for p in PAIRS if p not in TRANSITIONS])
def test_the_database_refuses_an_illegal_move(
    connection: Connection, before: Status, after: Status
) -> None:
    row = put_in(connection, before)
    with pytest.raises(DBAPIError, match=f"may not go from {before} to {after}"):
        move(connection, row, after)


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("change", ["confidence = 0.99", "failure_reason = 'other'", "qty = 1"])
def test_no_column_changes_without_a_move(
    connection: Connection, status: Status, change: str
) -> None:
    row = put_in(connection, status)
    change = change.replace("qty = 1", "expires_at = expires_at + interval '1 hour'")
    with pytest.raises(DBAPIError, match="may not go from"):
        connection.execute(
            text(f"update dispatch_recommendations set {change} where id = :id"), {"id": row}
        )


@pytest.mark.parametrize(
    "statement",
    [
        "update dispatch_executions set qty = 1",
        "delete from dispatch_executions",
        "truncate dispatch_executions",
        "truncate dispatch_recommendations cascade",
    ],
)
def test_the_ledger_is_only_added_to(connection: Connection, statement: str) -> None:
    put_execution(connection, put_in(connection, Status.SIMULATED))
    connection.execute(AT_COMMIT)
    with pytest.raises(DBAPIError, match="is a ledger: rows are only added"):
        connection.execute(text(statement))


@pytest.mark.parametrize("status", EXECUTED)
def test_a_row_is_not_closed_as_executed_without_an_execution(
    connection: Connection, status: Status
) -> None:
    put_in(connection, status)
    with pytest.raises(IntegrityError, match=f"is {status.value} and lacks an execution"):
        connection.execute(AT_COMMIT)


@pytest.mark.parametrize("status", [s for s in Status if s not in EXECUTED])
def test_a_row_that_was_not_executed_has_no_execution(
    connection: Connection, status: Status
) -> None:
    row = put_in(connection, status)
    epoch = 0 if status is Status.PENDING else 1
    put_execution(connection, row, claim_epoch=epoch)
    with pytest.raises(IntegrityError, match=f"is {status.value} and has an execution"):
        connection.execute(AT_COMMIT)


@pytest.mark.parametrize("status", [Status.SKIPPED, Status.FAILED])
def test_a_row_that_was_closed_without_an_execution_gets_none_later(
    engine: Engine, status: Status
) -> None:
    with engine.begin() as connection:
        row = put_in(connection, status)
    words = f"is {status.value} and has an execution"
    with pytest.raises(IntegrityError, match=words), engine.begin() as connection:
        put_execution(connection, row)
    with engine.begin() as connection:
        assert one(connection, "select count(*) from dispatch_executions") == 0


def test_an_execution_of_another_claim_is_refused(connection: Connection) -> None:
    put_execution(connection, put_in(connection, Status.SIMULATED), claim_epoch=2)
    with pytest.raises(IntegrityError, match="closed under claim 1, and executed under 2"):
        connection.execute(AT_COMMIT)


def test_an_execution_under_the_claim_that_closed_its_row_stands(connection: Connection) -> None:
    put_execution(connection, put_in(connection, Status.SIMULATED))
    connection.execute(AT_COMMIT)


@pytest.mark.parametrize("order", [1, -1])
def test_the_two_may_be_written_in_either_order(connection: Connection, order: int) -> None:
    row = put_in(connection, Status.PROCESSING)
    steps = [
        lambda: put_execution(connection, row),
        lambda: move(connection, row, Status.SIMULATED),
    ]
    for step in steps[::order]:
        step()
    connection.execute(AT_COMMIT)


@pytest.mark.parametrize("statement", ["delete from {}", "truncate {} cascade"])
@pytest.mark.parametrize(
    "table", ["dispatch_recommendations", "dispatcher_runs", "dispatch_attempts"]
)
def test_neither_the_queue_nor_its_runs_nor_their_attempts_are_ever_deleted(
    connection: Connection, table: str, statement: str
) -> None:
    put_in(connection, Status.SKIPPED)
    with pytest.raises(DBAPIError, match="is a ledger: rows are only added"):
        connection.execute(text(statement.format(table)))


def test_a_recommendation_is_executed_once(connection: Connection) -> None:
    row = put_recommendation(connection)
    put_execution(connection, row)
    with pytest.raises(IntegrityError, match="duplicate key"):
        put_execution(connection, row)


@pytest.mark.parametrize(
    "changes",
    [
        {"qty": 0},
        {"qty": -1},
        {"entry_price": 0.0},
        {"entry_price": float("nan")},
        {"entry_price": float("inf")},
        {"notional": float("nan")},
        {"notional": -1.0},
        {"side": "hold"},
        {"execution_mode": "LIVE"},
        {"execution_mode": "ALPACA"},
        {"sim_json": "{}"},
        {"sim_json": '{"bar_used": {"timestamp": null}}'},
        {"account": "real"},
    ],
    ids=str,
)
def test_the_ledger_refuses_what_is_no_execution(
    connection: Connection, changes: dict[str, object]
) -> None:
    row = put_recommendation(connection)
    with pytest.raises(IntegrityError):
        put_execution(connection, row, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"ticker": "x; drop"},
        {"action": "HOLD"},
        {"instrument_type": "CALL"},
        {"intent": "add"},
        {"confidence": float("nan")},
        {"confidence": 1.1},
        {"confidence": -0.1},
        {"expires_at": TS},
        {"expires_at": TS + timedelta(hours=1, microseconds=1)},
        {"status": "DONE"},
        {"status": "PROCESSING"},
        {"status": "PROCESSING", "lease_until": TS},
        {"status": "PROCESSING", "lease_until": TS, "claimed_at": TS},
        {"status": "PROCESSING", "lease_until": TS, "dispatcher_run_id": UUID(int=1)},
        {"status": "SKIPPED"},
    ],
    ids=str,
)
def test_the_queue_refuses_what_is_no_recommendation(
    connection: Connection, changes: dict[str, object]
) -> None:
    with pytest.raises(IntegrityError, match="violates check constraint"):
        put_recommendation(connection, **changes)


def test_a_recommendation_may_live_for_an_hour(connection: Connection) -> None:
    put_recommendation(connection, expires_at=TS + timedelta(hours=1))
    last = TS + timedelta(minutes=59, seconds=59)
    assert len(dispatch.claim(connection, put_run(connection), last, CONFIG)) == 1


def test_a_minute_recommends_a_ticker_once_for_each_intent(connection: Connection) -> None:
    put_recommendation(connection)
    put_recommendation(connection, intent="close", action="SELL")
    with pytest.raises(IntegrityError, match="duplicate key"):
        put_recommendation(connection, action="SELL")


def propose(connection: Connection, **changes: Any) -> bool:
    proposal = {
        "ticker": "AAPL",
        "action": "SELL",
        "ts": TS,
        "minute": NOON,
        "session_date": DAY,
        "expires_at": TS + timedelta(seconds=300),
        "reason": {"rule": "EXIT", "exit": "stop"},
        "features": {"v": 1, "ts": None},
    } | changes
    return dispatch.insert_exit(connection, **proposal)


def test_an_exit_is_a_recommendation_to_close(connection: Connection) -> None:
    assert propose(connection)
    found = rows(
        connection, "select intent, action, confidence, status from dispatch_recommendations"
    )
    assert found == [("close", "SELL", 1.0, "PENDING")]


def test_an_exit_is_proposed_once_while_it_waits(connection: Connection) -> None:
    propose(connection)
    assert not propose(connection, minute=NOON + timedelta(minutes=1))


def test_an_exit_is_proposed_once_while_it_is_worked_on(connection: Connection) -> None:
    propose(connection)
    claim(connection, put_run(connection))
    assert not propose(connection, minute=NOON + timedelta(minutes=1))


def test_an_exit_that_was_refused_is_proposed_again_in_the_next_minute(
    connection: Connection,
) -> None:
    propose(connection)
    close(connection, take(connection))
    assert not propose(connection)
    assert propose(connection, minute=NOON + timedelta(minutes=1))


def test_two_sessions_that_propose_the_same_exit_make_one(engine: Engine) -> None:
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as first:
            assert propose(first)

            def second() -> bool:
                with engine.begin() as connection:
                    return propose(connection)

            waiting = pool.submit(second)
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
        assert waiting.result(10) is False


def test_a_run_counts_what_it_closed(connection: Connection) -> None:
    run_id = put_run(connection)
    for n, status in enumerate(["SIMULATED", "SIMULATED", "SKIPPED", "FAILED", "EXECUTED"]):
        put_recommendation(connection, minute=at(n))
        claims = claim(connection, run_id)
        held = dispatch.owned(connection, claims)[0].recommendation
        decision = REFUSED if status in ("SKIPPED", "FAILED") else PASSED
        close(connection, held, Status(status), decision)
    put_recommendation(connection, minute=at(9))
    close(connection, take(connection))
    dispatch.finish_run(connection, run_id, TS, released=2, expired=3)
    found = rows(
        connection,
        "select finished_at, outcome, pulled_count, processed_count, simulated_count,"
        " executed_count, skipped_count, failed_count, released_count, expired_count"
        " from dispatcher_runs where run_id = :run_id",
        run_id=run_id,
    )
    assert found == [(TS, "FINISHED", 5, 5, 3, 1, 1, 1, 2, 3)]


def test_a_run_is_finished_once(connection: Connection) -> None:
    run_id = put_run(connection)
    dispatch.finish_run(connection, run_id, TS, released=0, expired=0)
    with pytest.raises(FenceLost, match="closed already"):
        dispatch.finish_run(connection, run_id, TS + timedelta(hours=1), released=0, expired=0)
    assert one(connection, "select finished_at from dispatcher_runs") == TS


def test_a_run_that_was_given_up_for_dead_does_not_finish(connection: Connection) -> None:
    run_id = put_run(connection)
    connection.execute(text("update dispatcher_runs set written_at = now() - interval '1 day'"))
    dispatch.abandon_runs(connection, NOON)
    with pytest.raises(FenceLost, match="closed already"):
        dispatch.finish_run(connection, run_id, TS, released=0, expired=0)
    assert one(connection, "select outcome from dispatcher_runs") == "ABANDONED"


def test_a_run_keeps_every_setting_in_force(connection: Connection) -> None:
    put_run(connection)
    found = rows(connection, "select run_config_json, config_hash from dispatcher_runs")
    assert found == [(CONFIG.document(), CONFIG.fingerprint())]


def test_a_run_keeps_what_it_found_the_world_to_be_like(connection: Connection) -> None:
    known = {"trading_state": "ACTIVE", "quarantined": ["AAPL"]}
    dispatch.insert_run(
        connection,
        uuid4(),
        TS,
        CONFIG,
        mode="replay",
        code_version="test",
        orchestrator_run_id="",
        summary=known,
    )
    assert one(connection, "select run_summary_json from dispatcher_runs") == known


def test_a_run_whose_process_is_gone_is_abandoned_when_that_is_seen(
    connection: Connection,
) -> None:
    old, young = put_run(connection), put_run(connection)
    connection.execute(
        text(
            "update dispatcher_runs set written_at = clock_timestamp() - interval '11 minutes'"
            " where run_id = :old"
        ),
        {"old": old},
    )
    assert dispatch.abandon_runs(connection, NOON) == 1
    found = dict(rows(connection, "select run_id, outcome from dispatcher_runs"))
    assert found == {old: "ABANDONED", young: None}


def test_a_finished_run_is_never_abandoned(connection: Connection) -> None:
    dispatch.finish_run(connection, put_run(connection), TS, released=0, expired=0)
    connection.execute(text("update dispatcher_runs set written_at = now() - interval '1 day'"))
    assert dispatch.abandon_runs(connection, NOON) == 0


def test_statuses_are_counted(connection: Connection) -> None:
    put_in(connection, Status.SKIPPED)
    put_recommendation(connection, ticker="A")
    put_recommendation(connection, ticker="B")
    assert dispatch.status_counts(connection) == {"PENDING": 2, "SKIPPED": 1}


def test_an_empty_queue_is_no_work(connection: Connection) -> None:
    assert dispatch.is_waiting(connection) is False


@pytest.mark.parametrize("status", list(Status))
def test_only_a_row_that_waits_is_work(connection: Connection, status: Status) -> None:
    put_in(connection, status)
    assert dispatch.is_waiting(connection) is (status is Status.PENDING)


@pytest.mark.parametrize("is_settled", [False, True])
def test_an_order_is_work_until_it_is_settled(
    connection: Connection,
    is_settled: bool,  # noqa: FBT001
) -> None:
    put_order(connection)
    if is_settled:
        orders.give_up_unsent(connection, TS + timedelta(days=1))
    assert dispatch.is_waiting(connection) is not is_settled


def test_while_the_market_is_closed_an_order_is_no_work(connection: Connection) -> None:
    put_order(connection)
    assert dispatch.is_waiting(connection, orders_move=False) is False


def test_who_decides_holds_up_nobody_who_only_names_the_account(engine: Engine) -> None:
    with engine.begin() as deciding, engine.begin() as hearing:
        dispatch.lock_account(deciding)
        hearing.exec_driver_sql("set local lock_timeout = '2s'")
        lease = stream.take_lease(hearing, dispatch.ACCOUNT, "test", "1", 60)
        assert lease
        stream.insert_frames(hearing, dispatch.ACCOUNT, [RawFrame("{}", TS)])


def test_the_newest_run_is_the_last_start(connection: Connection) -> None:
    assert dispatch.newest_runs(connection, 2) == []
    put_run(connection)
    assert [run.started_at for run in dispatch.newest_runs(connection, 2)] == [TS]


def test_trading_is_active_at_first(connection: Connection) -> None:
    assert dispatch.read_trading_state(connection) == "ACTIVE"


def test_the_database_refuses_an_unknown_trading_state(connection: Connection) -> None:
    with pytest.raises(IntegrityError):
        connection.execute(text("update trading_state set state = 'MAYBE'"))


def test_there_is_one_trading_state(connection: Connection) -> None:
    with pytest.raises(IntegrityError):
        connection.execute(
            text("insert into trading_state (state, changed_by) values ('HALTED', 'x')")
        )


def test_whoever_decides_orders_is_alone(engine: Engine) -> None:
    with engine.begin() as first, engine.begin() as second:
        dispatch.lock_account(first)
        second.execute(text("set local lock_timeout = '100ms'"))
        with pytest.raises(DBAPIError, match="lock timeout"):
            dispatch.lock_account(second)


def test_an_open_row_that_the_ledger_holds_already_is_found(connection: Connection) -> None:
    row, other = put_recommendation(connection), put_recommendation(connection, ticker="MSFT")
    put_execution(connection, row)
    assert dispatch.executed_already(connection, [row, other]) == [row]
    assert dispatch.executed_already(connection, [other]) == []


def put_history(connection: Connection, count: int, kind: str) -> None:
    """So many rows, a second apart and the last one at TS, of which all but a few are of one kind.

    The last 100 wait and are fresh; of the others, those that are closed are as old as an hour or
    more, and those that are stale waited for days.
    """
    parameters = {"ts": TS, "day": DAY, "count": count, "stale": kind == "stale"}
    connection.execute(
        text(
            "insert into dispatch_recommendations (ts, ticker, minute, session_date, action,"
            " instrument_type, intent, confidence, reason, status, failure_reason, expires_at,"
            " processed_at, available_at)"
            " select made.ts, 'AAPL', cast(:ts as timestamptz) - n * interval '1 minute', :day,"
            " 'BUY', 'STOCK', 'open', 0.5, '{}',"
            " case when waits then 'PENDING' else 'SKIPPED' end,"
            " case when not waits then 'expired' end, made.ts + interval '5 minutes',"
            " case when not waits then now() end, made.ts"
            " from generate_series(0, :count - 1) as n"
            " cross join lateral (select"
            " cast(:ts as timestamptz) - n * interval '1 s'"
            " - case when n >= 100 then interval '2 days' else interval '0' end as ts,"
            " n < 100 or :stale as waits) as made"
        ),
        parameters,
    )


@dataclass(frozen=True)
class Scan:
    """How much of a table was read for a query, and by which index; none where it was walked."""

    index: str | None
    read: float


def scans(connection: Connection, name: str, table: str, **parameters: Any) -> list[Scan]:
    """What a query of the queue reads of a table, as the server tells after it has done it."""
    statement = text("explain (analyze, format json) " + texts("dispatch")[name])
    known = {"run_id": uuid4(), "now": TS, "limit": 10, "lease_seconds": 60, "orders_move": True}
    known |= {"passed_over": [], "closing_only": False} | parameters
    if "run_id" in statement._bindparams:
        known["run_id"] = put_run(connection)
    needed = {key: known[key] for key in statement._bindparams}
    plan = connection.execute(statement, needed).scalar_one()[0]["Plan"]
    return [
        Scan(
            node.get("Index Name"),
            node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)),
        )
        for node in nodes(plan)
        if node.get("Relation Name") == table or node["Node Type"] == "Bitmap Index Scan"
    ]


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """A plan's node and all below it."""
    return [plan, *(below for child in plan.get("Plans", ()) for below in nodes(child))]


@pytest.mark.parametrize("name", ["claim", "expire", "is_waiting", "release_stuck"])
def test_a_long_history_is_not_read_for_the_few_rows_that_wait(
    connection: Connection, name: str
) -> None:
    put_history(connection, 20_000, "closed")
    connection.execute(text("analyze dispatch_recommendations"))
    found = scans(connection, name, "dispatch_recommendations")
    assert found
    assert max(scan.read for scan in found) <= 100


@pytest.fixture(scope="module", params=["never analysed", "analysed"])
def stale(template: Settings, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """50,000 rows that wait, all but 100 of them for days; the server knows of it, or does not."""
    engine = open_engine(clone(template, f"stale_{request.param.replace(' ', '_')}"))
    with engine.begin() as connection:
        connection.execute(
            text("alter table dispatch_recommendations set (autovacuum_enabled = false)")
        )
        put_history(connection, 50_000, "stale")
        if request.param == "analysed":
            connection.execute(text("analyze dispatch_recommendations"))
    yield engine
    engine.dispose()


@pytest.mark.parametrize("limit", [1, 100])
def test_a_claim_does_not_read_the_stale_rows_that_wait_before_the_fresh(
    stale: Engine, limit: int
) -> None:
    with stale.connect() as connection:
        found = scans(connection, "claim", "dispatch_recommendations", limit=limit)
    assert PENDING in {scan.index for scan in found}
    assert sum(scan.read for scan in found) <= 3 * limit + 100


def test_expiring_walks_no_table(stale: Engine) -> None:
    with stale.connect() as connection:
        found = scans(connection, "expire", "dispatch_recommendations", limit=100)
    assert PENDING in {scan.index for scan in found}


# Before it is told how many wait, the server takes them for a few, and reads them all to sort them.
@pytest.mark.parametrize("stale", ["analysed"], indirect=True)
@pytest.mark.parametrize("limit", [10, 1_000])
def test_expiring_reads_the_oldest_rows_and_no_others(stale: Engine, limit: int) -> None:
    with stale.connect() as connection:
        found = scans(connection, "expire", "dispatch_recommendations", limit=limit)
    assert sum(scan.read for scan in found) <= 2 * limit


def test_whether_there_is_work_is_seen_from_one_of_the_stale_rows(stale: Engine) -> None:
    with stale.connect() as connection:
        found = scans(connection, "is_waiting", "dispatch_recommendations")
    assert sum(scan.read for scan in found) <= 1


def test_a_claim_among_the_stale_rows_takes_the_oldest_of_the_fresh(stale: Engine) -> None:
    with stale.connect() as connection:
        claims = claim(connection, put_run(connection), 1)
        found = dispatch.owned(connection, claims)
        assert [o.recommendation.ts for o in found] == [TS - timedelta(seconds=99)]
