"""Stage bars: one-minute bars, complete ones only."""

from datetime import date, datetime

import dagster as dg

from ops_pipeline.defs.minutes import Minutes, finish, result, wait_until_settled
from ops_pipeline.defs.resources import Pipeline, bar_known_at
from ops_pipeline.domain.bars import split_faulty
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.stages import BARS
from ops_pipeline.domain.values import Bar
from ops_pipeline.storage import bars as storage
from ops_pipeline.storage.knowledge import counts_by_minute
from ops_pipeline.storage.universe import universe

OVERLAP = 5 * MINUTE


def materialize(minutes: Minutes, pipeline: Pipeline) -> dg.MaterializeResult[object]:
    """One row for each ticker and traded minute; a version that comes later is kept beside it."""
    wait_until_settled(minutes, pipeline)
    usable, faults = split_faulty(_fetch(minutes, pipeline))
    with pipeline.engine.begin() as connection:
        stamp = pipeline.stamp(connection)
        days = _session_days(usable, pipeline)
        regular = [bar for bar in usable if bar.minute in days]
        added = storage.insert_bars(
            connection,
            regular,
            days,
            {minute: stamp or bar_known_at(minute) for minute in days},
            feed=pipeline.market.bars.feed,
            origin=pipeline.market.origin,
        )
        counts = counts_by_minute(connection, BARS.name, minutes.start, minutes.end)
        finish(connection, BARS, minutes, counts)
    outside = len(usable) - len(regular)
    return result(minutes, added, outside_session=outside, refused=sum(faults.values()))


def _fetch(minutes: Minutes, pipeline: Pipeline) -> list[Bar]:
    """From a little before the newest stored bar on, or from the session before."""
    if not minutes.pairs:
        return []
    floor = pipeline.calendar.before(minutes.pairs[0][0].day).opens_at
    with pipeline.engine.connect() as connection:
        tickers = [ticker.symbol for ticker in universe(connection)]
        newest = storage.newest_minute(connection, floor, minutes.start)
    start = max(newest - OVERLAP, floor) if newest else floor
    return pipeline.market.bars.fetch_bars(tickers, min(start, minutes.start), minutes.end)


def _session_days(usable: list[Bar], pipeline: Pipeline) -> dict[datetime, date]:
    wanted = {bar.minute for bar in usable}
    if not wanted:
        return {}
    pairs = pipeline.calendar.minutes_between(min(wanted), max(wanted) + MINUTE)
    return {minute: session.day for session, minute in pairs if minute in wanted}
