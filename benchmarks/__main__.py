"""Run a benchmark: python -m benchmarks NAME."""

import typer

from benchmarks.commands.backfill import backfill
from benchmarks.commands.bars import bars
from benchmarks.commands.day import day
from benchmarks.commands.dispatch import dispatch
from benchmarks.commands.features import features
from benchmarks.commands.model import model
from benchmarks.commands.scale import scale
from benchmarks.commands.tick import tick
from benchmarks.commands.trade_stream import trade_stream
from ops_pipeline.cli import invoke

app = typer.Typer(
    help="Measure the pipeline, and a peer or the naive way in the same run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (tick, scale, bars, day, backfill, features, dispatch, model):
    app.command()(command)
app.command("trade-stream")(trade_stream)


def main() -> None:
    """Run the benchmark that the command line names."""
    invoke(lambda: app)


if __name__ == "__main__":
    main()
