"""Somebody outside who notices that nothing is told any more, and whether they still hear us."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ops_pipeline.clients.dead_man import ping
from ops_pipeline.domain.acceptance import Level, Verdict

NAME = "dead_man_answers"
# Five minutes of looks: a router that starts again is over by then, and they who wait for us have
# begun to wonder. A wrong address or an account that has run out nobody else would ever tell.
LOST_AFTER = 20


@dataclass
class DeadMan:
    """Whom to ask after each whole look, how often in a row that failed, and how it failed last.

    The address is a secret; where there is none, nobody is asked.
    """

    url: str = ""
    failures: int = 0
    error: str | None = None
    was_asked: bool = False

    def ask(self) -> None:
        """Tell them that all was looked at."""
        if self.url:
            self.error, self.was_asked = ping(self.url), True
            self.failures = self.failures + 1 if self.error else 0

    def verdicts(self, _: datetime) -> Sequence[Verdict]:
        """Whether they hear us; nothing while that is not clear."""
        if self.failures >= LOST_AFTER:
            finding = f"{self.failures} times in a row: {self.error}"
            return [Verdict(NAME, Level.MEDIUM, finding, {}, "it answers")]
        if self.failures or (self.url and not self.was_asked):
            return []
        finding = "it answers" if self.url else "none is set"
        return [Verdict(NAME, Level.NORMAL, finding, {}, "it answers")]
