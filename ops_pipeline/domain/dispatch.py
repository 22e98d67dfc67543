"""The states of a recommendation, and how the gates' results become one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from ops_pipeline.domain.gates import CLOSE, GateResult
from ops_pipeline.domain.values import Recommendation

EXPIRED = "expired"


class Status(StrEnum):
    """Where a recommendation stands."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    SIMULATED = "SIMULATED"
    EXECUTED = "EXECUTED"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing may follow."""
        return self not in (Status.PENDING, Status.PROCESSING)


TRANSITIONS = frozenset(
    {
        (Status.PENDING, Status.PROCESSING),
        (Status.PENDING, Status.SKIPPED),
        (Status.PROCESSING, Status.PENDING),
        (Status.PROCESSING, Status.SIMULATED),
        (Status.PROCESSING, Status.EXECUTED),
        (Status.PROCESSING, Status.SKIPPED),
        (Status.PROCESSING, Status.FAILED),
    }
)


def is_legal(before: Status, after: Status) -> bool:
    """Whether a recommendation may go from one status to the other."""
    return (before, after) in TRANSITIONS


@dataclass(frozen=True)
class Decision:
    """What the gates say together: passed, or the first refusal in their order."""

    passed: bool
    failure_reason: str | None
    gates: dict[str, dict[str, Any]]


def decide(results: Sequence[GateResult]) -> Decision:
    """All results as one decision; no results at all is a refusal."""
    failed = next((result for result in results if not result.passed), None)
    gates = {result.gate: result.document() for result in results}
    if not results:
        return Decision(passed=False, failure_reason="gates: None evaluated", gates=gates)
    reason = f"{failed.gate}: {failed.reason}" if failed else None
    return Decision(passed=failed is None, failure_reason=reason, gates=gates)


def turn(recommendation: Recommendation) -> tuple[datetime, bool, float, str]:
    """What recommendations are taken in the order of, as the queries that claim them do."""
    is_opening = recommendation.intent != CLOSE
    return recommendation.ts, is_opening, -recommendation.confidence, recommendation.ticker


def gate_of(failure_reason: str | None) -> str:
    """The gate, or the word, that a failure reason begins with."""
    return (failure_reason or "none").partition(":")[0]
