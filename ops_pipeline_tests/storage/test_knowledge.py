"""What the present is, and what was known when."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Event

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError

from ops_pipeline.domain.errors import NotRunning
from ops_pipeline.settings import Mode
from ops_pipeline.storage import knowledge
from ops_pipeline.storage.engine import lock_knowledge
from ops_pipeline.storage.knowledge import Cutoff
from ops_pipeline_tests.builders import DAY, NOON, SESSION, at
from ops_pipeline_tests.storage.rows import rows

END = NOON + timedelta(minutes=1)


def stamp(connection: Connection, minute: datetime, cutoff: datetime, run_id: str = "a") -> None:
    knowledge.stamp_cutoffs(connection, [(SESSION, minute)], {minute: cutoff}, run_id)


def test_the_first_cutoff_of_a_minute_stays(connection: Connection) -> None:
    stamp(connection, NOON, END + timedelta(seconds=20), "first")
    stamp(connection, NOON, END + timedelta(seconds=99), "second")
    assert rows(connection, "select cutoff, run_id from minute_cutoffs") == [
        (END + timedelta(seconds=20), "first")
    ]


def test_a_cutoff_at_the_minutes_end_is_kept(connection: Connection) -> None:
    stamp(connection, NOON, END)
    assert knowledge.cutoffs_between(connection, NOON, END) == [Cutoff(NOON, DAY, END)]


def test_a_cutoff_before_the_minutes_end_is_refused(connection: Connection) -> None:
    with pytest.raises(IntegrityError, match="minute_cutoffs"):
        stamp(connection, NOON, END - timedelta(microseconds=1))


def test_cutoffs_come_in_order_without_the_end(connection: Connection) -> None:
    for minute in (at(3), at(1), at(2)):
        stamp(connection, minute, minute + timedelta(seconds=80))
    found = knowledge.cutoffs_between(connection, at(1), at(3))
    assert [cutoff.minute for cutoff in found] == [at(1), at(2)]


def test_no_minutes_stamp_nothing(connection: Connection) -> None:
    knowledge.stamp_cutoffs(connection, [], {}, "a")
    assert rows(connection, "select 1 from minute_cutoffs") == []


def test_the_cutoff_waits_for_a_writer_that_stamped_a_row(engine: Engine) -> None:
    may_commit, order = Event(), []

    def write() -> None:
        with engine.begin() as connection:
            knowledge.stamp_now(connection, Mode.SANDBOX)
            stamped.set()
            may_commit.wait(10)
            time.sleep(0.1)
            order.append("writer committed")

    def cut() -> None:
        with engine.begin() as connection:
            lock_knowledge(connection, exclusive=True)
            order.append("cut-off read")

    stamped = Event()
    with ThreadPoolExecutor(2) as pool:
        writer = pool.submit(write)
        assert stamped.wait(10)
        reader = pool.submit(cut)
        may_commit.set()
        writer.result(10)
        reader.result(10)
    assert order == ["writer committed", "cut-off read"]


def test_two_writers_do_not_wait_for_each_other(engine: Engine) -> None:
    with engine.begin() as one, engine.begin() as other:
        lock_knowledge(one, exclusive=False)
        lock_knowledge(other, exclusive=False)


def test_a_replay_that_never_began_has_no_present(connection: Connection) -> None:
    with pytest.raises(NotRunning, match="no present yet"):
        knowledge.read_now(connection, Mode.REPLAY)


def test_the_present_of_a_replay_is_what_was_set_last(connection: Connection) -> None:
    knowledge.set_present(connection, NOON)
    knowledge.set_present(connection, END)
    assert knowledge.read_now(connection, Mode.REPLAY) == END


def test_the_present_of_a_live_mode_is_the_clock(connection: Connection) -> None:
    knowledge.set_present(connection, NOON)
    before = knowledge.clock()
    assert before <= knowledge.read_now(connection, Mode.SANDBOX) <= knowledge.clock()


@pytest.mark.parametrize("mode", list(Mode))
def test_the_present_is_utc(connection: Connection, mode: Mode) -> None:
    knowledge.set_present(connection, NOON)
    assert knowledge.read_now(connection, mode).utcoffset() == timedelta(0)


def test_a_stage_has_finished_only_where_all_stages_have(connection: Connection) -> None:
    pairs = [(SESSION, at(0)), (SESSION, at(1))]
    knowledge.insert_stage_minutes(connection, "bars", pairs, {at(0): 7}, "a")
    knowledge.insert_stage_minutes(connection, "news", pairs[:1], {}, "a")
    found = knowledge.finished_minutes(connection, ["bars", "news"], at(0), at(9))
    assert found == {at(0)}


def test_a_minute_without_rows_is_finished_with_zero(connection: Connection) -> None:
    pairs = [(SESSION, at(0)), (SESSION, at(1))]
    knowledge.insert_stage_minutes(connection, "bars", pairs, {at(0): 7}, "a")
    found = rows(connection, "select minute, rows_count from stage_minutes order by minute")
    assert found == [(at(0), 7), (at(1), 0)]


def test_a_stage_minute_that_is_finished_again_has_the_newer_count(connection: Connection) -> None:
    for count in (7, 6):
        knowledge.insert_stage_minutes(connection, "bars", [(SESSION, at(0))], {at(0): count}, "a")
    assert rows(connection, "select rows_count from stage_minutes") == [(6,)]


def test_the_newest_minute_of_each_stage_is_its_progress(connection: Connection) -> None:
    for stage, last in (("bars", 3), ("news", 1)):
        pairs = [(SESSION, at(n)) for n in range(last + 1)]
        knowledge.insert_stage_minutes(connection, stage, pairs, {}, "a")
    progress = knowledge.newest_stage_minutes(connection)
    assert {name: p.minute for name, p in progress.items()} == {"bars": at(3), "news": at(1)}


def test_a_session_keeps_the_market_that_it_was_first_played_on(connection: Connection) -> None:
    knowledge.insert_replay_session(connection, DAY, "recorded")
    knowledge.insert_replay_session(connection, DAY, "generated")
    assert knowledge.replay_sessions(connection) == {DAY: "recorded"}
