"""Whatever happens to its dispatchers, and in whatever order, the queue keeps its promises."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.exc import OperationalError

from ops_pipeline.dispatcher import run as running
from ops_pipeline.dispatcher.run import Desk, RunReport, run_once, run_until_idle
from ops_pipeline.domain.execution import Book
from ops_pipeline.domain.orders import OrderState, OrderTicket
from ops_pipeline.domain.session import MINUTE, floor_minute
from ops_pipeline.storage import dispatch, execution
from ops_pipeline_tests.builders import DAY, NOON, a_bar
from ops_pipeline_tests.dispatcher.paper import (
    ACCEPT,
    BREAK,
    FILL,
    LOSE_ANSWER,
    LOSE_REQUEST,
    PRICE,
    REFUSE,
    FakeBroker,
    Paper,
)
from ops_pipeline_tests.dispatcher.world import TS, World, empty, features
from ops_pipeline_tests.storage.rows import end_lease

TICKERS = ("AAPL", "MSFT", "NVDA", "TSLA")
PLACES, TRADES, EXPOSURE = 2, 2, 0.25
FRESH, FUTURE, STALE, OLD_FEATURES, UNREADABLE = (
    "fresh",
    "of the future",
    "stale",
    "with old features",
    "unreadable",
)
TRADABLE = {FRESH, FUTURE}
LONG_AGO = timedelta(seconds=301)

CLOSED = (
    "select id, md5(row::text) from dispatch_recommendations as row"
    " where status not in ('PENDING', 'PROCESSING')"
)
# An execution without the row that it closed under the same claim, or a row without its execution.
UNPAIRED = (
    "select row.id, row.status, row.claim_epoch, made.claim_epoch, made.dispatcher_run_id"
    " from dispatch_recommendations as row"
    " full join dispatch_executions as made on made.recommendation_id = row.id"
    " where (made.recommendation_id is not null) <> (row.status in ('SIMULATED', 'EXECUTED'))"
    " or made.claim_epoch <> row.claim_epoch or made.dispatcher_run_id <> row.dispatcher_run_id"
    " or made.simulated_ts >= row.expires_at or made.simulated_ts < row.ts"
)
# Each claim that has ended has one row, in order, and the last one tells how the row was closed.
ATTEMPTS = (
    "select row.id, row.status, row.claim_epoch, array_agg(attempt.claim_epoch)"
    " from dispatch_recommendations as row"
    " left join dispatch_attempts as attempt on attempt.recommendation_id = row.id"
    " group by row.id"
    " having count(attempt.claim_epoch) <> row.claim_epoch - (row.status = 'PROCESSING')::integer"
    " or coalesce(max(attempt.claim_epoch), 0) <> count(attempt.claim_epoch)"
    " or (row.status not in ('PENDING', 'PROCESSING') and row.failure_reason is distinct from"
    " 'expired' and (array_agg(attempt.outcome order by attempt.claim_epoch desc))[1]"
    " is distinct from row.status)"
    " or bool_or(attempt.claim_epoch < row.claim_epoch and attempt.outcome <> 'RELEASED')"
)
# A run counts what its claims have become.
COUNTS = (
    "select run.run_id from dispatcher_runs as run"
    " left join dispatch_attempts as attempt on attempt.dispatcher_run_id = run.run_id"
    " where run.outcome = 'FINISHED' group by run.run_id having"
    " run.simulated_count <> count(*) filter (where attempt.outcome in ('SIMULATED', 'EXECUTED'))"
    " or run.executed_count <> count(*) filter (where attempt.outcome = 'EXECUTED')"
    " or run.skipped_count <> count(*) filter (where attempt.outcome = 'SKIPPED')"
    " or run.failed_count <> count(*) filter (where attempt.outcome = 'FAILED')"
)
TRADED = (
    "select ticker, count(*) from ledger_fills where intent = 'open'"
    " group by ticker, session_date having count(*) > :trades"
)
HELD = (
    "select ticker from ledger_fills group by ticker"
    " having sum(case side when 'buy' then qty else -qty end) <> 0"
    " or sum(case intent when 'open' then working_qty else 0 end) > 0"
)
BATCHES = st.sampled_from([1, 2, 10])
STEPS = (FILL, FILL, ACCEPT, ACCEPT, REFUSE, LOSE_ANSWER, LOSE_REQUEST, BREAK)
MADE = "select intent, count(*) from dispatch_executions group by intent"


@dataclass(frozen=True)
class Row:
    """A recommendation, and what is to be thought of it."""

    kind: str
    ticker: str
    intent: str
    confidence: float


def a_row() -> st.SearchStrategy[Row]:
    """Mostly what may trade."""
    return st.builds(
        Row,
        kind=st.sampled_from([*[FRESH] * 6, FUTURE, STALE, OLD_FEATURES, UNREADABLE]),
        ticker=st.sampled_from(TICKERS),
        intent=st.sampled_from(["open", "open", "open", "close"]),
        confidence=st.sampled_from([0.6, 0.8, 1.0]),
    )


@dataclass(frozen=True)
class Frozen:
    """A run that has claimed rows, and stands still."""

    report: RunReport
    claims: dict[int, int]
    present: datetime


@contextmanager
def cut(world: World, number: int, *, is_after: bool) -> Iterator[None]:
    """The connection breaks at the n-th commit, before the server hears of it or after."""
    dialect = world.engine.dialect
    commit, left = dialect.do_commit, [number]

    def break_off(dbapi_connection: Any) -> None:
        left[0] -= 1
        if left[0]:
            commit(dbapi_connection)
            return
        backend = dbapi_connection.dbapi_connection.info.backend_pid
        if is_after:
            commit(dbapi_connection)
        assert world.ask("select pg_terminate_backend(:backend, 5000)", backend=backend) == [
            (True,)
        ]
        if is_after:
            raise psycopg.OperationalError("the answer to the commit was lost")
        commit(dbapi_connection)

    dialect.do_commit = break_off  # type: ignore[method-assign]
    try:
        yield
    finally:
        dialect.do_commit = commit  # type: ignore[method-assign]


def at_once(what: Callable[[], object], times: int = 2) -> None:
    """Do the same thing in several threads."""
    with ThreadPoolExecutor(times) as pool:
        for done in [pool.submit(what) for _ in range(times)]:
            done.result()


class Dispatchers(RuleBasedStateMachine):
    """Dispatchers that simulate."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        empty(self.world.engine)
        self.world.configure(
            max_open_positions=PLACES,
            max_trades_per_ticker_per_day=TRADES,
            max_notional_exposure=EXPOSURE,
            ticker_cooldown_minutes=1,
        )
        self.now, self.state = TS, "ACTIVE"
        self.kinds: dict[int, str] = {}
        self.closed: dict[int, str] = {}
        self.frozen: list[Frozen] = []
        self.numbers = iter(range(1, 10_000))

    @property
    def desk(self) -> Desk:
        return self.world.desk

    def small(self, batch: int) -> Desk:
        config = self.world.config.model_copy(update={"max_signals_per_run": batch})
        return replace(self.desk, config=config)

    # --- the market and the queue

    @initialize(rows=st.lists(a_row(), min_size=2, max_size=6))
    def open_market(self, rows: list[Row]) -> None:
        self.tell_prices(200.0)
        self.insert(rows)

    def tell_prices(self, close: float) -> None:
        minute = floor_minute(self.now) - MINUTE
        price = {"open": close, "high": close, "low": close, "close": close}
        if self.world.ask("select 1 from bars_1m where minute = :minute", minute=minute):
            return
        self.world.trade(*[a_bar(ticker=each, minute=minute, **price) for each in TICKERS])
        for ticker in TICKERS:
            self.world.feature(ticker, minute)

    @rule(
        seconds=st.sampled_from([1, 40, 61, 61, 150, 301]),
        close=st.sampled_from([200.0, 200.0, 198.0, 203.0]),
        rows=st.lists(a_row(), max_size=4),
    )
    def go_on(self, seconds: int, close: float, rows: list[Row]) -> None:
        self.now += timedelta(seconds=seconds)
        self.tell_prices(close)
        self.insert(rows)

    def insert(self, rows: list[Row]) -> None:
        for row in rows:
            self.kinds[self.recommend(row)] = row.kind

    def recommend(self, row: Row) -> int:
        ages = {FUTURE: timedelta(seconds=-61), STALE: LONG_AGO}
        ts = self.now - ages.get(row.kind, timedelta(0))
        made_on: Any = features(ts=(floor_minute(ts) - MINUTE).isoformat())
        if row.kind == OLD_FEATURES:
            made_on["ts"] = (ts - 2 * LONG_AGO).isoformat()
        return self.world.recommend(
            ticker=row.ticker,
            intent=row.intent,
            action="BUY" if row.intent == "open" else "SELL",
            # Its name, and nothing that is decided by.
            minute=NOON - timedelta(days=1) + next(self.numbers) * MINUTE,
            ts=ts,
            confidence=row.confidence,
            features_snapshot="unreadable" if row.kind == UNREADABLE else made_on,
        )

    # --- dispatchers at work

    def work(self, what: Callable[[], object]) -> None:
        """Nothing is opened unless trading is active; nothing is executed while it is halted."""
        before = dict(self.world.ask(MADE))
        what()
        after = dict(self.world.ask(MADE))
        if self.state != "ACTIVE":
            assert after.get("open") == before.get("open")
        if self.state == "HALTED":
            assert after == before

    @rule(how=st.sampled_from(["once", "until idle", "two at once"]), batch=BATCHES)
    def run(self, how: str, batch: int) -> None:
        desk = self.small(batch)
        if how == "once":
            self.work(lambda: run_once(desk, self.now))
        elif how == "until idle":
            self.work(lambda: run_until_idle(desk, self.now))
        else:
            self.work(lambda: at_once(lambda: run_once(desk, self.now)))

    @rule(number=st.integers(1, 2), is_after=st.booleans(), batch=BATCHES)
    def lose_connection(self, number: int, batch: int, *, is_after: bool) -> None:
        self.work(lambda: self.cut_off(self.small(batch), number, is_after=is_after))

    def cut_off(self, desk: Desk, number: int, *, is_after: bool) -> None:
        """Run, and lose the connection; no row is to blame for that."""
        with cut(self.world, number, is_after=is_after):
            try:
                report = run_once(desk, self.now)
            except OperationalError:
                report = None
        # An idle run has one commit only.
        assert report is None or (number == 2 and report.is_idle)
        blamed = self.world.ask(
            "select id from dispatch_recommendations where failure_reason ~ 'Operational|Shutdown'"
        )
        assert blamed == []

    @rule(batch=st.sampled_from([1, 10]), rows=st.lists(a_row(), min_size=1, max_size=3))
    def claim_and_freeze(self, batch: int, rows: list[Row]) -> None:
        self.insert(rows)
        report = RunReport(uuid4())
        with self.world.engine.begin() as connection:
            report, claims = running._take(connection, self.small(batch), report, self.now)
        if claims:
            self.frozen.append(Frozen(report, claims, self.now))

    @precondition(lambda self: self.frozen)
    @rule(number=st.integers(0, 9), after=st.sampled_from(["nothing", "its leases", "a run"]))
    def wake(self, number: int, after: str) -> None:
        if after != "nothing":
            self.end_leases()
        if after == "a run":
            self.work(lambda: run_once(self.small(1), self.now))
        woken = self.frozen.pop(number % len(self.frozen))
        lost = self.lost(woken)
        before = self.rows(lost)

        def go() -> None:
            present = running._Present(self.desk.mode, self.now)
            report = running._decide(self.desk, woken.report, woken.claims, present)
            assert report.simulated + report.executed + report.skipped + report.failed == len(
                woken.claims
            ) - len(lost)

        self.work(go)
        assert self.rows(lost) == before

    def lost(self, woken: Frozen) -> list[int]:
        """Which of the rows that a run has claimed are its own no more."""
        found = self.world.ask("select id, claim_epoch, status from dispatch_recommendations")
        held = {row: epoch for row, epoch, status in found if status == "PROCESSING"}
        return [row for row, epoch in woken.claims.items() if held.get(row) != epoch]

    def rows(self, ids: list[int]) -> list[tuple[Any, ...]]:
        return self.world.ask(
            "select row::text, made::text from dispatch_recommendations as row"
            " left join dispatch_executions as made on made.recommendation_id = row.id"
            " where row.id = any(:ids) order by row.id",
            ids=ids,
        )

    @rule()
    def end_leases(self) -> None:
        with self.world.engine.begin() as connection:
            end_lease(connection)

    @rule(state=st.sampled_from(["ACTIVE", "ACTIVE", "ACTIVE", "REDUCING", "HALTED"]))
    def set_state(self, state: str) -> None:
        with self.world.engine.begin() as connection:
            dispatch.set_trading_state(connection, state, "machine", "")
        self.state = state

    # --- what holds after each step

    @invariant()
    def what_is_closed_stays_as_it_is(self) -> None:
        found = dict(self.world.ask(CLOSED))
        assert {row: found.get(row) for row in self.closed} == self.closed
        self.closed = found

    @invariant()
    def each_execution_is_of_the_claim_that_closed_its_row(self) -> None:
        assert self.world.ask(UNPAIRED) == []

    @invariant()
    def each_claim_that_ended_is_kept(self) -> None:
        assert self.world.ask(ATTEMPTS) == []
        assert self.world.ask(COUNTS) == []

    @invariant()
    def limits_hold(self) -> None:
        assert self.world.ask(TRADED, trades=TRADES) == []
        assert len(self.world.ask(HELD)) <= PLACES
        with self.world.engine.connect() as connection:
            book = Book(execution.fills_until(connection, DAY))
        # What a broker pays may be more than was expected.
        most = EXPOSURE * self.world.config.equity_usd * (PRICE / 200.0) * 1.02
        assert book.exposure_usd <= most

    @invariant()
    def only_what_may_trade_is_executed(self) -> None:
        executed = self.world.ask("select recommendation_id from dispatch_executions")
        assert {self.kinds.get(row, FRESH) for (row,) in executed} <= TRADABLE

    def teardown(self) -> None:
        """When all is well again, nothing is left over: each row is decided, or its time is yet."""
        try:
            self.set_state("ACTIVE")
            self.end_leases()
            run_until_idle(self.desk, self.now)
            waiting = self.world.ask(
                "select id from dispatch_recommendations"
                " where status in ('PENDING', 'PROCESSING') and ts <= :now",
                now=self.now,
            )
            assert waiting == []
            self.what_is_closed_stays_as_it_is()
            self.each_execution_is_of_the_claim_that_closed_its_row()
            self.each_claim_that_ended_is_kept()
            self.limits_hold()
        finally:
            empty(self.world.engine)


class PaperDispatchers(Dispatchers):
    """Dispatchers that trade with a broker; requests and answers are lost, parts are filled."""

    def __init__(self) -> None:
        super().__init__()
        self.paper = Paper(self.world, FakeBroker(on_submit=self.look))
        self.wrong: list[object] = []

    @property
    def desk(self) -> Desk:
        return self.paper.desk

    def look(self, ticket: OrderTicket) -> None:
        """At each request: it is on disk, in time, and wanted."""
        found = self.world.ask(
            "select state, intent, expires_at > :now, ticker, side, qty from order_intents"
            " where client_order_id = :order_id",
            now=self.now,
            order_id=ticket.client_order_id,
        )
        intent = found[0][1]
        known = ("SENT", intent, True, ticket.ticker, ticket.side, ticket.quantity)
        wanted = {"ACTIVE": ("open", "close"), "REDUCING": ("close",), "HALTED": ()}[self.state]
        if found != [known] or intent not in wanted:
            self.wrong.append((found, ticket, self.state))

    @rule(
        seconds=st.sampled_from([0, 6, 21, 31, 301]),
        steps=st.lists(st.sampled_from(STEPS), max_size=4),
        is_double=st.booleans(),
    )
    def follow(self, seconds: int, steps: list[str], *, is_double: bool) -> None:
        """Follow what is out; some break off, some do it at the same time as another one."""
        self.paper.pass_time(seconds)
        self.paper.broker.script = steps
        before = self.paper.broker.post_counts
        at_once(self.follow_or_break_off, 1 + is_double)
        again = self.paper.broker.post_counts - before
        assert set(again.values()) <= {1}

    def follow_or_break_off(self) -> None:
        with suppress(ZeroDivisionError):
            self.paper.follow(self.now)

    def working(self) -> list[str]:
        return [
            order_id
            for order_id, report in sorted(self.paper.broker.orders.items())
            if not report.state.is_final
        ]

    @precondition(lambda self: self.working())
    @rule(part=st.sampled_from([0.1, 0.5, 1.0]), is_last=st.booleans(), data=st.data())
    def become(self, part: float, is_last: bool, data: st.DataObject) -> None:  # noqa: FBT001
        """A part of an order is filled; or no more of it."""
        order_id = data.draw(st.sampled_from(self.working()), "which")
        report = self.paper.broker.orders[order_id]
        filled = max(report.filled_quantity, int(part * report.ticket.quantity))
        if filled:
            report = self.paper.broker.fill(order_id, filled)
        if is_last and not report.state.is_final:
            self.paper.broker.change(order_id, state=OrderState.CANCELED)

    @invariant()
    def requests_are_in_time_and_wanted(self) -> None:
        assert self.wrong == []

    @invariant()
    def each_order_at_the_broker_is_one_of_ours(self) -> None:
        found = dict(self.world.ask("select client_order_id, tries from order_intents"))
        assert self.paper.broker.post_counts == {
            order_id: tries for order_id, tries in found.items() if tries
        }

    def teardown(self) -> None:
        """In the end the ledger tells of each order what the broker tells of it."""
        try:
            self.settle()
        finally:
            super().teardown()

    def settle(self) -> None:
        broker = self.paper.broker
        broker.script = []
        self.now += 2 * LONG_AGO
        for order_id in self.working():
            broker.fill(order_id)
        for _ in range(4):
            self.paper.pass_time(31)
            self.paper.follow(self.now)
        told = self.world.ask(
            "select client_order_id, state, filled_qty, filled_price from order_intents"
        )
        had = {
            order_id: (report.state.value, report.filled_quantity, report.filled_price)
            for order_id, report in broker.orders.items()
        }
        assert {row[0]: row[1:] for row in told if row[0] in had} == had
        assert {row[1] for row in told if row[0] not in had} <= {"ABSENT", "REJECTED"}


def explore(machine: type[Dispatchers], world: World, examples: int) -> None:
    own = type(machine.__name__, (machine,), {"world": world})
    run_state_machine_as_test(
        own,
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            # A failure is found, and told; to make it small takes minutes on a database.
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_whatever_happens_each_row_is_decided_once_and_limits_hold(world: World) -> None:
    explore(Dispatchers, world, 25)


def test_whatever_the_broker_does_the_ledger_tells_what_it_has(world: World) -> None:
    explore(PaperDispatchers, world, 25)
