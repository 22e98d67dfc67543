"""The thirteen risk gates, in order; each is a total function and refuses what it cannot know."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from typing import Any

from ops_pipeline.domain.session import MINUTE, Session
from ops_pipeline.domain.thresholds import DispatcherConfig

ACTIVE, REDUCING, HALTED = "ACTIVE", "REDUCING", "HALTED"
OPEN, CLOSE = "open", "close"
# A change of the ledger that no order made.
ADJUST = "adjust"
NOT_ASKED = "Not asked of closing orders"


@dataclass(frozen=True)
class Snapshot:
    """All that the gates may know, as it was read for one recommendation; None means unknown."""

    now: datetime | None
    ts: datetime | None
    ticker: str
    action: str | None
    instrument_type: str | None
    intent: str
    confidence: float | None
    trading_state: str | None
    session: Session | None
    is_quarantined: bool | None
    bar_minute: datetime | None
    feature_bar_at: datetime | None
    session_pnl_usd: float | None
    open_tickers: frozenset[str] | None
    exposure_usd: float | None
    order_quantity: int | None
    order_notional_usd: float | None
    held_quantity: int | None
    ticker_executions: int | None
    minutes_since_execution: float | None
    has_executed: bool | None
    clock_skew_seconds: float | None = 0.0


@dataclass(frozen=True)
class GateResult:
    """One gate's answer; code and reason are stable text, the numbers stand apart."""

    gate: str
    passed: bool
    code: str
    reason: str
    observed: Any = None
    threshold: Any = None

    def document(self) -> dict[str, Any]:
        """The answer as it is stored, under the gate's name."""
        return {
            "passed": self.passed,
            "code": self.code,
            "reason": self.reason,
            "observed": self.observed,
            "threshold": self.threshold,
        }


def as_document(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as JSON: what is no finite number, time, text or truth is told as its type."""
    return {field.name: _plain(getattr(snapshot, field.name)) for field in fields(snapshot)}


def _plain(value: object) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Session):
        return {name: _plain(getattr(value, name)) for name in ("day", "opens_at", "closes_at")}
    if isinstance(value, frozenset):
        return sorted(str(each) for each in value)
    return f"a {type(value).__name__}"


Verdict = tuple[bool, str, str, Any, Any]
Rule = Callable[[Snapshot, DispatcherConfig], Verdict]


@dataclass(frozen=True)
class Gate:
    """A named rule, whether closing orders have to pass it, and the settings that it reads."""

    name: str
    rule: Rule
    for_closing: bool
    reads: tuple[str, ...] = ()


def evaluate(snapshot: Snapshot, config: DispatcherConfig) -> list[GateResult]:
    """Every gate's answer, in order, without short circuit."""
    return [_ask(gate, snapshot, config) for gate in GATES]


def _ask(gate: Gate, snapshot: Snapshot, config: DispatcherConfig) -> GateResult:
    try:
        if snapshot.intent == CLOSE and not gate.for_closing:
            return GateResult(
                gate=gate.name, passed=True, code=f"{gate.name}.not_asked", reason=NOT_ASKED
            )
        passed, code, reason, observed, threshold = gate.rule(snapshot, config)
    except Exception as error:  # noqa: BLE001 - what a gate cannot judge is refused, never passed
        return GateResult(
            gate.name,
            passed=False,
            code=f"{gate.name}.unknown",
            reason=f"Input unusable ({type(error).__name__})",
        )
    return GateResult(gate.name, passed, f"{gate.name}.{code}", reason, observed, threshold)


def number(value: object) -> float | None:
    """A finite number, or None for anything else: NaN, infinity, text, booleans."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _instant(value: object) -> datetime | None:
    is_aware = isinstance(value, datetime) and value.tzinfo is not None
    return value if is_aware and isinstance(value, datetime) else None


def _unknown(reason: str, threshold: Any = None) -> Verdict:
    return False, "unknown", reason, None, threshold


def _trading_state(snapshot: Snapshot, config: DispatcherConfig) -> Verdict:
    state = snapshot.trading_state
    if state == ACTIVE:
        return True, "ok", "Trading is active", state, ACTIVE
    if state == REDUCING:
        passed = snapshot.intent == CLOSE
        return passed, "reducing", "Only closing orders while reducing", state, ACTIVE
    if state == HALTED:
        return False, "halted", "Trading is halted", state, ACTIVE
    return _unknown("Trading state unknown", ACTIVE)


def _daily_loss_limit(snapshot: Snapshot, config: DispatcherConfig) -> Verdict:
    pnl, limit = number(snapshot.session_pnl_usd), -config.max_daily_loss_usd
    if pnl is None:
        return _unknown("Profit and loss of the session unknown", limit)
    if pnl > limit:
        return True, "ok", "Session loss within the limit", pnl, limit
    return False, "reached", "Daily loss limit reached", pnl, limit


def _trading_hours(snapshot: Snapshot, config: DispatcherConfig) -> Verdict:
    now, session = _instant(snapshot.now), snapshot.session
    if now is None:
        return _unknown("Time unknown")
    if not isinstance(session, Session) or not session.is_open(now):
        return False, "closed", "Market closed", now.isoformat(), None
    if refusal := _clock_refusal(snapshot, config):
        return refusal
    opening, closing = _blocks(snapshot.intent, config)
    window = f"{session.opens_at + opening:%H:%M}-{session.closes_at - closing:%H:%M} UTC"
    if now < session.opens_at + opening:
        return False, "opening_block", "Opening block", now.isoformat(), window
    if now >= session.closes_at - closing:
        return False, "closing_block", "Closing block", now.isoformat(), window
    return True, "ok", "Market open", now.isoformat(), window


def _clock_refusal(snapshot: Snapshot, config: DispatcherConfig) -> Verdict | None:
    """Refuse to open while the clocks of process and database disagree."""
    if snapshot.intent == CLOSE:
        return None
    skew, limit = number(snapshot.clock_skew_seconds), config.max_clock_skew_seconds
    if skew is None:
        return _unknown("Clock skew unknown", limit)
    if abs(skew) > limit:
        return False, "clock_skew", "Clocks disagree", skew, limit
    return None


def _blocks(intent: str, config: DispatcherConfig) -> tuple[timedelta, timedelta]:
    closing = 0 if intent == CLOSE else config.closing_block_minutes
    return config.opening_block_minutes * MINUTE, closing * MINUTE


def _age(now: datetime | None, since: datetime | None) -> float | None:
    start, end = _instant(since), _instant(now)
    return (end - start).total_seconds() if start and end else None


def _fresh(age: float | None, limit: int, what: str) -> Verdict:
    if age is None:
        return _unknown(f"{what} unknown", limit)
    if age < 0:
        return False, "future", f"{what} in the future", age, limit
    if age <= limit:
        return True, "ok", f"{what} fresh", age, limit
    return False, "stale", f"{what} too old", age, limit


def _bar_freshness(snapshot: Snapshot, config: DispatcherConfig) -> Verdict:
    if not isinstance(snapshot.is_quarantined, bool):
        return _unknown("Quarantine unknown")
    if snapshot.is_quarantined:
        return False, "quarantined", "Ticker quarantined", snapshot.ticker, None
    minute = _instant(snapshot.bar_minute)
    age = _age(snapshot.now, minute + MINUTE if minute else None)
    return _fresh(age, config.max_bar_age_seconds, "Bar")


def _feature_freshness(snapshot: Snapshot, config: DispatcherConfig) -> Verdict:
    minute = _instant(snapshot.feature_bar_at)
    age = _age(snapshot.now, minute + MINUTE if minute else None)
    return _fresh(age, config.max_feature_age_seconds, "Features")


def _recommendation_freshness(snapshot: Snapshot, config: DispatcherConfig) -> Verdict:
    age = _age(snapshot.now, snapshot.ts)
    return _fresh(age, config.max_recommendation_age_seconds, "Recommendation")


def _max_positions(snapshot: Snapshot, config: DispatcherConfig) -> Verdict:
    limit = config.max_open_positions
    if not isinstance(snapshot.open_tickers, frozenset) or not isinstance(snapshot.ticker, str):
        return _unknown("Open positions unknown", limit)
    count = len(snapshot.open_tickers | {snapshot.ticker})
    if count <= limit:
        return True, "ok", "Room for the position", count, limit
    return False, "reached", "Too many open positions", count, limit


def _max_exposure(snapshot: Snapshot, config: DispatcherConfig) -> Verdict:
    limit = config.max_notional_exposure * config.equity_usd
    exposure, order = number(snapshot.exposure_usd), number(snapshot.order_notional_usd)
    if exposure is None or order is None or exposure < 0 or order < 0:
        return _unknown("Exposure unknown", limit)
    if not number(snapshot.order_quantity):
        return False, "no_room", "No room for a single share", exposure, limit
    if exposure + order <= limit:
        return True, "ok", "Exposure within the limit", exposure + order, limit
    return False, "reached", "Exposure limit reached", exposure + order, limit


def _ticker_daily_limit(snapshot: Snapshot, config: DispatcherConfig) -> Verdict:
    count, limit = number(snapshot.ticker_executions), config.max_trades_per_ticker_per_day
    if count is None or count < 0:
        return _unknown("Executions of the ticker unknown", limit)
    if count < limit:
        return True, "ok", "Below the ticker's daily limit", int(count), limit
    return False, "reached", "Daily limit of the ticker reached", int(count), limit


def _ticker_cooldown(snapshot: Snapshot, config: DispatcherConfig) -> Verdict:
    limit = config.ticker_cooldown_minutes
    if snapshot.has_executed is False:
        return True, "ok", "No execution of the ticker yet", None, limit
    minutes = number(snapshot.minutes_since_execution)
    if snapshot.has_executed is not True or minutes is None or minutes < 0:
        return _unknown("Last execution of the ticker unknown", limit)
    if minutes >= limit:
        return True, "ok", "Ticker cooled down", minutes, limit
    return False, "cooling", "Ticker cooling down", minutes, limit


def _confidence(snapshot: Snapshot, config: DispatcherConfig) -> Verdict:
    confidence, limit = number(snapshot.confidence), config.confidence_threshold
    if confidence is None or not 0 <= confidence <= 1:
        return _unknown("Confidence unknown", limit)
    if confidence >= limit:
        return True, "ok", "Confidence high enough", confidence, limit
    return False, "low", "Confidence too low", confidence, limit


def _short_position(snapshot: Snapshot, config: DispatcherConfig) -> Verdict:
    held = number(snapshot.held_quantity)
    if held is None or snapshot.action not in ("BUY", "SELL"):
        return _unknown("Position unknown")
    if snapshot.intent == CLOSE:
        sign = 1 if snapshot.action == "SELL" else -1
        passed = held * sign > 0
        return passed, "close", "A position to close is needed", int(held), None
    if snapshot.action == "BUY":
        return True, "ok", "Not a sale", int(held), None
    if held > 0 or config.allow_shorting:
        return True, "ok", "Sale allowed", int(held), config.allow_shorting
    return False, "disabled", "Shorting disabled", int(held), config.allow_shorting


def _action_allowed(snapshot: Snapshot, config: DispatcherConfig) -> Verdict:
    if not snapshot.action or not snapshot.instrument_type:
        return _unknown("Action unknown", list(config.actions))
    action = f"{snapshot.action}_{snapshot.instrument_type}"
    if action in config.actions:
        return True, "ok", "Action allowed", action, list(config.actions)
    return False, "not_allowed", "Action not allowed", action, list(config.actions)


GATES = (
    Gate("trading_state", _trading_state, for_closing=True),
    Gate("daily_loss_limit", _daily_loss_limit, for_closing=False, reads=("max_daily_loss_usd",)),
    Gate(
        "trading_hours",
        _trading_hours,
        for_closing=True,
        reads=("opening_block_minutes", "closing_block_minutes", "max_clock_skew_seconds"),
    ),
    Gate("bar_freshness", _bar_freshness, for_closing=False, reads=("max_bar_age_seconds",)),
    Gate(
        "feature_freshness",
        _feature_freshness,
        for_closing=False,
        reads=("max_feature_age_seconds",),
    ),
    Gate(
        "recommendation_freshness",
        _recommendation_freshness,
        for_closing=True,
        reads=("max_recommendation_age_seconds",),
    ),
    Gate("max_positions", _max_positions, for_closing=False, reads=("max_open_positions",)),
    Gate(
        "max_exposure",
        _max_exposure,
        for_closing=False,
        reads=("max_notional_exposure", "equity_usd"),
    ),
    Gate(
        "ticker_daily_limit",
        _ticker_daily_limit,
        for_closing=False,
        reads=("max_trades_per_ticker_per_day",),
    ),
    Gate(
        "ticker_cooldown",
        _ticker_cooldown,
        for_closing=False,
        reads=("ticker_cooldown_minutes",),
    ),
    Gate("confidence", _confidence, for_closing=False, reads=("confidence_min", "tier")),
    Gate("short_position", _short_position, for_closing=True, reads=("allow_shorting",)),
    Gate(
        "action_allowed",
        _action_allowed,
        for_closing=False,
        reads=("allowed_actions", "allow_shorting"),
    ),
)
