"""The process that watches: it looks, opens and resolves alerts, and sends what is due.

It is a process of its own, so that it sees Dagster die, and so that a channel that hangs delays no
trade. Several of them may run: one looks and sends, the others wait for its lease to run out.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Event
from uuid import UUID, uuid4

from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from ops_pipeline.clients.senders import Letter, send
from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.alerts import (
    CONSOLE,
    DATABASE,
    DEAD_MAN,
    SUMMARY,
    WATCH,
    Channel,
    Kind,
    Message,
    Quiet,
)
from ops_pipeline.domain.session import Calendar
from ops_pipeline.operations import outage as outages
from ops_pipeline.operations.daily import sum_up
from ops_pipeline.operations.dead_man import DeadMan
from ops_pipeline.operations.looks import Look
from ops_pipeline.operations.outage import ANSWERS, Outage
from ops_pipeline.settings import AlertChannel
from ops_pipeline.storage import alerts as storage
from ops_pipeline.storage.dispatch import end_lease, take_lease

TICK_SECONDS = 15.0
# A look takes a twentieth of a second; a database that needs so long for one is as good as away.
BOUND_SECONDS = 15.0
# A tick in which every channel hangs in each round takes a minute; one in which every look does,
# a minute and a half.
LEASE_SECONDS = 150.0
# A server that starts again ends what is at work: that it refuses once is nothing to tell.
REFUSALS = 2
# An end waits until its beginning was sent.
ROUNDS = 3
# A server that starts again has so long, before it counts as away.
AWAY_SECONDS = 3.0
GONE = (OperationalError, InterfaceError)

log = logging.getLogger("alerts")


@dataclass
class Watch:
    """What it looks at, whom it tells, and what it remembers; `base_url` is the web UI's."""

    engine: Engine
    calendar: Calendar
    looks: Sequence[Look]
    now: Callable[[], datetime]
    outage_file: Path
    channels: Sequence[AlertChannel] = ()
    quiet: Quiet | None = None
    base_url: str = ""
    dead_man: DeadMan = field(default_factory=DeadMan)
    away_seconds: float = AWAY_SECONDS
    send: Callable[[Sequence[Letter]], Mapping[int, str | None]] = send
    holder: UUID = field(default_factory=uuid4)
    is_standby: bool = False
    refusals: int = 0
    outage: Outage | None = None

    def __post_init__(self) -> None:
        self.outage = outages.read(self.outage_file)
        if self.outage:
            log.warning("the database was away when the watch ended: %s", self.outage.finding)

    def run(self, ended: Event) -> None:
        """Look each quarter of a minute until told to end; then another one may begin at once."""
        while not ended.is_set():
            began = time.monotonic()
            try:
                self.tick()
            except Exception:
                # Without a ping: somebody outside notices.
                log.exception("a look failed")
            ended.wait(max(TICK_SECONDS - (time.monotonic() - began), 1.0))
        # Where the database is away, it runs out by itself.
        with suppress(DBAPIError), self.engine.begin() as connection:
            end_lease(connection, storage.LEASE, self.holder)

    def tick(self) -> bool:
        """Look once, and send what is due. Returns whether all of it was looked at."""
        now = self.now()
        try:
            if not self._is_first():
                return False
            self._record_outage()
            is_whole = self._look(now)
            self._deliver()
            self._end_outage()
        except DBAPIError as error:
            self._fail(now, error)
            return False
        self.refusals = 0
        if is_whole:
            self.dead_man.ask()
        return is_whole

    def _is_first(self) -> bool:
        with self.engine.begin() as connection:
            is_first = take_lease(connection, storage.LEASE, self.holder, LEASE_SECONDS)
        if is_first == self.is_standby:
            log.info("another one watches; this one waits" if self.is_standby else "watching")
        self.is_standby = not is_first
        return is_first

    def _look(self, now: datetime) -> bool:
        own = (Look(DEAD_MAN, self.dead_man.verdicts), Look(SUMMARY, self._sum_up))
        looked = [self._look_at(look, now) for look in (*self.looks, *own)]
        # Not before: one that answers may still refuse to keep what was seen.
        self._observe(now, DATABASE, [ANSWERS])
        return all(looked)

    def _look_at(self, look: Look, now: datetime) -> bool:
        """A look that fails is a finding like any other, and keeps nobody from the next."""
        found: Sequence[Verdict] = []
        error = ""
        try:
            found = look.ask(now)
        except Exception as failure:
            if isinstance(failure, GONE) and not self._answers():
                raise
            log.exception("the look at %s failed", look.source)
            error = _reason(failure) if isinstance(failure, DBAPIError) else type(failure).__name__
        level = Level.HIGH if error else Level.NORMAL
        finding = f"it failed: {error}" if error else "it works"
        self._observe(now, look.source, found)
        self._observe(now, WATCH, [Verdict(f"look_works:{look.source}", level, finding)])
        return not error

    def _observe(self, now: datetime, source: str, found: Sequence[Verdict]) -> None:
        with self.engine.begin() as connection:
            told = storage.observe(connection, now, source, found)
        for alert in told:
            log.info("%s: %s", alert.cause, "over" if alert.resolved_at else alert.level.value)

    def _sum_up(self, now: datetime) -> Sequence[Verdict]:
        with self.engine.begin() as connection:
            sum_up(connection, now, self.calendar)
        return []

    def _deliver(self) -> None:
        known = [Channel(CONSOLE), *self.channels]
        for _ in range(ROUNDS):
            with self.engine.begin() as connection:
                now = self.now()
                storage.pass_on(connection, now, known, self.quiet)
                taken = storage.claim_deliveries(connection, now, self.holder, known)
            if not taken:
                return
            errors = self._sent({one.id: (one.channel, one.message) for one in taken})
            with self.engine.begin() as connection:
                for one in taken:
                    error = errors[one.id]
                    storage.mark_delivery(connection, one, self.now(), self.holder, error)

    def _sent(self, messages: Mapping[int, tuple[str, Message]]) -> dict[int, str | None]:
        """The error of each, by its number; the console is this process's own log."""
        errors: dict[int, str | None] = {}
        letters = []
        for number, (channel, message) in messages.items():
            if channel == CONSOLE:
                log.warning("%s", message.title, extra={"data": {"body": message.body}})
                errors[number] = None
            else:
                letters.append(self._letter(number, channel, message))
        try:
            errors |= self.send(letters)
        except OSError as error:
            log.warning("nothing could be sent: %s", error.strerror)
        return {number: errors.get(number, "it could not be sent") for number in messages}

    def _letter(self, number: int, channel: str, message: Message) -> Letter:
        urls = {one.name: one.url for one in self.channels}
        return letter_of(number, urls[channel], message, self.base_url)

    def _answers(self) -> bool:
        """Whether the database is there, if need be after the moment that a new start takes."""
        for wait in (0.0, self.away_seconds):
            time.sleep(wait)
            try:
                with self.engine.connect() as connection:
                    connection.execute(text("select 1"))
            except GONE:
                continue
            return True
        return False

    def _fail(self, now: datetime, error: DBAPIError) -> None:
        """What was seen could not be kept: tell it, once that is no accident."""
        log.warning("the database failed: %s", _reason(error))
        if not (isinstance(error, GONE) and not self._answers()):
            self.refusals += 1
            finding = f"the database answers, and keeps nothing: {_reason(error)}"
            is_told = self.refusals >= REFUSALS or self.outage is not None
        else:
            finding = f"the connection to the database is lost: {_reason(error)}"
            is_told = True
        if is_told and not self.is_standby:
            self._tell_outage(now, finding)

    def _tell_outage(self, now: datetime, finding: str) -> None:
        """Tell that the database is away without it, each channel once."""
        if self.outage is None:
            self.outage = Outage(now, finding)
        away = self.outage
        away.is_kept = False
        names = (CONSOLE, *(channel.name for channel in self.channels))
        waiting = dict(enumerate(name for name in names if away.waits(name, now)))
        if not waiting:
            return
        said = away.message(now)
        errors = self._sent({number: (name, said) for number, name in waiting.items()})
        for number, name in waiting.items():
            away.keep(name, errors[number], self.now())
        outages.write(self.outage_file, away)

    def _record_outage(self) -> None:
        """The database is back: keep when it went, and who knows of it already."""
        if self.outage is None or self.outage.is_kept:
            return
        with self.engine.begin() as connection:
            began = self.outage.began_at
            for alert in storage.observe(connection, began, DATABASE, [self.outage.verdict]):
                number = storage.opened_message(connection, alert)
                if number:
                    told = dict.fromkeys(self.outage.told)
                    storage.insert_told(connection, number, began, told)
        self.outage.is_kept = True

    def _end_outage(self) -> None:
        """Forget it once its alert is over: of one that comes back before, all know already."""
        if self.outage is None:
            return
        with self.engine.connect() as connection:
            is_open = ANSWERS.name in {alert.cause for alert in storage.open_alerts(connection)}
        if not is_open:
            self.outage = None
            outages.write(self.outage_file, None)


def _reason(error: DBAPIError) -> str:
    """What the database said, in one line."""
    return str(error.orig).strip().splitlines()[0]


def letter_of(number: int, url: str, message: Message, base_url: str = "") -> Letter:
    """A message as it is sent: with its link, and its number, by which a repetition is known."""
    lines = [message.body]
    if message.link and base_url:
        lines.append(f"see: {base_url}{message.link}")
    if message.id:
        lines.append(f"message {message.id}")
    return Letter(number, url, message.title, "\n".join(lines), message.level, message.kind)


def send_test(
    channels: Sequence[AlertChannel],
    now: datetime,
    send_all: Callable[[Sequence[Letter]], Mapping[int, str | None]] = send,
) -> tuple[Message, dict[str, str | None]]:
    """Send one message to each channel. Returns it, and the error of each; None where it is."""
    text = f"A test of this channel at {now:%Y-%m-%d %H:%M:%S} UTC; nothing is wrong."
    message = Message(Kind.TEST, Level.LOW, "[TEST] ops-pipeline", text)
    letters = [letter_of(n, channel.url, message) for n, channel in enumerate(channels)]
    errors = send_all(letters)
    return message, {channel.name: errors[number] for number, channel in enumerate(channels)}
