"""One run: propose exits, release, expire, claim, then decide and record under the claim."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from ops_pipeline.dispatcher.brokers import Broker, SimulatedBroker
from ops_pipeline.dispatcher.by_hand import read_settled_account
from ops_pipeline.dispatcher.exits import closes_without_bar, propose_exits
from ops_pipeline.dispatcher.judge import Terms, failure, settle
from ops_pipeline.dispatcher.outage import is_outage
from ops_pipeline.dispatcher.snapshot import read_account
from ops_pipeline.domain.dispatch import Status
from ops_pipeline.domain.gates import HALTED
from ops_pipeline.domain.session import Calendar
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.settings import Mode
from ops_pipeline.storage import dispatch, execution, knowledge
from ops_pipeline.storage.dispatch import EXPIRED_AT_ONCE, Closed, FenceLost, Owned

log = logging.getLogger(__name__)

# A decision that took longer is not kept: its process stood still, and the market did not.
DECISION_SECONDS = 15.0


@dataclass(frozen=True)
class Desk:
    """Where and under which settings the dispatcher works, and who executes."""

    engine: Engine
    calendar: Calendar
    config: DispatcherConfig
    mode: Mode
    code_version: str
    orchestrator_run_id: str = ""
    # Under which number these settings are kept, where they are.
    config_version: int | None = None
    broker: Broker = field(default_factory=SimulatedBroker)


@dataclass
class _Present:
    """The present of one run, read anew at each step: since the claim a laptop may have slept.

    A clock that is set back meanwhile is not followed: what was known at the claim is known.
    """

    mode: Mode
    given: datetime | None
    _last: datetime | None = None

    def read(self, connection: Connection) -> datetime:
        """What was given, or else the mode's clock."""
        if self.given:
            return self.given
        now = knowledge.read_now(connection, self.mode)
        self._last = max(self._last or now, now)
        return self._last

    def require_recent(self, connection: Connection, decided_at: datetime) -> None:
        """Refuse to commit what was decided at an instant that is past: the process stood still.

        Raises:
            FenceLost: it is; the rows are decided anew when their lease has run out.
        """
        seconds = (self.read(connection) - decided_at).total_seconds()
        if seconds > DECISION_SECONDS:
            raise FenceLost(f"the decision took {seconds:.0f} s")


@dataclass(frozen=True)
class RunReport:
    """What one run did."""

    run_id: UUID
    pulled: int = 0
    simulated: int = 0
    executed: int = 0
    skipped: int = 0
    failed: int = 0
    expired: int = 0
    released: int = 0
    exits: tuple[str, ...] = ()

    @property
    def is_idle(self) -> bool:
        """Whether there was nothing to claim, and nothing left to expire."""
        return self.pulled == 0 and self.expired < EXPIRED_AT_ONCE

    @property
    def counts(self) -> dict[str, int]:
        """What became of the rows, by the names of the runbook."""
        names = ("pulled", "simulated", "executed", "skipped", "failed", "expired", "released")
        return {f"{name}_count": getattr(self, name) for name in names}

    def with_closed(self, closed: Sequence[Closed]) -> "RunReport":
        """The same with so many more rows closed."""
        counts = Counter(each.status for each in closed)
        return replace(
            self,
            simulated=self.simulated + counts[Status.SIMULATED],
            executed=self.executed + counts[Status.EXECUTED],
            skipped=self.skipped + counts[Status.SKIPPED],
            failed=self.failed + counts[Status.FAILED],
        )


def run_until_idle(desk: Desk, now: datetime | None = None) -> list[RunReport]:
    """Run until nothing can be claimed; the last report is an idle one.

    Args:
        desk: where and under which settings.
        now: the present of all these runs; each run reads the clock itself where it is None.
    """
    reports = [run_once(desk, now)]
    while not reports[-1].is_idle:
        reports.append(run_once(desk, now))
    return reports


def run_once(desk: Desk, now: datetime | None = None) -> RunReport:
    """One run over at most `max_signals_per_run` recommendations."""
    report, present = RunReport(run_id=uuid4()), _Present(desk.mode, now)
    with desk.engine.begin() as connection:
        claimed_at = present.read(connection)
        report, claims = _take(connection, desk, report, claimed_at)
        if not claims:
            _close(connection, report, claimed_at)
            return report
    log.info("recommendations_claimed", extra={"data": {"count": len(claims)}})
    report = _decide(desk, report, claims, present)
    log.info("run_complete", extra={"data": {"run_id": str(report.run_id), **report.counts}})
    return report


def _take(
    connection: Connection, desk: Desk, report: RunReport, now: datetime
) -> tuple[RunReport, dict[int, int]]:
    account = read_settled_account(connection, now, desk.calendar, desk.broker)
    skew = knowledge.clock_skew_seconds(connection, desk.mode)
    is_skewed = not abs(skew) <= desk.config.max_clock_skew_seconds
    dispatch.insert_run(
        connection,
        report.run_id,
        now,
        desk.config,
        mode=desk.mode.value,
        code_version=desk.code_version,
        orchestrator_run_id=desk.orchestrator_run_id,
        config_version=desk.config_version,
        summary={
            "trading_state": account.trading_state,
            "quarantined": sorted(account.quarantined),
            **({"stream": account.stream_reason} if account.stream_reason else {}),
            **({"must_be_flat": True} if dispatch.must_be_flat(connection) else {}),
            **({"clock_skew_seconds": round(skew, 3)} if skew else {}),
        },
    )
    if is_skewed:
        log.error("clocks_disagree", extra={"data": {"database_ahead_seconds": round(skew, 3)}})
    dispatch.abandon_runs(connection, now)
    exits = propose_exits(connection, account, desk.config)
    released = dispatch.release_stuck(connection)
    if released:
        minutes = desk.config.processing_ttl_minutes
        data = {"count": released, "ttl_minutes": minutes}
        log.warning("stuck_processing_released", extra={"data": data})
    # After the release: what was given back too late is closed now, not in a minute.
    expired = dispatch.expire(connection, now)
    without_bar = (
        closes_without_bar(connection, now, desk.config) if desk.broker.fills_at_once else []
    )
    claims = dispatch.claim(
        connection,
        report.run_id,
        now,
        desk.config,
        passed_over=without_bar,
        # What may be opened is left to a dispatcher whose clock is right.
        closing_only=is_skewed,
    )
    taken = replace(
        report, pulled=len(claims), expired=expired, released=released, exits=tuple(exits)
    )
    return taken, claims


def _close(connection: Connection, report: RunReport, finished_at: datetime) -> None:
    dispatch.finish_run(
        connection,
        report.run_id,
        finished_at,
        released=report.released,
        expired=report.expired,
    )


def _decide(desk: Desk, report: RunReport, claims: dict[int, int], present: _Present) -> RunReport:
    """Decide all claimed rows in one transaction; row by row where the database refuses that."""
    try:
        with desk.engine.begin() as connection:
            closed = _work(connection, desk, report.run_id, claims, present)
            _close(connection, report, present.read(connection))
        return report.with_closed(closed)
    except Exception as error:
        if is_outage(error):
            raise
        log.exception("batch_refused", extra={"data": {"count": len(claims)}})
    for claim in _in_order(desk, claims):
        report = report.with_closed(_decide_alone(desk, report.run_id, dict([claim]), present))
    with desk.engine.begin() as connection:
        _close(connection, report, present.read(connection))
    return report


def _in_order(desk: Desk, claims: dict[int, int]) -> list[tuple[int, int]]:
    with desk.engine.begin() as connection:
        rows = [owned.recommendation for owned in dispatch.owned(connection, claims)]
    return [(row.id, row.claim_epoch) for row in rows]


def _decide_alone(
    desk: Desk, run_id: UUID, claim: dict[int, int], present: _Present
) -> list[Closed]:
    """Decide one row; what cannot be written of it is a FAILED row, and harms no other."""
    try:
        with desk.engine.begin() as connection:
            return _work(connection, desk, run_id, claim, present)
    except Exception as error:
        if is_outage(error):
            raise
        log.exception("row_refused", extra={"data": {"claim": claim}})
        cause = error.orig if isinstance(error, DBAPIError) else error
        failed = failure(f"error: {type(cause).__name__}")
    with desk.engine.begin() as connection:
        closed = [
            Closed(owned.recommendation, Status.FAILED, failed, None)
            for owned in dispatch.owned(connection, claim)
        ]
        dispatch.finish(connection, closed, present.read(connection))
        return closed


def _work(
    connection: Connection, desk: Desk, run_id: UUID, claims: dict[int, int], present: _Present
) -> list[Closed]:
    dispatch.lock_account(connection)
    now = present.read(connection)  # Not before the account is ours.
    rows = dispatch.owned(connection, claims)
    if len(rows) < len(claims):
        log.warning("fence_lost", extra={"data": {"rows": len(claims) - len(rows)}})
    _halt_at_duplicates(connection, rows)
    tickers = [owned.recommendation.ticker for owned in rows]
    account = replace(
        read_account(connection, now, desk.calendar, tickers, desk.broker),
        clock_skew_seconds=knowledge.clock_skew_seconds(connection, desk.mode),
    )
    terms = Terms(run_id, desk.config, desk.broker)
    verdicts = [settle(terms, owned, account) for owned in rows]
    closed = [verdict.closed for verdict in verdicts]
    made = [verdict.execution for verdict in verdicts if verdict.execution]
    dispatch.finish(connection, closed, now)
    execution.insert_executions(connection, made)
    until = account.session.closes_at if account.session else now
    desk.broker.place(connection, made, now, until)
    present.require_recent(connection, now)
    return closed


def _halt_at_duplicates(connection: Connection, rows: Sequence[Owned]) -> None:
    """An open row that the ledger holds already is about to be executed twice: halt, here and now.

    What follows in this transaction finds the state HALTED, and refuses.
    """
    doubles = dispatch.executed_already(connection, [owned.recommendation.id for owned in rows])
    if doubles:
        reason = f"recommendation {doubles[0]} is open, and has an execution"
        log.critical("trading_halted", extra={"data": {"reason": reason}})
        dispatch.set_trading_state(connection, HALTED, "dispatcher", reason)
