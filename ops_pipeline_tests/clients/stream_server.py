"""A broker's stream on loopback that says what a test tells it to."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from ops_pipeline.sandbox.server import LOOPBACK

AUTHORIZED, UNAUTHORIZED = "authorized", "unauthorized"


@dataclass
class Broker:
    """What it says to each connection, and what it has seen.

    Attributes:
        welcome: what the n-th connection, from 1, is told of its key; None says nothing.
        is_mute: nobody is answered who asks to listen.
        heard: what clients have asked for, by name.
    """

    welcome: Callable[[int], str | None] = lambda _: AUTHORIZED
    is_mute: bool = False
    url: str = ""
    connections: int = 0
    heard: list[str] = field(default_factory=list)
    listening: list[ServerConnection] = field(default_factory=list)
    keys: list[tuple[str, str]] = field(default_factory=list)

    async def serve(self, socket: ServerConnection) -> None:
        """Talk to one client until it goes."""
        self.connections += 1
        try:
            async for message in socket:
                await self._answer(socket, json.loads(message))
        except ConnectionClosed:
            pass
        finally:
            if socket in self.listening:
                self.listening.remove(socket)

    async def _answer(self, socket: ServerConnection, asked: dict[str, Any]) -> None:
        self.heard.append(asked["action"])
        if asked["action"] == "authenticate":
            self.keys.append((asked["data"]["key_id"], asked["data"]["secret_key"]))
            status = self.welcome(self.connections)
            if status:
                await socket.send(_frame("authorization", {"status": status}))
        elif not self.is_mute:
            await socket.send(_frame("listening", {"streams": ["trade_updates"]}))
            if socket not in self.listening:
                self.listening.append(socket)

    async def tell(self, frame: str | bytes) -> None:
        """Send a frame to all who listen."""
        for socket in self.listening:
            await socket.send(frame)

    async def flood(self, frame: str | bytes) -> None:
        """Send a frame to all who listen, again and again, until they are gone."""
        with suppress(ConnectionClosed):
            while True:
                await self.tell(frame)
                await asyncio.sleep(0)

    async def hang_up(self) -> None:
        """End all connections."""
        for socket in list(self.listening):
            await socket.close()


@asynccontextmanager
async def streaming(broker: Broker) -> AsyncIterator[Broker]:
    """The broker, at an address of its own."""
    async with serve(broker.serve, LOOPBACK, 0, ping_interval=None, max_size=None) as server:
        broker.url = f"http://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
        yield broker


async def until(ask: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(seconds):
        while not ask():
            await asyncio.sleep(0.005)


def _frame(stream: str, data: dict[str, Any]) -> bytes:
    return json.dumps({"stream": stream, "data": data}).encode()
