"""The watch: red within one tick, one message, none while it lasts, one when it is over."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, text

from ops_pipeline.clients.senders import SEND_SECONDS, Letter
from ops_pipeline.domain import alerts as alerts_of
from ops_pipeline.domain.acceptance import DUPLICATES, QUERIES, VOLUME, Level, Verdict
from ops_pipeline.domain.alerts import (
    ACCEPTANCE,
    CHANNELS,
    DEAD_MAN,
    LONGEST_RETRY,
    MAX_ATTEMPTS,
    Kind,
    Message,
    read_quiet,
)
from ops_pipeline.domain.checks import BAR_AGE, CHECKS, DRIFT, ORDERS, SKEW
from ops_pipeline.domain.gates import ACTIVE, HALTED
from ops_pipeline.domain.stages import DISPATCH, stage_of_service
from ops_pipeline.local.ports import free_port
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.local.processes import Process, ProcessTable
from ops_pipeline.operations.acceptance import examine
from ops_pipeline.operations.alerts import Watch, send_test
from ops_pipeline.operations.dead_man import LOST_AFTER, DeadMan
from ops_pipeline.operations.doctor import Health
from ops_pipeline.operations.doctor import examine as doctor
from ops_pipeline.operations.looks import Look, Processes, looks_of
from ops_pipeline.settings import AlertChannel, Mode, Settings
from ops_pipeline.storage import alerts as storage
from ops_pipeline.storage import dispatch, stream
from ops_pipeline.storage.engine import open_engine
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.services import Switch, upsert_switch
from ops_pipeline_tests.builders import NOON, a_broker_order, at
from ops_pipeline_tests.clients.webhook import Webhook, opened
from ops_pipeline_tests.operations.scenes import a_ward
from ops_pipeline_tests.storage.rows import (
    CONFIG,
    TS,
    one,
    put_executed,
    put_execution,
    put_order,
    put_recommendation,
    put_run,
)

TICK = timedelta(seconds=15)
DESK = AlertChannel("desk", Level.LOW, "json://127.0.0.1:9/secret-token-1234")
BAD = Verdict("stuck_processing", Level.HIGH, "3 stuck", {}, "0")
GOOD = Verdict("stuck_processing", Level.NORMAL, "0 stuck", {}, "0")


def opened_by(cause: str) -> alerts_of.Alert:
    verdict = Verdict(cause, Level.HIGH, "violated")
    return alerts_of.opened(ACCEPTANCE, verdict, TS, flaps=0)


@dataclass
class Scene:
    """A watch whose time is ours, and what it sent."""

    watch: Watch
    at: datetime = TS
    found: list[Verdict] = field(default_factory=lambda: [GOOD])
    sent: list[tuple[str, str]] = field(default_factory=list)
    error: str | None = None

    def tick(self, *found: Verdict, times: int = 1) -> bool:
        """Look so often, each time a tick later; what is found stays."""
        self.found = list(found) or self.found
        is_whole = True
        for _ in range(times):
            is_whole = self.watch.tick() and is_whole
            self.at += TICK
        return is_whole

    def send(self, letters: Sequence[Letter]) -> Mapping[int, str | None]:
        if self.error is None:
            self.sent += [(each.kind.value, each.title) for each in letters]
        return {each.number: self.error for each in letters}

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.sent]


@pytest.fixture
def stage(engine: Engine, tmp_path: Path) -> Callable[..., Scene]:
    def make(look: Callable[[datetime], Sequence[Verdict]] | None = None, **how: Any) -> Scene:
        scene: Scene
        watch = Watch(
            how.pop("engine", engine),
            Mode.REPLAY.calendar,
            [Look(ACCEPTANCE, look or (lambda _: scene.found))],
            lambda: scene.at,
            tmp_path / "outage.json",
            **({"channels": [DESK], "away_seconds": 0.1} | how),
        )
        scene = Scene(watch)
        if "send" not in how:
            watch.send = scene.send
        return scene

    return make


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with opened() as made:
        yield made


def test_each_check_is_told_once_at_its_level_never_again_while_it_lasts_and_once_when_over(
    stage: Callable[..., Scene],
) -> None:
    scene = stage()
    for number, check in enumerate(CHECKS, 1):
        assert scene.tick(Verdict(check.name, check.level, "violated"))
        assert scene.sent[-1] == ("opened", f"[{check.level.upper()}] {check.name}: violated")
        scene.tick(times=10)
        assert len(scene.sent) == 2 * number - 1
        scene.tick(Verdict(check.name, Level.NORMAL, "well"), times=12)
        assert scene.sent[-1] == ("resolved", f"[RESOLVED] {check.name}: violated")
        assert len(scene.sent) == 2 * number
        # Or it would belong to the one before.
        scene.at += timedelta(hours=2)


def test_all_checks_at_once_are_one_outage_and_what_is_none(stage: Callable[..., Scene]) -> None:
    scene = stage()
    scene.tick(*(Verdict(one.name, one.level, "violated") for one in CHECKS))
    alerts = [opened_by(one.name) for one in CHECKS]
    apart = [one.cause for one in alerts if not one.is_outage]
    assert len(scene.sent) == len(apart) + 1
    told = {title.split("] ")[1].split(":")[0] for _, title in scene.sent}
    assert set(apart) <= told
    assert {DUPLICATES, ORDERS, VOLUME, BAR_AGE, SKEW, DRIFT} <= set(apart)


# One violating row of each of the runbook's five queries, through the whole loop.


def finish(connection: Any, started_at: datetime, finished_at: datetime) -> None:
    run_id = put_run(connection)
    moved = text("update dispatcher_runs set started_at = :at where run_id = :id")
    connection.execute(moved, {"at": started_at, "id": run_id})
    dispatch.finish_run(connection, run_id, finished_at, released=0, expired=0)


def execute(connection: Any, simulated_ts: datetime, number: int) -> None:
    run_id = put_run(connection)
    dispatch.finish_run(connection, run_id, TS, released=0, expired=0)
    moved = {"minute": at(number), "simulated_ts": simulated_ts, "dispatcher_run_id": run_id}
    put_executed(connection, ticker="X", **moved)


def backlog(connection: Any) -> None:
    for number in range(40):
        put_recommendation(connection, minute=at(number), expires_at=TS + timedelta(hours=1))


def stuck(connection: Any) -> None:
    old = TS - timedelta(minutes=11)
    put_recommendation(connection, ts=old)
    run_id = put_run(connection)
    dispatch.claim(connection, run_id, old, CONFIG)
    dispatch.finish_run(connection, run_id, TS, released=0, expired=0)


def duplicate(connection: Any, ticker: str = "AAPL") -> None:
    unique = "dispatch_executions_recommendation_id_key"
    connection.execute(text(f"alter table dispatch_executions drop constraint if exists {unique}"))
    connection.execute(text("set local session_replication_role = replica"))
    row, run_id = put_recommendation(connection, ticker=ticker), put_run(connection)
    dispatch.finish_run(connection, run_id, TS, released=0, expired=0)
    for _ in range(2):
        put_execution(connection, row, dispatcher_run_id=run_id)


def unfinished(connection: Any) -> None:
    run_id = put_run(connection)
    moved = text("update dispatcher_runs set started_at = :at where run_id = :id")
    connection.execute(moved, {"at": TS - timedelta(minutes=3), "id": run_id})


def runaway(connection: Any) -> None:
    for number in range(300):
        execute(connection, TS, number)


VIOLATIONS = {
    "backlog_state": (backlog, "HIGH"),
    "stuck_processing": (stuck, "HIGH"),
    "duplicate_executions": (duplicate, "CRITICAL"),
    "recent_dispatcher_runs": (unfinished, "HIGH"),
    "execution_volume": (runaway, "HIGH"),
}


def put_right(connection: Any) -> None:
    """Undo it, as only a test can."""
    connection.execute(text("set local session_replication_role = replica"))
    for statement in (
        "delete from dispatch_executions where ticker = 'AAPL' or simulated_ts = :ts",
        "delete from dispatch_recommendations",
    ):
        known = {"ts": TS} if ":ts" in statement else {}
        connection.execute(text(statement), known)
    closed = "update dispatcher_runs set finished_at = :ts, outcome = 'ABANDONED'"
    connection.execute(text(f"{closed} where finished_at is null"), {"ts": TS})


def duplicate_order(connection: Any, ticker: str = "AAPL") -> None:
    """Both orders carry an id that was decided here."""
    ours = one(
        connection,
        "select client_order_id from order_intents where recommendation_id = :n",
        n=put_order(connection, ticker=ticker),
    )
    twice = [
        a_broker_order(client_order_id=ours, broker_order_id=f"{ticker}-{n}") for n in range(2)
    ]
    stream.put_orders(connection, dispatch.ACCOUNT, twice)


@pytest.mark.parametrize(
    ("name", "violate"),
    [("duplicate_executions", duplicate), ("duplicate_orders", duplicate_order)],
)
def test_a_halt_for_a_duplicate_is_lifted_until_there_is_another(
    engine: Engine, name: str, violate: Callable[..., None]
) -> None:
    def state(said: str | None = None) -> str:
        with engine.begin() as connection:
            if said:
                dispatch.set_trading_state(connection, said, "night", "the cause is known")
        examine(engine, TS, Mode.REPLAY.calendar, is_live=False, names=[name])
        with engine.connect() as connection:
            return dispatch.read_trading_state(connection)

    with engine.begin() as connection:
        violate(connection)
    assert state() == HALTED
    assert state(ACTIVE) == ACTIVE
    with engine.begin() as connection:
        violate(connection, "MSFT")
    assert state() == HALTED
    assert state(ACTIVE) == ACTIVE


def test_two_orders_of_somebody_else_under_one_id_halt_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        twice = [a_broker_order(), a_broker_order(broker_order_id="b-2")]
        stream.put_orders(connection, dispatch.ACCOUNT, twice)
    (found,) = examine(engine, TS, Mode.REPLAY.calendar, is_live=False, names=["duplicate_orders"])
    assert found.is_normal


def test_a_check_that_is_silent_ends_no_alert(template: Settings, tmp_path: Path) -> None:
    with a_ward(template, tmp_path) as ward:
        looks = looks_of(ward.settings, ward.engine)
        (checks,) = [each for each in looks if each.source == ACCEPTANCE]
        before = {verdict.name for verdict in checks.ask(clock())}
        with ward.engine.begin() as connection:
            upsert_switch(connection, Switch(DISPATCH, is_enabled=False))
        after = {verdict.name for verdict in checks.ask(clock())}
    assert "backlog_state" in before - after


@pytest.mark.parametrize("name", QUERIES)
def test_a_violating_row_is_one_message_and_its_end_another(
    stage: Callable[..., Scene], engine: Engine, name: str
) -> None:
    calendar = Mode.REPLAY.calendar
    scene = stage(lambda now: examine(engine, now, calendar, is_live=False, names=[name]))
    with engine.begin() as connection:
        finish(connection, TS - timedelta(days=2), TS - timedelta(days=2))
        execute(connection, TS - timedelta(minutes=5), 390)
        for minutes in range(6):
            finish(connection, TS + timedelta(minutes=minutes), TS + timedelta(minutes=minutes))
    scene.tick(times=2)
    assert scene.sent == []
    violate, level = VIOLATIONS[name]
    with engine.begin() as connection:
        violate(connection)
    scene.tick()
    ((kind, title),) = scene.sent
    assert (kind, title.split(":")[0]) == ("opened", f"[{level}] {name}")
    with engine.connect() as connection:
        expected = HALTED if name == "duplicate_executions" else ACTIVE
        assert dispatch.read_trading_state(connection) == expected
    scene.tick(times=10)
    assert len(scene.sent) == 1
    with engine.begin() as connection:
        put_right(connection)
    scene.tick(times=4)
    assert scene.kinds == ["opened", "resolved"]


def test_trading_is_halted_in_the_transaction_that_finds_a_duplicate(engine: Engine) -> None:
    with engine.begin() as connection:
        duplicate(connection)
        connection.execute(
            text(
                "create function refuse() returns trigger language plpgsql as $$ begin"
                " raise exception 'no'; end $$;"
                "create trigger refuse before update on trading_state"
                " for each row execute function refuse()"
            )
        )
    with pytest.raises(Exception, match="no"):
        examine(engine, TS, Mode.REPLAY.calendar, is_live=False)


# Channels that are down, slow, and back.


def test_a_webhook_that_is_down_gets_both_messages_once_it_is_back(
    stage: Callable[..., Scene],
) -> None:
    port = free_port()
    channel = replace(DESK, url=f"json://127.0.0.1:{port}/hooks/secret-token-1234")
    scene = stage(channels=[channel], send=Watch.send)
    scene.tick(BAD)
    scene.tick(GOOD, times=2)
    with opened(port) as hook:
        scene.at += timedelta(minutes=1)
        scene.tick(times=2)
        assert [title.split("]")[0] for title in hook.titles] == ["[HIGH", "[RESOLVED"]
        (alert,) = storage_alerts(scene)
        assert f"alert {alert.id}" in hook.taken[0]["message"]
        assert "message" in hook.taken[0]["message"].splitlines()[-1]


def storage_alerts(scene: Scene) -> list[Any]:
    with scene.watch.engine.connect() as connection:
        return storage.recent_alerts(connection, None, 10)


def test_a_webhook_that_hangs_or_fails_holds_the_watch_up_no_longer_than_it_may(
    stage: Callable[..., Scene], hook: Webhook
) -> None:
    channel = replace(DESK, url=f"{hook.url}?rto=0.5")
    scene = stage(channels=[channel], send=Watch.send)
    hook.answer = 0
    began = time.monotonic()
    scene.tick(BAD)
    assert time.monotonic() - began < SEND_SECONDS
    hook.answer = 500
    scene.tick()
    hook.answer = 200
    scene.tick(times=4)
    assert len(hook.taken) == 1
    with scene.watch.engine.connect() as connection:
        (state, _) = sorted(
            storage.channel_states(connection), key=lambda s: s.channel == "console"
        )
    assert (state.channel, state.waiting, state.last_error) == ("desk", 0, "")


def test_a_channel_that_lost_a_message_is_a_finding_until_it_takes_another(
    stage: Callable[..., Scene], template: Settings, tmp_path: Path
) -> None:
    with a_ward(template, tmp_path, OPS_ALERT_URLS=f"desk={DESK.url}") as ward:
        (look,) = [one for one in looks_of(ward.settings, ward.engine) if one.source == CHANNELS]
        scene = stage(look.ask, engine=ward.engine)

        def found() -> list[str]:
            return [
                alert.finding
                for alert in storage_alerts(scene)
                if alert.cause == "channel_works:desk" and alert.resolved_at is None
            ]

        say(scene)
        scene.error = "refused"
        for _ in range(2 * MAX_ATTEMPTS):
            scene.at += LONGEST_RETRY
            scene.tick()
        assert found() == ["2 messages were given up: refused"]
        scene.error = None
        say(scene)
        scene.tick(times=4)
        assert found() == []
        assert scene.kinds == ["test", "resolved"]


def test_a_channel_that_was_taken_away_is_no_finding(
    stage: Callable[..., Scene], template: Settings, tmp_path: Path
) -> None:
    with a_ward(template, tmp_path) as ward:
        (look,) = [one for one in looks_of(ward.settings, ward.engine) if one.source == CHANNELS]
        said = Message(Kind.TEST, Level.LOW, "a test", "of a channel")
        with ward.engine.begin() as connection:
            storage.insert_test(connection, said, TS, {"gone": "refused"})
        ((cause, level),) = [(one.name, one.level) for one in look.ask(TS)]
    assert (cause, level) == ("channel_works:gone", Level.NORMAL)


def test_the_doctor_tells_what_a_channel_lost_and_that_the_switch_does_not_answer(
    template: Settings, tmp_path: Path
) -> None:
    known = {"OPS_ALERT_URLS": f"desk={DESK.url}", "OPS_DEAD_MAN_URL": "http://127.0.0.1:9/ping"}
    with a_ward(template, tmp_path, **known) as ward:
        with ward.engine.begin() as connection:
            said = Message(Kind.TEST, Level.LOW, "a test", "of a channel")
            storage.insert_test(connection, said, TS, {"desk": "refused"})
            lost = Verdict("dead_man_answers", Level.MEDIUM, "20 times in a row: it answers 404")
            storage.observe(connection, TS, DEAD_MAN, [lost])
        told = {one.dependency: one for one in doctor(ward.settings, clock)}
    channels, switch = told["alert channels"], told["dead man's switch"]
    assert (channels.health, switch.health) == (Health.FAILED, Health.FAILED)
    assert channels.found.endswith(
        "desk was never told of anything, 1 were given up; desk: refused"
    )
    assert switch.found == "20 times in a row: it answers 404"


def say(scene: Scene) -> None:
    """A message for every channel."""
    with scene.watch.engine.begin() as connection:
        storage.insert_message(connection, Message(Kind.TEST, Level.LOW, "a", "b"), scene.at)


def test_no_address_reaches_the_database(stage: Callable[..., Scene]) -> None:
    channel = replace(DESK, url=f"json://127.0.0.1:{free_port()}/hooks/secret-token-1234")
    scene = stage(channels=[channel], send=Watch.send)
    scene.tick(BAD)
    with scene.watch.engine.connect() as connection:
        kept = connection.execute(
            text(
                "select string_agg(cast(t.* as text), ' ') from (select * from alert_deliveries) t"
            )
        ).scalar_one()
    assert "secret-token" not in kept
    assert "desk" in kept


# Silence.


def test_nobody_is_told_of_a_service_that_is_switched_off(
    stage: Callable[..., Scene], engine: Engine
) -> None:
    bars = stage_of_service("telemetry-1m")
    assert bars
    with engine.begin() as connection:
        for stage_off in (bars, DISPATCH):
            upsert_switch(connection, Switch(stage_off, is_enabled=False))
    scene = stage()
    bad = [Verdict("bars/is_fresh", Level.HIGH, "old"), Verdict("backlog_state", Level.HIGH, "40")]
    scene.tick(*bad, times=5)
    assert scene.sent == []
    with engine.begin() as connection:
        upsert_switch(connection, Switch(bars, is_enabled=True))
    scene.tick()
    assert scene.sent == [("opened", "[HIGH] bars/is_fresh: old")]


def test_quiet_hours_hold_back_what_can_wait(stage: Callable[..., Scene]) -> None:
    scene = stage(quiet=read_quiet("11:00-13:00"))
    scene.tick(Verdict("skip_reasons", Level.MEDIUM, "all skipped"), BAD)
    assert scene.sent == [("opened", "[HIGH] stuck_processing: 3 stuck")]
    scene.at = NOON + timedelta(hours=1)
    scene.tick()
    assert scene.kinds == ["opened", "opened"]


# The watch itself.


def test_two_watches_tell_everything_once_and_the_second_takes_over(
    stage: Callable[..., Scene], engine: Engine
) -> None:
    first, second = stage(), stage()
    for _ in range(3):
        first.tick(BAD)
        second.tick(BAD)
    assert (first.kinds, second.kinds) == (["opened"], [])
    assert second.watch.is_standby
    with engine.begin() as connection:
        dispatch.end_lease(connection, storage.LEASE, first.watch.holder)
    second.at = first.at
    second.tick(GOOD, times=2)
    first.tick(GOOD, times=2)
    assert (first.kinds, second.kinds) == (["opened"], ["resolved"])


def test_a_look_that_fails_is_an_alert_and_no_whole_look(
    stage: Callable[..., Scene], hook: Webhook
) -> None:
    scene = stage(dead_man=DeadMan(f"http://127.0.0.1:{hook.port}/ping"))

    def fail(_: datetime) -> Sequence[Verdict]:
        raise ValueError

    good = scene.watch.looks
    assert scene.tick()
    assert hook.pings == ["/ping"]
    scene.watch.looks = [Look("broken", fail), *good]
    assert not scene.tick(BAD, times=2)
    assert hook.pings == ["/ping"]
    titles = [title for _, title in scene.sent]
    assert sorted(titles) == [
        "[HIGH] look_works:broken: it failed: ValueError",
        "[HIGH] stuck_processing: 3 stuck",
    ]
    scene.watch.looks = good
    assert scene.tick()
    assert hook.pings == ["/ping"] * 2


def test_a_switch_that_does_not_answer_is_told_once_and_once_when_it_does(
    stage: Callable[..., Scene], hook: Webhook
) -> None:
    scene = stage(dead_man=DeadMan(f"http://127.0.0.1:{hook.port}/ping"))
    hook.answer = 404
    assert scene.tick(times=LOST_AFTER)
    assert scene.sent == []
    scene.tick(times=3)
    told = "dead_man_answers: 20 times in a row: it answers 404"
    assert scene.sent == [("opened", f"[MEDIUM] {told}")]
    hook.answer = 200
    scene.tick()
    hook.answer = 404
    # One good answer ends nothing, nor does a bad one begin anything.
    scene.tick(times=3)
    assert scene.kinds == ["opened"]
    hook.answer = 200
    scene.tick(times=2)
    assert scene.kinds == ["opened", "resolved"]


def test_a_switch_that_is_no_longer_set_is_no_finding(
    stage: Callable[..., Scene], engine: Engine
) -> None:
    lost = Verdict("dead_man_answers", Level.MEDIUM, "lost")
    with engine.begin() as connection:
        storage.observe(connection, TS, DEAD_MAN, [lost])
    stage().tick(times=2)
    with engine.connect() as connection:
        assert storage.open_alerts(connection) == []


def test_a_session_is_summed_up_once_after_its_close(
    stage: Callable[..., Scene], engine: Engine
) -> None:
    scene = stage()
    close = NOON + timedelta(hours=4)
    with engine.begin() as connection:
        execute(connection, TS, 300)
    scene.tick(BAD)
    scene.at = close + timedelta(minutes=9)
    scene.tick()
    assert "summary" not in scene.kinds
    put_bar(engine)
    scene.at = close + timedelta(minutes=11)
    scene.tick(times=3)
    ((_, title),) = [one for one in scene.sent if one[0] == "summary"]
    assert title.startswith("[SUMMARY] 2025-02-12: 1 executions")
    assert title.endswith("1 alerts")
    scene.at = close + timedelta(hours=14)
    scene.tick()
    assert scene.kinds.count("summary") == 1


@pytest.mark.parametrize(("installed", "count"), [(200, 1), (239, 1), (241, 0)])
def test_of_a_day_before_it_was_installed_no_summary_is_sent(
    stage: Callable[..., Scene], engine: Engine, installed: int, count: int
) -> None:
    scene = stage()
    put_bar(engine)
    with engine.begin() as connection:
        connection.execute(
            text("update installation set created_at = :at"),
            {"at": NOON + timedelta(minutes=installed)},
        )
    scene.at = NOON + timedelta(hours=4, minutes=11)
    scene.tick(times=3)
    assert scene.kinds.count("summary") == count
    if count:
        with engine.connect() as connection:
            said = connection.execute(text("select body from alert_messages")).scalar_one()
        assert said.startswith("part of the session: installed at ")


def put_bar(engine: Engine) -> None:
    from ops_pipeline.storage import bars
    from ops_pipeline_tests.builders import a_bar

    bar = a_bar()
    with engine.begin() as connection:
        bars.insert_bars(
            connection,
            [bar],
            {bar.minute: bar.minute.date()},
            lambda one: one.minute + timedelta(minutes=1),
            feed="test",
            origin="recorded",
        )


def test_each_channel_is_tried_on_demand(hook: Webhook) -> None:
    good, bad = replace(DESK, url=hook.url), AlertChannel("other", Level.HIGH, "nonsense://abcdef")
    _, errors = send_test([good, bad], NOON)
    assert errors == {"desk": None, "other": "apprise cannot read its address"}
    assert hook.titles == ["[TEST] ops-pipeline"]


# A database that is away.


@pytest.fixture
def shaky(settings: Settings, engine: Engine) -> Iterator[tuple[Engine, Callable[..., None]]]:
    """An engine, and a way to let its database refuse everybody, and to let all in again."""
    server = settings.server
    assert server

    def allow(*, is_on: bool) -> None:
        known = {"host": server.host, "port": server.port, "user": server.user}
        with psycopg.connect(
            **known, password=server.password, dbname="postgres", autocommit=True
        ) as administrator:
            name = sql.Identifier(settings.pipeline_database)
            word = sql.SQL("true" if is_on else "false")
            alter = sql.SQL("alter database {} with allow_connections {}")
            administrator.execute(alter.format(name, word))
            administrator.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s",
                (settings.pipeline_database,),
            )

    yield engine, allow
    allow(is_on=True)


def test_a_database_that_is_away_is_told_once_from_memory_and_kept_when_it_is_back(
    stage: Callable[..., Scene], shaky: tuple[Engine, Callable[..., None]]
) -> None:
    _, allow = shaky
    scene = stage()
    assert scene.tick()
    allow(is_on=False)
    began = scene.at
    assert not scene.tick(times=11)
    ((kind, title),) = scene.sent
    assert kind == "opened"
    assert title.startswith("[CRITICAL] database_answers: the connection to the database is lost")
    allow(is_on=True)
    scene.tick(times=4)
    assert scene.kinds == ["opened", "resolved"]
    (alert,) = storage_alerts(scene)
    assert (alert.opened_at, alert.level) == (began, Level.CRITICAL)


def test_a_watch_that_ends_meanwhile_tells_it_no_second_time(
    stage: Callable[..., Scene], shaky: tuple[Engine, Callable[..., None]]
) -> None:
    _, allow = shaky
    first = stage()
    allow(is_on=False)
    first.tick(times=2)
    second = stage()
    second.at = first.at
    second.tick(times=2)
    allow(is_on=True)
    second.tick(times=3)
    assert (first.kinds, second.kinds) == (["opened"], ["resolved"])


def test_a_channel_that_was_down_too_hears_of_it_afterwards(
    stage: Callable[..., Scene], shaky: tuple[Engine, Callable[..., None]]
) -> None:
    _, allow = shaky
    scene = stage()
    scene.error = "refused"
    allow(is_on=False)
    scene.tick(times=3)
    scene.error = None
    allow(is_on=True)
    scene.tick(times=5)
    assert scene.kinds == ["opened", "resolved"]


def test_a_restart_within_a_moment_is_nothing_to_tell(
    stage: Callable[..., Scene], settings: Settings
) -> None:
    scene = stage()
    scene.tick()
    server = settings.server
    assert server
    known = {"host": server.host, "port": server.port, "user": server.user}
    with psycopg.connect(**known, password=server.password, dbname="postgres") as administrator:
        administrator.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s",
            (settings.pipeline_database,),
        )
    assert scene.tick()
    assert scene.sent == []


def test_a_server_that_never_was_there_is_told_of(
    stage: Callable[..., Scene], settings: Settings
) -> None:
    assert settings.server
    nowhere = replace(settings, server=replace(settings.server, port=free_port()))
    engine = open_engine(nowhere)
    scene = stage(engine=engine)
    scene.tick(times=2)
    assert scene.kinds == ["opened"]
    engine.dispose()


# A database that is there, and does nothing.


@pytest.fixture
def bounded(settings: Settings) -> Iterator[Engine]:
    """An engine that gives a server up after a second, as the watch's own does after some."""
    made = open_engine(settings, bound_seconds=1.0)
    yield made
    made.dispose()


def test_a_server_that_is_frozen_is_told_once_and_so_is_that_it_moves_again(
    stage: Callable[..., Scene], bounded: Engine, server: Settings
) -> None:
    scene = stage(engine=bounded)
    assert scene.tick()
    with frozen(server_processes(server)):
        began = time.monotonic()
        assert not scene.tick()
        assert time.monotonic() - began < 30
        ((kind, title),) = scene.sent
    assert (kind, title.split(":")[0]) == ("opened", "[CRITICAL] database_answers")
    scene.tick(times=6)
    assert scene.kinds == ["opened", "resolved"]


def test_a_look_that_its_backend_keeps_for_ever_is_a_finding(
    stage: Callable[..., Scene], bounded: Engine
) -> None:
    def ask(_: datetime) -> Sequence[Verdict]:
        with bounded.connect() as connection:
            pid = connection.execute(text("select pg_backend_pid()")).scalar_one()
            with frozen([pid]):
                connection.execute(text("select 1"))
        return []

    scene = stage(ask, engine=bounded)
    began = time.monotonic()
    assert not scene.tick(times=2)
    assert time.monotonic() - began < 5
    assert scene.sent == [
        ("opened", "[HIGH] look_works:acceptance: it failed: it does not answer within 1 s")
    ]


def server_processes(settings: Settings) -> list[int]:
    """The embedded server's own process, and all that it has begun."""
    main = EmbeddedServer.in_folder(settings.var_dir).pid()
    assert main
    return [main, *(child.pid for child in psutil.Process(main).children())]


@contextmanager
def frozen(pids: Sequence[int]) -> Iterator[None]:
    """Stop processes where they are; afterwards they go on."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def read_only(engine: Engine) -> Iterator[None]:
    def switch(value: str) -> None:
        said = f'alter database "{engine.url.database}" set default_transaction_read_only = {value}'
        connection.execute(text(said))
        connection.execute(
            text(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
        )

    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        switch("on")
        yield
        switch("off")


@contextmanager
def full_disk(engine: Engine) -> Iterator[None]:
    with engine.begin() as connection:
        connection.execute(
            text(
                "create function refuse() returns trigger language plpgsql as $$ begin"
                " raise exception 'No space left on device' using errcode = '53100'; end $$;"
                "create trigger refuse before insert on alerts for each row"
                " execute function refuse()"
            )
        )
    yield
    with engine.begin() as connection:
        connection.execute(text("drop function refuse cascade"))


@contextmanager
def held(engine: Engine) -> Iterator[None]:
    with engine.begin() as connection:
        connection.execute(text("lock table alerts in access exclusive mode"))
        yield


@pytest.mark.parametrize(
    ("refuse", "why"),
    [
        (read_only, "in a read-only transaction"),
        (full_disk, "No space left on device"),
        (held, "canceling statement due to lock timeout"),
    ],
)
def test_a_database_that_answers_and_keeps_nothing_is_told_once_and_once_when_it_is_over(
    stage: Callable[..., Scene],
    engine: Engine,
    bounded: Engine,
    refuse: Callable[[Engine], Any],
    why: str,
) -> None:
    scene = stage(engine=bounded)
    assert scene.tick()
    with refuse(engine):
        # Once may be a server that starts again.
        assert not scene.tick(BAD)
        assert scene.sent == []
        assert not scene.tick(times=4)
        ((kind, title),) = scene.sent
    assert kind == "opened"
    assert title.startswith("[CRITICAL] database_answers: the database answers, and keeps nothing")
    assert title.endswith(why)
    assert scene.tick(GOOD, times=6)
    assert scene.kinds == ["opened", "resolved"]


def test_a_database_that_goes_again_before_it_was_well_is_told_no_second_time(
    stage: Callable[..., Scene], engine: Engine, bounded: Engine
) -> None:
    scene = stage(engine=bounded)
    for _ in range(2):
        with full_disk(engine):
            # What is open is only followed: nothing is inserted but by this.
            scene.tick(BAD, times=2)
        scene.tick(GOOD)
    assert scene.kinds == ["opened"]
    scene.tick(times=6)
    assert scene.kinds == ["opened", "resolved"]


# Processes.


@dataclass(frozen=True)
class Table(ProcessTable):
    """Processes that live and die as a test says."""

    alive: dict[str, Process | None] = field(default_factory=dict)

    def find(self, name: str) -> Process | None:
        return self.alive.get(name)

    def began(self, name: str) -> float | None:
        process = self.alive.get(name)
        return float(process.started) if process else None

    def knows(self, name: str) -> bool:
        return name in self.alive


def levels(processes: Processes, now: datetime) -> dict[str, Level]:
    return {one.name.split(":")[1]: one.level for one in processes.verdicts(now)}


def test_a_process_that_is_gone_and_one_that_was_started_anew_are_seen(tmp_path: Path) -> None:
    started = (NOON - timedelta(hours=1)).timestamp()
    table = Table(tmp_path)
    table.alive.update((name, Process(name, 1, started)) for name in ("keeper", "code", "web"))
    processes = Processes(table, ["keeper", "code", "web", "stream"])
    assert set(levels(processes, NOON).values()) == {Level.NORMAL}
    assert not processes.are_starting(NOON)
    table.alive.update(code=None, web=None)
    found = levels(processes, NOON)
    assert (found["code"], found["web"]) == (Level.CRITICAL, Level.HIGH)
    table.alive["web"] = Process("web", 2, started + 3_600)
    assert levels(processes, NOON)["web"] is Level.MEDIUM
    assert levels(processes, NOON + timedelta(minutes=1))["web"] is Level.NORMAL
    assert processes.are_starting(datetime.fromtimestamp(started + 60, UTC))
