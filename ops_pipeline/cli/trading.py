"""The verbs halt, reduce, resume and flatten: what may be traded, from the next decision on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from sqlalchemy import Connection

from ops_pipeline.cli.console import ModeOption, ReasonOption, say
from ops_pipeline.cli.server import connected, existing_server
from ops_pipeline.dispatcher.exits import closable, propose_flatten
from ops_pipeline.dispatcher.snapshot import Account, read_account
from ops_pipeline.domain.errors import Unsafe
from ops_pipeline.domain.execution import Book
from ops_pipeline.domain.gates import ACTIVE, HALTED, REDUCING
from ops_pipeline.domain.stages import DISPATCH
from ops_pipeline.domain.values import Position
from ops_pipeline.operations.operator import operator
from ops_pipeline.settings import Settings
from ops_pipeline.storage import dispatch, knowledge, stream
from ops_pipeline.storage.engine import opened, wait_for_disk
from ops_pipeline.storage.execution import live_fills
from ops_pipeline.storage.services import switches

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
    mode: ModeOption = None,
) -> None:
    """Close everything that is held, and open nothing; a dry run until --apply."""
    with connected(mode) as (settings, connection):
        if not settings.mode.is_live:
            raise Unsafe("a replay is flat each evening by itself", "use it with --mode")
        now = knowledge.read_now(connection, settings.mode)
        account = read_account(connection, now, settings.mode.calendar)
        _refuse_in_vain(connection, account)
        if apply:
            who = operator(settings)
            dispatch.set_trading_state(connection, REDUCING, who, reason or "flatten")
            closing = propose_flatten(connection, account)
        else:
            closing = closable(account)
        others = stream.external(connection, dispatch.ACCOUNT)
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
    if apply:
        say("next: ops-pipeline status, to see it done; ops-pipeline resume, to trade again")
    else:
        say("and would set REDUCING, so that nothing is opened; add --apply to do it")


def _refuse_in_vain(connection: Connection, account: Account) -> None:
    """Nothing is promised that nobody would do: what is queued now lapses within minutes."""
    if account.session is None:
        raise Unsafe("the market is closed: no order could be filled", "try again at its open")
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
