"""The verb lookahead: whether any decision of a day changes with its future."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ops_pipeline.cli import market as market_of
from ops_pipeline.cli.console import JsonOption, err, out, print_json, say, table
from ops_pipeline.cli.server import running_server
from ops_pipeline.domain.session import both_zones
from ops_pipeline.proofs.lookahead import SAMPLES, Lookahead
from ops_pipeline.proofs.scratch import entered, environment, scratch
from ops_pipeline.settings import Mode

NAME = "lookahead"
SHOWN = 20


def lookahead(
    day: Annotated[str, typer.Option("--day", help="The day, YYYY-MM-DD.")],
    bars: market_of.BarsOption = None,
    news: market_of.NewsOption = None,
    tickers: market_of.TickersOption = None,
    seed: market_of.SeedOption = 7,
    samples: Annotated[int, typer.Option(min=2, help="How many minutes.")] = SAMPLES,
    as_json: JsonOption = False,
) -> None:
    """Decide minutes again without and with an absurd future; exit code 1 where one differs."""
    request = market_of.requested(
        Mode.REPLAY.calendar, bars, news, tickers, market_of.parse_day(day), seed
    )
    with running_server(Mode.REPLAY) as settings, scratch(settings, NAME) as made:
        market_of.put(made, request)
        with entered(environment(settings, NAME)) as inside:
            from ops_pipeline.defs.lookahead import play_and_prove

            (session,) = request.sessions
            with _progress(samples, quiet=as_json) as on_minute:
                result = play_and_prove(inside, session, samples, on_minute)
    if as_json:
        print_json(result)
    else:
        _print(result)
    if not result.is_clean:
        raise typer.Exit(1)


@contextmanager
def _progress(samples: int, *, quiet: bool) -> Iterator[Callable[[datetime], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, TimeElapsedColumn(), console=err, disable=quiet) as progress:
        task = progress.add_task("the day, then minute by minute", total=samples)
        yield lambda _: progress.advance(task)


def _print(result: Lookahead) -> None:
    equal = sum(sample.is_equal for sample in result.samples)
    say(
        f"{result.day}: {equal} of {len(result.samples)} minutes are decided alike as stored,"
        " with their future removed, and with an absurd one"
    )
    if result.early:
        rows = [[name] for name in result.early[:SHOWN]]
        out.print(table(f"{len(result.early)} rows are known too early", ["row"], rows))
    if result.differences:
        columns = ["table", "minute", "row", "column", "stored", "recomputed"]
        shown = [
            [
                d.table,
                both_zones(d.minute),
                d.key,
                d.column,
                d.values[0],
                ": ".join((d.ways[1], d.values[1])),
            ]
            for d in result.differences[:SHOWN]
        ]
        out.print(table(f"{len(result.differences)} values differ", columns, shown))
