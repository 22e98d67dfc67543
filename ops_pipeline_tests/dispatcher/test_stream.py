"""One process follows an account: what it does when frames, answers or the database fail it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from threading import Event
from typing import Any

import pytest
from sqlalchemy.exc import DataError, OperationalError, ProgrammingError

from ops_pipeline.clients.alpaca_books import Books, read_order
from ops_pipeline.clients.alpaca_http import AlpacaSilent
from ops_pipeline.dispatcher import stream as following
from ops_pipeline.dispatcher.stream import Follower, StreamPace
from ops_pipeline.domain.errors import BadConfiguration, Unsafe
from ops_pipeline.domain.gates import ACTIVE, REDUCING
from ops_pipeline.domain.stream import Holding, StreamHealth, stream_state
from ops_pipeline.storage import stream as storage
from ops_pipeline.storage.dispatch import ACCOUNT
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.stream import LeaseLost
from ops_pipeline_tests.clients.told import BAD_FRAMES, a_frame, an_order
from ops_pipeline_tests.dispatcher.world import World

QUICK = StreamPace(lease=1.0, holding=0.1, looking=60.0, again=0.05, soon=0.01, rest=0.05)
LOOKING = replace(QUICK, looking=0.2)
FRAME = json.dumps(a_frame())
CONTROL = json.dumps({"stream": "listening", "data": {"streams": ["trade_updates"]}})
WHOLE = an_order(status="filled", filled_qty="10")


def news(number: int) -> str:
    """One of the frames that tell different things."""
    return json.dumps(a_frame(event="new", execution_id=str(number)))


@dataclass
class Ear:
    """A listener that hears what a test says, and is connected at once."""

    hear: Callable[[str | bytes], None]
    tell: Callable[[str], None]
    seconds_silent: float | None = 0.0
    reconnects: int = 0
    error: Exception | None = None

    def reconnect(self) -> None:
        self.reconnects += 1

    async def run(self) -> None:
        self.tell("")
        while self.error is None:
            await asyncio.sleep(0.005)
        raise self.error


@dataclass
class Account:
    """Answers of a broker, and how often it was asked."""

    books: Books = field(default_factory=lambda: Books((), (), {}))
    asked: list[tuple[datetime, datetime]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def read(self, orders_after: datetime, fills_after: datetime) -> Books:
        self.asked.append((orders_after, fills_after))
        if self.failures:
            raise self.failures.pop(0)
        return self.books

    def hold(self, *orders: dict[str, Any], **changes: Any) -> None:
        """From now on it has these orders, and holds what they come to."""
        found = tuple(read_order(order) for order in orders)
        held = sum((order.signed for order in found), Decimal(0))
        holdings = {"AAPL": Holding(held, Decimal(100))} if held else {}
        self.books = replace(Books(found, (), holdings), **changes)


@dataclass
class Play:
    """A follower at work."""

    world: World
    pace: StreamPace = QUICK
    account: Account = field(default_factory=Account)
    ears: list[Ear] = field(default_factory=list)

    @property
    def ear(self) -> Ear:
        return self.ears[-1]

    def follower(self) -> Follower:
        def listening(hear: Callable[[str | bytes], None], tell: Callable[[str], None]) -> Ear:
            self.ears.append(Ear(hear, tell))
            return self.ears[-1]

        return Follower(self.world.engine, self.account, listening, ACCOUNT, "test", self.pace)

    @asynccontextmanager
    async def on(self) -> AsyncIterator["asyncio.Task[None]"]:
        """Follow, from the first look on, and end at the end."""
        task = asyncio.create_task(self.follower().run())
        await self.until(lambda: (self.health and self.account.asked) or task.done())
        await asyncio.sleep(0.1)
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait({task})

    @property
    def health(self) -> StreamHealth | None:
        with self.world.engine.connect() as connection:
            return storage.read_health(connection, ACCOUNT)

    @property
    def outcomes(self) -> dict[str, int]:
        rows = self.world.ask("select outcome, count(*) from broker_frames group by outcome")
        return dict(rows)  # type: ignore[arg-type]

    def looks(self, outcome: str) -> list[Any]:
        """The reasons of the looks that ended so."""
        where = f"select reason from stream_looks where outcome = '{outcome}'"
        return [row[0] for row in self.world.ask(where)]

    @property
    def filled(self) -> list[Any]:
        return [row[0] for row in self.world.ask("select filled_qty from broker_orders")]

    async def until(self, ask: Callable[[], object], seconds: float = 15.0) -> None:
        async with asyncio.timeout(seconds):
            while not await asyncio.to_thread(ask):
                await asyncio.sleep(0.01)

    async def looked(self, times: int = 1) -> None:
        """Wait for so many more looks, and what they found."""
        count = len(self.account.asked)
        await self.until(lambda: len(self.account.asked) >= count + times)
        await asyncio.sleep(0.1)


@pytest.fixture
def play(world: World) -> Play:
    return Play(world)


def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Play a scene in a loop of its own, not for ever."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scene()

    # Debug refuses what another thread than the loop's may not do.
    asyncio.run(bounded(), debug=True)


def test_what_is_heard_is_kept_applied_and_shown_as_life(play: Play) -> None:
    async def scene() -> None:
        async with play.on():
            for frame in (FRAME, CONTROL, FRAME.encode()):
                play.ear.hear(frame)
            await play.until(lambda: play.outcomes == {"APPLIED": 1, "REPEATED": 1})
            await play.until(lambda: play.health and play.health.connected_at)
            health = play.health
            assert health is not None
            assert stream_state(health, clock()) == (ACTIVE, "")
            assert (health.code_version, health.reason) == ("test", "")
        assert play.health is not None
        assert (play.health.is_held, play.health.reason) == (False, "ended")
        assert stream_state(play.health, clock())[0] == REDUCING

    run(scene)


def test_what_waits_at_the_end_is_kept(play: Play) -> None:
    async def scene() -> None:
        async with play.on():
            for number in range(1_200):
                play.ear.hear(news(number))
        assert play.outcomes == {"APPLIED": 1_200}

    run(scene)


def test_what_another_process_kept_is_looked_at_first(play: Play) -> None:
    async def scene() -> None:
        play.world.execute(
            "insert into broker_frames (account, received_at, body, bytes, is_whole)"
            " values ('paper', now(), :body, 1, true)",
            body=FRAME,
        )
        async with play.on():
            await play.until(lambda: play.outcomes == {"APPLIED": 1})

    run(scene)


def test_a_second_process_cannot_follow_and_says_who_does(play: Play) -> None:
    async def scene() -> None:
        async with play.on():
            with pytest.raises(Unsafe, match=r"/\d+ follows account paper") as error:
                await play.follower().run()
            assert error.value.exit_code == 6
            assert error.value.hint
            assert not play.ears[0].error
            play.ears[0].hear(FRAME)
            await play.until(lambda: play.outcomes == {"APPLIED": 1})

    run(scene)


def test_after_a_crash_the_lease_passes_on_within_its_time(play: Play) -> None:
    async def scene() -> None:
        with play.world.engine.begin() as connection:
            storage.take_lease(connection, ACCOUNT, "dead/1", "test", QUICK.lease)
        begun = clock()
        while True:
            try:
                async with play.on() as task:
                    await play.until(lambda: play.health and play.health.holder != "dead/1", 0.3)
                    break
            except (Unsafe, TimeoutError):
                assert task.done()
        assert (clock() - begun).total_seconds() < QUICK.lease + 1.0

    run(scene)


def test_one_that_lost_its_lease_ends_and_writes_nothing(play: Play) -> None:
    async def scene() -> None:
        async with play.on() as task:
            play.world.execute("update stream_leases set epoch = epoch + 1, holder = 'other/1'")
            play.ear.hear(FRAME)
            await asyncio.wait({task}, timeout=10)
            assert isinstance(task.exception(), LeaseLost)
        assert play.outcomes == {}
        assert play.health is not None
        assert (play.health.holder, play.health.is_held) == ("other/1", True)

    run(scene)


def test_a_key_that_is_refused_ends_it_loudly(play: Play) -> None:
    async def scene() -> None:
        async with play.on() as task:
            play.ear.error = BadConfiguration("Alpaca refuses the key")
            await asyncio.wait({task}, timeout=10)
            assert isinstance(task.exception(), BadConfiguration)
        assert play.health is not None
        assert (play.health.is_held, play.health.reason) == (False, "Alpaca refuses the key")

    run(scene)


def test_frames_wait_for_a_database_that_is_away(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_away, keep = Event(), following.keep_frames

    def keep_or_fail(*words: Any) -> None:
        if is_away.is_set():
            raise OperationalError("", {}, Exception())
        keep(*words)

    monkeypatch.setattr(following, "keep_frames", keep_or_fail)

    async def scene() -> None:
        async with play.on() as task:
            is_away.set()
            for number in range(20):
                play.ear.hear(news(number))
            await asyncio.sleep(0.3)
            assert (play.outcomes, task.done()) == ({}, False)
            is_away.clear()
            await play.until(lambda: play.outcomes == {"APPLIED": 20})

    run(scene)


def test_frames_for_which_there_is_no_room_are_asked_for(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MOST_WAITING", 2)

    async def scene() -> None:
        async with play.on():
            count = len(play.account.asked)
            for number in range(5):
                play.ear.hear(news(number))
            await play.until(lambda: play.outcomes == {"APPLIED": 2})
            await play.until(lambda: len(play.account.asked) > count)

    run(scene)


def test_a_statement_that_is_wrong_ends_it(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any) -> None:
        raise ProgrammingError("", {}, Exception())

    monkeypatch.setattr(following, "keep_frames", wrong)

    async def scene() -> None:
        async with play.on() as task:
            play.ear.hear(FRAME)
            await asyncio.wait({task}, timeout=10)
            assert isinstance(task.exception(), ExceptionGroup)

    run(scene)


def test_an_answer_that_the_database_refuses_is_told_and_asked_for_again(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_in, is_refused = following.take_in, Event()

    def take_in_or_fail(*words: Any) -> Any:
        if is_refused.is_set():
            raise DataError("", {}, ValueError())
        return take_in(*words)

    monkeypatch.setattr(following, "take_in", take_in_or_fail)

    async def scene() -> None:
        async with play.on() as task:
            is_refused.set()
            play.account.hold(WHOLE)
            play.ear.tell("")
            await play.until(lambda: "the database refuses it: ValueError" in play.looks("FAILED"))
            assert not task.done()
            play.ear.hear(news(1))
            await play.until(lambda: play.outcomes == {"APPLIED": 1})
            is_refused.clear()
            play.ear.tell("")
            await play.until(lambda: play.filled == [10])

    run(scene)


def test_each_look_is_kept_with_its_reason_and_what_came_of_it(play: Play) -> None:
    async def scene() -> None:
        async with play.on():
            play.account.failures.append(AlpacaSilent("no page"))
            play.account.hold(WHOLE)
            play.ear.tell("")
            await play.until(lambda: play.filled == [10])
            await play.until(lambda: len(play.looks("SETTLED")) > 1)
        assert ["no page" in reason for reason in play.looks("FAILED")] == [True]
        with play.world.engine.connect() as connection:
            kept = storage.looks(connection, ACCOUNT, 100)
        assert {"connected", "the one before failed"} <= {look.why for look in kept}
        assert sum(look.healed for look in kept) == 1
        assert max(look.orders for look in kept) == 1
        assert [look.looked_at for look in kept] == sorted(
            (look.looked_at for look in kept), reverse=True
        )

    run(scene)


@pytest.mark.parametrize("name", ["no JSON", "an unknown event", "NUL", "binary", "10 MB"])
def test_what_a_bad_frame_would_have_told_is_asked_for(play: Play, name: str) -> None:
    async def scene() -> None:
        async with play.on():
            play.account.hold(WHOLE)
            play.ear.hear(BAD_FRAMES[name])
            await play.until(lambda: play.filled == [10])
            assert play.outcomes == {"UNREADABLE": 1}
            assert play.ear.reconnects == 0

    run(scene)


def test_each_connection_begins_with_a_look(play: Play) -> None:
    async def scene() -> None:
        async with play.on():
            play.account.hold(WHOLE)
            play.ear.tell("lost")
            await play.until(lambda: play.health and play.health.reason == "lost")
            assert play.health is not None
            assert play.health.connected_at is None
            play.ear.tell("")
            await play.until(lambda: play.filled == [10])

    run(scene)


def test_a_stream_that_is_mute_while_orders_change_is_connected_anew(play: Play) -> None:
    play.pace = LOOKING

    async def scene() -> None:
        async with play.on():
            await play.looked(3)
            assert play.ear.reconnects == 0
            play.account.hold(WHOLE)
            await play.until(lambda: play.ear.reconnects == 1)
            await play.looked(3)
            assert play.ear.reconnects == 1
            assert play.filled == [10]

    run(scene)


def test_a_stream_that_tells_of_orders_is_left_alone(play: Play) -> None:
    play.pace = LOOKING

    async def scene() -> None:
        async with play.on():
            await play.looked()
            for number in range(1, 8):
                order = an_order(filled_qty=str(number))
                play.ear.hear(json.dumps(a_frame(order, execution_id=str(number))))
                play.account.hold(order)
                await play.looked()
            assert play.ear.reconnects == 0

    run(scene)


def test_a_broker_that_does_not_answer_is_asked_again(play: Play) -> None:
    play.account.failures = [AlpacaSilent("no answer"), BadConfiguration("no")]
    play.account.hold(WHOLE)

    async def scene() -> None:
        async with play.on() as task:
            await play.until(lambda: play.filled == [10])
            assert len(play.account.asked) == 3
            assert not task.done()

    run(scene)


def test_the_first_look_is_repeated_until_nothing_moves(play: Play) -> None:
    play.account.hold(WHOLE, moving=frozenset({"AAPL"}))

    async def scene() -> None:
        async with play.on():
            await play.looked(3)
            assert play.health is not None
            assert play.health.passed_at is None
            play.account.hold(WHOLE)
            await play.until(lambda: play.health and play.health.passed_at)

    run(scene)


def test_an_unexplained_difference_is_looked_at_twice_and_then_told(
    play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        async with play.on():
            drift = {"TSLA": Holding(Decimal(3), Decimal(100))}
            play.account.hold(holdings=drift, unreadable=("status quantum",))
            play.ear.tell("")
            await play.looked(2)
            said = [record.message for record in caplog.records]
            assert said.count("account_does_not_add_up") == 1
            assert "answers_unreadable" in said
            assert play.health is not None
            assert [one.ticker for one in play.health.differences] == ["TSLA"]
            await asyncio.sleep(0.3)
            assert said.count("account_does_not_add_up") == 1

    run(scene)


def test_silence_and_its_end_are_shown(play: Play) -> None:
    async def scene() -> None:
        async with play.on():
            play.ear.seconds_silent = 45.0
            await play.until(
                lambda: play.health and stream_state(play.health, clock())[0] == REDUCING
            )
            play.ear.seconds_silent = 0.0
            await play.until(
                lambda: play.health and stream_state(play.health, clock())[0] == ACTIVE
            )
            # No connection: what was heard a moment ago still counts, until it is too long ago.
            play.ear.seconds_silent = None
            await asyncio.sleep(0.3)
            assert play.health is not None
            assert stream_state(play.health, clock())[0] == ACTIVE

    run(scene)


def test_a_database_that_is_away_at_the_end_leaves_the_lease_to_run_out(
    play: Play, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: Any) -> None:
        raise OperationalError("", {}, Exception())

    async def scene() -> None:
        async with play.on():
            monkeypatch.setattr(storage, "leave_lease", away)
        assert play.health is not None
        assert play.health.is_held
        assert "lease_left_to_run_out" in [record.message for record in caplog.records]

    run(scene)
