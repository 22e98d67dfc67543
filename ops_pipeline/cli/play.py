"""Plays sessions through Dagster: their data in this process, the dispatcher in one beside it."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from ops_pipeline.cli.console import err, progress
from ops_pipeline.domain.acceptance import Verdict
from ops_pipeline.domain.session import Session
from ops_pipeline.domain.stages import DATA_STAGES
from ops_pipeline.settings import Mode, Settings, load

if TYPE_CHECKING:
    from ops_pipeline.defs.replay import Player

Pool = TypeVar("Pool", bound=Executor)
OnProgress = Callable[[str, float], None]


def play(settings: Settings, sessions: Sequence[Session], on_progress: OnProgress) -> list[Verdict]:
    """Data and dispatch of these sessions in order, then every check, in the replay's databases.

    The dispatcher trades a session while the data of the next one are made: it reads only what
    was known by its own minutes.

    Returns:
        The verdicts of the checks that do not stand in the catalogue.
    """
    with player_of(settings, on_progress) as player, _beside() as dispatcher:
        traded: list[Future[None]] = []
        for session in sessions:
            on_progress(str(session.day), 0)
            player.data(session)
            traded.append(dispatcher.submit(_dispatch, session))
            traded[-1].add_done_callback(lambda _: on_progress("", 1))
            # A dispatcher that failed ends the play now, not after the last day.
            _raise_failure(traded)
        for future in traded:
            future.result()
        on_progress("checks", 0)
        return player.check()


def fill(settings: Settings, sessions: Sequence[Session], on_progress: OnProgress) -> None:
    """The data stages of these sessions in order; nothing is traded."""
    with player_of(settings, on_progress) as player:
        for session in sessions:
            on_progress(str(session.day), 0)
            player.data(session)


def _raise_failure(futures: Sequence[Future[None]]) -> None:
    for future in futures:
        if future.done():
            future.result()


@contextmanager
def player_of(settings: Settings, on_progress: OnProgress | None = None) -> "Iterator[Player]":
    """What plays the minutes of a mode; on_progress is told of each finished stage."""
    os.environ.update(settings.environment())
    import dagster as dg

    from ops_pipeline.definitions import defs
    from ops_pipeline.defs.replay import Player

    pipeline = (defs.resources or {})["pipeline"]
    pipeline.on_progress = on_progress
    with dg.DagsterInstance.get() as instance:
        yield Player(defs, instance, settings.mode)
    pipeline.engine.dispose()


@contextmanager
def _beside() -> Iterator[ProcessPoolExecutor]:
    """One process for the dispatcher; it loads its code while the first data are made."""
    context = multiprocessing.get_context("spawn")
    with ended_early(ProcessPoolExecutor(1, context, ignore_interrupts)) as pool:
        pool.submit(_load)
        yield pool


@contextmanager
def ended_early(pool: Pool) -> Iterator[Pool]:
    """Wait for a pool's work, as a pool does; but when it fails, or we are told to end, end it."""
    with pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.kill()
            raise


def ignore_interrupts() -> None:
    """Leave a Ctrl-C at the terminal, which reaches every process there, to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _load() -> None:
    import ops_pipeline.definitions  # noqa: F401


def _dispatch(session: Session) -> None:
    with player_of(load(Mode.REPLAY.value)) as player:
        player.dispatch(session)


@contextmanager
def shown(sessions: int, *, dispatched: bool, quiet: bool) -> Iterator[OnProgress]:
    """Progress by trading day: a bar on a terminal, a line for each day begun elsewhere."""
    steps = sessions * (len(DATA_STAGES) + dispatched)
    lines = not quiet and not err.is_terminal
    begun = 0
    with progress(quiet=quiet or lines) as bars:
        task = bars.add_task("starting Dagster", total=steps)

        def on_progress(what: str, share: float) -> None:
            nonlocal begun
            bars.advance(task, share)
            if share:
                return
            begun += 1
            text = f"{what}, day {begun} of {sessions}" if begun <= sessions else what
            bars.update(task, description=text)
            if lines:
                err.print(text, markup=False)

        yield on_progress
        bars.update(task, completed=steps, description="done")
