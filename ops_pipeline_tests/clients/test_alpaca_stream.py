"""The stream of an account: every frame is heard, silence is noticed, a bad key ends it."""

import asyncio
import gc
import json
import socket
import threading
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from ops_pipeline.clients import alpaca_stream
from ops_pipeline.clients.alpaca_books import is_control
from ops_pipeline.clients.alpaca_stream import FIRST_WAIT, LONGEST_WAIT, AlpacaStream, _tunnel
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.settings import AlpacaAccess
from ops_pipeline_tests.clients.stream_server import (
    AUTHORIZED,
    UNAUTHORIZED,
    Broker,
    streaming,
    until,
)
from ops_pipeline_tests.clients.told import BAD_FRAMES, a_frame

KEY, SECRET = "PKSECRETKEY", "a-very-secret-one"
GOOD = json.dumps(a_frame()).encode()
NOWHERE = "http://127.0.0.1:1"
# As it is before a fixture takes its place.
WAIT = alpaca_stream._wait


class Ear:
    """What was heard of orders, and what was told of the connection."""

    def __init__(self, url: str) -> None:
        self.frames: list[str | bytes] = []
        self.told: list[str] = []
        access = AlpacaAccess(KEY, SECRET, url, url)
        self.stream = AlpacaStream(access, self.hear, self.told.append)

    def hear(self, raw: str | bytes) -> None:
        if not is_control(raw):
            self.frames.append(raw)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """After how many failures it waited; no wait takes long here."""
    found: list[int] = []

    def wait(failures: int) -> float:
        found.append(failures)
        return 0.01

    monkeypatch.setattr(alpaca_stream, "_wait", wait)
    return found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life are asked for, and missed, soon."""
    monkeypatch.setattr(alpaca_stream, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(alpaca_stream, "SILENT_SECONDS", 0.8)


@asynccontextmanager
async def following(broker: Broker) -> AsyncIterator[Ear]:
    """Somebody who follows this broker."""
    async with streaming(broker):
        ear = Ear(broker.url)
        running = asyncio.create_task(ear.stream.run())
        try:
            yield ear
        finally:
            running.cancel()
            await asyncio.wait({running})


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a scene in a loop of its own, not for ever."""

    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scene()

    asyncio.run(bounded())


def test_each_frame_is_heard_as_it_came_and_a_connection_is_told() -> None:
    frames = [GOOD, GOOD.decode(), GOOD]

    async def scene() -> None:
        broker = Broker()
        async with following(broker) as ear:
            assert ear.stream.seconds_silent is None
            await until(lambda: broker.listening)
            await until(lambda: ear.told)
            for frame in frames:
                await broker.tell(frame)
            await until(lambda: len(ear.frames) == 3)
            assert ear.frames == frames
            assert ear.told == [""]
            assert ear.stream.seconds_silent is not None
            assert broker.keys == [(KEY, SECRET)]

    play(scene)


def test_bad_frames_are_heard_and_the_connection_lives_on() -> None:
    async def scene() -> None:
        broker = Broker()
        async with following(broker) as ear:
            await until(lambda: broker.listening)
            for frame in BAD_FRAMES.values():
                await broker.tell(frame)
                await broker.tell(GOOD)
            await until(lambda: len(ear.frames) == 2 * len(BAD_FRAMES), 20.0)
            assert ear.frames[::2] == list(BAD_FRAMES.values())
            assert broker.connections == 1

    play(scene)


@pytest.mark.usefixtures("quick")
def test_a_frame_that_is_longer_than_any_ends_the_connection_and_another_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(alpaca_stream._SOCKET, "max_size", 10_000)

    async def scene() -> None:
        broker = Broker()
        async with following(broker) as ear:
            await until(lambda: broker.listening)
            await broker.tell(b"0" * 20_000)
            await until(lambda: broker.connections == 2)
            assert ear.frames == []
            assert len(ear.told) >= 2

    play(scene)


@pytest.mark.usefixtures("quick")
def test_a_broker_that_says_nothing_any_more_is_left_and_found_again() -> None:
    async def scene() -> None:
        broker = Broker()
        async with following(broker) as ear:
            await until(lambda: broker.listening)
            broker.is_mute = True
            await until(lambda: (ear.stream.seconds_silent or 0) > 0.2)
            await until(lambda: broker.connections == 2)
            assert ear.told[1] == "nothing came for 0.8 s"
            broker.is_mute = False
            await until(lambda: ear.told[-1] == "" and broker.listening)
            await broker.tell(GOOD)
            await until(lambda: ear.frames == [GOOD])

    play(scene)


@pytest.mark.usefixtures("quick")
def test_a_broker_without_news_shows_life_when_it_is_asked_for_it() -> None:
    async def scene() -> None:
        broker = Broker()
        async with following(broker) as ear:
            await until(lambda: broker.heard.count("listen") > 20)
            assert broker.connections == 1
            assert (ear.stream.seconds_silent or 0) < 0.8

    play(scene)


@pytest.mark.usefixtures("quick")
def test_a_sleep_of_our_own_is_no_silence_of_the_broker() -> None:
    async def scene() -> None:
        broker = Broker()
        async with following(broker) as ear:
            await until(lambda: broker.heard.count("listen") > 2)
            time.sleep(1.0)
            await until(lambda: broker.heard.count("listen") > 6)
            assert ear.told == [""]

    play(scene)


def test_a_broker_that_never_answers_the_key_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alpaca_stream, "CONNECT_SECONDS", 2.0)

    async def scene() -> None:
        broker = Broker(lambda number: AUTHORIZED if number == 3 else None)
        async with following(broker) as ear:
            await until(lambda: broker.listening)
            assert broker.connections == 3
            assert [text.partition(":")[0] for text in ear.told] == ["TimeoutError"] * 2 + [""]

    play(scene)


def test_a_connection_that_ends_is_replaced_and_nothing_is_told_in_between() -> None:
    async def scene() -> None:
        broker = Broker()
        async with following(broker) as ear:
            for number in (1, 2, 3):
                await until(lambda: broker.listening)
                assert broker.connections == number
                await broker.hang_up()
                await until(lambda: not broker.listening)
                await until(lambda n=number: len(ear.told) >= 2 * n)
            assert [bool(reason) for reason in ear.told[:6]] == [False, True] * 3

    play(scene)


def test_one_that_is_ended_leaves_nothing_behind() -> None:
    left: list[dict[str, Any]] = []

    async def scene() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: left.append(what))
        broker = Broker()
        async with following(broker):
            await until(lambda: broker.listening)
        gc.collect()

    play(scene)
    assert left == []


def test_on_request_another_connection_begins() -> None:
    async def scene() -> None:
        broker = Broker()
        async with following(broker) as ear:
            await until(lambda: broker.listening)
            await until(lambda: ear.told)
            ear.stream.reconnect()
            await until(lambda: broker.connections == 2 and broker.listening)
            assert "mute" in ear.told[1]

    play(scene)


def test_on_request_another_connection_begins_however_many_frames_come() -> None:
    async def scene() -> None:
        broker = Broker()
        async with following(broker) as ear:
            for number in range(1, 21):
                await until(lambda n=number: broker.connections == n and broker.listening)
                flood = asyncio.create_task(broker.flood(GOOD))
                await until(lambda: ear.frames)
                ear.frames.clear()
                ear.stream.reconnect()
                await until(lambda n=number: broker.connections == n + 1)
                flood.cancel()

    play(scene)


def test_a_key_that_is_refused_three_times_ends_it_loudly(waits: list[int]) -> None:
    async def scene() -> None:
        broker = Broker(lambda _: UNAUTHORIZED)
        async with streaming(broker):
            ear = Ear(broker.url)
            with pytest.raises(BadConfiguration, match="refuses the key") as error:
                await ear.stream.run()
        assert broker.connections == 3
        assert ear.told == ["the key is refused"] * 2
        assert KEY not in str(error.value)
        assert SECRET not in str(error.value)
        assert (error.value.exit_code, bool(error.value.hint)) == (4, True)

    play(scene)
    assert waits == [1, 2]


def test_a_key_that_is_accepted_in_between_is_not_counted() -> None:
    async def scene() -> None:
        broker = Broker(lambda number: AUTHORIZED if number in (3, 6) else UNAUTHORIZED)
        async with following(broker) as ear:
            await until(lambda: broker.connections == 3 and broker.listening)
            await broker.hang_up()
            await until(lambda: broker.connections == 6 and broker.listening)
            assert ear.told.count("the key is refused") == 4

    play(scene)


def test_where_nobody_answers_it_waits_longer_each_time(waits: list[int]) -> None:
    async def scene() -> None:
        ear = Ear(NOWHERE)
        running = asyncio.create_task(ear.stream.run())
        await until(lambda: len(waits) == 5)
        running.cancel()
        await asyncio.wait({running})
        assert all("Error" in reason for reason in ear.told)

    play(scene)
    assert waits == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("well_seconds", "expected"), [(30.0, [1, 2, 3, 4]), (0.0, [1, 1, 1, 1])])
def test_a_connection_that_is_cut_before_it_lived_for_long_makes_the_next_wait_longer(
    monkeypatch: pytest.MonkeyPatch, waits: list[int], well_seconds: float, expected: list[int]
) -> None:
    monkeypatch.setattr(alpaca_stream, "WELL_SECONDS", well_seconds)

    async def scene() -> None:
        broker = Broker()
        async with following(broker) as ear:
            for number in range(1, 5):
                await until(lambda: broker.listening)
                await until(lambda n=number: len(ear.told) >= 2 * n - 1)
                await broker.hang_up()
                await until(lambda n=number: len(waits) == n)

    play(scene)
    assert waits == expected


def test_waits_grow_to_a_minute_and_are_never_under_a_second() -> None:
    waits = [[WAIT(failures) for _ in range(200)] for failures in range(1, 40)]
    assert min(map(min, waits)) >= FIRST_WAIT == 1.0
    assert max(map(max, waits)) <= 1.5 * LONGEST_WAIT
    for number, some in enumerate(waits):
        assert min(some) >= min(2.0**number, LONGEST_WAIT)
    assert len({wait for some in waits for wait in some}) > 1_000


@contextmanager
def connecting_proxy(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A proxy that gives one answer and then sends back what it is sent, and what it was asked."""
    asked: list[bytes] = []

    def serve() -> None:
        near, _ = listener.accept()
        with near:
            asked.append(near.recv(65_536))
            near.sendall(answer)
            near.sendall(near.recv(65_536))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve)
        serving.start()
        yield listener.getsockname()[1], asked
        serving.join()


def test_the_stream_goes_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with connecting_proxy(b"HTTP/1.1 200 OK\r\n\r\n") as (port, asked):
        monkeypatch.setenv("HTTPS_PROXY", f"http://us:pa%20ss@127.0.0.1:{port}")
        assert _tunnel("http://127.0.0.1:8600") is None
        made = _tunnel("https://paper-api.alpaca.markets")
        assert made is not None
        with made:
            made.settimeout(5)
            made.sendall(b"frame")
            assert made.recv(5) == b"frame"
    assert asked[0].startswith(b"CONNECT paper-api.alpaca.markets:443 ")
    assert b"Basic " + b64encode(b"us:pa ss") in asked[0]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 407 No\r\n\r\n", b"what\r\n\r\n"])
def test_a_proxy_that_refuses_is_a_lost_connection(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connecting_proxy(answer) as (port, _):
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(OSError, match=r"407|proxy"):
            _tunnel("https://paper-api.alpaca.markets")
