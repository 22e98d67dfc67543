"""The verbs halt, reduce, resume and flatten: what may be traded, from the next decision on."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from sqlalchemy import Connection, Engine

from ops_pipeline.cli.console import ModeOption, ReasonOption, say, working
from ops_pipeline.cli.server import existing_server
from ops_pipeline.dispatcher.exits import closable, propose_flatten
from ops_pipeline.dispatcher.snapshot import Account, read_account
from ops_pipeline.domain.errors import Unsafe
from ops_pipeline.domain.execution import Book
from ops_pipeline.domain.gates import ACTIVE, HALTED, REDUCING
from ops_pipeline.domain.stages import DISPATCH
from ops_pipeline.domain.values import Position
from ops_pipeline.operations.closing import UNTRIED, Outcome, read_outcomes
from ops_pipeline.operations.operator import operator
from ops_pipeline.settings import Settings
from ops_pipeline.storage import dispatch, knowledge, stream
from ops_pipeline.storage.engine import opened, wait_for_disk
from ops_pipeline.storage.execution import live_fills
from ops_pipeline.storage.services import switches

# A run of the dispatcher starts within seconds; the simulation may wait for the bar of a minute.
WAIT_SECONDS, LOOK_SECONDS = 120, 0.5
GOES_ON = "data, signals and checks go on; recommendations are skipped with that reason"


def halt(reason: ReasonOption = "", mode: ModeOption = None) -> None:
    """No order at all, neither to open nor to close, until resume."""
    with _changed(HALTED, reason, mode) as (settings, connection):
        _say(
            settings, f"HALTED: no order is made any more, neither to open nor to close; {GOES_ON}"
        )
        held = _held(connection, settings)
    say(f"left as it is, without stop or target: {_named(held)}" if held else "nothing is held")
    say("next: ops-pipeline reduce, to close what is held; ops-pipeline resume, to trade again")


def reduce(reason: ReasonOption = "", mode: ModeOption = None) -> None:
    """Nothing is opened; stops, targets and the end of the day still close."""
    with _changed(REDUCING, reason, mode) as (settings, connection):
        _say(settings, f"REDUCING: nothing is opened any more; {GOES_ON}")
        held = _held(connection, settings)
    say(
        f"closed by stop, target, time or the end of the session: {_named(held)}"
        if held
        else "nothing is held"
    )
    say("next: ops-pipeline resume, to trade again")


def resume(reason: ReasonOption = "", mode: ModeOption = None) -> None:
    """Trade again."""
    with _changed(ACTIVE, reason, mode) as (settings, connection):
        _say(settings, "ACTIVE: recommendations trade when they pass every gate")
        held = _held(connection, settings)
    say(f"held: {_named(held)}" if held else "nothing is held")


def flatten(
    reason: ReasonOption = "",
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without, only say what.")] = False,
    wait: Annotated[
        bool,
        typer.Option(help=f"With --apply: wait up to {WAIT_SECONDS} s for the outcome."),
    ] = True,
    mode: ModeOption = None,
) -> None:
    """Close everything that is held, and open nothing; a dry run until --apply.

    What is not closed is tried again until it is flat or until resume. Exit code 1 when a position
    is left after the wait.
    """
    with existing_server(mode) as settings, opened(settings) as engine:
        held, outcomes = _flatten(settings, engine, reason, apply=apply)
        if apply and wait and outcomes:
            with working("waiting for the closing orders", quiet=False):
                outcomes = _wait_for(settings, engine, held, outcomes)
    for ticker, outcome in outcomes.items():
        if apply or outcome.text != UNTRIED:
            say(f"{ticker}: {outcome.text}")
    if not apply:
        say("and would set REDUCING, so that nothing is opened; add --apply to do it")
        return
    say("next: ops-pipeline status, to see it done; ops-pipeline resume, to trade again")
    if wait and not all(outcome.is_flat for outcome in outcomes.values()):
        raise typer.Exit(1)


def _flatten(
    settings: Settings, engine: Engine, reason: str, *, apply: bool
) -> tuple[list[Position], dict[str, Outcome]]:
    """Ask for it, or say what would be asked for; what is left is named."""
    if not settings.mode.is_live:
        raise Unsafe("a replay is flat each evening by itself", "use it with --mode")
    with engine.begin() as connection:
        wait_for_disk(connection)
        now = knowledge.read_now(connection, settings.mode)
        account = read_account(connection, now, settings.mode.calendar)
        _refuse_in_vain(connection, account)
        if apply:
            who = operator(settings)
            reason = reason or "flatten"
            dispatch.set_trading_state(connection, REDUCING, who, reason, must_be_flat=True)
            closing = propose_flatten(connection, account) if account.session else []
        else:
            closing = closable(account)
        others = stream.external(connection, dispatch.ACCOUNT)
        outcomes = read_outcomes(connection, settings.mode, _tradable(account))
    held = sorted(account.book.positions.values(), key=lambda position: position.ticker)
    left = [position for position in held if position not in closing]
    if apply:
        _say(settings, f"REDUCING: nothing is opened any more; {GOES_ON}")
        done = f"closed by the next run of the dispatcher: {_named(closing)}"
    else:
        done = f"would close {_named(closing)}"
    say(done if closing else "no order" if held else "nothing is held")
    if left:
        say(f"left, being closed already or in quarantine: {_named(left)}")
    if others:
        named = ", ".join(f"{ticker} {one.quantity:+,f}" for ticker, one in others.items())
        say(f"left, traded by hand and never closed from here: {named}")
    return _tradable(account), outcomes


def _tradable(account: Account) -> list[Position]:
    """What is held and not in quarantine."""
    held = sorted(account.book.positions.values(), key=lambda position: position.ticker)
    return [position for position in held if position.ticker not in account.quarantined]


def _wait_for(
    settings: Settings, engine: Engine, held: list[Position], outcomes: dict[str, Outcome]
) -> dict[str, Outcome]:
    """Look until each closing order has an outcome, WAIT_SECONDS at most."""
    give_up = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < give_up:
        with engine.connect() as connection:
            outcomes = read_outcomes(connection, settings.mode, held)
        if all(outcome.is_final for outcome in outcomes.values()):
            break
        time.sleep(LOOK_SECONDS)
    return outcomes


def _refuse_in_vain(connection: Connection, account: Account) -> None:
    """Refuse what nobody would do: without the dispatcher no order is made."""
    services = switches(connection, account.now)
    if not any(one.is_enabled for one in services if one.stage == DISPATCH):
        raise Unsafe(
            "the dispatcher is switched off: nothing would be closed",
            f"ops-pipeline service enable {DISPATCH.service}",
        )


@contextmanager
def _changed(state: str, reason: str, mode: ModeOption) -> Iterator[tuple[Settings, Connection]]:
    """The database after the change: it holds, whatever comes of reading what is held."""
    with existing_server(mode) as settings, opened(settings) as engine:
        with engine.begin() as connection:
            wait_for_disk(connection)
            dispatch.set_trading_state(connection, state, operator(settings), reason)
        with engine.connect() as connection:
            yield settings, connection


def _held(connection: Connection, settings: Settings) -> list[Position]:
    """What is held; a replay that has not begun holds nothing."""
    now = knowledge.find_now(connection, settings.mode)
    if now is None:
        return []
    book = Book(live_fills(connection, settings.mode.calendar.day(now)))
    return sorted(book.positions.values(), key=lambda position: position.ticker)


def _say(settings: Settings, text: str) -> None:
    say(f"mode {settings.mode.value}: {text}")


def _named(held: list[Position]) -> str:
    return ", ".join(f"{position.ticker} {position.quantity:+,}" for position in held)
