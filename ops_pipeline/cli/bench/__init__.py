"""The verb bench: what things cost on this machine, against the way one would write first."""

import typer

from ops_pipeline.cli.bench.backfill import backfill
from ops_pipeline.cli.bench.bars import bars
from ops_pipeline.cli.bench.day import day
from ops_pipeline.cli.bench.dispatch import dispatch
from ops_pipeline.cli.bench.features import features
from ops_pipeline.cli.bench.scale import scale
from ops_pipeline.cli.bench.stream import stream
from ops_pipeline.cli.bench.tick import tick

app = typer.Typer(help="Measure, and compare with the naive way in the same run.")
app.command()(tick)
app.command()(scale)
app.command()(bars)
app.command()(day)
app.command()(backfill)
app.command()(features)
app.command()(dispatch)
app.command()(stream)
