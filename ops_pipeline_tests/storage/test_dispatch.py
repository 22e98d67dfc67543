"""The queue: who may take a row, who may close it, and what nobody may do."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from ops_pipeline.domain.dispatch import TRANSITIONS, Decision, Status
from ops_pipeline.domain.execution import Order
from ops_pipeline.domain.values import Recommendation
from ops_pipeline.storage import dispatch, execution
from ops_pipeline.storage.dispatch import FenceLost
from ops_pipeline.storage.execution import Execution
from ops_pipeline.storage.queries import texts
from ops_pipeline_tests.builders import DAY, NOON, at
from ops_pipeline_tests.storage.rows import (
    CONFIG,
    TS,
    claim,
    end_lease,
    one,
    put_execution,
    put_recommendation,
    put_run,
    rows,
    status_of,
)

PASSED = Decision(passed=True, failure_reason=None, gates={"confidence": {"passed": True}})
REFUSED = Decision(passed=False, failure_reason="confidence: Confidence too low", gates={})
PAIRS = [(before, after) for before in Status for after in Status]
# What each status needs besides itself, so that only the guard can refuse the move.
COLUMNS = {
    Status.PENDING: "lease_until = null, processed_at = null",
    Status.PROCESSING: "lease_until = now() + interval '1 minute', processed_at = null,"
    " claim_epoch = claim_epoch + 1",
    Status.SIMULATED: "lease_until = null, processed_at = now()",
    Status.EXECUTED: "lease_until = null, processed_at = now()",
    Status.SKIPPED: "lease_until = null, processed_at = now(), failure_reason = 'why'",
    Status.FAILED: "lease_until = null, processed_at = now(), failure_reason = 'why'",
}


EXECUTED = (Status.SIMULATED, Status.EXECUTED)
# What is checked at a commit is checked now.
AT_COMMIT = text("set constraints all immediate")


def move(connection: Connection, row: int, to: Status) -> None:
    statement = f"update dispatch_recommendations set status = '{to}', {COLUMNS[to]}"
    connection.execute(text(f"{statement} where id = :id"), {"id": row})


def put_in(connection: Connection, status: Status) -> int:
    row = put_recommendation(connection)
    if status is not Status.PENDING:
        move(connection, row, Status.PROCESSING)
    if status.is_terminal:
        move(connection, row, status)
    return row


def take(connection: Connection) -> Recommendation:
    """The only row that waits, claimed."""
    claims = claim(connection, put_run(connection))
    return dispatch.owned(connection, claims)[0].recommendation


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
    dispatch.finish(connection, take(connection), Status.SKIPPED, REFUSED, TS)
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
        dispatch.finish(connection, stale, Status.SIMULATED, PASSED, TS)
    assert everything(connection) == before


def test_a_claim_that_was_given_back_finishes_nothing(connection: Connection) -> None:
    put_recommendation(connection)
    stale = take(connection)
    end_lease(connection)
    dispatch.release_stuck(connection)
    before = everything(connection)
    with pytest.raises(FenceLost):
        dispatch.finish(connection, stale, Status.SKIPPED, REFUSED, TS)
    assert everything(connection) == before


def test_a_claim_finishes_once(connection: Connection) -> None:
    put_recommendation(connection)
    held = take(connection)
    dispatch.finish(connection, held, Status.SKIPPED, REFUSED, TS)
    with pytest.raises(FenceLost):
        dispatch.finish(connection, held, Status.SIMULATED, PASSED, TS)


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


@pytest.mark.parametrize("status", [Status.SIMULATED, Status.EXECUTED])
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


def test_an_execution_of_another_claim_is_refused(connection: Connection) -> None:
    put_execution(connection, put_in(connection, Status.SIMULATED), claim_epoch=2)
    with pytest.raises(IntegrityError, match="closed under claim 1, and executed under 2"):
        connection.execute(AT_COMMIT)


@pytest.mark.parametrize("status", EXECUTED)
def test_an_execution_under_the_claim_that_closed_its_row_stands(
    connection: Connection, status: Status
) -> None:
    put_execution(connection, put_in(connection, status))
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
        {"status": "DONE"},
        {"status": "PROCESSING"},
        {"status": "SKIPPED"},
    ],
    ids=str,
)
def test_the_queue_refuses_what_is_no_recommendation(
    connection: Connection, changes: dict[str, object]
) -> None:
    with pytest.raises(IntegrityError, match="violates check constraint"):
        put_recommendation(connection, **changes)


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
    dispatch.finish(connection, take(connection), Status.SKIPPED, REFUSED, TS)
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
        dispatch.finish(connection, held, Status(status), decision, TS)
    put_recommendation(connection, minute=at(9))
    dispatch.finish(connection, take(connection), Status.SKIPPED, REFUSED, TS)
    dispatch.finish_run(connection, run_id, TS, pulled=6, released=2, expired=3)
    found = rows(
        connection,
        "select finished_at, outcome, pulled_count, processed_count, simulated_count,"
        " executed_count, skipped_count, failed_count, released_count, expired_count"
        " from dispatcher_runs where run_id = :run_id",
        run_id=run_id,
    )
    assert found == [(TS, "FINISHED", 6, 5, 3, 1, 1, 1, 2, 3)]


def test_a_run_is_finished_once(connection: Connection) -> None:
    run_id = put_run(connection)
    for finished_at in (TS, TS + timedelta(hours=1)):
        dispatch.finish_run(connection, run_id, finished_at, pulled=0, released=0, expired=0)
    assert one(connection, "select finished_at from dispatcher_runs") == TS


def test_a_run_keeps_every_setting_in_force(connection: Connection) -> None:
    put_run(connection)
    found = rows(connection, "select run_config_json, config_hash from dispatcher_runs")
    assert found == [(CONFIG.document(), CONFIG.fingerprint())]


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
    dispatch.finish_run(connection, put_run(connection), TS, pulled=0, released=0, expired=0)
    connection.execute(text("update dispatcher_runs set written_at = now() - interval '1 day'"))
    assert dispatch.abandon_runs(connection, NOON) == 0


def test_statuses_are_counted(connection: Connection) -> None:
    put_in(connection, Status.SKIPPED)
    put_recommendation(connection, ticker="A")
    put_recommendation(connection, ticker="B")
    assert dispatch.status_counts(connection) == {"PENDING": 2, "SKIPPED": 1}


def test_the_newest_row_that_waits_is_found(connection: Connection) -> None:
    put_recommendation(connection, ticker="A")
    newest = put_recommendation(connection, ticker="B")
    assert dispatch.newest_pending(connection) == (newest, 2)


def test_an_empty_queue_has_no_newest_row(connection: Connection) -> None:
    assert dispatch.newest_pending(connection) == (None, 0)


def test_the_newest_run_is_the_last_start(connection: Connection) -> None:
    assert dispatch.newest_run(connection) is None
    put_run(connection)
    assert dispatch.newest_run(connection) == TS


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


def an_execution(held: Recommendation, connection: Connection) -> Execution:
    return Execution(
        recommendation=held,
        run_id=one(connection, "select run_id from dispatcher_runs limit 1"),
        order=Order(-10, 200.1, 199.1, 202.1),
        at=TS,
        session_date=DAY,
        slippage_bps=5.0,
        max_hold_minutes=240,
        risk={"all_gates_passed": True},
        simulation={"bar_used": {"timestamp": TS.isoformat()}},
    )


def test_an_execution_comes_back_as_a_fill(connection: Connection) -> None:
    put_recommendation(connection)
    execution.insert_execution(connection, an_execution(take(connection), connection))
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
    execution.insert_execution(connection, an_execution(held, connection))
    found = rows(connection, "select claim_epoch, notional, side from dispatch_executions")
    assert found == [(1, pytest.approx(2_001.0), "sell")]


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


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """A plan's node and all below it."""
    return [plan, *(below for child in plan.get("Plans", ()) for below in nodes(child))]


@pytest.mark.parametrize("name", ["claim", "expire", "newest_pending", "release_stuck"])
def test_a_long_history_is_not_read_for_the_few_rows_that_wait(
    connection: Connection, name: str
) -> None:
    connection.execute(
        text(
            "insert into dispatch_recommendations (ts, ticker, minute, session_date, action,"
            " instrument_type, intent, confidence, reason, status, failure_reason, expires_at,"
            " processed_at, available_at)"
            " select cast(:ts as timestamptz) - n * interval '1 s', 'AAPL',"
            " cast(:ts as timestamptz) - n * interval '1 minute', :day, 'BUY', 'STOCK', 'open',"
            " 0.5, '{}', case when n <= 50 then 'PENDING' else 'SKIPPED' end,"
            " case when n > 50 then 'expired' end, cast(:ts as timestamptz) + interval '1 hour',"
            " case when n > 50 then now() end, now() from generate_series(1, 20000) as n"
        ),
        {"ts": TS, "day": DAY},
    )
    connection.execute(text("analyze dispatch_recommendations"))
    parameters = {"run_id": put_run(connection), "now": TS, "limit": 10, "lease_seconds": 60}
    statement = text("explain (analyze, format json) " + texts("dispatch")[name])
    needed = {key: parameters[key] for key in statement._bindparams}
    plan = connection.execute(statement, needed).scalar_one()[0]["Plan"]
    scans = [node for node in nodes(plan) if node.get("Relation Name")]
    read = [scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0) for scan in scans]
    assert max(read) <= 50
