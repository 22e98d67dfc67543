"""Benchmark tick: a minute from its request to its last asset, beside the stock way."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, TaskID

from benchmarks.options import within
from ops_pipeline.cli.console import JsonOption, err, out, print_json, progress, say, table
from ops_pipeline.cli.play import player_of
from ops_pipeline.cli.server import prepare, running_server
from ops_pipeline.domain.session import MINUTE, newest_closed_minute
from ops_pipeline.environment import apply
from ops_pipeline.local.ports import free_port
from ops_pipeline.proofs.scratch import entered, environment, scratch
from ops_pipeline.settings import Mode, PartitionWindow, Settings, load, save_window
from ops_pipeline.storage.knowledge import clock

if TYPE_CHECKING:
    from benchmarks.measure.tick import Tick, Way

NAME = "bench"
MAX_TICKS = 500
# What the features look back over, and the ratio bars of a first minute.
HISTORY = 180
# Of them, those that all stages have made: the watchlist stands on them, and so do the signals.
PLAYED = 15


def tick(
    ticks: Annotated[int, typer.Option(help="Minutes run our way.")] = 20,
    stock: Annotated[int, typer.Option(help="Of them, as many the stock way too.")] = 3,
    tickers: Annotated[int, typer.Option(help="Size of the universe.")] = 7,
    plot: Annotated[Path | None, typer.Option(help="Draw the phases into this PNG.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Run minutes from the request to the last asset, with Dagster around them, both ways in turn.

    The two work on one database and the same sandbox; each minute is run once, the first of
    each way is not counted.
    """
    within("ticks", ticks, 1, MAX_TICKS)
    within("stock", stock, 0, MAX_TICKS)
    within("tickers", tickers, 1, 10_000)
    found = measured(ticks, stock, tickers, quiet=as_json)
    if plot:
        from benchmarks.measure.plot import draw

        draw(found, plot)
    if as_json:
        print_json([one.__dict__ for one in found])
        return
    _show(found, tickers)
    if plot:
        say(f"drawn: {plot}")


def measured(ticks: int, stock: int, tickers: int, *, quiet: bool) -> "list[Tick]":
    """So many minutes of each way, in an installation of their own that is gone after."""
    with (
        running_server(Mode.SANDBOX) as settings,
        scratch(settings, NAME),
        _installed(settings, tickers) as inside,
        progress(quiet=quiet or not err.is_terminal) as bars,
    ):
        shown = bars.add_task(f"history of {tickers:,} tickers", total=ticks + stock + 2)
        return _in_turn(inside, tickers, ticks, stock, bars, shown)


@contextmanager
def _installed(settings: Settings, tickers: int) -> Iterator[Settings]:
    """A scratch with a sandbox of so many tickers, and with three hours of history."""
    port = free_port()
    variables = environment(settings, NAME) | {"OPS_SANDBOX_PORT": str(port)}
    with entered(variables) as inside:
        from benchmarks.measure.bars import sandbox_of, track

        prepare(inside)
        first = clock() - (HISTORY + MAX_TICKS) * MINUTE
        save_window(inside, PartitionWindow(first.date()))
        apply(inside)
        track(inside, tickers)
        with sandbox_of(tickers, port):
            yield load()


def _in_turn(
    inside: Settings, tickers: int, ticks: int, stock: int, bars: Progress, shown: TaskID
) -> "list[Tick]":
    from benchmarks.measure.bars import put_history
    from benchmarks.measure.tick import OURS, STOCK, lab_of, measure

    ways = [OURS] * (ticks + 1) if not stock else _order(OURS, ticks + 1, STOCK, stock + 1)
    calendar = inside.mode.calendar
    minute = newest_closed_minute(clock()) - len(ways) * MINUTE
    played = minute - PLAYED * MINUTE
    put_history(inside, tickers, minute - HISTORY * MINUTE, played - MINUTE)
    with player_of(inside) as player:
        player.minutes(played, minute - MINUTE)
    found, seen = [], set[str]()
    with ExitStack() as stack:
        used = [way for way in (OURS, STOCK) if way in ways]
        labs = {way.name: stack.enter_context(lab_of(way)) for way in used}
        for number, way in enumerate(ways):
            bars.update(shown, description=way.name)
            one = measure(labs[way.name], minute + number * MINUTE, calendar)
            if way.name in seen:
                found.append(one)
            seen.add(way.name)
            bars.advance(shown)
    return found


def _order(ours: "Way", many: int, theirs: "Way", few: int) -> "list[Way]":
    """Both in turn, spread evenly."""
    places = {round(number * (many + few) / few) for number in range(few)}
    return [theirs if place in places else ours for place in range(many + few)]


def _show(found: "list[Tick]", tickers: int) -> None:
    from benchmarks.measure.tick import OURS, PHASES, STOCK, at, typical

    ways = list(dict.fromkeys(one.way for one in found))
    of = {way: [one for one in found if one.way == way] for way in ways}
    rows: list[list[object]] = [
        [phase, *(typical(of[way], phase) for way in ways)] for phase in PHASES
    ]
    rows.append(["request to last asset, p50", *(at(of[way], 0.5) for way in ways)])
    rows.append(["p95", *(at(of[way], 0.95) for way in ways)])
    rows.append(["longest", *(at(of[way], 1) for way in ways)])
    rows.append(["processors, s", *(_mean(of[way], "cpu_seconds") for way in ways)])
    rows.append(["memory, MB", *(_mean(of[way], "memory_mb") for way in ways)])
    if len(ways) == 2:
        ours, theirs = ways
        rows = [[*row, _ratio(row)] for row in rows]
        ways = [ours, theirs, "ratio"]
    counts = ", ".join(f"{len(each)} {way}" for way, each in of.items())
    out.print(table(f"seconds of a minute of {tickers} tickers; {counts}", ["", *ways], rows))
    for way in (OURS, STOCK):
        if way.name in of:
            say(f"{way.name}: {way.does}")


def _mean(ticks: "list[Tick]", name: str) -> float:
    return float(sum(getattr(one, name) for one in ticks) / len(ticks))


def _ratio(row: list[Any]) -> float | None:
    return row[2] / row[1] if row[1] else None
