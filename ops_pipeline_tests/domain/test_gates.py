import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from math import inf, nan
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ops_pipeline.domain.dispatch import decide
from ops_pipeline.domain.gates import (
    ACTIVE,
    CLOSE,
    GATES,
    HALTED,
    NOT_ASKED,
    OPEN,
    REDUCING,
    Gate,
    GateResult,
    Snapshot,
    as_document,
    evaluate,
)
from ops_pipeline.domain.session import Session
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline_tests.builders import DAY, NOON, SESSION, a_snapshot, at

CONFIG = DispatcherConfig()
SHORTING = DispatcherConfig(allow_shorting=True)
NAMES = [
    "trading_state",
    "daily_loss_limit",
    "trading_hours",
    "bar_freshness",
    "feature_freshness",
    "recommendation_freshness",
    "max_positions",
    "max_exposure",
    "ticker_daily_limit",
    "ticker_cooldown",
    "confidence",
    "short_position",
    "action_allowed",
]
SKIPPED_BY_CLOSING = {NAMES[number - 1] for number in (2, 4, 5, 7, 8, 9, 10, 11, 13)}
READS = [
    ("trading_state", "trading_state"),
    ("daily_loss_limit", "session_pnl_usd"),
    ("trading_hours", "now"),
    ("trading_hours", "session"),
    ("trading_hours", "clock_skew_seconds"),
    ("bar_freshness", "now"),
    ("bar_freshness", "bar_minute"),
    ("bar_freshness", "is_quarantined"),
    ("feature_freshness", "now"),
    ("feature_freshness", "feature_bar_at"),
    ("recommendation_freshness", "now"),
    ("recommendation_freshness", "ts"),
    ("max_positions", "ticker"),
    ("max_positions", "open_tickers"),
    ("max_exposure", "exposure_usd"),
    ("max_exposure", "order_quantity"),
    ("max_exposure", "order_notional_usd"),
    ("ticker_daily_limit", "ticker_executions"),
    ("ticker_cooldown", "has_executed"),
    ("ticker_cooldown", "minutes_since_execution"),
    ("confidence", "confidence"),
    ("short_position", "action"),
    ("short_position", "held_quantity"),
    ("action_allowed", "action"),
    ("action_allowed", "instrument_type"),
]


class Explosive:
    """What can be asked for its type, and not be used: compared, converted or told."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return Explosive
        raise ZeroDivisionError

    def _raise(self, *_: object) -> Any:
        raise ZeroDivisionError

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __hash__ = _raise
    __add__ = __radd__ = __sub__ = __rsub__ = __or__ = __ror__ = __neg__ = _raise
    __int__ = __float__ = __index__ = __str__ = __format__ = __iter__ = __len__ = _raise


class Nowhere(tzinfo):
    """A zone that does not know its offset: a time in it is naive all the same."""

    def utcoffset(self, _: datetime | None) -> None:
        return None

    def tzname(self, _: datetime | None) -> None:
        return None

    def dst(self, _: datetime | None) -> None:
        return None


WRONG: list[Any] = [
    None,
    nan,
    inf,
    -inf,
    "nonsense",
    "",
    True,
    False,
    [],
    [1.0],
    {},
    b"BUY",
    1 + 2j,
    NOON.replace(tzinfo=None),
    NOON.replace(tzinfo=Nowhere()),
    NOON - timedelta(days=1),
    NOON + timedelta(days=1),
    NOON.date(),
    10**400,
    Decimal("0.8"),
    Decimal("NaN"),
    Fraction(1, 2),
    object(),
]
# Of those, what a field may hold all the same.
FINE: dict[str, tuple[Any, ...]] = {
    "ticker": ("nonsense", ""),
    "has_executed": (True, False),
    "is_quarantined": (False,),
}
HALF_DAY = Session(
    datetime(2025, 11, 28, tzinfo=UTC).date(),
    datetime(2025, 11, 28, 14, 30, tzinfo=UTC),
    datetime(2025, 11, 28, 18, 0, tzinfo=UTC),
)


def a_cooled_snapshot(**changes: Any) -> Snapshot:
    """What passes every gate although the ticker has been executed today."""
    return a_snapshot(
        **{"has_executed": True, "minutes_since_execution": 20.0, "ticker_executions": 1, **changes}
    )


def a_closing_snapshot(**changes: Any) -> Snapshot:
    """What passes every gate that closing orders are asked."""
    return a_snapshot(**{"intent": CLOSE, "action": "SELL", "held_quantity": 10, **changes})


def answer(
    gate: str, snapshot: Snapshot | None = None, config: DispatcherConfig = CONFIG, **changes: Any
) -> GateResult:
    results = evaluate(replace(snapshot or a_snapshot(), **changes), config)
    return next(result for result in results if result.gate == gate)


def moment(now: datetime) -> dict[str, datetime]:
    """The changes by which a snapshot is taken at another instant."""
    return {"now": now, "ts": now, "bar_minute": now, "feature_bar_at": now}


def test_the_gates_stand_in_the_order_of_the_design() -> None:
    assert [result.gate for result in evaluate(a_snapshot(), CONFIG)] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_gate_when_all_is_well_then_passes(name: str) -> None:
    assert answer(name).passed


@pytest.mark.parametrize("name", NAMES)
def test_a_gate_when_a_closing_order_is_well_then_passes(name: str) -> None:
    assert answer(name, a_closing_snapshot()).passed


REFUSING: list[tuple[str, dict[str, Any], str]] = [
    ("trading_state", {"trading_state": HALTED}, "halted"),
    ("trading_state", {"trading_state": REDUCING}, "reducing"),
    ("daily_loss_limit", {"session_pnl_usd": -500.0}, "reached"),
    ("trading_hours", {"session": None}, "closed"),
    ("trading_hours", {"now": at(-1)}, "closed"),
    ("trading_hours", {"now": at(4.99)}, "opening_block"),
    ("trading_hours", {"now": at(375)}, "closing_block"),
    ("trading_hours", {"now": at(390)}, "closed"),
    ("bar_freshness", {"now": NOON + timedelta(seconds=181)}, "stale"),
    ("bar_freshness", {"is_quarantined": True}, "quarantined"),
    ("bar_freshness", {"now": NOON + timedelta(seconds=59)}, "future"),
    ("feature_freshness", {"now": NOON + timedelta(seconds=361)}, "stale"),
    ("feature_freshness", {"now": NOON + timedelta(seconds=59)}, "future"),
    ("recommendation_freshness", {"ts": NOON - timedelta(seconds=221)}, "stale"),
    ("recommendation_freshness", {"ts": NOON + timedelta(seconds=81)}, "future"),
    ("max_positions", {"open_tickers": frozenset("BCDEF")}, "reached"),
    ("max_exposure", {"exposure_usd": 98_000.01}, "reached"),
    ("max_exposure", {"order_quantity": 0}, "no_room"),
    ("max_exposure", {"exposure_usd": -1.0}, "unknown"),
    ("max_exposure", {"order_notional_usd": -1.0}, "unknown"),
    ("ticker_daily_limit", {"ticker_executions": 2}, "reached"),
    ("ticker_daily_limit", {"ticker_executions": -1}, "unknown"),
    ("ticker_cooldown", {"has_executed": True, "minutes_since_execution": 14.9}, "cooling"),
    ("ticker_cooldown", {"has_executed": True, "minutes_since_execution": -1.0}, "unknown"),
    ("confidence", {"confidence": 0.6999}, "low"),
    ("confidence", {"confidence": 1.01}, "unknown"),
    ("confidence", {"confidence": -0.01}, "unknown"),
    ("short_position", {"action": "SELL"}, "disabled"),
    ("short_position", {"action": "SELL", "held_quantity": -5}, "disabled"),
    ("short_position", {"action": "HOLD"}, "unknown"),
    ("action_allowed", {"action": "SELL"}, "not_allowed"),
    ("action_allowed", {"instrument_type": "CALL"}, "not_allowed"),
]


@pytest.mark.parametrize(("name", "changes", "code"), REFUSING)
def test_a_gate_when_its_limit_is_broken_then_refuses_by_code(
    name: str, changes: dict[str, Any], code: str
) -> None:
    result = answer(name, **changes)
    assert (result.passed, result.code) == (False, f"{name}.{code}")


def test_every_gate_has_a_refusing_case() -> None:
    assert {name for name, _, _ in REFUSING} == set(NAMES)


ON_THE_BOUND: list[tuple[str, dict[str, Any]]] = [
    ("daily_loss_limit", {"session_pnl_usd": -499.99}),
    ("trading_hours", {"now": at(5)}),
    ("trading_hours", {"now": at(375) - timedelta(microseconds=1)}),
    ("bar_freshness", {"now": NOON + timedelta(seconds=180)}),
    ("bar_freshness", {"now": NOON + timedelta(seconds=60)}),
    ("feature_freshness", {"now": NOON + timedelta(seconds=360)}),
    ("recommendation_freshness", {"ts": NOON - timedelta(seconds=220)}),
    ("recommendation_freshness", {"ts": NOON + timedelta(seconds=80)}),
    ("max_positions", {"open_tickers": frozenset("BCDE")}),
    ("max_positions", {"open_tickers": frozenset({"AAPL", *"BCDE"})}),
    ("max_exposure", {"exposure_usd": 98_000.0}),
    ("ticker_daily_limit", {"ticker_executions": 1}),
    ("ticker_cooldown", {"has_executed": True, "minutes_since_execution": 15.0}),
    ("confidence", {"confidence": 0.7}),
    ("confidence", {"confidence": 1}),
    ("short_position", {"action": "SELL", "held_quantity": 1}),
]


@pytest.mark.parametrize(("name", "changes"), ON_THE_BOUND)
def test_a_gate_when_its_limit_is_just_kept_then_passes(name: str, changes: dict[str, Any]) -> None:
    assert answer(name, **changes).passed


@pytest.mark.parametrize(("name", "field"), READS)
def test_a_gate_when_its_input_is_missing_then_refuses(name: str, field: str) -> None:
    assert not answer(name, a_cooled_snapshot(), **{field: None}).passed


@pytest.mark.parametrize(("name", "field"), READS)
def test_a_gate_when_its_input_is_wrong_then_refuses(name: str, field: str) -> None:
    fine = FINE.get(field, ())
    wrong = [value for value in WRONG if not any(value is each for each in fine)]
    wrong.append(Explosive())
    answers = [answer(name, a_cooled_snapshot(), **{field: value}) for value in wrong]
    assert len(answers) > 20
    assert {each.code for each in answers if each.passed} == set()
    own = {f"{name}.{code}" for gate, _, code in REFUSING if gate == name}
    assert {each.code for each in answers} <= own | {f"{name}.unknown"}


@pytest.mark.parametrize("has_executed", [True, None])
def test_ticker_cooldown_when_the_last_execution_has_no_time_then_refuses(
    has_executed: bool | None,  # noqa: FBT001
) -> None:
    assert not answer("ticker_cooldown", has_executed=has_executed).passed


@settings(deadline=None, max_examples=40)
@given(
    read=st.sampled_from([read for read in READS if read[1] not in FINE]),
    wrong=st.sampled_from([nan, inf, -inf])
    | st.booleans()
    | st.text(max_size=5).filter(lambda text: text not in ("BUY", "SELL", "STOCK", "ACTIVE"))
    | st.lists(st.integers(), max_size=2)
    | st.datetimes(),
)
def test_no_gate_passes_by_a_value_of_the_wrong_kind(read: tuple[str, str], wrong: object) -> None:
    name, field = read
    assert not answer(name, a_cooled_snapshot(), **{field: wrong}).passed


@pytest.mark.parametrize("field", [f.name for f in fields(Snapshot) if f.name != "intent"])
def test_a_wrong_input_leaves_the_gates_that_do_not_read_it_alone(field: str) -> None:
    readers = {name for name, read in READS if read == field}
    for wrong in (*WRONG, Explosive()):
        results = evaluate(replace(a_cooled_snapshot(), **{field: wrong}), CONFIG)
        assert {result.gate for result in results if not result.passed} <= readers


@pytest.mark.parametrize("intent", [None, "", "closing", "CLOSE"])
def test_an_unknown_intent_is_asked_every_gate(intent: str | None) -> None:
    results = evaluate(a_snapshot(intent=intent), CONFIG)
    assert NOT_ASKED not in {result.reason for result in results}


def test_gates_are_evaluated_without_short_circuit() -> None:
    wrong = {field: None for _, field in READS}
    results = evaluate(a_snapshot(**wrong), CONFIG)
    assert [(result.gate, result.passed) for result in results] == [(name, False) for name in NAMES]


def test_closing_orders_skip_exactly_the_gates_that_limit_opening() -> None:
    results = evaluate(a_closing_snapshot(), CONFIG)
    assert {r.gate for r in results if r.reason == NOT_ASKED} == SKIPPED_BY_CLOSING


def test_closing_orders_are_asked_the_others_in_earnest() -> None:
    results = evaluate(a_closing_snapshot(**{field: None for _, field in READS}), CONFIG)
    assert {r.gate for r in results if not r.passed} == set(NAMES) - SKIPPED_BY_CLOSING


@pytest.mark.parametrize(
    ("state", "intent", "passed"),
    [
        (ACTIVE, OPEN, True),
        (ACTIVE, CLOSE, True),
        (REDUCING, OPEN, False),
        (REDUCING, CLOSE, True),
        (HALTED, OPEN, False),
        (HALTED, CLOSE, False),
        ("active", CLOSE, False),
    ],
)
def test_trading_state_decides_by_state_and_intent(
    state: str,
    intent: str,
    passed: bool,  # noqa: FBT001
) -> None:
    assert answer("trading_state", trading_state=state, intent=intent).passed is passed


@pytest.mark.parametrize(
    ("minute", "passed"),
    [(0, False), (4, False), (5, True), (375, True), (389, True), (390, False)],
)
def test_closing_orders_trade_until_the_sessions_last_minute(
    minute: int,
    passed: bool,  # noqa: FBT001
) -> None:
    assert answer("trading_hours", a_closing_snapshot(), now=at(minute)).passed is passed


@pytest.mark.parametrize(
    ("skew", "code"), [(5.0, "ok"), (-5.0, "ok"), (5.001, "clock_skew"), (-180.0, "clock_skew")]
)
def test_nothing_is_opened_while_the_clocks_of_process_and_database_disagree(
    skew: float, code: str
) -> None:
    assert answer("trading_hours", clock_skew_seconds=skew).code == f"trading_hours.{code}"
    closing = answer("trading_hours", a_closing_snapshot(), clock_skew_seconds=skew)
    assert closing.code == "trading_hours.ok"


@pytest.mark.parametrize(("minute", "passed"), [(44, True), (45, False), (59, False), (60, False)])
def test_trading_hours_when_the_day_is_half_then_block_follows_its_close(
    minute: int,
    passed: bool,  # noqa: FBT001
) -> None:
    now = datetime(2025, 11, 28, 17, 0, tzinfo=UTC) + timedelta(minutes=minute)
    assert answer("trading_hours", session=HALF_DAY, now=now).passed is passed


def test_trading_hours_shows_its_window() -> None:
    assert answer("trading_hours", session=HALF_DAY, now=HALF_DAY.opens_at).threshold == (
        "14:35-17:45 UTC"
    )


def test_trading_hours_when_the_session_is_of_another_day_then_closed() -> None:
    yesterday = Session(
        DAY - timedelta(days=1),
        SESSION.opens_at - timedelta(days=1),
        SESSION.closes_at - timedelta(days=1),
    )
    assert answer("trading_hours", session=yesterday).code == "trading_hours.closed"


@pytest.mark.parametrize(
    ("name", "age"),
    [("bar_freshness", 20.0), ("feature_freshness", 20.0), ("recommendation_freshness", 0.0)],
)
def test_age_is_counted_from_the_end_of_the_bar_and_from_the_signal_itself(
    name: str, age: float
) -> None:
    assert answer(name).observed == age


@pytest.mark.parametrize(
    ("action", "held", "passed"),
    [
        ("SELL", 10, True),
        ("SELL", 0, False),
        ("SELL", -10, False),
        ("BUY", -10, True),
        ("BUY", 0, False),
        ("BUY", 10, False),
    ],
)
def test_short_position_when_closing_then_wants_the_position(
    action: str,
    held: int,
    passed: bool,  # noqa: FBT001
) -> None:
    result = answer("short_position", a_closing_snapshot(), action=action, held_quantity=held)
    assert result.passed is passed


def test_short_position_when_shorting_is_allowed_then_a_sale_may_open() -> None:
    assert answer("short_position", config=SHORTING, action="SELL").passed


def test_short_position_when_disabled_then_says_so() -> None:
    assert answer("short_position", action="SELL").reason == "Shorting disabled"


def test_action_allowed_when_shorting_is_allowed_then_sells() -> None:
    assert answer("action_allowed", config=SHORTING, action="SELL").passed


def test_confidence_when_the_tier_asks_for_more_then_its_floor_holds() -> None:
    config = DispatcherConfig(confidence_min=0.1, tier="small")
    passed = [answer("confidence", config=config, confidence=c).passed for c in (0.6499, 0.65)]
    assert passed == [False, True]


def test_ticker_cooldown_when_nothing_was_executed_then_needs_no_time() -> None:
    assert answer("ticker_cooldown", has_executed=False, minutes_since_execution=None).passed


def a_wild_snapshot() -> st.SearchStrategy[Snapshot]:
    """Snapshots of right, wrong and extreme values, as they may meet."""
    odd = st.sampled_from(WRONG) | st.builds(Explosive)
    number = st.floats() | odd
    instant = st.sampled_from([NOON, at(0), at(380), at(390)]) | odd
    return st.builds(
        a_snapshot,
        now=instant,
        ts=instant,
        action=st.sampled_from(["BUY", "SELL", "HOLD", None]),
        instrument_type=st.sampled_from(["STOCK", "CALL", None]),
        intent=st.sampled_from([OPEN, CLOSE]),
        confidence=number,
        trading_state=st.sampled_from([ACTIVE, REDUCING, HALTED, None]),
        session=st.sampled_from([SESSION, HALF_DAY, None]),
        bar_minute=instant,
        feature_bar_at=instant,
        session_pnl_usd=number,
        open_tickers=st.frozensets(st.sampled_from("ABCDEFG")) | st.none(),
        exposure_usd=number,
        order_quantity=st.integers(-500, 500) | odd,
        order_notional_usd=number,
        held_quantity=st.integers(-500, 500) | odd,
        ticker_executions=st.integers(-2, 5) | odd,
        minutes_since_execution=number,
        has_executed=st.sampled_from([True, False, None]),
    )


@settings(deadline=None, max_examples=40)
@given(snapshot=a_wild_snapshot())
def test_codes_and_reasons_hold_no_numbers(snapshot: Snapshot) -> None:
    for result in evaluate(snapshot, SHORTING):
        assert not any(char.isdigit() for char in result.code + result.reason)


@settings(deadline=None, max_examples=40)
@given(snapshot=a_wild_snapshot())
def test_every_gate_answers_whatever_it_is_asked(snapshot: Snapshot) -> None:
    assert [result.gate for result in evaluate(snapshot, CONFIG)] == [gate.name for gate in GATES]


def anything() -> st.SearchStrategy[Any]:
    """Whatever a field might hold by mistake."""
    plain = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.binary()
        | st.complex_numbers()
        | st.decimals()
        | st.datetimes()
        | st.datetimes(timezones=st.just(UTC))
        | st.dates()
        | st.timedeltas()
        | st.sampled_from([SESSION, HALF_DAY, *WRONG])
        | st.builds(Explosive)
    )
    hashable = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    return plain | st.lists(plain, max_size=2) | st.frozensets(hashable, max_size=3)


def any_snapshot() -> st.SearchStrategy[Snapshot]:
    """A snapshot of which a part, or all, is junk; what comes from the queue is text at least."""
    junk = anything()
    names = {field.name for field in fields(Snapshot)} - {"ticker", "intent"}
    return st.builds(
        lambda ticker, intent, changes: a_cooled_snapshot(ticker=ticker, intent=intent, **changes),
        st.text(),
        st.sampled_from([OPEN, CLOSE, ""]),
        st.dictionaries(st.sampled_from(sorted(names)), junk),
    )


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(snapshot=any_snapshot())
def test_every_snapshot_has_a_document_that_is_json(snapshot: Snapshot) -> None:
    document = as_document(snapshot)
    assert set(document) == {field.name for field in fields(Snapshot)}
    assert json.loads(json.dumps(document, allow_nan=False)) == document


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(snapshot=any_snapshot())
def test_what_the_gates_say_of_a_snapshot_is_json_and_no_junk_passes_them_all(
    snapshot: Snapshot,
) -> None:
    decision = decide(evaluate(snapshot, CONFIG))
    json.dumps(decision.gates, allow_nan=False)
    if decision.passed:
        assert isinstance(snapshot.now, datetime)
        assert snapshot.trading_state == ACTIVE


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (nan, "nan"),
        (-inf, "-inf"),
        (0.1, 0.1),
        (None, None),
        (True, True),
        (NOON, "2025-02-12T17:00:00+00:00"),
        (frozenset({"MSFT", "AAPL"}), ["AAPL", "MSFT"]),
        (b"BUY", "a bytes"),
        ([1], "a list"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_document_tells_what_is_no_value_as_its_type(value: object, told: object) -> None:
    assert as_document(a_snapshot(confidence=value))["confidence"] == told


def test_a_document_tells_of_what_cannot_be_used_no_more_than_its_type() -> None:
    assert as_document(a_snapshot(confidence=Explosive()))["confidence"] == "a Explosive"


def test_a_document_tells_the_session_by_its_bounds() -> None:
    assert as_document(a_snapshot())["session"] == {
        "day": "2025-02-12",
        "opens_at": "2025-02-12T14:30:00+00:00",
        "closes_at": "2025-02-12T21:00:00+00:00",
    }


class Watched:
    """Settings that remember which of them were asked for."""

    def __init__(self, config: DispatcherConfig) -> None:
        self.config = config
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        derived = getattr(DispatcherConfig, name, None)
        if isinstance(derived, property) and derived.fget:
            return derived.fget(self)
        self.read.add(name)
        return getattr(self.config, name)


@pytest.mark.parametrize("gate", GATES, ids=NAMES)
def test_a_gate_names_the_settings_that_it_reads(gate: Gate) -> None:
    asked = Watched(CONFIG)
    for snapshot in (a_snapshot(), a_snapshot(action="SELL"), a_snapshot(intent=CLOSE)):
        gate.rule(snapshot, asked)  # type: ignore[arg-type]
    assert asked.read == set(gate.reads)
