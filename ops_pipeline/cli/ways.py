"""Ways to play one session, each in processes of its own that may be killed."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from typing import Any

from ops_pipeline.cli.play import ignore_interrupts, player_of
from ops_pipeline.domain.errors import OperatorError
from ops_pipeline.proofs.scratch import entered

# Where each of the three pieces is killed: what it has just told, and how often.
KILLS = (("features", 1), ("dispatch", 20), ("bars", 1))
OnMinute = Callable[[float], None]


@dataclass(frozen=True)
class Killed(Exception):
    """A process was killed, as was asked for."""


def as_ticks(variables: dict[str, str], minutes: Sequence[datetime], on_share: OnMinute) -> None:
    """Minute after minute: the stages as a tick calls them, then the dispatcher.

    Without a run of Dagster around each, which takes longer than the stages and hands them nothing
    but the minute.
    """
    _in_child(_ticks, variables, minutes, lambda told: on_share(1) if told == "dispatch" else None)


def as_range(variables: dict[str, str], minutes: Sequence[datetime], on_share: OnMinute) -> None:
    """One run of all minutes, then the dispatcher over them."""
    _in_child(_range, variables, minutes, lambda told: on_share(1) if told == "dispatch" else None)


def as_killed_pieces(
    variables: dict[str, str], minutes: Sequence[datetime], on_share: OnMinute
) -> None:
    """Three ranges; each is killed on its way (kill -9), and played again."""
    size = -(-len(minutes) // len(KILLS))
    for number, (what, times) in enumerate(KILLS):
        piece = minutes[number * size : (number + 1) * size]
        count = 0

        def kill(told: str, what: str = what, times: int = times) -> None:
            nonlocal count
            count += told == what
            if count == times:
                raise Killed

        try:
            _in_child(_range, variables, piece, kill)
        except Killed:
            as_range(variables, piece, on_share)
        else:
            raise OperatorError(f"the piece from {piece[0]} was over before it could be killed")


def _in_child(
    work: Callable[..., None],
    variables: dict[str, str],
    minutes: Sequence[datetime],
    on_told: Callable[[str], None],
) -> None:
    # A killed child cannot give back its semaphores; whoever tracks them need not say so.
    os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker")
    context = multiprocessing.get_context("spawn")
    ear, mouth = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(mouth, work, variables, minutes))
    child.start()
    mouth.close()
    try:
        while True:
            on_told(ear.recv())
    except EOFError:
        child.join()
    except BaseException:
        child.kill()
        child.join()
        raise
    if child.exitcode:
        raise OperatorError(f"playing {minutes[0]} to {minutes[-1]} failed", "look above")


def _work(
    mouth: Connection,
    work: Callable[..., None],
    variables: dict[str, str],
    minutes: Sequence[datetime],
) -> None:
    def tell(what: str, _: float = 1) -> None:
        mouth.send(what)

    ignore_interrupts()
    with entered(variables) as settings, player_of(settings, tell) as player:
        work(player, minutes, lambda _: tell("dispatch"))


def _ticks(player: Any, minutes: Sequence[datetime], on_minute: Callable[..., None]) -> None:
    for minute in minutes:
        player.tick(minute)
        player.trade([minute], on_minute)


def _range(player: Any, minutes: Sequence[datetime], on_minute: Callable[..., None]) -> None:
    player.minutes(minutes[0], minutes[-1])
    player.trade(minutes, on_minute)
