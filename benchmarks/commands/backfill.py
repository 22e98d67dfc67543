"""Benchmark backfill: past sessions as one run each, beside a run for each minute."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.market import FIRST_DAY, FromOption, generated
from benchmarks.options import within
from ops_pipeline.cli import market as market_of
from ops_pipeline.cli.console import (
    JsonOption,
    err,
    out,
    plain,
    print_json,
    progress,
    say,
    table,
)
from ops_pipeline.cli.play import player_of
from ops_pipeline.cli.server import running_server
from ops_pipeline.proofs.scratch import entered, environment, scratch
from ops_pipeline.settings import Mode, save_window

if TYPE_CHECKING:
    from benchmarks.measure.backfill import Filled

NAME = "bench_backfill"
MAX_TICKERS = 1_000
# Three stretches of them fit into one session.
MAX_SAMPLE = 130


def backfill(
    sessions: Annotated[int, typer.Option(help="Days filled by one run each.")] = 3,
    tickers: Annotated[int, typer.Option(help="Size of the universe.")] = 7,
    sample: Annotated[int, typer.Option(help="Minutes filled by a run each.")] = 20,
    first: FromOption = FIRST_DAY,
    as_json: JsonOption = False,
) -> None:
    """Fill past sessions as one run each, and minutes of one more as a run each.

    Further minutes of that one are filled as one run with batched and with stock events.
    """
    within("sessions", sessions, 1, market_of.MAX_SESSIONS - 1)
    within("tickers", tickers, 1, MAX_TICKERS)
    within("sample", sample, 1, MAX_SAMPLE)
    request = generated(sessions + 1, tickers, first)
    found = _measured(request, sample, quiet=as_json)
    if as_json:
        print_json(_document(found))
        return
    _show(found, tickers)


def _measured(request: market_of.Request, sample: int, *, quiet: bool) -> "list[Filled]":
    with (
        running_server(Mode.REPLAY) as settings,
        scratch(settings, NAME) as made,
        progress(quiet=quiet or not err.is_terminal) as bars,
    ):
        shown = bars.add_task("starting Dagster", total=5)
        market_of.put(made, request)
        save_window(made, request.window)

        def on_way(name: str) -> None:
            bars.update(shown, description=name, advance=1)

        with entered(environment(settings, NAME)) as inside, player_of(inside) as player:
            from benchmarks.measure.backfill import measure, sample_of

            *past, last = request.sessions
            return measure(player, inside, past, sample_of(last, sample), on_way)


def _ratios(found: "list[Filled]") -> list[float]:
    """Seconds of a minute, over those of the way that it is beside."""
    sessions, by_minute, ours, stock = (one.seconds_a_minute for one in found)
    return [1.0, by_minute / sessions, 1.0, stock / ours]


def _document(found: "list[Filled]") -> list[dict[str, Any]]:
    return [
        {**plain(one), "seconds_a_minute": one.seconds_a_minute, "ratio_to_ours": ratio}
        for one, ratio in zip(found, _ratios(found), strict=True)
    ]


def _show(found: "list[Filled]", tickers: int) -> None:
    from benchmarks.measure.backfill import DOES

    whole = found[0].minutes
    columns = ["way", "minutes", "runs", "rows", "events", "seconds", f"{whole:,} minutes", "ratio"]
    rows = [
        [
            one.way,
            one.minutes,
            one.runs,
            one.rows,
            one.events,
            one.seconds,
            _scaled(one, whole),
            ratio,
        ]
        for one, ratio in zip(found, _ratios(found), strict=True)
    ]
    out.print(table(f"past minutes of {tickers} tickers, in seconds", columns, rows))
    for one in found:
        say(f"{one.way}: {DOES[one.way]}")
    say(
        "samples are minutes around the middle of one more session;"
        f" a run a minute is scaled to {whole:,} of them"
    )
    say("ratio: seconds over those of a run a session, and of stock events over batched ones")


def _scaled(one: "Filled", minutes: int) -> float | None:
    """What so many minutes would take; one run of few minutes tells nothing of a longer one."""
    from benchmarks.measure.backfill import BY_MINUTE, SESSIONS

    return one.seconds_a_minute * minutes if one.way in (SESSIONS, BY_MINUTE) else None
