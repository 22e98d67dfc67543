"""The dispatcher in memory: past presents once more, under any settings; nothing is written."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import count
from uuid import UUID

from ops_pipeline.dispatcher.brokers import SimulatedBroker
from ops_pipeline.dispatcher.exits import Exit, due_positions, exit_of
from ops_pipeline.dispatcher.judge import Terms, Verdict, fill_of, settle
from ops_pipeline.dispatcher.snapshot import Account
from ops_pipeline.domain.dispatch import EXPIRED, Status, turn
from ops_pipeline.domain.execution import FLATTEN, Book, Closing, may_fill
from ops_pipeline.domain.gates import CLOSE
from ops_pipeline.domain.session import Calendar
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.domain.values import Bar, Fill, Position, Recommendation
from ops_pipeline.storage.dispatch import Owned
from ops_pipeline.storage.what_if import Dated, Ended, Newest

NO_RUN = UUID(int=0)


@dataclass(frozen=True)
class Present:
    """An instant at which the dispatcher ran: how often, and what it found the world to be like.

    `is_last` tells whether it had nothing left to do then; else it went on at the next instant.
    A live run reads the clock once more when it decides, a moment after it has claimed.
    """

    at: datetime
    decided_at: datetime
    runs: int
    is_last: bool
    config: DispatcherConfig
    trading_state: str
    quarantined: frozenset[str]
    must_be_flat: bool = False
    clock_skew_seconds: float = 0.0


@dataclass(frozen=True)
class Past:
    """All that the dispatcher was given: fills before the first present, and what came later.

    Each recommendation stands beside the instant from which it could be seen.
    """

    fills: Sequence[Fill]
    openings: Sequence[tuple[datetime, Owned]]
    bars: Sequence[Dated[Bar]]
    feature_bars: Sequence[Dated[datetime]]


@dataclass(frozen=True)
class Played:
    """What a play came to: how each recommendation ended, and all fills, earlier ones included."""

    ended: list[Ended]
    fills: list[Fill]


class Queue:
    """The queue of recommendations in memory; each method does what its named query does."""

    def __init__(self, openings: Iterable[tuple[datetime, Owned]]) -> None:
        self._coming = sorted(openings, key=lambda each: each[0], reverse=True)
        self._pending: list[Owned] = []
        self._exits: list[Exit] = []

    def see(self, now: datetime) -> None:
        """Let rows be pending that are there by now."""
        while self._coming and self._coming[-1][0] <= now:
            self._pending.append(self._coming.pop()[1])

    def insert_exit(self, made: Exit) -> None:
        """Queue a proposal, unless one of its ticker waits or was made in this minute."""
        waits = any(
            owned.recommendation.intent == CLOSE and owned.recommendation.ticker == made.ticker
            for owned in self._pending
        )
        key = made.ticker, made.minute
        if waits or key in {(exit_.ticker, exit_.minute) for exit_ in self._exits}:
            return
        self._exits.append(made)
        self._pending.append(_owned_exit(made))

    def closings(self, positions: Iterable[Position]) -> dict[str, Closing]:
        """Return the attempts to close each position; no order of a simulation ends in vain."""
        found = dict[str, Closing]()
        for position in positions:
            exits = [
                made
                for made in self._exits
                if made.ticker == position.ticker and made.ts > position.opened_at
            ]
            if exits:
                reasons = [made.reason["exit"] for made in exits if made.reason["exit"] != FLATTEN]
                found[position.ticker] = Closing(next(iter(reasons), None), 0, exits[-1].ts)
        return found

    def expire(self, now: datetime) -> list[Owned]:
        """Close what is too old to trade."""
        return self._remove(
            owned
            for owned in self._pending
            if owned.recommendation.expires_at <= now and owned.recommendation.ts < now
        )

    def claim(self, present: Present, bars: Mapping[str, Bar]) -> list[Owned]:
        """Take the next ones in turn; closing orders once there is a bar to fill them at."""
        now, config = present.at, present.config
        is_skewed = not abs(present.clock_skew_seconds) <= config.max_clock_skew_seconds
        ready = []
        for owned in self._pending:
            asked = owned.recommendation
            if asked.intent == CLOSE:
                may_go = may_fill(bars.get(asked.ticker), asked.ts, now, config)
            else:
                may_go = not is_skewed
            if may_go and asked.ts <= now < asked.expires_at:
                ready.append(owned)
        ready.sort(key=lambda owned: turn(owned.recommendation))
        return self._remove(ready[: config.max_signals_per_run])

    def _remove(self, taken: Iterable[Owned]) -> list[Owned]:
        gone = {id(owned): owned for owned in taken}
        self._pending = [owned for owned in self._pending if id(owned) not in gone]
        return list(gone.values())


class Rehearsal:
    """Plays presents in order; the dispatcher's own rules decide, on what was known then."""

    def __init__(self, past: Past, calendar: Calendar) -> None:
        self._calendar = calendar
        self._queue = Queue(past.openings)
        self._bars = Newest(past.bars)
        self._feature_bars = Newest(past.feature_bars)
        self._book, self._day = Book(), date.min
        self.played = Played([], list(past.fills))

    def step(self, present: Present) -> None:
        """As many runs as there were at an instant, and on until nothing is left to do."""
        self._queue.see(present.at)
        claiming = self._account(present, present.at)
        for done in count(1):
            is_idle = not self._run(present, claiming)
            if is_idle or (done >= present.runs and not present.is_last):
                return

    def _account(self, present: Present, at: datetime) -> Account:
        day = self._calendar.day(at)
        if day != self._day:
            self._book, self._day = Book(_live(self.played.fills, day)), day
        return Account(
            now=at,
            trading_state=present.trading_state,
            session=self._calendar.at(at),
            book=self._book,
            bars=self._bars.at(at),
            quarantined=present.quarantined,
            clock_skew_seconds=present.clock_skew_seconds,
        )

    def _run(self, present: Present, claiming: Account) -> int:
        now, config = present.at, present.config
        feature_bars = self._feature_bars.at(now)
        tried = self._queue.closings(claiming.book.positions.values())
        due = due_positions(claiming, config, tried, must_be_flat=present.must_be_flat)
        for position, reason in due:
            self._queue.insert_exit(exit_of(claiming, position, reason, feature_bars))
        for owned in self._queue.expire(now):
            self._end(owned.recommendation, now, Status.SKIPPED, EXPIRED)
        claimed = self._queue.claim(present, claiming.bars)
        terms = Terms(NO_RUN, config, SimulatedBroker())
        deciding = self._account(present, present.decided_at) if claimed else claiming
        for owned in claimed:
            self._keep(terms, settle(terms, owned, deciding), present.decided_at)
        return len(claimed)

    def _keep(self, terms: Terms, verdict: Verdict, now: datetime) -> None:
        closed = verdict.closed
        fill = fill_of(terms, verdict.execution) if verdict.execution else None
        if fill:
            self.played.fills.append(fill)
        reason = closed.decision.failure_reason
        self._end(closed.recommendation, now, closed.status, reason, fill)

    def _end(
        self,
        recommendation: Recommendation,
        now: datetime,
        status: Status,
        reason: str | None,
        fill: Fill | None = None,
    ) -> None:
        ended = Ended(
            ticker=recommendation.ticker,
            minute=recommendation.minute,
            intent=recommendation.intent,
            action=recommendation.action,
            at=now,
            status=status.value,
            failure_reason=reason,
            quantity=fill.quantity if fill else 0,
            price=fill.price if fill else None,
            stop_price=fill.stop_price if fill else None,
            target_price=fill.target_price if fill else None,
            max_hold_minutes=fill.max_hold_minutes if fill else None,
        )
        self.played.ended.append(ended)


def play(past: Past, calendar: Calendar, presents: Iterable[Present]) -> Played:
    """What the dispatcher would have done at these presents, in order, under their settings."""
    rehearsal = Rehearsal(past, calendar)
    for present in presents:
        rehearsal.step(present)
    return rehearsal.played


def _live(fills: Sequence[Fill], day: date) -> list[Fill]:
    """The fills of tickers that are held or were traded in this session, as live_fills has them."""
    held = Counter[str]()
    for fill in fills:
        held[fill.ticker] += fill.quantity + fill.working
    traded = {fill.ticker for fill in fills if fill.session_date == day}
    return [fill for fill in fills if held[fill.ticker] or fill.ticker in traded]


def _owned_exit(made: Exit) -> Owned:
    recommendation = Recommendation(
        id=0,
        ts=made.ts,
        ticker=made.ticker,
        minute=made.minute,
        action=made.action,
        instrument_type="STOCK",
        intent=CLOSE,
        confidence=1.0,
        expires_at=made.expires_at,
        claim_epoch=1,
        reason=dict(made.reason),
    )
    return Owned(recommendation, made.session_date, made.features)
