"""How bad it is: the words of the runbook's escalation, and what a check found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Row = Mapping[str, Any]


class Level(StrEnum):
    """Severity: the words of the runbook's escalation, in order; first, what was not judged."""

    NOT_APPLICABLE = "not applicable"
    UNMEASURED = "not measured"
    NORMAL = "normal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def is_normal(self) -> bool:
        """Return True if there is nothing to do."""
        return self in (Level.NOT_APPLICABLE, Level.UNMEASURED, Level.NORMAL)

    @property
    def is_error(self) -> bool:
        """Whether somebody has to act today."""
        return self in (Level.HIGH, Level.CRITICAL)


@dataclass(frozen=True)
class Verdict:
    """What one check found; one that does not apply now has not looked, and says why."""

    name: str
    level: Level
    finding: str
    observed: dict[str, Any] = field(default_factory=dict)
    expected: str = ""

    @property
    def is_silent(self) -> bool:
        """Return True if the check does not apply, or has no basis yet: it found nothing at all."""
        return self.level in (Level.NOT_APPLICABLE, Level.UNMEASURED)

    @property
    def is_normal(self) -> bool:
        """Whether there is nothing to do."""
        return self.level.is_normal


BACKLOG, STUCK, DUPLICATES = "backlog_state", "stuck_processing", "duplicate_executions"
RUNS, VOLUME = "recent_dispatcher_runs", "execution_volume"
# The runbook's five queries, in its order.
QUERIES = (BACKLOG, STUCK, DUPLICATES, RUNS, VOLUME)
