"""The verb lookahead: whether any decision of a day changes with its future."""

from typing import Annotated

import typer

from ops_pipeline.cli import market as market_of
from ops_pipeline.cli.console import JsonOption, out, progress, say, show_result, table
from ops_pipeline.cli.parity import SHOWN, difference_table
from ops_pipeline.cli.server import running_server
from ops_pipeline.clients.bar_formats import BarFormat
from ops_pipeline.proofs.lookahead import SAMPLES, Lookahead
from ops_pipeline.proofs.scratch import entered, environment, scratch
from ops_pipeline.settings import Mode, save_window

NAME = "lookahead"


def lookahead(
    day: Annotated[str, typer.Option("--day", help="The day, YYYY-MM-DD.")],
    bars: market_of.BarsOption = None,
    news: market_of.NewsOption = None,
    tickers: market_of.TickersOption = None,
    seed: market_of.SeedOption = 7,
    samples: Annotated[int, typer.Option(min=2, help="How many minutes.")] = SAMPLES,
    columns: market_of.MapOption = None,
    zone: market_of.ZoneOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decide minutes again without and with an absurd future; exit code 1 where one differs."""
    request = market_of.requested(
        Mode.REPLAY.calendar,
        bars,
        news,
        tickers,
        market_of.parse_day(day),
        seed,
        form=BarFormat.parse(columns, zone),
    )
    with running_server(Mode.REPLAY) as settings, scratch(settings, NAME) as made:
        market_of.put(made, request)
        save_window(made, request.window)
        with entered(environment(settings, NAME)) as inside:
            from ops_pipeline.defs.lookahead import play_and_prove

            (session,) = request.sessions
            with progress(quiet=as_json) as bars_shown:
                task = bars_shown.add_task("the day, then minute by minute", total=samples)
                result = play_and_prove(
                    inside, session, samples, lambda _: bars_shown.advance(task)
                )
    show_result(result, _print, as_json=as_json, is_normal=result.is_clean)


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
        out.print(difference_table(result.differences))
