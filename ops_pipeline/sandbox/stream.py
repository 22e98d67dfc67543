"""Trade updates over websockets: binary frames of JSON, the same to every connection."""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from ops_pipeline.sandbox.answers import event_answer
from ops_pipeline.sandbox.broker import Event
from ops_pipeline.sandbox.faults import Faults, Kind, Rule

_STREAM = "trade_updates"
# A frame that waits for the next one to overtake it does not wait for ever.
_PATIENCE_SECONDS = 1.0
_REFUSED = 1008

Frames = asyncio.Queue[bytes]


class TradeUpdates:
    """All connections that listen; `connections` is how many there were."""

    def __init__(self, faults: Faults, is_authorized: Callable[[str, str], bool]) -> None:
        self._faults, self._is_authorized = faults, is_authorized
        self._listening: dict[int, Frames] = {}
        self.connections = 0

    def tell(self, event: Event) -> None:
        """Send an event to all who listen."""
        frame = _frame(_STREAM, event_answer(event))
        for frames in self._listening.values():
            frames.put_nowait(frame)

    async def serve(self, socket: WebSocket) -> None:
        """Talk to one client until it goes, or is refused."""
        self.connections += 1
        number, frames = self.connections, Frames()
        await socket.accept()
        sending = asyncio.create_task(self._send(socket, number, frames))
        try:
            with suppress(WebSocketDisconnect):
                await self._authenticate(socket)
                while True:
                    self._listen(number, frames, await _received(socket))
        finally:
            self._listening.pop(number, None)
            sending.cancel()

    async def _authenticate(self, socket: WebSocket) -> None:
        asked = await _received(socket)
        data = asked.get("data")
        told = data if isinstance(data, dict) else {}
        key, secret = str(told.get("key_id", "")), str(told.get("secret_key", ""))
        is_welcome = asked.get("action") == "authenticate" and self._is_authorized(key, secret)
        status = "authorized" if is_welcome else "unauthorized"
        answer = {"status": status, "action": str(asked.get("action", ""))}
        await socket.send_bytes(_frame("authorization", answer))
        if not is_welcome:
            await socket.close(_REFUSED)
            raise WebSocketDisconnect(_REFUSED)

    def _listen(self, number: int, frames: Frames, asked: dict[str, Any]) -> None:
        if asked.get("action") != "listen":
            return
        data = asked.get("data")
        streams = data.get("streams") if isinstance(data, dict) else None
        wants = isinstance(streams, list) and _STREAM in streams
        frames.put_nowait(_frame("listening", {"streams": [_STREAM] if wants else []}))
        if wants:
            self._listening[number] = frames
        else:
            self._listening.pop(number, None)

    async def _send(self, socket: WebSocket, number: int, frames: Frames) -> None:
        held: bytes | None = None
        with suppress(WebSocketDisconnect):
            while True:
                frame = await _next(frames, _PATIENCE_SECONDS if held else None)
                struck = self._faults.on_frame(number) if frame and _is_event(frame) else []
                await asyncio.sleep(sum(rule.seconds for rule in struck if rule.kind is Kind.DELAY))
                sent, held = _passed(frame, held, struck)
                for one in sent:
                    await socket.send_bytes(one)


def _passed(
    frame: bytes | None, held: bytes | None, struck: Sequence[Rule]
) -> tuple[list[bytes], bytes | None]:
    """What is sent now, and what is held back for the next frame to overtake."""
    kinds = {rule.kind for rule in struck}
    overtaken = [held] if held else []
    if frame is None or kinds & {Kind.DROP, Kind.MUTE}:
        return overtaken, None
    if Kind.REORDER in kinds and not held:
        return [], frame
    return [frame] * (2 if Kind.DUPLICATE in kinds else 1) + overtaken, None


async def _next(frames: Frames, seconds: float | None) -> bytes | None:
    try:
        async with asyncio.timeout(seconds):
            return await frames.get()
    except TimeoutError:
        return None


async def _received(socket: WebSocket) -> dict[str, Any]:
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    try:
        told = json.loads(message.get("text") or message.get("bytes") or "")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _frame(stream: str, data: dict[str, Any]) -> bytes:
    return json.dumps({"stream": stream, "data": data}).encode()


def _is_event(frame: bytes) -> bool:
    return frame.startswith(_frame(_STREAM, {})[:-4])
