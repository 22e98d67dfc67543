"""How bad it is: the words of the runbook's escalation, and what a check found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Row = Mapping[str, Any]


class Level(StrEnum):
    """How bad it is: the words of the runbook's escalation, in order; first, what was not asked."""

    NOT_APPLICABLE = "not applicable"
    NORMAL = "normal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

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
        """Return True if the check does not apply now: it has found nothing, good or bad."""
        return self.level is Level.NOT_APPLICABLE

    @property
    def is_normal(self) -> bool:
        """Whether there is nothing to do."""
        return self.level in (Level.NOT_APPLICABLE, Level.NORMAL)


BACKLOG, STUCK, DUPLICATES = "backlog_state", "stuck_processing", "duplicate_executions"
RUNS, VOLUME = "recent_dispatcher_runs", "execution_volume"
# The runbook's five queries, in its order.
QUERIES = (BACKLOG, STUCK, DUPLICATES, RUNS, VOLUME)
