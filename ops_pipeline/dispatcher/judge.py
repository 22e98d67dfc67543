"""Decides one recommendation on what an account knows; nothing here reads or writes a row."""

import logging
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from ops_pipeline.dispatcher.brokers import Broker
from ops_pipeline.dispatcher.snapshot import Account, size, snapshot
from ops_pipeline.domain import gates
from ops_pipeline.domain.dispatch import Decision, Status, decide
from ops_pipeline.domain.execution import Order
from ops_pipeline.domain.gates import OPEN, Snapshot
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.domain.values import Bar, Fill
from ops_pipeline.storage.dispatch import Closed, Owned
from ops_pipeline.storage.execution import Execution

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Terms:
    """Under which settings a run decides, and who executes for it."""

    run_id: UUID
    config: DispatcherConfig
    broker: Broker


@dataclass(frozen=True)
class Verdict:
    """What becomes of one claimed recommendation, and its execution where there is one."""

    closed: Closed
    execution: Execution | None = None


def settle(terms: Terms, owned: Owned, account: Account) -> Verdict:
    """What becomes of one claimed recommendation; the account's book grows with what it fills."""
    decision, known, order = _judge(terms, owned, account)
    document = gates.as_document(known) if known else None
    if order is None or not decision.passed:
        status = Status.SKIPPED if decision.gates else Status.FAILED
        return Verdict(Closed(owned.recommendation, status, decision, document))
    made = _execution(terms, owned, account, order)
    account.book.add(fill_of(terms, made))
    return Verdict(Closed(owned.recommendation, terms.broker.status, decision, document), made)


def _judge(
    terms: Terms, owned: Owned, account: Account
) -> tuple[Decision, Snapshot | None, Order | None]:
    if owned.recommendation.claim_epoch > terms.config.max_attempts:
        return failure("attempts: Exhausted"), None, None
    try:
        order = size(owned, account, terms.config, fills_at_once=terms.broker.fills_at_once)
        known = snapshot(owned, account, order, terms.config)
        decision = decide(gates.evaluate(known, terms.config))
    except Exception as error:
        log.exception("processing_error", extra={"data": {"id": owned.recommendation.id}})
        return failure(f"error: {type(error).__name__}"), None, None
    if decision.passed and order is None:
        # The process stood still since the claim, and the bar grew old.
        decision = replace(decision, passed=False, failure_reason="simulation: No new bar")
    return decision, known, order


def failure(reason: str) -> Decision:
    """A decision that no gate took."""
    return Decision(passed=False, failure_reason=reason, gates={})


def _execution(
    terms: Terms,
    owned: Owned,
    account: Account,
    order: Order,
) -> Execution:
    is_opening = owned.recommendation.intent == OPEN and order.stop_price is not None
    return Execution(
        recommendation=owned.recommendation,
        run_id=terms.run_id,
        order=order,
        execution_mode=terms.broker.execution_mode,
        at=account.now,
        session_date=account.session.day if account.session else owned.session_date,
        slippage_bps=terms.config.slippage_bps,
        max_hold_minutes=terms.config.max_hold_minutes if is_opening else None,
        simulation=_simulation(terms.config, owned, account, order),
    )


def fill_of(terms: Terms, made: Execution) -> Fill:
    """An execution as the book counts it."""
    order, filled = made.order, terms.broker.fills_at_once
    return Fill(
        ticker=made.recommendation.ticker,
        at=made.at,
        session_date=made.session_date,
        quantity=order.quantity if filled else 0,
        price=order.price,
        intent=made.recommendation.intent,
        stop_price=order.stop_price,
        target_price=order.target_price,
        max_hold_minutes=made.max_hold_minutes,
        working=0 if filled else order.quantity,
    )


def _simulation(
    config: DispatcherConfig, owned: Owned, account: Account, order: Order
) -> dict[str, Any]:
    bar = account.bars.get(owned.recommendation.ticker)
    return {
        "bar_used": bar_used(bar) if bar else None,
        "fill_model": "close+slip",
        "slippage_bps": config.slippage_bps,
        "sizing_rationale": {
            "equity_usd": config.equity_usd,
            "risk_per_trade": config.limits.risk_per_trade,
            "exposure_before_usd": account.book.exposure_usd,
            "quantity": order.quantity,
        },
        "stop_rationale": {"stop_price": order.stop_price, "target_price": order.target_price},
        "simulated_at": account.now.isoformat(),
    }


def bar_used(bar: Bar) -> dict[str, Any]:
    """A bar as it is kept beside what was filled on it."""
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
