"""Benchmark bars: a tick's bars against one request for each ticker."""

from typing import Annotated

import typer

from benchmarks.options import counts
from ops_pipeline.cli.console import JsonOption, out, print_json, say, table, working
from ops_pipeline.cli.server import running_server
from ops_pipeline.local.ports import free_port
from ops_pipeline.proofs.scratch import entered, environment, scratch
from ops_pipeline.settings import Mode

NAME = "bench"
MAX_TICKERS = 10_000


def bars(
    tickers: Annotated[str, typer.Option(help="Sizes of the universe.")] = "7,500,5000",
    as_json: JsonOption = False,
) -> None:
    """Fetch and keep one minute of bars from a sandbox, for universes of these sizes."""
    sizes = counts("tickers", tickers, MAX_TICKERS)
    found = []
    with running_server(Mode.SANDBOX) as settings:
        for count in sizes:
            port = free_port()
            with working(f"{count} tickers", quiet=as_json), scratch(settings, NAME):
                variables = environment(settings, NAME) | {"OPS_SANDBOX_PORT": str(port)}
                with entered(variables) as inside:
                    from benchmarks.measure.bars import measure, sandbox_of

                    with sandbox_of(count, port):
                        found.append(measure(inside, count))
    if as_json:
        print_json([{**one.__dict__, "ratio": one.ratio} for one in found])
        return
    columns = ["tickers", "requests", "kB", "bars", "tick s", "fetch s", "naive s", "naive / ours"]
    rows = [
        [
            one.tickers,
            one.requests,
            one.bytes // 1_000,
            one.bars,
            one.seconds,
            one.fetch_seconds,
            one.naive_fetch_seconds,
            one.ratio,
        ]
        for one in found
    ]
    out.print(table("bars of one minute, and five of overlap", columns, rows))
    say("naive: one request for each ticker, at most 500 of them; the ratio is per ticker")
