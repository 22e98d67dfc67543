"""Follows one account, as the only one: hears, keeps, applies, and asks whether that was all."""

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from threading import Lock
from typing import Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from ops_pipeline.clients.alpaca_books import Books, is_control
from ops_pipeline.dispatcher.outage import is_outage
from ops_pipeline.dispatcher.told import (
    AT_ONCE,
    apply_frames,
    asked_from,
    keep_frames,
    take_in,
)
from ops_pipeline.domain.errors import OperatorError, Unsafe
from ops_pipeline.storage import stream as storage
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.stream import Lease, Looked, RawFrame

log = logging.getLogger(__name__)

# Frames that wait for a database that is away; what comes then is asked for afterwards.
MOST_WAITING = 100_000


class Listener(Protocol):
    """Who hears an account's trade updates."""

    @property
    def seconds_silent(self) -> float | None:
        """How long ago the broker last said anything; None while there is no connection."""

    def reconnect(self) -> None:
        """End the connection, and begin another one."""

    async def run(self) -> None:
        """Hear, for ever."""


class Reader(Protocol):
    """Who asks what an account was told and holds."""

    def read(self, orders_after: datetime, fills_after: datetime) -> Books:
        """Orders and fills since these instants, and all positions."""


Listening = Callable[[Callable[[str | bytes], None], Callable[[str], None]], Listener]


@dataclass(frozen=True)
class StreamPace:
    """How often things are done, in seconds.

    Attributes:
        lease: how long after its last sign of life a process still counts as following.
        holding: how often it gives one.
        looking: how often the whole account is asked for, though all seems well.
        again: how long after a failure of the database or of a request the next try is.
        soon: how long after a fault the whole account is asked for.
        rest: how long after it was asked for it is left alone: a flood of faults must not use up
            the broker's rate.
    """

    lease: float = 20.0
    holding: float = 4.0
    looking: float = 30.0
    again: float = 1.0
    soon: float = 0.5
    rest: float = 2.0


@dataclass
class Follower:
    """One process that follows one account."""

    engine: Engine
    reader: Reader
    listening: Listening
    account: str
    code_version: str
    pace: StreamPace = field(default_factory=StreamPace)

    def __post_init__(self) -> None:
        self._waiting: deque[RawFrame] = deque()
        self._came, self._look_now = asyncio.Event(), asyncio.Event()
        self._connected_at: datetime | None = None
        self._reason = "connecting"
        self._frames_seen = 0
        self._doubted, self._healed = False, 0
        self._why = "in its turn"
        self._storing = Lock()
        self._listener = self.listening(self._hear, self._tell)

    async def run(self) -> None:
        """Follow until cancelled.

        Raises:
            Unsafe: another process follows the account, or does by now.
            BadConfiguration: the broker refuses the key.
        """
        self._loop = asyncio.get_running_loop()
        lease = await asyncio.to_thread(self._take)
        reason = "ended"
        try:
            async with asyncio.TaskGroup() as tasks:
                for work in (self._hold, self._keep, self._look):
                    tasks.create_task(work(lease))
                tasks.create_task(self._listener.run())
        except* OperatorError as errors:
            reason = str(errors.exceptions[0])
            raise errors.exceptions[0] from None
        finally:
            await self._leave(lease, reason)

    def _take(self) -> Lease:
        holder = f"{socket.gethostname()}/{os.getpid()}"
        with self.engine.begin() as connection:
            lease = storage.take_lease(
                connection, self.account, holder, self.code_version, self.pace.lease
            )
            if lease:
                return lease
            found = storage.lease_holder(connection, self.account)
        other, seconds = found or ("another process", self.pace.lease)
        raise Unsafe(
            f"{other} follows account {self.account}; it has shown life within the last"
            f" {self.pace.lease:g} s",
            f"end it, or wait {max(seconds, 0):.0f} s after it ended",
        )

    async def _leave(self, lease: Lease, reason: str) -> None:
        try:
            await asyncio.to_thread(self._store, lease)
            with self.engine.begin() as connection:
                storage.leave_lease(connection, lease, reason)
        except (DBAPIError, OperatorError) as error:
            log.warning("lease_left_to_run_out", extra={"data": {"reason": type(error).__name__}})

    def _hear(self, raw: str | bytes) -> None:
        """A frame has come; one about the connection is a sign of life, and no more."""
        if is_control(raw):
            return
        if len(self._waiting) >= MOST_WAITING:
            self._want_look("too many frames wait")
            return
        self._frames_seen += 1
        self._waiting.append(RawFrame(raw, clock()))
        self._came.set()

    def _tell(self, reason: str) -> None:
        """There is a connection, or there is none, and why."""
        self._reason = reason
        self._connected_at = None if reason else clock()
        if not reason:
            # Nobody tells what happened before it.
            self._want_look("connected")

    async def _hold(self, lease: Lease) -> None:
        while True:
            await self._tried(lambda: self._show_life(lease))
            await asyncio.sleep(self.pace.holding)

    def _show_life(self, lease: Lease) -> None:
        silent = self._listener.seconds_silent
        alive_at = None if silent is None else clock() - timedelta(seconds=silent)
        with self.engine.begin() as connection:
            storage.keep_lease(
                connection,
                lease,
                self.pace.lease,
                connected_at=self._connected_at,
                alive_at=alive_at,
                reason=self._reason,
            )

    async def _keep(self, lease: Lease) -> None:
        """Keep and apply what came; what an earlier process kept comes first."""
        self._came.set()
        while True:
            await self._came.wait()
            self._came.clear()
            if not await self._tried(lambda: self._store(lease)):
                self._came.set()
                await asyncio.sleep(self.pace.again)

    def _store(self, lease: Lease) -> None:
        # A thread that was left alone at the end may still be at it.
        with self._storing:
            self._store_all(lease)

    def _store_all(self, lease: Lease) -> None:
        while True:
            batch = [self._waiting[at] for at in range(min(len(self._waiting), AT_ONCE))]
            if batch:
                keep_frames(self.engine, lease, batch)
                for _ in batch:
                    self._waiting.popleft()
            if apply_frames(self.engine, lease).unreadable:
                # What it would have told is asked for.
                self._look_soon("a frame could not be read")
            if not batch:
                return

    async def _look(self, lease: Lease) -> None:
        """Ask for the whole account: at once when something is amiss, and else now and then."""
        before: tuple[int, datetime | None] | None = None
        while True:
            try:
                async with asyncio.timeout(self.pace.looking):
                    await self._look_now.wait()
                await asyncio.sleep(self.pace.soon)
            except TimeoutError:
                pass
            self._look_now.clear()
            seen = self._frames_seen, self._connected_at
            why, self._why = self._why, "in its turn"
            if not await self._tried(partial(self._look_at, lease, why)):
                self._want_look("the one before failed")
                await asyncio.sleep(self.pace.again)
                continue
            # Of what came before the connection no frame tells.
            if self._healed and self._connected_at and seen == before:
                self._listener.reconnect()
            before = self._frames_seen, self._connected_at
            await asyncio.sleep(self.pace.rest)

    def _want_look(self, why: str) -> None:
        self._why = why
        self._look_now.set()

    def _look_soon(self, why: str) -> None:
        """Ask for the whole account once more; said by another thread than that of the loop."""
        self._loop.call_soon_threadsafe(self._want_look, why)

    def _look_at(self, lease: Lease, why: str) -> None:
        """Ask for the whole account, and keep what came of it.

        What the database refuses of an answer ends nothing: it is told, and asked for again in its
        turn.
        """
        looked_at, begun = clock(), time.monotonic()
        looked = Looked(looked_at, why, storage.FAILED, 0)
        try:
            looked = self._ask(lease, looked)
        except storage.LeaseLost:
            raise
        except OperatorError as error:
            looked = replace(looked, reason=str(error))
            raise
        except DBAPIError as error:
            if is_outage(error):
                raise
            log.exception("look_refused", extra={"data": {"of": type(error.orig).__name__}})
            looked = replace(looked, reason=f"the database refuses it: {type(error.orig).__name__}")
            self._healed = 0
        finally:
            self._keep_look(replace(looked, took_ms=round((time.monotonic() - begun) * 1_000)))

    def _keep_look(self, looked: Looked) -> None:
        try:
            with self.engine.begin() as connection:
                storage.insert_look(connection, self.account, looked)
        except DBAPIError as error:
            log.warning("look_not_kept", extra={"data": {"reason": type(error.orig).__name__}})

    def _ask(self, lease: Lease, looked: Looked) -> Looked:
        """Ask, and join the answers; how many orders no frame had told so well is remembered."""
        orders_from, fills_from = asked_from(
            self.engine, self.account, clock(), is_doubted=self._doubted
        )
        books = self.reader.read(orders_from, fills_from)
        look = take_in(self.engine, lease, books, clock())
        if look.unreadable:
            data = {"count": len(look.unreadable), "first": look.unreadable[0]}
            log.error("answers_unreadable", extra={"data": data})
        unexplained = [one.ticker for one in look.differences if not one.is_explained]
        if not look.is_settled:
            self._look_soon("the one before was not settled")
        if unexplained and not self._doubted:
            # An order may have moved between two answers.
            self._look_soon("it did not add up")
        elif unexplained:
            log.error("account_does_not_add_up", extra={"data": {"tickers": unexplained}})
        self._doubted = bool(unexplained)
        self._healed = look.healed
        return replace(
            looked,
            outcome=storage.SETTLED if look.is_settled else storage.UNSETTLED,
            orders=len(books.orders),
            fills=len(books.fills),
            healed=look.healed,
            differences=len(look.differences),
        )

    async def _tried(self, work: Callable[[], None]) -> bool:
        """Do it; False where the database or the broker was not there just now."""
        try:
            await asyncio.to_thread(work)
        except storage.LeaseLost:
            raise
        except OperatorError as error:
            log.warning("broker_not_asked", extra={"data": {"reason": str(error)}})
            return False
        except DBAPIError as error:
            if not is_outage(error):
                raise
            log.warning("database_away", extra={"data": {"reason": type(error.orig).__name__}})
            return False
        return True
