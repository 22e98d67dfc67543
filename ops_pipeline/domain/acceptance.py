"""How bad it is: the words of the runbook's escalation, and what a check found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Row = Mapping[str, Any]


class Level(StrEnum):
    """How bad it is: the words of the runbook's escalation, in order."""

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
    """What one check found; a silent one has not looked, and says so."""

    name: str
    level: Level
    finding: str
    observed: dict[str, Any] = field(default_factory=dict)
    expected: str = ""
    is_silent: bool = False

    @property
    def is_normal(self) -> bool:
        """Whether there is nothing to do."""
        return self.level is Level.NORMAL


BACKLOG, STUCK, DUPLICATES = "backlog_state", "stuck_processing", "duplicate_executions"
RUNS, VOLUME = "recent_dispatcher_runs", "execution_volume"
# The runbook's five queries, in its order.
QUERIES = (BACKLOG, STUCK, DUPLICATES, RUNS, VOLUME)
