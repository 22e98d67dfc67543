"""Benchmark scale: what a minute costs as the universe grows."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.commands.tick import measured
from benchmarks.isolation import alone
from benchmarks.options import counts, within
from ops_pipeline.cli.console import JsonOption, out, print_json, say, table

if TYPE_CHECKING:
    from benchmarks.measure.tick import Tick

MAX_TICKERS = 10_000
MAX_TICKS = 50
# What grows; in the sandbox each ticker has a feed of its own.
SHOWN = ("launch", "news", "bars", "features", "signals")


def scale(
    tickers: Annotated[str, typer.Option(help="Sizes of the universe.")] = "7,100,500,2000,8000",
    ticks: Annotated[int, typer.Option(help="Minutes of each size.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Run minutes of universes of these sizes, from the request to the last asset."""
    sizes = counts("tickers", tickers, MAX_TICKERS)
    within("ticks", ticks, 1, MAX_TICKS)
    # Each by itself: what plays the history keeps the sandbox that it was loaded with.
    found = [_line(size, alone(measured, ticks, 0, size, quiet=as_json)) for size in sizes]
    if as_json:
        print_json(found)
        return
    columns = ["tickers", "seconds", *SHOWN, "CPU s", "MB"]
    rows = [[one for name, one in line.items() if name != "longest"] for line in found]
    out.print(table(f"a minute, medians of {ticks}", columns, rows))
    first, last = found[0], found[-1]
    if len(found) > 1:
        grown = last["tickers"] / first["tickers"]
        longer = last["seconds"] / first["seconds"]
        say(f"{grown:,.0f} times the tickers take {longer:,.1f} times as long")


def _line(tickers: int, ticks: "list[Tick]") -> dict[str, Any]:
    from benchmarks.measure.tick import at, typical

    return {
        "tickers": tickers,
        "seconds": at(ticks, 0.5),
        "longest": at(ticks, 1),
        **{phase: typical(ticks, phase) for phase in SHOWN},
        "cpu_seconds": sum(one.cpu_seconds for one in ticks) / len(ticks),
        "memory_mb": max(one.memory_mb for one in ticks),
    }
