"""Alpaca's trade updates by alpaca-py's client, with our patience around it, frame by frame.

alpaca-py connects, authenticates and subscribes. Reading is ours, and so is what is done with what
fails: alpaca-py asks again for ever with a key that is refused, loses a frame that it cannot read,
and does not notice a connection on which nothing comes any more.
"""

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from alpaca.trading.stream import TradingStream
from requests.utils import get_auth_from_url
from urllib3.util import make_headers
from websockets import WebSocketException

from ops_pipeline.clients.alpaca_http import KEYS
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.environment import proxy_of
from ops_pipeline.settings import AlpacaAccess

log = logging.getLogger(__name__)

# So often the server is asked for a sign of life, and so long one may be missing.
BEAT_SECONDS, SILENT_SECONDS = 10.0, 25.0
CONNECT_SECONDS = 25.0
# A connection that lived so long counts as well: the waits begin anew after it.
FIRST_WAIT, LONGEST_WAIT, WELL_SECONDS = 1.0, 60.0, 30.0
REFUSALS = 3
# Longer frames end the connection. A frame of an order has about 2 kB.
MAX_BYTES = 16 * 2**20
_SOCKET = {"ping_interval": 10, "ping_timeout": 20, "max_queue": 4096, "max_size": MAX_BYTES}

Hear = Callable[[str | bytes], None]


class Refused(Exception):
    """The key is refused."""


class AlpacaStream:
    """The trade updates of one account, until it is cancelled.

    `hear` is told each frame at once, before anything reads it, and `tell` whether there is a
    connection, and why there is none. Both must return soon.
    """

    def __init__(self, access: AlpacaAccess, hear: Hear, tell: Callable[[str], None]) -> None:
        self._access, self._hear, self._tell = access, hear, tell
        self._again = asyncio.Event()
        self._heard_at: float | None = None
        self._connected_at: float | None = None

    @property
    def seconds_silent(self) -> float | None:
        """How long ago the server last said anything; None while there is no connection."""
        return None if self._heard_at is None else time.monotonic() - self._heard_at

    def reconnect(self) -> None:
        """End the connection, and begin another one."""
        self._again.set()

    async def run(self) -> None:
        """Follow the account, for ever.

        Raises:
            BadConfiguration: the key was refused, and so it was again.
        """
        failures = refusals = 0
        while True:
            self._connected_at = None
            try:
                reason = await self._once()
                refusals = 0
            except Refused:
                refusals, reason = refusals + 1, "the key is refused"
                if refusals == REFUSALS:
                    raise BadConfiguration(
                        f"Alpaca refuses the key {self._access.masked_key} for its stream", KEYS
                    ) from None
            failures = 1 if self._was_well() else failures + 1
            self._heard_at = None
            self._tell(reason)
            wait = _wait(failures)
            log.warning("stream_lost", extra={"data": {"reason": reason, "again_in": wait}})
            await asyncio.sleep(wait)

    def _was_well(self) -> bool:
        """Whether the last connection was one for long: one that is cut at once is none."""
        began = self._connected_at
        return began is not None and time.monotonic() - began >= WELL_SECONDS

    async def _once(self) -> str:
        """One connection, from its beginning to its end; why it ended."""
        stream = _Stream(self._access, self._heard)
        self._again.clear()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await stream.begin()
            self._connected_at = time.monotonic()
            self._tell("")
            watching = asyncio.create_task(self._watch(stream))
            try:
                return await self._read(stream, watching)
            finally:
                watching.cancel()
        except (WebSocketException, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            return f"{type(error).__name__}: {error}"[:200]
        finally:
            with suppress(Exception):
                async with asyncio.timeout(FIRST_WAIT):
                    await stream.close()

    async def _read(self, stream: "_Stream", watching: "asyncio.Task[str]") -> str:
        reading = asyncio.create_task(stream.read())
        try:
            await asyncio.wait({reading, watching}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        if not reading.cancelled():
            reading.result()
        return watching.result()

    async def _watch(self, stream: "_Stream") -> str:
        """End where nothing comes any more, or on request; why.

        Where we slept ourselves, a stopped process or a closed laptop, what came meanwhile may
        still wait to be read: the next beat tells.
        """
        while True:
            await stream.ask_for_life()
            asked_at = time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._again.wait()
                return "it was mute: a request found what no frame had told"
            has_slept = time.monotonic() - asked_at > 2 * BEAT_SECONDS
            if not has_slept and (self.seconds_silent or 0.0) > SILENT_SECONDS:
                return f"nothing came for {SILENT_SECONDS:g} s"

    def _heard(self, raw: str | bytes) -> None:
        self._heard_at = time.monotonic()
        self._hear(raw)


class _Stream(TradingStream):
    """alpaca-py's client, whose frames are heard."""

    def __init__(self, access: AlpacaAccess, hear: Hear) -> None:
        super().__init__(
            access.key,
            access.secret,
            raw_data=True,
            url_override=f"{access.trading_url.replace('http', 'ws', 1)}/stream",
            websocket_params=dict(_SOCKET),
        )
        self._hear, self._url = hear, access.trading_url
        self.subscribe_trade_updates(_nothing)

    async def begin(self) -> None:
        """Connect, authenticate and subscribe.

        Raises:
            Refused: the key is.
        """
        await self._start_ws()  # type: ignore[no-untyped-call]
        self._running = True

    async def read(self) -> None:
        """Read until the connection ends.

        alpaca-py's own loop makes something of each frame, and ends at one that it cannot read;
        besides, while frames come it may not notice that it is cancelled (wait_for, Python 3.11).
        """
        while True:
            await self._ws.recv()

    async def ask_for_life(self) -> None:
        """Subscribe once more: the answer shows that somebody is there, and still tells us."""
        await self._subscribe_trade_updates()

    async def _connect(self) -> None:
        tunnel: Any = await asyncio.to_thread(_tunnel, self._url)
        self._websocket_params["sock"] = tunnel
        await super()._connect()  # type: ignore[no-untyped-call]
        self._ws: Any = _Heard(self._ws, self._hear)

    async def _auth(self) -> None:
        try:
            await super()._auth()  # type: ignore[no-untyped-call]
        except (ValueError, AttributeError):
            raise Refused from None


class _Heard:
    """A connection whose frames are told as they come."""

    def __init__(self, socket: Any, hear: Hear) -> None:
        self._socket, self._hear = socket, hear

    async def recv(self) -> str | bytes:
        """The next frame, once it is told."""
        raw: str | bytes = await self._socket.recv()
        self._hear(raw)
        return raw

    async def send(self, message: str) -> None:
        """Send a message."""
        await self._socket.send(message)

    async def close(self) -> None:
        """End the connection."""
        await self._socket.close()


async def _nothing(_: Any) -> None:
    """What alpaca-py would tell was heard already."""


def _tunnel(url: str) -> socket.socket | None:
    """Return a connection through the environment's proxy, which alpaca-py's client cannot make.

    Raises:
        OSError: there is a proxy, and it does not let us through.
    """
    if (proxy := proxy_of(url)) is None:
        return None
    there, through = urlsplit(url), urlsplit(proxy)
    kind = HTTPSConnection if through.scheme == "https" else HTTPConnection
    connection = kind(through.hostname or "", through.port, timeout=CONNECT_SECONDS)
    login = ":".join(get_auth_from_url(proxy))
    headers = make_headers(proxy_basic_auth=login) if login != ":" else {}
    connection.set_tunnel(there.hostname or "", there.port or 443, headers)
    try:
        connection.connect()
    except HTTPException as error:
        connection.close()
        raise OSError(f"the proxy answers with {type(error).__name__}") from error
    made: socket.socket = connection.sock
    made.settimeout(0)
    return made


def _wait(failures: int) -> float:
    """Longer after each failure, by chance up to half as long again, and never under a second."""
    least = min(FIRST_WAIT * 2.0 ** min(failures - 1, 10), LONGEST_WAIT)
    return least * (1 + random.random() / 2)  # noqa: S311 - so that not all come back at once
