"""One fault for each section: its code is named, a dry run changes nothing, the fix mends it."""

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from ops_pipeline import __version__
from ops_pipeline.dispatcher.run import Desk, run_until_idle
from ops_pipeline.domain.gates import HALTED
from ops_pipeline.domain.session import floor_minute
from ops_pipeline.domain.stages import (
    DATA_STAGES,
    DISPATCH,
    FEATURES,
    stage_of_service,
)
from ops_pipeline.domain.stream import Difference
from ops_pipeline.engine.watch import EndedRun, Watch
from ops_pipeline.local import keeper as keepers
from ops_pipeline.local.keeper import Asked, log_dir, table_of
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.local.processes import ProcessTable, wait_until
from ops_pipeline.local.ticks import location_file
from ops_pipeline.operations import config
from ops_pipeline.operations.runbook import causes
from ops_pipeline.operations.runbook.causes import config_of
from ops_pipeline.operations.runbook.section import NOT_IN_REPLAY, Fix, Outcome
from ops_pipeline.operations.runbook.sections import SECTIONS
from ops_pipeline.private_files import replace_private
from ops_pipeline.settings import CODE, DAEMON, KEEPER, STREAM, WEB, Mode, Settings, load
from ops_pipeline.storage import bars, dispatch, knowledge
from ops_pipeline.storage.engine import open_engine
from ops_pipeline.storage.services import Switch, switches, upsert_switch
from ops_pipeline.storage.stream import keep_lease, keep_pass, leave_lease, take_lease
from ops_pipeline_tests.builders import NOON, SESSION, a_bar
from ops_pipeline_tests.defs.world import administrator
from ops_pipeline_tests.dispatcher.world import World
from ops_pipeline_tests.operations import sleepers
from ops_pipeline_tests.operations.scenes import QuietDagster, Ward, a_ward
from ops_pipeline_tests.sandbox.served import served
from ops_pipeline_tests.sandbox.worlds import a_world
from ops_pipeline_tests.storage.rows import (
    put_execution,
    put_recommendation,
    put_run,
    status_of,
)

pytestmark = pytest.mark.dagster
TS = NOON + timedelta(seconds=80)
DAY_OPENS, DAY_CLOSES = SESSION.opens_at, SESSION.closes_at


@pytest.fixture
def replayed(template: Settings, tmp_path: Path) -> Iterator[Ward]:
    """A replay that stands at noon of a session."""
    with a_ward(template, tmp_path, "replay") as ward:
        with ward.engine.begin() as connection:
            knowledge.set_present(connection, TS)
        yield ward


@pytest.fixture
def live(template: Settings, tmp_path: Path) -> Iterator[Ward]:
    """A sandbox that never closes, with one that answers, all processes of which are asleep."""
    with (
        served(a_world(knowledge.clock)) as url,
        a_ward(template, tmp_path, port=int(url.rpartition(":")[2])) as ward,
    ):
        yield ward


def switch(ward: Ward, service: str, *, is_on: bool = False) -> None:
    stage = stage_of_service(service)
    assert stage is not None
    with ward.engine.begin() as connection:
        upsert_switch(connection, Switch(stage, is_enabled=is_on))


def is_on(ward: Ward, service: str) -> bool:
    with ward.engine.connect() as connection:
        found = {one.stage.service: one for one in switches(connection, knowledge.clock())}
    return found[service].is_enabled


def mend(
    ward: Ward,
    name: str,
    code: str,
    but: tuple[str, ...] = (),
    besides: Callable[[], object] = lambda: None,
) -> Fix:
    """Diagnosed, planned without a trace in rows or in what is `besides`, then done."""
    assert not ward.is_normal(name)
    before = (ward.digest(but), besides())
    found = ward.diagnose(name)
    assert (found.code, found.is_problem) == (code, True)
    planned = ward.fix(name, apply=False)
    assert {step.outcome for step in planned.steps} <= {Outcome.PLANNED, Outcome.BY_HAND}
    assert Outcome.PLANNED in {step.outcome for step in planned.steps}
    assert (ward.digest(but), besides()) == before
    done = ward.fix(name, apply=True)
    assert {step.outcome for step in done.steps} <= {Outcome.DONE, Outcome.BY_HAND}, done.steps
    return done


def test_quick_health_check_switches_a_service_on(live: Ward) -> None:
    with live.kept():
        assert live.is_normal("quick-health-check")
        switch(live, "telemetry-1m")
        assert mend(live, "quick-health-check", "SERVICE_OFF").is_well
        assert live.is_normal("quick-health-check")


def test_quick_health_check_leaves_a_maintenance_window_alone(live: Ward) -> None:
    until = knowledge.clock() + timedelta(hours=1)
    with live.engine.begin() as connection:
        upsert_switch(connection, Switch(FEATURES, is_enabled=False, disabled_until=until))
    with live.kept():
        found = live.diagnose("quick-health-check")
        assert (found.code, found.is_problem) == ("MAINTENANCE", False)
        assert live.fix("quick-health-check", apply=True).steps == []


def all_stages_wrote(ward: Ward, at: datetime) -> None:
    minute = floor_minute(at)
    for stage in DATA_STAGES:
        ward.execute(
            "insert into stage_minutes (stage, minute, session_date, rows_count, run_id,"
            " written_at, first_written_at) values (:stage, :minute, :day, 1, '', :at, :at)",
            stage=stage.name,
            minute=minute,
            day=minute.date(),
            at=at,
        )
    with ward.engine.begin() as connection:
        run = put_run(connection)
    ward.execute("update dispatcher_runs set started_at = :at where run_id = :run", at=at, run=run)


def test_service_ran_recently_switches_it_on_and_the_next_tick_shows_it(live: Ward) -> None:
    name = "check-if-service-executed-recently"
    all_stages_wrote(live, knowledge.clock() - timedelta(minutes=30))
    all_stages_wrote(live, knowledge.clock() - timedelta(seconds=90))
    switch(live, "feature-computer-1m")
    with live.kept():
        mend(live, name, "SERVICE_OFF")
        all_stages_wrote(live, knowledge.clock())
        assert live.is_normal(name)


def floor_day(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def test_a_service_that_is_on_and_silent_is_named(live: Ward) -> None:
    live.execute("update installation set created_at = now() - interval '1 day'")
    all_stages_wrote(live, knowledge.clock() - timedelta(minutes=30))
    if knowledge.clock() - timedelta(minutes=11) < floor_day(knowledge.clock()):
        pytest.skip("the sandbox's session has just begun")
    with live.kept():
        found = live.diagnose("check-if-service-executed-recently")
    assert found.code == "SERVICE_SILENT"
    assert set(found.found[0].evidence) >= {s.service for s in (*DATA_STAGES, DISPATCH)}


def test_rds_connectivity_runs_the_migrations_that_wait(template: Settings, tmp_path: Path) -> None:
    with a_ward(template, tmp_path, "replay") as ward:
        ward.execute("drop schema public cascade")
        ward.execute("create schema public")
        ward.execute("drop schema features cascade")
        assert mend(ward, "check-rds-connectivity", "NOT_MIGRATED").is_well
        (verdict,) = ward.verify("check-rds-connectivity")
        assert "public.dispatch_executions" in verdict.observed["tables"]


def test_no_logs_restarts_what_logs_into_a_file_that_is_gone(live: Ward) -> None:
    with live.kept():
        file, table = log_dir(live.settings) / f"{DAEMON}.log", table_of(live.settings)
        before = {name: table.find(name) for name in live.settings.mode.processes}
        assert live.is_normal("no-logs-generated")
        file.unlink()
        assert mend(live, "no-logs-generated", "LOG_FILE_GONE").is_well
        assert live.is_normal("no-logs-generated")
        after = {name: table.find(name) for name in live.settings.mode.processes}
    assert file.exists()
    assert [name for name in before if before[name] != after[name]] == [DAEMON]


@pytest.mark.parametrize("gone", [DAEMON, KEEPER])
def test_a_run_leaves_to_a_person_what_would_end_it(
    live: Ward, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    monkeypatch.setattr(ProcessTable, "would_end_us", lambda _, name: name == DAEMON)
    with live.kept():
        before = table_of(live.settings).all()
        (log_dir(live.settings) / f"{gone}.log").unlink()
        (step,) = live.fix("no-logs-generated", apply=True).steps
        assert table_of(live.settings).all() == before
        assert not live.is_normal("no-logs-generated")
    assert step.outcome is Outcome.BY_HAND
    assert step.what == f"restart {gone}, which would end this run: from a terminal"
    assert step.command.startswith("ops-pipeline down && ops-pipeline up --mode sandbox --port ")


def test_no_logs_makes_the_folder_that_is_not_there(live: Ward) -> None:
    found = live.diagnose("no-logs-generated").found[0]
    (make,) = found.changes
    assert found.cause.code == "LOGS_NOT_WRITABLE"
    assert make.apply is not None
    make.apply()
    assert "LOGS_NOT_WRITABLE" not in live.codes("no-logs-generated")


def desk(ward: Ward) -> Desk:
    return Desk(ward.engine, Mode.REPLAY.calendar, config_of(ward.scene), Mode.REPLAY, "test")


def test_backlog_switches_the_dispatcher_on_and_closes_what_is_too_old(replayed: Ward) -> None:
    with replayed.engine.begin() as connection:
        for number in range(30):
            minute = NOON - timedelta(minutes=40 - number)
            put_recommendation(connection, minute=minute, ts=minute + timedelta(seconds=80))
    switch(replayed, "dispatcher")
    mend(replayed, "backlog-growing", "DISPATCHER_OFF")
    assert is_on(replayed, "dispatcher")
    run_until_idle(desk(replayed), TS)
    assert replayed.is_normal("backlog-growing")


def test_stuck_rows_are_released_and_the_dispatcher_is_on(replayed: Ward) -> None:
    hold(replayed, NOON - timedelta(minutes=30), lease="-1 second")
    switch(replayed, "dispatcher")
    assert mend(replayed, "stuck-processing", "REAPER_NOT_RUNNING").is_well
    assert replayed.is_normal("stuck-processing")
    assert replayed.value("select status from dispatch_recommendations") == "SKIPPED"


def hold(ward: Ward, ts: datetime, lease: str) -> None:
    """A row that a run has claimed and never closed."""
    with ward.engine.begin() as connection:
        run, row = put_run(connection), put_recommendation(connection, minute=ts, ts=ts)
    ward.execute(
        "update dispatch_recommendations set status = 'PROCESSING', claim_epoch = 1,"
        " claimed_at = clock_timestamp(), dispatcher_run_id = :run,"
        f" lease_until = clock_timestamp() + interval '{lease}' where id = :id",
        run=run,
        id=row,
    )


def test_a_lease_that_is_too_long_is_set_back(replayed: Ward) -> None:
    configure(replayed, processing_ttl_minutes=5)
    hold(replayed, NOON - timedelta(minutes=30), lease="4 minutes")
    mend(replayed, "stuck-processing", "TTL_TOO_HIGH")
    assert config_of(replayed.scene).processing_ttl_minutes == 1


def configure(ward: Ward, **values: object) -> None:
    with ward.engine.begin() as connection:
        config.change(connection, ward.settings, values, who="me", why="a fault", now=TS)


def skip(ward: Ward, reason: str, count: int = 6, **changes: object) -> None:
    """Recommendations of the last hour that a gate has refused."""
    with ward.engine.begin() as connection:
        for number in range(count):
            minute = NOON - timedelta(minutes=30 + number)
            put_recommendation(
                connection,
                minute=minute,
                ts=minute + timedelta(seconds=80),
                status="SKIPPED",
                failure_reason=reason,
                processed_at=minute + timedelta(seconds=90),
                **changes,
            )


def trade(ward: Ward, **changes: object) -> None:
    """The market goes on: a fresh bar, and a recommendation that the dispatcher decides."""
    world = World(ward.engine)
    world.trade()
    world.feature()
    row = world.recommend(**changes)
    run_until_idle(desk(ward), TS)
    with ward.engine.connect() as connection:
        assert status_of(connection, row) == "SIMULATED"


def test_no_trades_for_confidence_lowers_it_for_two_hours_and_something_trades(
    replayed: Ward,
) -> None:
    configure(replayed, confidence_min=0.9)
    skip(replayed, "confidence: Confidence too low", confidence=0.65)
    done = mend(replayed, "no-trades-happening", "CONFIDENCE")
    assert [step.command for step in done.steps][-1].startswith(
        "ops-pipeline config set confidence_min=0.6 --for 2h"
    )
    assert config_of(replayed.scene).confidence_min == 0.6
    trade(replayed, confidence=0.65)
    assert replayed.is_normal("no-trades-happening")


def test_no_executions_for_old_bars_switches_them_on_and_something_trades(
    replayed: Ward,
) -> None:
    switch(replayed, "telemetry-1m")
    skip(replayed, "bar_freshness: Bar too old")
    mend(replayed, "no-executions", "BARS_STALE")
    assert is_on(replayed, "telemetry-1m")
    trade(replayed)
    assert replayed.is_normal("no-executions")


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("trading_hours: Market closed", None),
        ("short_position: Shorting disabled", "SHORTING_DISABLED"),
        ("feature_freshness: Features too old", "FEATURES_STALE"),
        ("ticker_daily_limit: Daily limit of the ticker reached", "DAILY_LIMITS"),
        ("daily_loss_limit: Daily loss limit reached", "DAILY_LIMITS"),
        ("ticker_cooldown: Ticker cooling down", "COOLING_DOWN"),
        ("action_allowed: Action not allowed", None),
        ("max_exposure: Exposure unknown", "DAILY_LIMITS"),
        ("expired", "DECIDED_LATE"),
        ("gates: None evaluated", "OTHER_GATE"),
    ],
)
def test_what_refuses_everything_is_named_where_it_still_would(
    replayed: Ward, reason: str, code: str | None
) -> None:
    skip(replayed, reason)
    assert replayed.codes("no-trades-happening") == ([code] if code else [])


@pytest.mark.parametrize(
    ("at", "code"),
    [
        (DAY_OPENS - timedelta(hours=1), "MARKET_CLOSED"),
        (DAY_OPENS + timedelta(minutes=2), "OPENING_BLOCK"),
        (DAY_CLOSES - timedelta(minutes=10), "CLOSING_BLOCK"),
        (TS, "QUIET_MARKET"),
    ],
)
def test_an_hour_in_which_nothing_may_trade_is_no_problem(
    replayed: Ward, at: datetime, code: str
) -> None:
    with replayed.engine.begin() as connection:
        knowledge.set_present(connection, at)
    found = replayed.diagnose("no-trades-happening")
    assert (found.code, found.is_problem) == (code, False)


def test_a_halt_and_a_signal_engine_that_is_off_are_named(replayed: Ward) -> None:
    switch(replayed, "signal-engine-1m")
    with replayed.engine.begin() as connection:
        dispatch.set_trading_state(connection, HALTED, "me", "a test")
    assert replayed.codes("no-trades-happening") == ["HALTED", "SIGNALS_OFF"]
    replayed.fix("no-trades-happening", apply=True)
    with replayed.engine.connect() as connection:
        assert dispatch.read_trading_state(connection) == HALTED
    assert is_on(replayed, "signal-engine-1m")


def wait_in_queue(ward: Ward, count: int = 30) -> None:
    """Recommendations that wait, and are young enough to trade."""
    with ward.engine.begin() as connection:
        for number in range(count):
            put_recommendation(connection, minute=NOON - timedelta(minutes=number), ts=TS)


def ran(ward: Ward, pulled: int, limit: int = 10) -> None:
    with ward.engine.begin() as connection:
        run = put_run(connection)
    ward.execute(
        "update dispatcher_runs set finished_at = started_at, outcome = 'FINISHED',"
        " pulled_count = :pulled, run_config_json = jsonb_build_object('max_signals_per_run',"
        " cast(:limit as int)) where run_id = :run",
        pulled=pulled,
        limit=limit,
        run=run,
    )


def test_a_limit_that_each_run_reaches_is_doubled(replayed: Ward) -> None:
    wait_in_queue(replayed)
    ran(replayed, pulled=10)
    mend(replayed, "backlog-growing", "RUN_LIMIT_TOO_LOW")
    assert config_of(replayed.scene).max_signals_per_run == 20


def test_gates_that_are_too_strict_are_loosened(replayed: Ward) -> None:
    configure(replayed, confidence_min=0.9)
    wait_in_queue(replayed)
    skip(replayed, "confidence: Confidence too low")
    ran(replayed, pulled=3)
    mend(replayed, "backlog-growing", "GATES_TOO_STRICT")
    assert config_of(replayed.scene).confidence_min == 0.6


def test_a_dispatcher_that_does_not_run_is_named_and_what_is_too_old_closed(
    replayed: Ward,
) -> None:
    hour = timedelta(hours=1)
    replayed.execute("update installation set created_at = :at", at=NOON - hour)
    with replayed.engine.begin() as connection:
        put_recommendation(connection, minute=NOON - hour, ts=NOON - hour)
    mend(replayed, "backlog-growing", "DISPATCHER_NOT_RUNNING")
    assert replayed.value("select failure_reason from dispatch_recommendations") == "expired"


def test_rows_that_are_left_over_are_closed(replayed: Ward) -> None:
    ran(replayed, pulled=0)
    with replayed.engine.begin() as connection:
        put_recommendation(connection, ts=NOON - timedelta(hours=1))
    assert mend(replayed, "backlog-growing", "LEFT_OVER").is_well


def test_settings_that_are_refused_are_named_with_the_key(
    template: Settings, tmp_path: Path
) -> None:
    with a_ward(
        template, tmp_path, "replay", OPS_DISPATCHER_CONFIG='{"confidence_min": 7}'
    ) as ward:
        with ward.engine.begin() as connection:
            knowledge.set_present(connection, TS)
        for name in ("backlog-growing", "stuck-processing"):
            found = ward.diagnose(name)
            assert found.code == "CONFIG_INVALID"
            assert "confidence_min" in str(found.found[0].evidence)


def test_a_limit_on_bars_that_was_relaxed_is_set_back(replayed: Ward) -> None:
    configure(replayed, max_bar_age_seconds=300)
    found = replayed.codes("data-freshness-violations")
    assert "LIMIT_RELAXED" in found
    replayed.fix("data-freshness-violations", apply=True)
    assert config_of(replayed.scene).max_bar_age_seconds == 120


def test_an_execution_on_an_old_bar_is_named(replayed: Ward) -> None:
    old = '{"bar_used": {"timestamp": "2025-02-12T16:00:00+00:00"}}'
    World(replayed.engine).hold(simulated_ts=NOON - timedelta(minutes=10), sim_json=old)
    assert "TRADED_ON_OLD_BARS" in replayed.codes("data-freshness-violations")


def test_missing_unique_constraint_is_put_back(replayed: Ward) -> None:
    replayed.execute(
        "alter table dispatch_executions drop constraint dispatch_executions_recommendation_id_key"
    )
    assert mend(replayed, "duplicate-executions", "UNIQUE_CONSTRAINT_MISSING").is_well
    assert replayed.is_normal("duplicate-executions")


def test_guards_that_are_off_fire_again(replayed: Ward) -> None:
    replayed.execute("alter table dispatch_executions disable trigger dispatch_executions_pair")
    assert mend(replayed, "duplicate-executions", "GUARDS_OFF").is_well
    assert replayed.is_normal("duplicate-executions")


def double(ward: Ward) -> None:
    """The fault itself: two executions of one recommendation."""
    ward.execute(
        "alter table dispatch_executions drop constraint dispatch_executions_recommendation_id_key"
    )
    with ward.engine.begin() as connection:
        connection.exec_driver_sql("set local session_replication_role = replica")
        row = put_recommendation(connection, status="SIMULATED", claim_epoch=1, processed_at=TS)
        put_execution(connection, row)
        put_execution(connection, row)


def test_duplicate_rows_halt_and_stay(replayed: Ward) -> None:
    double(replayed)
    before = replayed.digest()
    assert replayed.codes("duplicate-executions") == [
        "DUPLICATE_ROWS",
        "UNIQUE_CONSTRAINT_MISSING",
    ]
    replayed.fix("duplicate-executions", apply=False)
    assert replayed.digest() == before
    done = replayed.fix("duplicate-executions", apply=True)
    assert not done.is_well
    with replayed.engine.connect() as connection:
        assert dispatch.read_trading_state(connection) == HALTED
    assert not is_on(replayed, "dispatcher")
    assert replayed.value("select count(*) from dispatch_executions") == 2
    assert not replayed.is_normal("duplicate-executions")


def test_nothing_switches_the_dispatcher_on_while_the_ledger_is_not_sound(replayed: Ward) -> None:
    double(replayed)
    replayed.fix("duplicate-executions", apply=True)
    for name in ("backlog-growing", "quick-health-check", "stuck-processing"):
        replayed.fix(name, apply=True)
        assert not is_on(replayed, "dispatcher")


def test_stale_bars_switch_telemetry_on_and_the_next_tick_brings_them(live: Ward) -> None:
    put_bar(live, knowledge.clock() - timedelta(minutes=20))
    switch(live, "telemetry-1m")
    mend(live, "data-freshness-violations", "BARS_SERVICE_OFF")
    assert is_on(live, "telemetry-1m")
    put_bar(live, knowledge.clock() - timedelta(seconds=61))
    assert live.is_normal("data-freshness-violations")


def put_bar(ward: Ward, at: datetime) -> None:
    minute = floor_minute(at)
    with ward.engine.begin() as connection:
        bars.insert_bars(
            connection,
            [a_bar(minute=minute)],
            {minute: minute.date()},
            lambda bar: bar.minute + timedelta(minutes=1),
            feed="test",
            origin="live",
        )


def test_a_vendor_that_does_not_answer_is_named(template: Settings, tmp_path: Path) -> None:
    with a_ward(template, tmp_path) as ward:
        put_bar(ward, knowledge.clock() - timedelta(minutes=20))
        assert "VENDOR_SILENT" in ward.codes("data-freshness-violations")


def test_a_clock_that_is_not_the_brokers_is_named(template: Settings, tmp_path: Path) -> None:
    ahead = a_world(lambda: knowledge.clock() + timedelta(seconds=30))
    with (
        served(ahead) as url,
        a_ward(template, tmp_path, port=int(url.rpartition(":")[2])) as ward,
    ):
        put_bar(ward, knowledge.clock() - timedelta(seconds=61))
        found = ward.diagnose("data-freshness-violations")
    assert found.code == "CLOCK_SKEW"
    assert 29 <= found.found[0].evidence["seconds"] <= 31


def test_service_wont_start_starts_a_schedule_that_was_stopped(live: Ward) -> None:
    with dg.instance_for_test() as instance, live.kept():
        live.dagster = Watch(instance)
        assert live.is_normal("service-wont-start")
        stop(instance, "minute_schedule")
        done = mend(
            live,
            "service-wont-start",
            "SCHEDULE_STOPPED",
            besides=lambda: str(instance.all_instigator_state()),
        )
        assert done.is_well
        assert live.dagster.stopped() == []
        assert live.is_normal("service-wont-start")


def stop(instance: dg.DagsterInstance, name: str) -> None:
    target = LoadableTargetOrigin(module_name="ops_pipeline.definitions")
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, "ops_pipeline")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
    data = ScheduleInstigatorData("* * * * *")
    state = InstigatorState(origin, InstigatorType.SCHEDULE, InstigatorStatus.STOPPED, data)
    instance.add_instigator_state(state)


@pytest.mark.parametrize(
    ("process", "code"),
    [(CODE, "CODE_SERVER_DOWN"), (DAEMON, "DAEMON_DOWN"), (WEB, "PROCESS_DOWN")],
)
def test_service_wont_start_waits_for_the_keeper_to_start_a_process(
    live: Ward, process: str, code: str
) -> None:
    with live.kept():
        live.settings.mode_dir.joinpath("run", f"{process}.json").rename(
            live.settings.mode_dir / "put-aside"
        )
        assert live.codes("service-wont-start") == [code]
        assert live.fix("service-wont-start", apply=True).is_well


class HangingDagster(QuietDagster):
    """An orchestrator whose daemon hangs, and whose newest runs failed."""

    def silent_seconds(self, now: object) -> float:
        return 300.0

    def last_run(self, job: str) -> EndedRun:
        return EndedRun("1234", "FAILURE", "ValueError: no such feed")


def test_a_daemon_that_hangs_and_runs_that_fail_are_named(live: Ward) -> None:
    live.dagster = HangingDagster()
    with live.kept():
        found = live.diagnose("service-wont-start")
        assert [one.cause.code for one in found.found] == [
            "DAEMON_SILENT",
            "RUNS_FAIL",
            "RUNS_FAIL",
        ]
        assert found.found[1].evidence["error"] == "ValueError: no such feed"
        done = live.fix("service-wont-start", apply=True)
    assert {step.outcome for step in done.steps} == {Outcome.BY_HAND}


@pytest.mark.parametrize("section", ["quick-health-check", "service-wont-start"])
def test_code_that_cannot_be_loaded_and_a_daemon_that_does_not_tick_are_named(
    live: Ward, monkeypatch: pytest.MonkeyPatch, section: str
) -> None:
    path = location_file(live.settings)
    with live.kept():
        replace_private(path, json.dumps({"pid": 1, "error": "SyntaxError: invalid syntax"}))
        found = live.diagnose(section).found[0]
        assert (found.cause.code, found.evidence["error"]) == (
            "CODE_NOT_LOADED",
            "SyntaxError: invalid syntax",
        )
        path.unlink()
        assert live.codes(section) == []
        monkeypatch.setattr(causes, "late_ticks", lambda *_: {"minute_schedule": 200.0})
        found = live.diagnose(section).found[0]
        assert (found.cause.code, found.evidence) == ("NOT_TICKING", {"minute_schedule": "200 s"})
        assert [change.what for change in found.changes] == ["restart code", "restart daemon"]


def test_a_disk_without_room_is_named(live: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops_pipeline.operations.runbook.services.free_bytes", lambda _: 1_000)
    assert "DISK_FULL" in live.codes("no-logs-generated")


def test_sessions_that_run_out_are_named_and_idle_ones_ended(
    replayed: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = int(replayed.value("show max_connections"))
    monkeypatch.setattr("ops_pipeline.storage.runbook.IDLE_SECONDS", 0.0)
    monkeypatch.setattr("ops_pipeline.operations.runbook.database.SCARCE_SHARE", 8 / limit)
    others = [open_engine(replayed.settings) for _ in range(8)]
    for other in others:
        other.connect().close()
    assert replayed.codes("rds-connection-timeout") == ["TOO_MANY_CONNECTIONS"]
    assert replayed.fix("rds-connection-timeout", apply=True).is_well
    # A pool whose session was ended opens another one.
    assert [other.connect().close() for other in others] == [None] * 8
    for other in others:
        other.dispose()


def test_a_stream_that_is_not_heard_is_restarted_and_sums_are_a_persons(live: Ward) -> None:
    with live.kept():
        with live.engine.begin() as connection:
            lease = take_lease(connection, dispatch.ACCOUNT, "host/1", __version__, 600)
            assert lease
            wrong = Difference("AAPL", Decimal(3), Decimal(2), "")
            keep_pass(connection, lease, knowledge.clock(), [wrong])
        found = live.diagnose("trade-stream-not-running")
    assert [one.cause.code for one in found.found] == ["SILENT", "DOES_NOT_ADD_UP"]
    assert [change.apply is None for one in found.found for change in one.changes] == [False, True]


def test_a_mode_of_which_nothing_runs_says_what_is_needed_first(live: Ward) -> None:
    assert live.codes("service-wont-start")[:3] == [
        "KEEPER_DOWN",
        "CODE_SERVER_DOWN",
        "DAEMON_DOWN",
    ]


def test_a_halt_is_a_persons_to_end(replayed: Ward) -> None:
    with replayed.engine.begin() as connection:
        dispatch.set_trading_state(connection, HALTED, "me", "a test")
    found = replayed.diagnose("quick-health-check")
    assert (found.code, found.found[0].evidence["reason"]) == ("NOT_ACTIVE", "a test")
    assert {step.outcome for step in replayed.fix("quick-health-check", apply=True).steps} == {
        Outcome.BY_HAND
    }


def test_bars_that_do_not_come_though_they_should_are_named(replayed: Ward) -> None:
    assert replayed.codes("data-freshness-violations") == ["BARS_LATE"]


def test_a_mode_without_an_account_has_no_stream(live: Ward) -> None:
    ward = Ward(replace(live.settings, mode=Mode.SIMULATED), live.engine)
    found = ward.diagnose("trade-stream-not-running")
    assert (found.code, found.is_problem) == ("NOT_FOLLOWED", False)


def test_a_section_that_means_nothing_in_a_replay_says_so(replayed: Ward) -> None:
    silent = [one.name for one in SECTIONS if replayed.diagnose(one.name).code == NOT_IN_REPLAY]
    assert silent == [
        "check-if-service-executed-recently",
        "no-logs-generated",
        "trade-stream-not-running",
        "service-wont-start",
    ]
    assert all(replayed.fix(name, apply=True).steps == [] for name in silent)


def test_a_database_that_refuses_for_another_reason_is_quoted(
    template: Settings, replayed: Ward
) -> None:
    name = replayed.settings.pipeline_database
    replayed.engine.dispose()
    with administrator(template) as connection:
        connection.execute(f'alter database "{name}" allow_connections false')
        found = replayed.diagnose("rds-connection-timeout")
        connection.execute(f'alter database "{name}" allow_connections true')
    assert found.code == "UNREACHABLE"
    assert "not currently accepting connections" in found.found[0].evidence["said"]


def test_every_code_of_every_section_is_found_by_a_test() -> None:
    told = Path(__file__).read_text(encoding="utf-8")
    codes = {cause.code for section in SECTIONS for cause in section.causes}
    assert sorted(code for code in codes if f'"{code}"' not in told) == []


def test_refused_connections_start_the_embedded_server(
    template: Settings, settings: Settings
) -> None:
    own = replace(settings, var_dir=template.var_dir)
    server, ward = EmbeddedServer.in_folder(own.var_dir), Ward(own, open_engine(own))
    assert ward.is_normal("rds-connection-timeout")
    before = ward.digest()
    ward.engine.dispose()
    server.stop()
    try:
        assert not ward.is_normal("rds-connection-timeout")
        assert ward.codes("rds-connection-timeout") == ["REFUSED"]
        (planned,) = ward.fix("rds-connection-timeout", apply=False).steps
        assert planned.outcome is Outcome.PLANNED
        assert not server.is_running()
        assert ward.fix("rds-connection-timeout", apply=True).is_well
        assert ward.is_normal("rds-connection-timeout")
        assert ward.digest() == before
    finally:
        server.start()
        ward.engine.dispose()


def reached(settings: Settings, **server: object) -> Ward:
    assert settings.server is not None
    other = replace(settings, server=replace(settings.server, **server))
    return Ward(other, open_engine(other))


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"password": "s3cret-word"}, "AUTH"),
        ({"host": "no-such-host.invalid"}, "NAME_UNKNOWN"),
        ({"base_name": "nowhere"}, "NO_DATABASE"),
    ],
)
def test_a_database_that_is_not_reached_says_why_and_no_secret(
    template: Settings, changed: dict[str, object], code: str
) -> None:
    ward = reached(template, **changed)
    found = ward.diagnose("rds-connection-timeout")
    assert found.code == code
    assert "s3cret-word" not in str(found)
    assert {step.outcome for step in ward.fix("rds-connection-timeout", apply=True).steps} == {
        Outcome.BY_HAND
    }


def test_a_database_that_never_answers_is_a_time_out(
    template: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops_pipeline.storage.engine.CONNECT_TIMEOUT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ward = reached(template, port=listener.getsockname()[1])
        assert ward.diagnose("rds-connection-timeout").code == "TIMEOUT"


# Sleeps the first time, as one of old code; when it is started anew it is the real one.
FOLLOWS = 'test -e "$0" && exec "$1" -m ops_pipeline trade-stream; touch "$0"; exec sleep 600'


def test_a_stream_of_stale_code_is_restarted(live: Ward, tmp_path: Path) -> None:
    name, table = "trade-stream-not-running", table_of(live.settings)
    live.environ = {**os.environ, **live.environ}
    with live.kept(stream=["sh", "-c", FOLLOWS, str(tmp_path / "slept"), sys.executable]):
        with live.engine.begin() as connection:
            lease = take_lease(connection, dispatch.ACCOUNT, "host/1", "0.0.0", 600)
            assert lease
            at = knowledge.clock()
            keep_lease(connection, lease, 600, connected_at=at, alive_at=at, reason="")
        done = mend(live, name, "STALE_CODE", besides=lambda: table.find(STREAM))
        assert [step.what for step in done.steps] == [f"restart {STREAM}"]
        # What a process that is ended does itself, and one that sleeps does not.
        with live.engine.begin() as connection:
            leave_lease(connection, lease, "ended")
        wait_until(lambda: live.diagnose(name).code == "NORMAL", 60, "it was not heard")
        assert live.is_normal(name)
        assert live.value("select code_version from stream_leases") == __version__


def test_a_stream_that_nobody_follows_is_named(live: Ward) -> None:
    assert live.codes("trade-stream-not-running") == ["NOT_RUNNING"]


# Says where it works as the real one does, and sleeps.
SAYS = (
    'sleep 0.5; echo "following http://127.0.0.1:1 with key sa...ey, database $OPS_DBT_NAME at'
    ' $OPS_DBT_HOST:$OPS_DBT_PORT, code 1"; exec sleep 600'
)


@pytest.fixture
def followed(live: Ward, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ward]:
    """As `live`, in this process's environment, with a keeper that was started as `up` does."""
    command = [sys.executable, "-c", f"from {sleepers.__name__} import keep; keep({SAYS!r})"]
    monkeypatch.setattr(
        keepers, "keeper_command", lambda _, asked: [*command, str(asked.port), *asked.market]
    )
    for name, value in live.environ.items():
        monkeypatch.setenv(name, value)
    keepers.start_keeper(live.settings, Asked(3456, ["--day", "D"]))
    log = log_dir(live.settings) / f"{STREAM}.log"
    try:
        wait_until(lambda: log.exists() and "code 1" in log.read_text(), 30, "nobody followed")
        yield live
    finally:
        keepers.stop_kept(live.settings)


def test_a_stream_at_another_database_starts_anew_in_the_environment_of_the_fix(
    followed: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, url = "trade-stream-not-running", followed.environ["DATABASE_URL"]
    assert "DB_HOST" not in followed.codes(name)
    monkeypatch.setenv("DATABASE_URL", url.replace("127.0.0.1", "localhost"))
    now = Ward(load(), followed.engine)
    found = next(one for one in now.diagnose(name).found if one.cause.code == "DB_HOST")
    assert "127.0.0.1" in found.evidence["process"]
    steps = {step.what: step.outcome for step in now.fix(name, apply=True).steps}
    assert steps[f"restart {KEEPER}"] is Outcome.DONE
    assert "DB_HOST" not in now.codes(name)
    keeper = table_of(now.settings).find(KEEPER)
    assert keeper
    assert psutil.Process(keeper.pid).cmdline()[-3:] == ["3456", "--day", "D"]


def test_keys_that_are_refused_are_named_without_them(live: Ward) -> None:
    assert live.settings.alpaca is not None
    access = replace(live.settings.alpaca, key="PKWRONG12345", secret="s3cret-word")
    ward = Ward(replace(live.settings, alpaca=access), live.engine)
    found = ward.diagnose("trade-stream-not-running")
    assert found.code == "SECRET_KEYS"
    assert "s3cret-word" not in str(found)


def test_each_section_has_a_fault_in_this_file() -> None:
    told = Path(__file__).read_text(encoding="utf-8")
    assert [one.name for one in SECTIONS if f'"{one.name}"' not in told] == []
