"""The verb parity: a day as ticks, as one backfill, and as killed pieces, row for row."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table

from ops_pipeline.cli import market as market_of
from ops_pipeline.cli.console import JsonOption, out, progress, say, show_result, table
from ops_pipeline.cli.play import ended_early
from ops_pipeline.cli.server import running_server
from ops_pipeline.cli.ways import OnMinute, as_killed_pieces, as_range, as_ticks
from ops_pipeline.domain.session import Session, both_zones
from ops_pipeline.proofs.parity import Difference, Parity, TableParity, Way, compare
from ops_pipeline.proofs.scratch import environment, scratch
from ops_pipeline.settings import Mode, Settings, save_window
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.fingerprint import TABLES, rows_of

WAYS = {"backfill": as_range, "killed backfills": as_killed_pieces, "ticks": as_ticks}
SHOWN = 20


def parity(
    day: Annotated[str, typer.Option("--day", help="The day, YYYY-MM-DD.")],
    bars: market_of.BarsOption = None,
    news: market_of.NewsOption = None,
    tickers: market_of.TickersOption = None,
    seed: market_of.SeedOption = 7,
    as_json: JsonOption = False,
) -> None:
    """Play a day as ticks, as one backfill and as killed backfills; exit code 1 on a difference."""
    calendar = Mode.REPLAY.calendar
    request = market_of.requested(calendar, bars, news, tickers, market_of.parse_day(day), seed)
    (session,) = request.sessions
    with running_server(Mode.REPLAY) as settings, ExitStack() as stack:
        found = {way: stack.enter_context(scratch(settings, _name(way))) for way in WAYS}
        for made in found.values():
            market_of.put(made, request)
            save_window(made, request.window)
        ways = _play(settings, session, quiet=as_json)
        result = _compare(session, ways, found)
    show_result(result, _print, as_json=as_json, is_normal=result.is_equal)


def _name(way: str) -> str:
    return f"parity_{way.replace(' ', '_')}"


def _play(settings: Settings, session: Session, *, quiet: bool) -> list[Way]:
    """Two at a time: one process each, and PostgreSQL beside them."""
    minutes = session.minutes()
    with ended_early(ThreadPoolExecutor(2)) as pool, _shown(len(minutes), quiet=quiet) as on_minute:
        # The longest first.
        playing: dict[str, Future[float]] = {
            way: pool.submit(_timed, settings, way, minutes, on_minute[way])
            for way in reversed(WAYS)
        }
        return [Way(way, playing[way].result()) for way in WAYS]


def _timed(settings: Settings, way: str, minutes: Sequence[datetime], on_minute: OnMinute) -> float:
    begun = time.monotonic()
    WAYS[way](environment(settings, _name(way)), minutes, on_minute)
    return round(time.monotonic() - begun, 1)


@contextmanager
def _shown(minutes: int, *, quiet: bool) -> Iterator[dict[str, OnMinute]]:
    with progress(quiet=quiet) as bars:
        tasks = {way: bars.add_task(way, total=minutes) for way in reversed(WAYS)}
        yield {
            way: lambda share, task=task: bars.advance(task, share)  # type: ignore[misc]
            for way, task in tasks.items()
        }


def _compare(session: Session, ways: list[Way], found: dict[str, Settings]) -> Parity:
    tables: list[TableParity] = []
    differences: list[Difference] = []
    with ExitStack() as stack:
        connections = {
            way: stack.enter_context(stack.enter_context(opened(settings)).connect())
            for way, settings in found.items()
        }
        for each in TABLES:
            rows = {way: rows_of(connection, each) for way, connection in connections.items()}
            counted, differing = compare(each.name, session.minutes(), rows)
            tables.append(counted)
            differences += differing
    return Parity(session.day, ways, tables, differences)


def _print(result: Parity) -> None:
    rows = [
        [t.table, t.rows, f"{t.minutes_equal} of {t.minutes}", t.sha256[:16]] for t in result.tables
    ]
    played = ", ".join(f"{way.name} {way.seconds:.0f} s" for way in result.ways)
    out.print(table(f"{result.day}: {played}", ["table", "rows", "minutes equal", "SHA-256"], rows))
    if result.is_equal:
        say("every way gives the same rows in every minute")
        return
    out.print(difference_table(result.differences))


def difference_table(differences: Sequence[Difference]) -> Table:
    """What differs, value by value; the first column of values is what others are held to."""
    columns = ["table", "minute", "row", "column", differences[0].ways[0], "other"]
    shown = [
        [d.table, both_zones(d.minute), d.key, d.column, d.values[0], f"{d.ways[1]}: {d.values[1]}"]
        for d in differences[:SHOWN]
    ]
    return table(f"{len(differences)} values differ", columns, shown)
