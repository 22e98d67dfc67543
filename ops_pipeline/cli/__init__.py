"""The command line."""

import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer
from sqlalchemy.exc import OperationalError

from ops_pipeline import __version__
from ops_pipeline.cli.console import err, say
from ops_pipeline.domain.errors import OperatorError

# Where each verb stands, in the order in which the help shows them; `app` is a verb with verbs.
VERBS = {
    "init": "lifecycle.init",
    "demo": "lifecycle.demo",
    "up": "lifecycle.up",
    "down": "lifecycle.down",
    "sandbox": "sandbox.sandbox",
    "status": "status.status",
    "logs": "logs.logs",
    "check": "watch.check",
    "slo": "slo.slo",
    "cost": "cost.cost",
    "doctor": "doctor.doctor",
    "trade-stream": "stream.trade_stream",
    "halt": "trading.halt",
    "reduce": "trading.reduce",
    "resume": "trading.resume",
    "flatten": "trading.flatten",
    "explain": "explain.explain",
    "sql": "watch.sql",
    "replay": "replay.replay",
    "backfill": "backfill.backfill",
    "parity": "parity.parity",
    "lookahead": "lookahead.lookahead",
    "chaos": "chaos.chaos",
    "purge": "purge.purge",
    "service": "service.app",
    "runbook": "runbook.app",
    "alerts": "alerts.app",
    "universe": "universe.app",
    "config": "config.app",
    "gates": "gates.app",
    "model": "model.app",
    "bench": "bench.app",
}


def _print_version(wanted: bool) -> None:
    if wanted:
        say(__version__)
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """A news-to-order pipeline for paper trading, run and watched with Dagster.

    Exit codes: 0 ok, 1 a check failed, 2 bad input, 3 not running, 4 bad configuration,
    5 timed out, 6 refused as unsafe.
    """


def app(words: Sequence[str] = ()) -> typer.Typer:
    """The command line for these words: the verb that they begin with, else every verb.

    The others are not imported: a quick look must not wait for pandas and all brokers.
    """
    found = typer.Typer(
        callback=_options,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
    )
    for verb in words[:1] if words and words[0] in VERBS else VERBS:
        module, name = VERBS[verb].split(".")
        attribute = getattr(import_module(f"{__name__}.{module}"), name)
        if isinstance(attribute, typer.Typer):
            found.add_typer(attribute, name=verb)
        else:
            found.command(verb)(attribute)
    return found


class Ended(BaseException):
    """Somebody told this process to end: what was begun is undone on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = signal.Signals(number)


def _end(number: int, _: object) -> None:
    # What ends us is not to be ended halfway.
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise Ended(number)


def main() -> None:
    """Run the command line; an operator's error is one line with the next command to try."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Whoever began us may have wanted a signal to be ignored, as nohup does.
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
    try:
        app(sys.argv[1:])()
    except OperatorError as error:
        _report(error)
        sys.exit(error.exit_code)
    except OperationalError as error:
        err.print(f"error: PostgreSQL: {str(error.orig).strip().splitlines()[0]}", markup=False)
        sys.exit(3)
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(130)
    except Ended as ended:
        err.print(f"stopped by {ended.number.name}")
        sys.exit(128 + ended.number)


def _report(error: OperatorError) -> None:
    hint = f" ({error.hint})" if error.hint else ""
    err.print(f"error: {error}{hint}", markup=False, soft_wrap=True)
