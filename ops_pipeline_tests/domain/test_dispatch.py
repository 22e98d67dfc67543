from itertools import product

import pytest

from ops_pipeline.domain.dispatch import Status, decide, gate_of, is_legal
from ops_pipeline.domain.gates import GateResult

PASSED = GateResult(
    gate="bar_freshness",
    passed=True,
    code="bar_freshness.ok",
    reason="Bar fresh",
    observed=60.0,
    threshold=120,
)
STALE = GateResult(
    gate="feature_freshness",
    passed=False,
    code="feature_freshness.stale",
    reason="Features too old",
)
LOW = GateResult(
    gate="confidence",
    passed=False,
    code="confidence.low",
    reason="Confidence too low",
    observed=0.4,
    threshold=0.7,
)
LEGAL = {
    ("PENDING", "PROCESSING"),
    ("PENDING", "SKIPPED"),
    ("PROCESSING", "PENDING"),
    ("PROCESSING", "SIMULATED"),
    ("PROCESSING", "EXECUTED"),
    ("PROCESSING", "SKIPPED"),
    ("PROCESSING", "FAILED"),
}


@pytest.mark.parametrize(("before", "after"), list(product(Status, Status)))
def test_a_transition_is_legal_where_the_diagram_has_an_arrow(
    before: Status, after: Status
) -> None:
    assert is_legal(before, after) is ((before.value, after.value) in LEGAL)


@pytest.mark.parametrize("status", list(Status))
def test_a_status_is_terminal_when_nothing_may_follow(status: Status) -> None:
    assert status.is_terminal is not any(is_legal(status, after) for after in Status)


def test_decide_when_all_pass_then_passes() -> None:
    decision = decide([PASSED])
    assert (decision.passed, decision.failure_reason) == (True, None)


def test_decide_when_several_fail_then_the_first_is_the_reason() -> None:
    decision = decide([PASSED, STALE, LOW])
    assert decision.passed is False
    assert decision.failure_reason == "feature_freshness: Features too old"


def test_decide_when_there_are_no_results_then_refuses() -> None:
    decision = decide([])
    assert (decision.passed, decision.failure_reason) == (False, "gates: None evaluated")


def test_decide_keeps_every_gates_answer() -> None:
    assert decide([PASSED, LOW]).gates == {
        "bar_freshness": {
            "passed": True,
            "code": "bar_freshness.ok",
            "reason": "Bar fresh",
            "observed": 60.0,
            "threshold": 120,
        },
        "confidence": {
            "passed": False,
            "code": "confidence.low",
            "reason": "Confidence too low",
            "observed": 0.4,
            "threshold": 0.7,
        },
    }


@pytest.mark.parametrize(
    ("reason", "gate"),
    [("confidence: Confidence too low", "confidence"), ("expired", "expired"), (None, "none")],
)
def test_gate_of_is_what_the_reason_begins_with(reason: str | None, gate: str) -> None:
    assert gate_of(reason) == gate
