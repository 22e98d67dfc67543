"""The verb parity: a day as ticks, as one backfill, and as killed pieces, row for row."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ops_pipeline.cli import market as market_of
from ops_pipeline.cli.console import JsonOption, err, out, print_json, say, table
from ops_pipeline.cli.server import running_server
from ops_pipeline.cli.ways import OnMinute, as_killed_pieces, as_range, as_ticks
from ops_pipeline.domain.session import Session, both_zones
from ops_pipeline.proofs.parity import Difference, Parity, TableParity, Way, compare
from ops_pipeline.proofs.scratch import environment, scratch
from ops_pipeline.settings import Mode, Settings
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
        ways = _play(settings, session, quiet=as_json)
        result = _compare(session, ways, found)
    if as_json:
        print_json(result)
    else:
        _print(result)
    if not result.is_equal:
        raise typer.Exit(1)


def _name(way: str) -> str:
    return f"parity_{way.replace(' ', '_')}"


def _play(settings: Settings, session: Session, *, quiet: bool) -> list[Way]:
    """Two at a time: one process each, and PostgreSQL beside them."""
    minutes = session.minutes()
    with ThreadPoolExecutor(2) as pool, _progress(len(minutes), quiet=quiet) as progress:
        # The longest first.
        playing: dict[str, Future[float]] = {
            way: pool.submit(_timed, settings, way, minutes, progress[way])
            for way in reversed(WAYS)
        }
        return [Way(way, playing[way].result()) for way in WAYS]


def _timed(settings: Settings, way: str, minutes: Sequence[object], on_minute: OnMinute) -> float:
    begun = time.monotonic()
    WAYS[way](environment(settings, _name(way)), minutes, on_minute)  # type: ignore[arg-type]
    return round(time.monotonic() - begun, 1)


@contextmanager
def _progress(minutes: int, *, quiet: bool) -> Iterator[dict[str, OnMinute]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, TimeElapsedColumn(), console=err, disable=quiet) as progress:
        tasks = {way: progress.add_task(way, total=minutes) for way in reversed(WAYS)}
        yield {
            way: lambda share, task=task: progress.advance(task, share)  # type: ignore[misc]
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
    columns = ["table", "minute", "row", "column", *(way.name for way in result.ways[:1]), "other"]
    shown = [
        [d.table, both_zones(d.minute), d.key, d.column, d.values[0], f"{d.ways[1]}: {d.values[1]}"]
        for d in result.differences[:SHOWN]
    ]
    out.print(table(f"{len(result.differences)} values differ", columns, shown))
