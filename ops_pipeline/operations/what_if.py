"""What other settings would have changed: the ledger played again in memory, and compared."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import Connection

from ops_pipeline.dispatcher.what_if import Past, Played, Present, play
from ops_pipeline.domain.dispatch import Status, gate_of
from ops_pipeline.domain.errors import BadConfiguration, BadInput
from ops_pipeline.domain.execution import Book
from ops_pipeline.domain.gates import OPEN
from ops_pipeline.domain.session import Calendar
from ops_pipeline.domain.thresholds import DispatcherConfig, strict_config
from ops_pipeline.settings import Mode
from ops_pipeline.storage import what_if as storage
from ops_pipeline.storage.execution import live_fills
from ops_pipeline.storage.what_if import Ended, RecordedRun, Waiting

WAITING = "waiting"
EARLIEST, LATEST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
Key = tuple[str, datetime, str]


@dataclass(frozen=True)
class Change:
    """A setting with what it was in the runs of the range, and what it is now."""

    setting: str
    before: list[Any]
    after: Any


@dataclass(frozen=True)
class Totals:
    """What a play came to; recommendations are those to open a position."""

    recommendations: int
    executed: int
    entries: int
    exits: int
    skipped: int
    failed: int
    waiting: int
    positions_left: int
    realised_usd: float
    skips_by_gate: dict[str, int]


@dataclass(frozen=True)
class Flip:
    """A recommendation that is traded now, or no longer; the gate is the one that refuses it."""

    ticker: str
    minute: datetime
    action: str
    confidence: float
    is_traded: bool
    gate: str
    reason: str


@dataclass(frozen=True)
class WhatIf:
    """A stretch of the ledger, whether it could be reproduced, and what changes would make of it.

    `equal` of `decisions` of the ledger came out the same under the settings that were in force,
    and `added` came out that it does not have.
    """

    first: date
    last: date
    sessions: int
    presents: int
    decisions: int
    equal: int
    added: int
    changes: list[Change]
    before: Totals
    after: Totals
    flips: list[Flip]

    @property
    def is_reproduced(self) -> bool:
        """Whether the play in memory is the ledger, decision for decision."""
        return self.equal == self.decisions and not self.added


def what_if(
    connection: Connection,
    mode: Mode,
    days: tuple[date | None, date | None],
    changes: Mapping[str, Any],
) -> WhatIf:
    """Play the decisions of these days again, as they were made and under changed settings.

    Args:
        connection: on the mode's database; nothing is written.
        mode: whose calendar and clock the days have.
        days: the first and the last one; None leaves that end open.
        changes: settings of the dispatcher, as JSON gives their values.

    Raises:
        BadInput: there are no runs on these days, or a setting is refused.
    """
    calendar = mode.calendar
    start, end = _bounds(calendar, days)
    recorded = storage.runs(connection, start, end)
    if not recorded:
        raise BadInput(
            f"the dispatcher never ran {_words(days)} in mode {mode.value}",
            "list its days with: ops-pipeline sql"
            ' "select distinct started_at::date from dispatcher_runs"',
        )
    documents = storage.settings(connection, start, end)
    then, now = _configs(documents, {}), _configs(documents, changes)
    begun, over = recorded[0].started_at, max(run.decided_at for run in recorded)
    past, openings = _past(connection, mode, begun, over)
    before = play(past, calendar, _presents(recorded, then))
    after = play(past, calendar, _presents(recorded, now)) if changes else before
    ledger = storage.decisions(connection, begun, over)
    equal, added = _compare(ledger, before.ended)
    ran_on = sorted({calendar.day(run.started_at) for run in recorded})
    return WhatIf(
        first=ran_on[0],
        last=ran_on[-1],
        sessions=len(ran_on),
        presents=len({run.started_at for run in recorded}),
        decisions=len(ledger),
        equal=equal,
        added=added,
        changes=[_change(key, then.values(), now.values()) for key in changes],
        before=_totals(before, openings, ran_on),
        after=_totals(after, openings, ran_on),
        flips=_flips(openings, before, after),
    )


def _bounds(calendar: Calendar, days: tuple[date | None, date | None]) -> tuple[datetime, datetime]:
    first, last = days
    return (
        calendar.day_starts_at(first) if first else EARLIEST,
        calendar.day_starts_at(min(last, LATEST.date()) + timedelta(days=1)) if last else LATEST,
    )


def _words(days: tuple[date | None, date | None]) -> str:
    first, last = days
    if first and last:
        return f"on {first}" if first == last else f"from {first} to {last}"
    if first or last:
        return f"from {first} on" if first else f"until {last}"
    return "at all"


def _configs(
    documents: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Any]
) -> dict[str, DispatcherConfig]:
    """The settings of the runs by their hash, with changes."""
    try:
        return {key: strict_config({**found, **changes}) for key, found in documents.items()}
    except ValueError as error:
        if changes:
            raise BadInput(f"--set {error}", "docs/thresholds.md has every setting") from None
        raise BadConfiguration(f"a run has settings that this version refuses: {error}") from None


def _past(
    connection: Connection, mode: Mode, start: datetime, end: datetime
) -> tuple[Past, list[Waiting]]:
    openings = storage.openings(connection, start, end)
    fills = [f for f in live_fills(connection, mode.calendar.day(start)) if f.at < start]
    tickers = sorted(
        {each.owned.recommendation.ticker for each in openings} | {fill.ticker for fill in fills}
    )
    past = Past(
        fills=fills,
        openings=[(_seen_from(each, mode), each.owned) for each in openings],
        bars=storage.known_bars(connection, tickers, start, end),
        feature_bars=storage.known_feature_bars(connection, tickers, start, end),
    )
    return past, openings


def _seen_from(each: Waiting, mode: Mode) -> datetime:
    """A replay writes a day's rows before it is traded; live, they come when they are written."""
    ts = each.owned.recommendation.ts
    return max(ts, each.created_at) if mode.is_live else ts


def _presents(
    recorded: Sequence[RecordedRun], configs: Mapping[str, DispatcherConfig]
) -> list[Present]:
    found: list[Present] = []
    for at, group in groupby(recorded, key=lambda run: run.started_at):
        runs = list(group)
        summary = runs[-1].summary
        present = Present(
            at=at,
            decided_at=max(run.decided_at for run in runs),
            runs=len(runs),
            is_last=any(run.pulled == 0 for run in runs),
            config=configs[runs[-1].config_hash],
            trading_state=str(summary.get("trading_state")),
            quarantined=frozenset(summary.get("quarantined", ())),
            must_be_flat=bool(summary.get("must_be_flat")),
            clock_skew_seconds=float(summary.get("clock_skew_seconds", 0.0)),
        )
        found.append(present)
    return found


def _compare(ledger: Sequence[Ended], played: Sequence[Ended]) -> tuple[int, int]:
    """How many decisions of the ledger came out equal, and how many came out that it has not."""
    stands, came = _by_key(ledger), _by_key(played)
    equal = sum(key in came and _plain(came[key]) == _plain(ended) for key, ended in stands.items())
    return equal, len(came.keys() - stands.keys())


def _by_key(ended: Iterable[Ended]) -> dict[Key, Ended]:
    return {each.key: each for each in ended}


def _plain(ended: Ended) -> Ended:
    # Who filled it is no matter; what was filled, and at what price, is.
    return replace(ended, status=Status.SIMULATED.value) if ended.is_traded else ended


def _change(
    setting: str, then: Iterable[DispatcherConfig], now: Iterable[DispatcherConfig]
) -> Change:
    before = [config.document()[setting] for config in then]
    (after, *_) = (config.document()[setting] for config in now)
    return Change(
        setting, [value for n, value in enumerate(before) if value not in before[:n]], after
    )


def _totals(played: Played, openings: Sequence[Waiting], days: Sequence[date]) -> Totals:
    by_status = Counter(ended.status for ended in played.ended)
    traded = [ended for ended in played.ended if ended.is_traded]
    entries = sum(ended.intent == OPEN for ended in traded)
    skips = Counter(
        gate_of(ended.failure_reason)
        for ended in played.ended
        if ended.status == Status.SKIPPED.value
    )
    book = Book(played.fills)
    ended = {each.key for each in played.ended}
    return Totals(
        recommendations=len(openings),
        executed=len(traded),
        entries=entries,
        exits=len(traded) - entries,
        skipped=by_status[Status.SKIPPED.value],
        failed=by_status[Status.FAILED.value],
        waiting=sum(_key(each) not in ended for each in openings),
        positions_left=len(book.positions),
        realised_usd=sum(book.realised_usd.get(day, 0.0) for day in days),
        skips_by_gate=dict(sorted(skips.items(), key=lambda item: (-item[1], item[0]))),
    )


def _key(waiting: Waiting) -> Key:
    recommendation = waiting.owned.recommendation
    return recommendation.ticker, recommendation.minute, recommendation.intent


def _flips(openings: Sequence[Waiting], before: Played, after: Played) -> list[Flip]:
    """The recommendations of which it differs whether they are traded, by ticker and minute."""
    then, now = _by_key(before.ended), _by_key(after.ended)
    found = (_flip(each, then.get(_key(each)), now.get(_key(each))) for each in openings)
    return sorted((flip for flip in found if flip), key=lambda flip: (flip.ticker, flip.minute))


def _flip(waiting: Waiting, then: Ended | None, now: Ended | None) -> Flip | None:
    was, is_traded = (bool(ended and ended.is_traded) for ended in (then, now))
    if was == is_traded:
        return None
    refused = then if is_traded else now
    recommendation = waiting.owned.recommendation
    reason = (refused.failure_reason if refused else None) or WAITING
    return Flip(
        ticker=recommendation.ticker,
        minute=recommendation.minute,
        action=recommendation.action,
        confidence=recommendation.confidence,
        is_traded=is_traded,
        gate=gate_of(reason),
        reason=reason,
    )
