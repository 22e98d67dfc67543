"""The market that a bench plays: generated, the same for the same days and tickers."""

from datetime import date, timedelta
from typing import Annotated

import typer

from ops_pipeline.cli.market import Request, parse_days
from ops_pipeline.clients.replay import table_of
from ops_pipeline.sandbox.market import GeneratedMarket
from ops_pipeline.settings import Mode

FIRST_DAY = "2025-02-03"
SEED = 7
FromOption = Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD.")]


def generated(sessions: int, tickers: int, first_day: str = FIRST_DAY) -> Request:
    """So many sessions of so many tickers from a day on, and the session before to warm up on.

    Raises:
        BadInput: the first day is none.
    """
    from benchmarks.measure.bars import symbols

    calendar = Mode.REPLAY.calendar
    first = parse_days(first_day, None)[0] or date.fromisoformat(FIRST_DAY)
    # A week has at least three sessions.
    days = calendar.between(first, first + timedelta(days=7 * (sessions // 3 + 1)))[:sessions]
    names = symbols(tickers)
    source = GeneratedMarket(calendar, names, SEED)
    played = [calendar.before(days[0].day), *days]
    bars = table_of(bar for session in played for bar in source.bars(session.day))
    news = [entry for session in played for entry in source.news(session.day)]
    return Request(days, f"bench-{first}-{sessions}-{tickers}", names, bars, news)
