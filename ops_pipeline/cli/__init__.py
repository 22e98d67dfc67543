"""The command line."""

import sys
from typing import Annotated

import typer
from sqlalchemy.exc import OperationalError

from ops_pipeline import __version__
from ops_pipeline.cli import bench, gates, lifecycle, model, service, trading, universe, watch
from ops_pipeline.cli.backfill import backfill
from ops_pipeline.cli.chaos import chaos
from ops_pipeline.cli.console import err, say
from ops_pipeline.cli.doctor import doctor
from ops_pipeline.cli.explain import explain
from ops_pipeline.cli.lookahead import lookahead
from ops_pipeline.cli.parity import parity
from ops_pipeline.cli.purge import purge
from ops_pipeline.cli.replay import replay
from ops_pipeline.cli.sandbox import sandbox
from ops_pipeline.cli.slo import slo
from ops_pipeline.cli.stream import trade_stream
from ops_pipeline.domain.errors import OperatorError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(lifecycle.init)
app.command()(lifecycle.demo)
app.command()(lifecycle.up)
app.command()(lifecycle.down)
app.command()(sandbox)
app.command()(watch.status)
app.command()(watch.check)
app.command()(slo)
app.command()(doctor)
app.command()(trade_stream)
app.command()(trading.halt)
app.command()(trading.reduce)
app.command()(trading.resume)
app.command()(trading.flatten)
app.command()(explain)
app.command()(watch.sql)
app.command()(replay)
app.command()(backfill)
app.command()(parity)
app.command()(lookahead)
app.command()(chaos)
app.command()(purge)
app.add_typer(service.app, name="service")
app.add_typer(universe.app, name="universe")
app.add_typer(gates.app, name="gates")
app.add_typer(model.app, name="model")
app.add_typer(bench.app, name="bench")


def _print_version(wanted: bool) -> None:
    if wanted:
        say(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """A news-to-order pipeline for paper trading, run and watched with Dagster.

    Exit codes: 0 ok, 1 a check failed, 2 bad input, 3 not running, 4 bad configuration,
    5 timed out, 6 refused as unsafe.
    """


def main() -> None:
    """Run the command line; an operator's error is one line with the next command to try."""
    try:
        app()
    except OperatorError as error:
        _report(error)
        sys.exit(error.exit_code)
    except OperationalError as error:
        err.print(f"error: PostgreSQL: {str(error.orig).strip().splitlines()[0]}", markup=False)
        sys.exit(3)
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(130)


def _report(error: OperatorError) -> None:
    hint = f" ({error.hint})" if error.hint else ""
    err.print(f"error: {error}{hint}", markup=False, soft_wrap=True)
