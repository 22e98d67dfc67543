"""No position outlives its session: the exits close all of them before the close."""

from datetime import datetime

import dagster as dg

from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.execution import Book
from ops_pipeline.domain.markdown import markdown_table
from ops_pipeline.domain.session import both_zones
from ops_pipeline.domain.values import Position
from ops_pipeline.storage.execution import live_fills

NAME = "no_position_is_held_overnight"


@dg.asset_check(
    asset="executions",
    name=NAME,
    description="Every position is closed by the end of its session; one that is not goes first.",
)
def no_position_is_held_overnight(pipeline: dg.ResourceParam[Pipeline]) -> dg.AssetCheckResult:
    """Name the positions of sessions that are over."""
    held = survivors(pipeline, pipeline.now())
    rows = [(p.ticker, f"{p.quantity:+,}", both_zones(p.opened_at)) for p in held]
    names = ", ".join(position.ticker for position in held)
    return dg.AssetCheckResult(
        passed=not held,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"held over the close: {names}" if held else "none is",
        metadata={
            "positions": len(held),
            "held": dg.MetadataValue.md(markdown_table(("ticker", "shares", "opened"), rows)),
        },
    )


def survivors(pipeline: Pipeline, now: datetime) -> list[Position]:
    """Positions whose session has closed."""
    calendar = pipeline.calendar
    with pipeline.engine.connect() as connection:
        book = Book(live_fills(connection, calendar.day(now)))
    sessions = {p.ticker: calendar.on(p.session_date) for p in book.positions.values()}
    return [
        position
        for ticker, position in sorted(book.positions.items())
        if (session := sessions[ticker]) is None or session.closes_at <= now
    ]
