"""Alerts in the database: one open row for each cause, and each thing said once to each channel."""

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine

from ops_pipeline.domain import alerts as alerts_of
from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.alerts import MAX_ATTEMPTS, Channel, Kind, Message, Silence, read_quiet
from ops_pipeline.domain.stages import DISPATCH
from ops_pipeline.storage import alerts
from ops_pipeline.storage.services import Switch, upsert_switch
from ops_pipeline_tests.builders import NOON
from ops_pipeline_tests.storage.rows import one, rows

HOLDER = uuid4()
PAGER, DESK = Channel("pager", Level.HIGH), Channel("desk")
CONSOLE = Channel("console")
TICK = timedelta(seconds=15)
QUIET = read_quiet("11:00-13:00")  # noon is in it


def bad(level: Level = Level.HIGH, name: str = "stuck_processing") -> Verdict:
    return Verdict(name, level, "3 stuck", {}, "0")


GOOD = Verdict("stuck_processing", Level.NORMAL, "0 stuck", {}, "0")


def look(connection: Connection, *verdicts: Verdict, first: int = 0) -> None:
    for number, verdict in enumerate(verdicts, first):
        alerts.observe(connection, NOON + number * TICK, "acceptance", [verdict])


def said(connection: Connection) -> list[tuple[str, str]]:
    return rows(connection, "select kind, level from alert_messages order by id")  # type: ignore[return-value]


def send(
    connection: Connection,
    *channels: Channel,
    ticks: int = 0,
    error: str | None = None,
    quiet: bool = False,
) -> list[tuple[str, str]]:
    now = NOON + ticks * TICK
    alerts.pass_on(connection, now, channels, QUIET if quiet else None)
    taken = alerts.claim_deliveries(connection, now, HOLDER, channels)
    for delivery in taken:
        alerts.mark_delivery(connection, delivery, now, HOLDER, error)
    return [(each.channel, each.message.kind.value) for each in taken]


def states(connection: Connection) -> list[tuple[str, str, str]]:
    statement = (
        "select d.channel, m.kind, d.state from alert_deliveries d"
        " join alert_messages m on m.id = d.message_id order by m.id, d.channel"
    )
    return rows(connection, statement)  # type: ignore[return-value]


def test_one_message_at_first_none_while_it_lasts_and_one_when_it_is_over(
    connection: Connection,
) -> None:
    look(connection, *[bad()] * 11, GOOD, GOOD, GOOD)
    assert said(connection) == [("opened", "high"), ("resolved", "high")]
    assert alerts.open_alerts(connection) == []
    (alert,) = alerts.recent_alerts(connection, None, 10)
    assert (alert.seen_count, alert.opened_at) == (11, NOON)


def test_what_grows_worse_is_told_once_more_for_each_level(connection: Connection) -> None:
    levels = (Level.LOW, Level.HIGH, Level.LOW, Level.HIGH, Level.CRITICAL, Level.CRITICAL)
    look(connection, *(bad(level) for level in levels))
    assert said(connection) == [("opened", "low"), ("raised", "high"), ("raised", "critical")]


def test_open_alerts_come_the_worst_first(connection: Connection) -> None:
    for level, name in ((Level.LOW, "a"), (Level.CRITICAL, "b"), (Level.HIGH, "c")):
        look(connection, bad(level, name))
    assert [alert.cause for alert in alerts.open_alerts(connection)] == ["b", "c", "a"]


def test_a_cause_that_was_over_opens_anew_and_needs_longer_then(connection: Connection) -> None:
    look(connection, bad(), GOOD, GOOD, bad(), GOOD, GOOD, GOOD)
    assert [kind for kind, _ in said(connection)] == ["opened", "resolved", "opened"]
    look(connection, GOOD, first=7)
    assert [kind for kind, _ in said(connection)][-1] == "resolved"


def test_nothing_is_said_of_a_service_that_is_off_and_all_of_it_once_it_is_on(
    connection: Connection,
) -> None:
    off = Switch(DISPATCH, is_enabled=False, disabled_until=NOON + TICK * 3)
    upsert_switch(connection, off)
    waits = bad(name="backlog_state")
    look(connection, waits, waits, waits)
    assert said(connection) == []
    assert "is off" in alerts.open_alerts(connection)[0].suppressed_by
    look(connection, waits, first=3)
    assert said(connection) == [("opened", "high")]


def test_what_is_over_before_a_silence_ends_is_never_told(connection: Connection) -> None:
    alerts.silence(connection, Silence("stuck_*", NOON + TICK * 9, "known", "somebody"))
    look(connection, bad(), GOOD, GOOD)
    assert said(connection) == []
    assert alerts.unsilence(connection, "stuck_*")
    assert not alerts.unsilence(connection, "stuck_*")
    look(connection, bad(), first=3)
    assert said(connection) == [("opened", "high")]


def test_each_channel_gets_what_it_wants_once_and_the_end_of_it(connection: Connection) -> None:
    look(connection, bad(Level.MEDIUM))
    assert send(connection, PAGER, DESK) == [("desk", "opened")]
    look(connection, bad(Level.CRITICAL), first=1)
    assert send(connection, PAGER, DESK, ticks=1) == [("pager", "raised"), ("desk", "raised")]
    look(connection, GOOD, GOOD, first=2)
    assert send(connection, PAGER, DESK, ticks=3) == [("pager", "resolved"), ("desk", "resolved")]
    assert send(connection, PAGER, DESK, ticks=9) == []


def test_quiet_hours_hold_what_is_below_high_but_not_on_the_console(connection: Connection) -> None:
    look(connection, bad(Level.MEDIUM))
    look(connection, bad(Level.HIGH, "clock_skew"))
    found = send(connection, DESK, CONSOLE, quiet=True)
    assert sorted(found) == [("console", "opened"), ("console", "opened"), ("desk", "opened")]
    assert send(connection, DESK, CONSOLE, quiet=True, ticks=239) == []
    assert send(connection, DESK, CONSOLE, quiet=True, ticks=240) == [("desk", "opened")]


def test_what_grows_worse_in_quiet_hours_does_not_wait_behind_what_is_held(
    connection: Connection,
) -> None:
    look(connection, bad(Level.MEDIUM))
    assert send(connection, DESK, quiet=True) == []
    look(connection, bad(Level.CRITICAL), first=1)
    assert send(connection, DESK, quiet=True, ticks=1) == [("desk", "raised")]
    assert send(connection, DESK, quiet=True, ticks=300) == []
    assert states(connection) == [("desk", "opened", "DROPPED"), ("desk", "raised", "SENT")]


def test_what_is_over_before_quiet_hours_end_is_dropped(connection: Connection) -> None:
    look(connection, bad(Level.MEDIUM))
    assert send(connection, DESK, quiet=True) == []
    look(connection, GOOD, GOOD, first=1)
    assert send(connection, DESK, quiet=True, ticks=2) == []
    assert send(connection, DESK, quiet=True, ticks=300) == []
    assert states(connection) == [("desk", "opened", "DROPPED")]


def test_a_channel_that_is_down_gets_everything_in_order_once_it_is_back(
    connection: Connection,
) -> None:
    look(connection, bad())
    assert send(connection, DESK, error="refused") == [("desk", "opened")]
    look(connection, GOOD, GOOD, first=1)
    assert send(connection, DESK, ticks=2, error="refused") == [("desk", "opened")]
    assert send(connection, DESK, ticks=3) == []
    assert send(connection, DESK, ticks=4) == [("desk", "opened")]
    assert send(connection, DESK, ticks=5) == [("desk", "resolved")]
    assert send(connection, DESK, ticks=99) == []


def test_a_message_that_nobody_takes_is_given_up(connection: Connection) -> None:
    look(connection, bad())
    tries = sum(len(send(connection, DESK, ticks=n, error="refused")) for n in range(0, 2_000, 10))
    assert tries == MAX_ATTEMPTS
    assert states(connection) == [("desk", "opened", "GAVE_UP")]
    (state,) = alerts.channel_states(connection)
    assert (state.channel, state.last_sent_at, state.waiting, state.gave_up) == ("desk", None, 0, 1)


def test_what_a_dead_sender_took_is_tried_once_more_and_no_more(connection: Connection) -> None:
    look(connection, bad())
    alerts.pass_on(connection, NOON, [DESK], None)

    def taken(ticks: int) -> int:
        now = NOON + ticks * TICK
        return len(alerts.claim_deliveries(connection, now, uuid4(), [DESK]))

    assert [taken(ticks) for ticks in (0, 1, 3, 4, 5, 8, 12, 99)] == [1, 0, 0, 1, 0, 0, 0, 0]
    assert states(connection) == [("desk", "opened", "GAVE_UP")]


def test_only_whoever_took_a_message_says_how_it_ended(connection: Connection) -> None:
    look(connection, bad())
    alerts.pass_on(connection, NOON, [DESK], None)
    (delivery,) = alerts.claim_deliveries(connection, NOON, HOLDER, [DESK])
    alerts.mark_delivery(connection, delivery, NOON, uuid4(), None)
    assert states(connection) == [("desk", "opened", "SENDING")]


def test_what_waits_for_a_channel_that_was_taken_away_is_dropped(connection: Connection) -> None:
    look(connection, bad())
    send(connection, DESK, error="refused")
    send(connection, PAGER, ticks=1)
    assert states(connection) == [("desk", "opened", "DROPPED")]


def test_a_message_is_written_with_its_alert_or_not_at_all(engine: Engine) -> None:
    def fail() -> None:
        with engine.begin() as connection:
            look(connection, bad())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with engine.connect() as connection:
        assert alerts.open_alerts(connection) == []
        assert said(connection) == []


def test_two_observers_open_one_alert(engine: Engine) -> None:
    with engine.connect() as first, engine.connect() as second:
        look(first, bad())
        first.commit()
        look(second, bad())
        second.commit()
        assert len(said(second)) == 1


def test_two_senders_share_the_work(engine: Engine) -> None:
    with engine.begin() as connection:
        look(connection, bad())
        alerts.pass_on(connection, NOON, [DESK], None)
    with engine.connect() as first, engine.connect() as second:
        counts = [
            len(alerts.claim_deliveries(each, NOON, uuid4(), [DESK])) for each in (first, second)
        ]
    assert counts == [1, 0]


def test_a_session_is_summed_up_once(connection: Connection) -> None:
    message = Message(Kind.SUMMARY, Level.LOW, "the day", "was long")
    numbers = [
        alerts.insert_message(connection, message, NOON, session_date=NOON.date()) for _ in range(2)
    ]
    assert numbers[0]
    assert numbers[1] is None
    assert alerts.has_summary(connection, NOON.date())


def test_an_alert_shows_what_was_told_of_it(connection: Connection) -> None:
    look(connection, bad())
    (alert,) = alerts.open_alerts(connection)
    assert alerts.read_alert(connection, alert.id) == alert
    assert [told.channel for told in alerts.what_was_told(connection, alert)] == [None]
    send(connection, DESK, PAGER)
    told = alerts.what_was_told(connection, alert)
    assert [(each.channel, each.state) for each in told] == [("desk", "SENT"), ("pager", "SENT")]
    assert alerts.read_alert(connection, alert.id + 1) is None


def test_no_address_is_ever_stored(connection: Connection) -> None:
    columns = one(
        connection,
        "select string_agg(column_name, ' ') from information_schema.columns"
        " where table_name like 'alert%'",
    )
    assert not {"url", "address", "token"} & set(columns.split())


def causes(connection: Connection) -> list[str]:
    """What was said: its kind, and the cause that its title names."""
    found = rows(connection, "select kind, title from alert_messages order by id")
    return [f"{kind} {title.split('] ')[1].partition(': ')[0]}" for kind, title in found]


FRESH, SILENT, STREAM = "bars_are_fresh", "services_are_running", "stream_is_live"
RUN = alerts_of.JOBS


def observe(connection: Connection, *found: Verdict, tick: int = 0, source: str = "x") -> None:
    alerts.observe(connection, NOON + tick * TICK, source, found)


def well(*names: str) -> list[Verdict]:
    return [Verdict(name, Level.NORMAL, "well") for name in names]


def test_one_outage_is_one_message_with_all_it_touches_and_one_when_it_is_over(
    connection: Connection,
) -> None:
    names = (FRESH, STREAM, "process_runs:sandbox", "watchlist_cadence")
    observe(connection, bad(name=FRESH), bad(Level.MEDIUM, "watchlist_cadence"))
    observe(connection, bad(Level.MEDIUM, "process_runs:sandbox"), bad(name=STREAM))
    observe(connection, bad(Level.LOW, "minute_job"), source=RUN)
    assert causes(connection) == [f"opened {FRESH}"]
    assert "with it: high stream_is_live: 3 stuck" in one(
        connection, "select body from alert_messages"
    )
    assert send(connection, DESK) == [("desk", "opened")]
    observe(connection, *well(*names[1:]), tick=1)
    observe(connection, *well(*names[1:]), tick=2)
    assert causes(connection) == [f"opened {FRESH}"]
    observe(connection, *well(FRESH), tick=3)
    observe(connection, *well(FRESH), tick=4)
    assert causes(connection) == [f"opened {FRESH}", f"resolved {FRESH}"]
    assert "minute_job: 3 stuck, open still" in one(
        connection, "select body from alert_messages where kind = 'resolved'"
    )
    assert send(connection, DESK, ticks=4) == [("desk", "resolved")]


def test_an_outage_that_grows_worse_is_told_once_more(connection: Connection) -> None:
    observe(connection, bad(Level.MEDIUM, "process_runs:sandbox"))
    send(connection, DESK)
    observe(connection, bad(name=FRESH), tick=1)
    observe(connection, bad(name=STREAM), tick=2)
    assert causes(connection) == ["opened process_runs:sandbox", f"raised {FRESH}"]
    assert said(connection)[1:] == [("raised", "high")]
    observe(connection, *well(FRESH, STREAM, "process_runs:sandbox"), tick=3)
    observe(connection, *well(FRESH, STREAM, "process_runs:sandbox"), tick=4)
    assert causes(connection)[2:] == ["resolved process_runs:sandbox"]


def test_what_is_worse_in_the_same_look_is_in_the_first_message(connection: Connection) -> None:
    observe(connection, bad(Level.MEDIUM, "process_runs:sandbox"), bad(Level.CRITICAL, SILENT))
    assert said(connection) == [("opened", "critical")]
    assert causes(connection) == [f"opened {SILENT}"]


@pytest.mark.parametrize(
    "name", ["duplicate_orders", "account_adds_up", "disk_has_room", "position_was_not_closed"]
)
def test_a_wrong_trade_is_never_part_of_an_outage(connection: Connection, name: str) -> None:
    observe(connection, bad(Level.CRITICAL, SILENT), bad(name=FRESH))
    send(connection, DESK)
    observe(connection, bad(Level.CRITICAL, name), tick=1)
    assert causes(connection) == [f"opened {SILENT}", f"opened {name}"]
    observe(connection, *well(name), tick=2)
    observe(connection, *well(name), tick=3)
    assert causes(connection)[2:] == [f"resolved {name}"]


def test_a_critical_cause_is_told_by_its_own_name_whatever_else_is(connection: Connection) -> None:
    observe(connection, bad(Level.CRITICAL, "process_runs:code"))
    send(connection, DESK)
    observe(connection, bad(Level.CRITICAL, SILENT), tick=1)
    assert causes(connection) == ["opened process_runs:code"]
    observe(connection, bad(Level.CRITICAL, "database_answers"), tick=2)
    assert causes(connection)[1:] == ["opened database_answers"]
    all_of_it = well("process_runs:code", SILENT, "database_answers")
    observe(connection, *all_of_it, tick=3)
    observe(connection, *all_of_it, tick=4)
    assert causes(connection)[2:] == ["resolved process_runs:code"]


def test_a_look_that_failed_hides_nothing_but_other_looks_that_did(connection: Connection) -> None:
    observe(connection, bad(name="look_works:one"), bad(name="look_works:two"), bad(name=FRESH))
    assert causes(connection) == ["opened look_works:one", f"opened {FRESH}"]
    observe(connection, bad(name="look_works:three"), tick=1)
    assert len(causes(connection)) == 2


def test_nothing_bad_is_hidden_behind_what_is_less_bad_by_now(connection: Connection) -> None:
    observe(connection, bad(Level.LOW, "news_volume"))
    send(connection, DESK)
    later = 400  # ticks: more than an hour
    observe(connection, bad(name=FRESH), tick=later)
    assert causes(connection) == ["opened news_volume", f"opened {FRESH}"]
    observe(connection, *well(FRESH), tick=later + 1)
    observe(connection, *well(FRESH), tick=later + 2)
    observe(connection, bad(name=STREAM), tick=later + 3)
    assert causes(connection)[2:] == [f"resolved {FRESH}", f"opened {STREAM}"]


def test_an_outage_hours_after_another_one_began_is_told(connection: Connection) -> None:
    observe(connection, bad(name=STREAM))
    observe(connection, bad(Level.MEDIUM, "watchlist_cadence"), tick=800)
    observe(connection, bad(name=FRESH), tick=801)
    assert causes(connection) == [f"opened {STREAM}", f"opened {FRESH}"]


def test_what_lasts_all_day_hides_no_outage_and_no_other_volume(connection: Connection) -> None:
    skipped = "pipeline_slo/no_minute_is_skipped"
    observe(connection, bad(name=skipped))
    observe(connection, bad(name=FRESH), tick=1)
    observe(connection, bad(Level.LOW, "news_volume"), tick=2)
    observe(connection, *well(FRESH), tick=3)
    observe(connection, *well(FRESH), tick=4)
    expected = [f"opened {skipped}", f"opened {FRESH}", f"resolved {FRESH}"]
    assert causes(connection) == expected
    observe(connection, bad(Level.LOW, "signal_volume"), tick=600)
    assert causes(connection)[3:] == ["opened signal_volume"]


def test_what_an_outage_leaves_behind_is_no_news_and_what_stays_is(
    connection: Connection,
) -> None:
    skipped = "pipeline_slo/no_minute_is_skipped"
    observe(connection, bad(name=FRESH))
    observe(connection, *well(FRESH), tick=1)
    observe(connection, *well(FRESH), tick=2)
    observe(connection, bad(name=skipped), tick=30)
    assert causes(connection) == [f"opened {FRESH}", f"resolved {FRESH}"]
    observe(connection, bad(name=skipped), tick=1_000)
    assert len(causes(connection)) == 2
    observe(connection, *well(skipped), tick=1_001)
    observe(connection, *well(skipped), tick=1_002)
    observe(connection, bad(name=skipped), tick=2_000)
    assert causes(connection)[2:] == [f"opened {skipped}"]


def test_what_is_open_long_after_its_incident_is_told_by_itself(connection: Connection) -> None:
    observe(connection, bad(name=FRESH), bad(Level.MEDIUM, "watchlist_cadence"))
    for tick in (1, 2):
        observe(connection, *well(FRESH), bad(Level.MEDIUM, "watchlist_cadence"), tick=tick)
    assert [kind for kind, _ in said(connection)] == ["opened", "resolved"]
    observe(connection, bad(Level.MEDIUM, "watchlist_cadence"), tick=50)
    assert causes(connection)[2:] == ["opened watchlist_cadence"]
    for tick in (51, 52):
        observe(connection, *well("watchlist_cadence"), tick=tick)
    assert causes(connection)[3:] == ["resolved watchlist_cadence"]
