"""Stage bars: one-minute bars, complete ones only."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from itertools import groupby

import dagster as dg
from sqlalchemy import Connection

from ops_pipeline.clients.protocols import FetchedBars
from ops_pipeline.defs.minutes import Minutes, finish, result, seconds_left, wait_until_settled
from ops_pipeline.defs.resources import Pipeline, bar_known_at
from ops_pipeline.domain.bars import far_off, split_faulty
from ops_pipeline.domain.errors import NotRunning, OperatorError
from ops_pipeline.domain.session import MINUTE, Session, both_zones
from ops_pipeline.domain.stages import BARS
from ops_pipeline.domain.values import Bar
from ops_pipeline.storage import bars as storage
from ops_pipeline.storage.knowledge import counts_by_minute
from ops_pipeline.storage.quarantine import OVERNIGHT_GAP, SPLIT, Quarantine, insert_quarantine
from ops_pipeline.storage.universe import universe

# A vendor's bar can come some minutes late; so long it is asked for again.
OVERLAP = 5 * MINUTE
NAMED = 10
Coverage = Mapping[tuple[str, date], datetime]


def materialize(minutes: Minutes, pipeline: Pipeline) -> dg.MaterializeResult[object]:
    """One row for each ticker and traded minute; a version that comes later is kept beside it."""
    wait_until_settled(minutes, pipeline)
    sessions = _sessions(minutes, pipeline)
    asked, covered = _answered_so_far(sessions, pipeline)
    fetched = _fetch(asked, covered, minutes, sessions, pipeline)
    _require_some(fetched, minutes, pipeline)
    splits = _fetch_splits(asked, covered, sessions, pipeline)
    usable, faults = split_faulty(fetched.bars)
    with pipeline.engine.begin() as connection:
        stamp = pipeline.stamp(connection)
        days = _session_days(usable, pipeline)
        regular = [bar for bar in usable if bar.minute in days]
        kept = storage.insert_bars(
            connection,
            regular,
            days,
            lambda bar: stamp or bar.available_at or bar_known_at(bar.minute),
            feed=pipeline.market.bars.feed,
            origin=pipeline.market.origin,
        )
        answered = [ticker for ticker in asked if ticker not in fetched.unanswered]
        storage.mark_answered(connection, answered, sessions, minutes.end)
        quarantined = _quarantine_jumps(connection, regular, sessions, pipeline)
        quarantined += _quarantine_splits(connection, splits, stamp)
        counts = counts_by_minute(connection, BARS.name, minutes.start, minutes.end)
        finish(connection, BARS, minutes, counts)
    return result(
        minutes,
        kept.new,
        revisions=kept.revisions,
        outside_session=len(usable) - len(regular),
        refused=sum(faults.values()),
        far_off=", ".join(sorted({bar.ticker for bar in far_off(regular)})[:NAMED]),
        requests=fetched.requests,
        bytes=fetched.bytes,
        unanswered=_named(fetched.unanswered),
        quarantined=", ".join(quarantined),
    )


def _sessions(minutes: Minutes, pipeline: Pipeline) -> list[Session]:
    """The sessions of the minutes, and the one before them, to warm up on."""
    if not minutes.pairs:
        return []
    own = [session for session, _ in minutes.by_session()]
    return [pipeline.calendar.before(own[0].day), *own]


def _answered_so_far(sessions: Sequence[Session], pipeline: Pipeline) -> tuple[list[str], Coverage]:
    """Whom to ask for, and up to when the vendor has answered."""
    if not sessions:
        return [], {}
    with pipeline.engine.connect() as connection:
        asked = [ticker.symbol for ticker in universe(connection)]
        return asked, storage.coverage(connection, sessions[0].day, sessions[-1].day)


def _fetch(
    asked: Sequence[str],
    covered: Coverage,
    minutes: Minutes,
    sessions: Sequence[Session],
    pipeline: Pipeline,
) -> FetchedBars:
    """What the vendor has not answered yet, a little overlap, and nothing else.

    Raises:
        OperatorError: no request was answered.
    """
    starts = {ticker: _start(ticker, minutes, sessions, covered) for ticker in asked}
    by_start = sorted(asked, key=lambda ticker: (starts[ticker], ticker))
    answers: list[FetchedBars] = []
    failed: dict[str, OperatorError] = {}
    for start, group in groupby(by_start, key=starts.__getitem__):
        tickers, left = list(group), seconds_left(minutes, pipeline)
        try:
            answers.append(pipeline.market.bars.fetch_bars(tickers, start, minutes.end, left))
        except OperatorError as error:
            failed |= dict.fromkeys(tickers, error)
    if not answers and failed:
        raise next(iter(failed.values()))
    return _together(answers, {ticker: str(error) for ticker, error in failed.items()})


def _start(
    ticker: str, minutes: Minutes, sessions: Sequence[Session], covered: Coverage
) -> datetime:
    """The first instant that the vendor has not answered for; the run's own minutes always."""
    for session in sessions:
        until = covered.get((ticker, session.day), session.opens_at)
        if until < min(session.closes_at, minutes.end):
            return min(max(until - OVERLAP, session.opens_at), minutes.start)
    return minutes.start


def _together(answers: Sequence[FetchedBars], failed: Mapping[str, str]) -> FetchedBars:
    unanswered = dict(failed)
    for answer in answers:
        unanswered |= answer.unanswered
    return FetchedBars(
        [bar for answer in answers for bar in answer.bars],
        unanswered,
        sum(answer.requests for answer in answers),
        sum(answer.bytes for answer in answers),
    )


def _require_some(fetched: FetchedBars, minutes: Minutes, pipeline: Pipeline) -> None:
    """Inside the hours of a live market, silence about every ticker is an outage."""
    if not pipeline.mode.is_live or not minutes.pairs:
        return
    if not any(minutes.start <= bar.minute < minutes.end for bar in fetched.bars):
        raise NotRunning(
            f"{pipeline.market.bars.feed} has no bar of any ticker from"
            f" {both_zones(minutes.start)} to {both_zones(minutes.end)}",
            "run: ops-pipeline doctor",
        )


def _fetch_splits(
    asked: Sequence[str], covered: Coverage, sessions: Sequence[Session], pipeline: Pipeline
) -> dict[date, dict[str, float]]:
    """Splits of the sessions that begin with this run.

    A failure ends the run: as long as nothing is stored of a session, the next run asks again.
    """
    begun = {day for _, day in covered}
    new = [session.day for session in sessions[1:] if session.day not in begun]
    return {day: pipeline.market.splits.fetch_splits(asked, day) for day in new}


def _quarantine_splits(
    connection: Connection, splits: Mapping[date, Mapping[str, float]], stamp: datetime | None
) -> list[str]:
    """Keep split stocks from being traded: positions and averages count in old shares."""
    return [
        ticker
        for day, ratios in splits.items()
        for ticker, ratio in ratios.items()
        if stamp and insert_quarantine(connection, Quarantine(ticker, day, SPLIT, ratio, stamp))
    ]


def _quarantine_jumps(
    connection: Connection, bars: Sequence[Bar], sessions: Sequence[Session], pipeline: Pipeline
) -> list[str]:
    """Keep tickers that opened too far from their last close from being traded."""
    limit = pipeline.bar_rules.max_overnight_gap
    tickers = sorted({bar.ticker for bar in bars})
    return [
        found.ticker
        for session in sessions[1:]
        for found in storage.opening_gaps(connection, tickers, session)
        if abs(found.gap) > limit
        and insert_quarantine(
            connection,
            Quarantine(found.ticker, session.day, OVERNIGHT_GAP, found.gap, found.available_at),
        )
    ]


def _named(unanswered: Mapping[str, str]) -> str:
    named = [f"{ticker}: {reason}" for ticker, reason in sorted(unanswered.items())]
    rest = f", and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return "; ".join(named[:NAMED]) + rest


def _session_days(usable: list[Bar], pipeline: Pipeline) -> dict[datetime, date]:
    wanted = {bar.minute for bar in usable}
    if not wanted:
        return {}
    pairs = pipeline.calendar.minutes_between(min(wanted), max(wanted) + MINUTE)
    return {minute: session.day for session, minute in pairs if minute in wanted}
