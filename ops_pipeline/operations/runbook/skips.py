"""Why nothing trades: which gate refuses what is recommended, and whether it still would."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from ops_pipeline.domain.acceptance import VOLUME, Level, Verdict
from ops_pipeline.domain.checks import SKIPS
from ops_pipeline.domain.dispatch import gate_of
from ops_pipeline.domain.gates import ACTIVE
from ops_pipeline.domain.ranges import SKIPPED_MIN
from ops_pipeline.domain.session import MINUTE, Session, both_zones
from ops_pipeline.domain.stages import BARS, DATA_STAGES, FEATURES, Stage
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.operations.runbook.causes import (
    SERVICE_OFF,
    catalogue,
    config_of,
    switched_off,
)
from ops_pipeline.operations.runbook.changes import by_hand, set_config
from ops_pipeline.operations.runbook.section import Cause, Change, Found, OwnCheck, Scene, Section
from ops_pipeline.storage import dispatch, runbook
from ops_pipeline.storage.runbook import ClosedRow

PASSES = OwnCheck("no_gate_blocks_all", "something trades, or what was skipped would pass now")
LOOK_BACK = timedelta(minutes=60)
# The runbook's own step down; what is lower is a decision about risk.
LOWERED_CONFIDENCE = 0.60
CONFIDENCE = "confidence: Confidence too low"

MARKET_CLOSED = Cause(
    "MARKET_CLOSED",
    "The market is closed: nothing may trade.",
    Level.NORMAL,
    "nothing: wait for the open",
)
OPENING_BLOCK = Cause(
    "OPENING_BLOCK",
    "The session is in its first minutes, in which nothing is opened.",
    Level.NORMAL,
    "nothing: wait for the end of the block",
)
CLOSING_BLOCK = Cause(
    "CLOSING_BLOCK",
    "The session is in its last minutes, in which nothing is opened.",
    Level.NORMAL,
    "nothing: wait for the next session",
)
HALTED = Cause(
    "HALTED",
    "Trading is HALTED or REDUCING, so that nothing is opened.",
    Level.MEDIUM,
    "a person resumes, once the reason is gone",
)
LOW_CONFIDENCE = Cause(
    "CONFIDENCE",
    "Recommendations are below the confidence that trades.",
    Level.MEDIUM,
    "lowers confidence_min to 0.60 for two hours, where it is higher and the tier allows it",
)
SHORTING_DISABLED = Cause(
    "SHORTING_DISABLED",
    "Recommendations would open shorts, which is not allowed.",
    Level.MEDIUM,
    "a person decides about allow_shorting: it raises the risk",
)
BARS_STALE = Cause(
    "BARS_STALE",
    "Bars are too old to trade on.",
    Level.HIGH,
    "switches the bars on, where they are off; data-freshness-violations looks further",
)
FEATURES_STALE = Cause(
    "FEATURES_STALE",
    "Features are too old to trade on.",
    Level.HIGH,
    "switches the features on, where they are off; service-wont-start looks further",
)
DAILY_LIMITS = Cause(
    "DAILY_LIMITS",
    "A limit on losses, positions, exposure or trades of a ticker is reached.",
    Level.MEDIUM,
    "a person decides: the limit is there for this",
)
COOLING_DOWN = Cause(
    "COOLING_DOWN",
    "The tickers that are recommended were traded a moment ago.",
    Level.LOW,
    "nothing: it passes by itself",
)
DECIDED_LATE = Cause(
    "DECIDED_LATE",
    "Recommendations were too old when the dispatcher came to them.",
    Level.HIGH,
    "a person follows backlog-growing",
)
OTHER_GATE = Cause(
    "OTHER_GATE",
    "Another gate refuses, or could not know what it has to.",
    Level.MEDIUM,
    "a person reads the gates of one recommendation",
)
SIGNALS_OFF = Cause(
    "SIGNALS_OFF",
    "Nothing is recommended, and a service that signals come from is off.",
    Level.HIGH,
    "switches it on",
)
QUIET_MARKET = Cause(
    "QUIET_MARKET",
    "Nothing was recommended in the last hour, and everything that has to run does.",
    Level.NORMAL,
    "nothing",
)


@dataclass(frozen=True)
class Present:
    """What decides whether a gate that refused would still refuse."""

    now: datetime
    session: Session | None
    state: str
    config: DispatcherConfig

    @property
    def is_blocked(self) -> Cause | None:
        """Why the hour itself forbids to open anything."""
        if self.session is None:
            return MARKET_CLOSED
        if self.now < self.session.opens_at + self.config.opening_block_minutes * MINUTE:
            return OPENING_BLOCK
        if self.now >= self.session.closes_at - self.config.closing_block_minutes * MINUTE:
            return CLOSING_BLOCK
        return None


def _present(scene: Scene) -> Present:
    now = scene.now
    with scene.engine.connect() as connection:
        state = dispatch.read_trading_state(connection)
    return Present(now, scene.settings.mode.calendar.at(now), state, config_of(scene))


def _still_refused(row: ClosedRow, present: Present) -> bool:
    """Whether the gate that refused a recommendation would refuse one like it now."""
    gate, config = gate_of(row.failure_reason), present.config
    passes = {
        "trading_state": present.state == ACTIVE,
        "trading_hours": present.is_blocked is None,
        "confidence": row.confidence >= config.confidence_threshold,
        "short_position": config.allow_shorting,
        "action_allowed": f"{row.action}_{row.instrument_type}" in config.actions,
    }
    return not passes.get(gate, False)


def loosen_confidence(scene: Scene) -> list[Change]:
    """The runbook's step: confidence_min to 0.60; for two hours, so that it returns by itself."""
    look = by_hand(
        "see what another threshold would have changed",
        f"ops-pipeline gates what-if --set confidence_min={LOWERED_CONFIDENCE}",
    )
    config = config_of(scene)
    if config.confidence_min <= LOWERED_CONFIDENCE:
        return [look]
    values = {"confidence_min": LOWERED_CONFIDENCE}
    return [look, set_config(scene, values, "confidence blocks all", is_temporary=True)]


def _switch(stage: Stage, section: str) -> Callable[[Scene], list[Change]]:
    def changes(scene: Scene) -> list[Change]:
        off = [one for one in switched_off(scene, [stage]) if one.cause is SERVICE_OFF]
        look = by_hand("look further", f"ops-pipeline runbook diagnose {section}")
        return [change for one in off for change in one.changes] or [look]

    return changes


def _told(what: str, command: str) -> Callable[[Scene], list[Change]]:
    return lambda _: [by_hand(what, command)]


_LIMIT = (DAILY_LIMITS, _told("decide about the limit", "ops-pipeline config show --effective"))
_WAIT = (COOLING_DOWN, _told("wait", "ops-pipeline status"))
_OTHER = (OTHER_GATE, _told("read its gates", "ops-pipeline explain NUMBER"))
BLOCKERS: dict[str, tuple[Cause, Callable[[Scene], list[Change]]]] = {
    "trading_state": (HALTED, _told("trade again", "ops-pipeline resume")),
    "daily_loss_limit": _LIMIT,
    "trading_hours": (MARKET_CLOSED, _told("wait for the open", "ops-pipeline status")),
    "bar_freshness": (BARS_STALE, _switch(BARS, "data-freshness-violations")),
    "feature_freshness": (FEATURES_STALE, _switch(FEATURES, "service-wont-start")),
    "recommendation_freshness": (
        DECIDED_LATE,
        _told("look at the backlog", "ops-pipeline runbook diagnose backlog-growing"),
    ),
    "max_positions": _LIMIT,
    "max_exposure": _LIMIT,
    "ticker_daily_limit": _LIMIT,
    "ticker_cooldown": _WAIT,
    "confidence": (LOW_CONFIDENCE, loosen_confidence),
    "short_position": (
        SHORTING_DISABLED,
        _told("decide about shorts", "ops-pipeline config set allow_shorting=true --reason REASON"),
    ),
    "action_allowed": _OTHER,
    "expired": (
        DECIDED_LATE,
        _told("look at the backlog", "ops-pipeline runbook diagnose backlog-growing"),
    ),
}


def _no_trades(scene: Scene) -> Iterator[Found]:
    """The hour, the trading state, the gates, and whether anything is recommended at all."""
    present = _present(scene)
    with scene.engine.connect() as connection:
        rows = runbook.closed_since(connection, present.now - LOOK_BACK, present.now)
        changes = dispatch.trading_state_changes(connection, 1)
    if cause := present.is_blocked:
        yield Found(cause, {"now": both_zones(present.now)})
        return
    if present.state != ACTIVE:
        why = {"by": changes[0].changed_by, "reason": changes[0].reason} if changes else {}
        _, remedy = BLOCKERS["trading_state"]
        yield Found(HALTED, {"state": present.state, **why}, remedy(scene))
    yield from _blocked(scene, rows, present)
    if not rows:
        yield _nothing_recommended(scene)


def _blocked(scene: Scene, rows: list[ClosedRow], present: Present) -> Iterator[Found]:
    """The gates that refuse everything, the most frequent first."""
    for gate, reasons in _refusals(rows, present).items():
        cause, remedy = BLOCKERS.get(gate, _OTHER)
        is_told = cause is HALTED and present.state != ACTIVE
        if not is_told:
            yield Found(cause, {"skipped": len(rows), **reasons}, remedy(scene))


def _refusals(rows: list[ClosedRow], present: Present) -> dict[str, Counter[str]]:
    """What is still refused, by gate; nothing where one has traded, or few say nothing."""
    if any(row.status in ("SIMULATED", "EXECUTED") for row in rows):
        return {}
    skipped = [row for row in rows if row.status == "SKIPPED" and _still_refused(row, present)]
    if len(skipped) < SKIPPED_MIN:
        return {}
    gates = Counter(gate_of(row.failure_reason) for row in skipped)
    return {
        gate: Counter(str(r.failure_reason) for r in skipped if gate_of(r.failure_reason) == gate)
        for gate, _ in gates.most_common()
    }


def _nothing_recommended(scene: Scene) -> Found:
    off = [one for one in switched_off(scene, DATA_STAGES) if one.cause is SERVICE_OFF]
    if off:
        return Found(SIGNALS_OFF, off[0].evidence, off[0].changes)
    return Found(QUIET_MARKET, {"minutes": int(LOOK_BACK.total_seconds() // 60)})


def _no_executions(scene: Scene) -> Iterator[Found]:
    """What stood in the way of every recommendation of this session."""
    present = _present(scene)
    if present.session is None:
        yield Found(MARKET_CLOSED, {"now": both_zones(present.now)})
        return
    yield from _blocked(scene, _of_session(scene, present), present)


def _of_session(scene: Scene, present: Present) -> list[ClosedRow]:
    since = present.session.opens_at if present.session else present.now
    with scene.engine.connect() as connection:
        return runbook.closed_since(connection, since, present.now)


def passes(rows: list[ClosedRow], present: Present) -> Verdict:
    """Whether something trades, or would: a gate that refuses everything is no accident."""
    if present.session is None:
        return Verdict(PASSES.name, Level.NORMAL, "the market is closed", {}, PASSES.normal)
    refused = sum((reasons for reasons in _refusals(rows, present).values()), Counter[str]())
    level = Level.MEDIUM if refused else Level.NORMAL
    told = f"all of {len(rows)} skipped" if refused else f"{len(rows)} decided, none blocks all"
    return Verdict(PASSES.name, level, told, dict(refused), PASSES.normal)


def _verify_no_trades(scene: Scene) -> list[Verdict]:
    present = _present(scene)
    with scene.engine.connect() as connection:
        rows = runbook.closed_since(connection, present.now - LOOK_BACK, present.now)
    return [*catalogue(scene, SKIPS), passes(rows, present)]


def _verify_no_executions(scene: Scene) -> list[Verdict]:
    present = _present(scene)
    return [*catalogue(scene, VOLUME), passes(_of_session(scene, present), present)]


_HOURS = (MARKET_CLOSED, OPENING_BLOCK, CLOSING_BLOCK)
_GATES = tuple(dict.fromkeys(cause for cause, _ in BLOCKERS.values() if cause not in _HOURS))
SECTIONS = (
    Section(
        name="no-trades-happening",
        heading="Issue: No Trades Happening (Signals SKIPPED)",
        symptom="Everything is SKIPPED, or nothing was recommended in the last hour.",
        checks=(SKIPS,),
        own=(PASSES,),
        causes=(*_HOURS, *_GATES, SIGNALS_OFF, QUIET_MARKET),
        look=_no_trades,
        verify=_verify_no_trades,
    ),
    Section(
        name="no-executions",
        heading="Issue: No Executions (All SKIPPED)",
        symptom="The dispatcher runs, and simulated_count is 0 all session long.",
        checks=(VOLUME,),
        own=(PASSES,),
        causes=(MARKET_CLOSED, *_GATES),
        look=_no_executions,
        verify=_verify_no_executions,
    ),
)
