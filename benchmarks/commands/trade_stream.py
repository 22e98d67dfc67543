"""Benchmark trade-stream: how late a follower applies what a broker tells of."""

from typing import Annotated

import typer

from benchmarks.measure.trade_stream import Lag, Streamed, measure_stream
from benchmarks.options import within
from ops_pipeline.cli.console import JsonOption, err, out, print_json, progress, say, table
from ops_pipeline.cli.server import running_server
from ops_pipeline.settings import Mode

MAX_RATE = 2_000
MAX_SECONDS = 3_600


def trade_stream(
    rate: Annotated[int, typer.Option(help="Events a second.")] = 200,
    seconds: Annotated[int, typer.Option(help="For so long.")] = 300,
    as_json: JsonOption = False,
) -> None:
    """Tell a follower of orders, and measure how late it knows, and what it holds in memory."""
    within("rate", rate, 1, MAX_RATE)
    within("seconds", seconds, 1, MAX_SECONDS)
    with (
        running_server(Mode.SANDBOX) as settings,
        progress(quiet=as_json or not err.is_terminal) as bars,
    ):
        shown = bars.add_task(f"{rate:,} events a second", total=seconds)
        found = measure_stream(
            settings, rate, seconds, lambda passed: bars.update(shown, completed=passed)
        )
    if as_json:
        print_json({**found.__dict__, **_lags(found), "lost": found.lost})
        return
    _show(found)


def _lags(found: Streamed) -> dict[str, object]:
    names = ("lag_since_received", "lag_since_sent")
    return {name: getattr(found, name).__dict__ for name in names}


def _show(found: Streamed) -> None:
    rows: list[list[object]] = [
        ["events told", found.sent],
        ["frames kept", found.frames],
        *([f"of them {name}", count] for name, count in sorted(found.outcomes.items())),
        ["events known", found.events],
        ["events lost", found.lost],
        ["orders known", found.orders],
        ["positions are what was told", "yes" if found.adds_up else "no"],
        ["from received to applied, s", _told(found.lag_since_received)],
        ["from sent to applied, s", _told(found.lag_since_sent)],
        ["memory at the start, MB", found.start_mb],
        ["memory at half time, MB", found.half_mb],
        ["memory at the end, MB", found.end_mb],
        ["memory at its peak, MB", found.peak_mb],
        ["connections", found.connections],
        ["load of the machine", found.load[1]],
    ]
    title = f"{found.rate:,} events a second for {found.seconds:.0f} s"
    out.print(table(title, ["what", "measured"], rows))
    say("lags: median / 95 % / longest; load: the average of five minutes")


def _told(lag: Lag) -> str:
    return f"{lag.p50:.3f} / {lag.p95:.3f} / {lag.longest:.3f}"
