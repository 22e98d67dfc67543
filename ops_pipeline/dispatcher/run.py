"""One run: propose exits, expire, release, claim, then decide and record under the claim."""

import logging
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine

from ops_pipeline.dispatcher.exits import propose_exits
from ops_pipeline.dispatcher.snapshot import Account, read_account, size, snapshot
from ops_pipeline.domain import gates
from ops_pipeline.domain.dispatch import Decision, Status, decide
from ops_pipeline.domain.execution import Order
from ops_pipeline.domain.gates import OPEN
from ops_pipeline.domain.session import MINUTE, Calendar
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.domain.values import Bar, Fill
from ops_pipeline.settings import Mode
from ops_pipeline.storage import dispatch, execution, knowledge
from ops_pipeline.storage.dispatch import Owned
from ops_pipeline.storage.execution import Execution

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Desk:
    """Where and under which settings the dispatcher works."""

    engine: Engine
    calendar: Calendar
    config: DispatcherConfig
    mode: Mode
    code_version: str
    orchestrator_run_id: str = ""


@dataclass(frozen=True)
class RunReport:
    """What one run did."""

    run_id: UUID
    pulled: int = 0
    simulated: int = 0
    skipped: int = 0
    failed: int = 0
    expired: int = 0
    released: int = 0
    exits: tuple[str, ...] = ()

    @property
    def is_idle(self) -> bool:
        """Whether there was nothing to claim."""
        return self.pulled == 0


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
    report = RunReport(run_id=uuid4())
    with desk.engine.begin() as connection:
        present = now or knowledge.read_now(connection, desk.mode)
        report, claims = _take(connection, desk, report, present)
        if not claims:
            _close(connection, report, present)
            return report
    log.info("recommendations_claimed", extra={"data": {"count": len(claims)}})
    with desk.engine.begin() as connection:
        report = _work(connection, desk, report, claims, present)
        _close(connection, report, now or knowledge.read_now(connection, desk.mode))
    return report


def _take(
    connection: Connection, desk: Desk, report: RunReport, now: datetime
) -> tuple[RunReport, dict[int, int]]:
    dispatch.insert_run(
        connection,
        report.run_id,
        now,
        desk.config,
        mode=desk.mode.value,
        code_version=desk.code_version,
        orchestrator_run_id=desk.orchestrator_run_id,
    )
    dispatch.abandon_runs(connection, now)
    exits = propose_exits(connection, read_account(connection, now, desk.calendar), desk.config)
    expired = dispatch.expire(connection, now)
    released = dispatch.release_stuck(connection)
    if released:
        log.warning("stuck_processing_released", extra={"data": {"count": released}})
    claims = dispatch.claim(connection, report.run_id, now, desk.config)
    taken = replace(
        report, pulled=len(claims), expired=expired, released=released, exits=tuple(exits)
    )
    return taken, claims


def _close(connection: Connection, report: RunReport, finished_at: datetime) -> None:
    dispatch.finish_run(
        connection,
        report.run_id,
        finished_at,
        pulled=report.pulled,
        released=report.released,
        expired=report.expired,
    )


def _work(
    connection: Connection,
    desk: Desk,
    report: RunReport,
    claims: dict[int, int],
    now: datetime,
) -> RunReport:
    dispatch.lock_account(connection)
    rows = dispatch.owned(connection, claims)
    if len(rows) < len(claims):
        log.warning("fence_lost", extra={"data": {"rows": len(claims) - len(rows)}})
    tickers = [owned.recommendation.ticker for owned in rows]
    account = read_account(connection, now, desk.calendar, tickers)
    counts = {Status.SIMULATED: 0, Status.SKIPPED: 0, Status.FAILED: 0}
    for owned in rows:
        status, account = _settle(connection, desk, report.run_id, owned, account)
        counts[status] += 1
    return replace(
        report,
        simulated=counts[Status.SIMULATED],
        skipped=counts[Status.SKIPPED],
        failed=counts[Status.FAILED],
    )


def _settle(
    connection: Connection, desk: Desk, run_id: UUID, owned: Owned, account: Account
) -> tuple[Status, Account]:
    decision, order = _judge(desk, owned, account)
    recommendation = owned.recommendation
    if order is None or not decision.passed:
        failed = decision.failure_reason is not None and not decision.gates
        status = Status.FAILED if failed else Status.SKIPPED
        dispatch.finish(connection, recommendation, status, decision, account.now)
        return status, account
    dispatch.finish(connection, recommendation, Status.SIMULATED, decision, account.now)
    fill = _record(connection, desk, run_id, owned, account, order, decision)
    return Status.SIMULATED, account.with_fill(fill)


def _judge(desk: Desk, owned: Owned, account: Account) -> tuple[Decision, Order | None]:
    if owned.recommendation.claim_epoch > desk.config.max_attempts:
        return Decision(passed=False, failure_reason="attempts: Exhausted", gates={}), None
    try:
        order = size(owned, account, desk.config)
        known = snapshot(owned, account, order, desk.config)
        return decide(gates.evaluate(known, desk.config)), order
    except Exception as error:
        log.exception("processing_error", extra={"data": {"id": owned.recommendation.id}})
        reason = f"error: {type(error).__name__}"
        return Decision(passed=False, failure_reason=reason, gates={}), None


def _record(
    connection: Connection,
    desk: Desk,
    run_id: UUID,
    owned: Owned,
    account: Account,
    order: Order,
    decision: Decision,
) -> Fill:
    recommendation = owned.recommendation
    is_opening = recommendation.intent == OPEN and order.stop_price is not None
    day = account.session.day if account.session else owned.session_date
    max_hold = desk.config.max_hold_minutes if is_opening else None
    filled = Execution(
        recommendation=recommendation,
        run_id=run_id,
        order=order,
        at=account.now,
        session_date=day,
        slippage_bps=desk.config.slippage_bps,
        max_hold_minutes=max_hold,
        risk={"gates": decision.gates, "all_gates_passed": True},
        simulation=_simulation(desk, owned, account, order),
    )
    execution.insert_execution(connection, filled)
    return Fill(
        ticker=recommendation.ticker,
        at=account.now,
        session_date=day,
        quantity=order.quantity,
        price=order.price,
        intent=recommendation.intent,
        stop_price=order.stop_price,
        target_price=order.target_price,
        max_hold_minutes=max_hold,
    )


def _simulation(desk: Desk, owned: Owned, account: Account, order: Order) -> dict[str, Any]:
    bar = account.bars[owned.recommendation.ticker]
    return {
        "bar_used": _bar_used(bar),
        "features_used": dict(owned.features or {}),
        "fill_model": "close+slip",
        "slippage_bps": desk.config.slippage_bps,
        "sizing_rationale": {
            "equity_usd": desk.config.equity_usd,
            "risk_per_trade": desk.config.limits.risk_per_trade,
            "exposure_before_usd": account.book.exposure_usd,
            "quantity": order.quantity,
        },
        "stop_rationale": {"stop_price": order.stop_price, "target_price": order.target_price},
        "simulated_at": account.now.isoformat(),
    }


def _bar_used(bar: Bar) -> dict[str, Any]:
    return {
        "ticker": bar.ticker,
        "timestamp": (bar.minute + MINUTE).isoformat(),
        "minute": bar.minute.isoformat(),
        "open": bar.open,
        "high": bar.high,
        "low": bar.low,
        "close": bar.close,
        "volume": bar.volume,
    }
