"""A database that is away, told from memory; a file keeps what was told if we end meanwhile."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ops_pipeline.domain import alerts
from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.alerts import DATABASE, Kind, Message
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.private_files import replace_private
from ops_pipeline.settings import read_object

log = logging.getLogger(__name__)

NAME = "database_answers"
ANSWERS = Verdict(NAME, Level.NORMAL, "PostgreSQL answers", {}, "it answers")


@dataclass
class Outage:
    """Since when, why, which channels know of it, and how often and when the others are tried.

    It is kept where the database holds all of that, and has not failed since.
    """

    began_at: datetime
    finding: str
    told: dict[str, datetime] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    next_try_at: dict[str, datetime] = field(default_factory=dict)
    is_kept: bool = False

    @property
    def verdict(self) -> Verdict:
        """What the runbook calls critical: the connection to the database is lost."""
        return Verdict(NAME, Level.CRITICAL, self.finding, {}, ANSWERS.expected)

    def message(self, now: datetime) -> Message:
        """What is said of it."""
        alert = alerts.opened(DATABASE, self.verdict, self.began_at, flaps=0)
        return alerts.message_of(alert, Kind.OPENED, now)

    def waits(self, channel: str, now: datetime) -> bool:
        """Whether a channel is to be told now."""
        is_tried = self.attempts.get(channel, 0) < alerts.MAX_ATTEMPTS
        return channel not in self.told and is_tried and self.next_try_at.get(channel, now) <= now

    def keep(self, channel: str, error: str | None, now: datetime) -> None:
        """Keep how an attempt to tell a channel ended."""
        self.attempts[channel] = self.attempts.get(channel, 0) + 1
        if error is None:
            self.told[channel] = now
            return
        again = alerts.retry_at(self.attempts[channel], now)
        if again:
            self.next_try_at[channel] = again


def read(path: Path) -> Outage | None:
    """The outage that a process before us told of; None where there was none."""
    try:
        kept = read_object(path)
        if kept is None:
            return None
        began_at = datetime.fromisoformat(kept["began_at"])
        return Outage(began_at, str(kept["finding"]), _times(kept["told"]))
    except (BadConfiguration, AttributeError, KeyError, TypeError, ValueError):
        # Whoever was told is told again.
        log.warning("%s is damaged: what was told of an outage is forgotten", path)
        return None


def write(path: Path, outage: Outage | None) -> None:
    """Keep it for a process after us; None where it is over."""
    if outage is None:
        path.unlink(missing_ok=True)
        return
    told = {channel: at.isoformat() for channel, at in outage.told.items()}
    kept = {"began_at": outage.began_at.isoformat(), "finding": outage.finding, "told": told}
    replace_private(path, json.dumps(kept))


def _times(kept: Mapping[str, Any]) -> dict[str, datetime]:
    return {channel: datetime.fromisoformat(at) for channel, at in kept.items()}
