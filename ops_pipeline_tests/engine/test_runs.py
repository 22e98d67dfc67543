"""What Dagster's database tells of runs, read from what a real Dagster has written there."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from ops_pipeline.cli import main
from ops_pipeline.domain.errors import BadInput, NotRunning
from ops_pipeline.domain.stages import BARS, NEWS, SERVICES
from ops_pipeline.local.keeper import table_of
from ops_pipeline.local.processes import ProcessTable
from ops_pipeline.local.ticks import late_ticks
from ops_pipeline.operations.cost import measure_and_keep
from ops_pipeline.operations.doctor import _ticks
from ops_pipeline.operations.logs import Logs, read
from ops_pipeline.operations.status import look
from ops_pipeline.settings import Settings
from ops_pipeline.storage import cost
from ops_pipeline.storage.engine import open_engine, opened, server_of
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.services import Switch, upsert_switch
from ops_pipeline_tests.engine.conftest import Postgres, _home

SECRET = "planted-s3cret"


@dg.asset
def bars(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    context.log.info("seven tickers")
    context.log.warning("with %s", SECRET)
    return dg.MaterializeResult(metadata={"rows": 7})


@dg.asset
def news() -> None:
    raise ValueError("no feed answered")


@pytest.fixture
def installed(
    settings: Settings,
    postgres: Postgres,
    dagsters: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Settings]:
    """An installation whose Dagster has run two stages, one of which failed."""
    name = settings.dagster_database
    with postgres.connect() as connection:
        connection.execute(f'create database "{name}" template {dagsters}')
    home = _home(postgres, name, tmp_path, monkeypatch)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for asset in (bars, news):
            dg.materialize([asset], instance=instance, raise_on_error=False)
    yield replace(elsewhere(settings), reader_password=SECRET)
    with postgres.connect() as connection:
        connection.execute(f'drop database "{name}" with (force)')


def elsewhere(settings: Settings) -> Settings:
    """The same server, as one that is not this installation's own."""
    return replace(settings, server=replace(server_of(settings), is_embedded=False))


def lately(settings: Settings, name: str, minutes: int = 10) -> Logs:
    now = clock()
    return read(settings, name, now - timedelta(minutes=minutes), now + timedelta(minutes=1))


def test_a_services_lines_are_its_own_and_its_runs(installed: Settings) -> None:
    found = lately(installed, "telemetry-1m")
    texts = [line.text for line in found.lines]
    assert "Materialized value bars. rows=7" in texts
    assert any("seven tickers" in text for text in texts)
    assert any("Finished execution of run" in text for text in texts)
    assert not any("no feed answered" in text for text in texts)
    assert len({line.run_id for line in found.lines}) == 1
    assert [line.at for line in found.lines] == sorted(line.at for line in found.lines if line.at)


def test_a_failed_step_says_why_as_an_error(installed: Settings) -> None:
    errors = [line for line in lately(installed, "rss-ingest").lines if line.level == "ERROR"]
    assert any("ValueError: no feed answered" in line.text for line in errors)


def test_no_secret_stands_in_a_line(installed: Settings) -> None:
    lines = lately(installed, "telemetry-1m").lines
    assert any(line.level == "WARNING" and "with ***" in line.text for line in lines)
    assert not any(SECRET in line.text for line in lines)


def test_a_service_that_said_nothing_says_why(installed: Settings) -> None:
    with opened(installed) as engine, engine.begin() as connection:
        upsert_switch(connection, Switch(SERVICES[-1], is_enabled=False, reason="upkeep"))
    found = lately(installed, "dispatcher")
    assert found.lines == ()
    assert found.reason.startswith("it is off: upkeep; nothing runs here")


def test_the_status_knows_when_a_service_last_began(installed: Settings) -> None:
    found = {one.switch.stage: one for one in look(installed).services}
    began = found[BARS].last_tick
    assert began is not None
    assert timedelta(0) <= clock() - began < timedelta(minutes=2)
    assert found[SERVICES[-1]].last_tick is None


def test_an_installation_that_dagster_never_saw_has_a_status(
    settings: Settings, postgres: Postgres
) -> None:
    with postgres.connect() as connection:
        connection.execute(f'create database "{settings.dagster_database}"')
    assert [one.last_tick for one in look(elsewhere(settings)).services] == [None] * 7
    assert lately(settings, "bars").reason


def test_a_process_has_its_file_and_its_lines_have_no_secret(settings: Settings) -> None:
    planted = replace(settings, reader_password=SECRET)
    file = settings.mode_dir / "logs" / "daemon.log"
    file.parent.mkdir(parents=True)
    old = f"{clock() - timedelta(hours=1):%Y-%m-%d %H:%M:%S} +0000 - INFO - old"
    fresh = f"{clock():%Y-%m-%d %H:%M:%S} +0000 - dagster.daemon - ERROR - with {SECRET}"
    file.write_text(f"{old}\n{fresh}\n  of two lines\n", encoding="utf-8")
    found = lately(planted, "daemon").lines
    assert [(line.level, line.text) for line in found] == [
        ("ERROR", "dagster.daemon - ERROR - with ***"),
        ("INFO", "of two lines"),
    ]


def test_a_process_that_said_nothing_says_whether_it_runs(settings: Settings) -> None:
    assert lately(settings, "web").reason.startswith("it does not run, and never wrote ")


def test_a_name_that_nobody_has_is_bad_input(settings: Settings) -> None:
    with pytest.raises(BadInput, match=r"there is no service 'absent'; there are rss-ingest, "):
        lately(settings, "absent")


def test_a_days_cost_is_that_of_its_tasks_billed_a_minute_each(installed: Settings) -> None:
    day = installed.mode.calendar.day(clock())
    dagster = open_engine(installed, installed.dagster_database)
    with opened(installed) as engine:
        usd = measure_and_keep(engine, dagster, installed, day, clock())
        with engine.connect() as connection:
            kept = {line.item: line for line in cost.read(connection, day)}
    with dagster.connect() as events:
        start = clock() - timedelta(minutes=5)
        used = {one.stage: one for one in cost.used(events, start, clock())}
        long_ago = cost.used(events, start - timedelta(days=2), start - timedelta(days=1))
    dagster.dispose()
    assert long_ago == []
    assert set(used) == {BARS, NEWS}
    assert (used[BARS].runs, used[BARS].billed_seconds) == (1, 60.0)
    assert 0 < used[BARS].seconds < 60
    assert kept["telemetry-1m"].quantity == pytest.approx(1 / 60)
    assert usd == pytest.approx(sum(line.usd for line in kept.values()))


def test_the_verb_cost_shows_lines_and_ends_with_1_past_normal(
    installed: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = server_of(installed)
    address = f"{server.user}:{server.password}@{server.host}:{server.port}"
    monkeypatch.setenv("DATABASE_URL", f"postgresql://{address}/{server.base_name}")

    def ended(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["ops-pipeline", "cost", *words])
        try:
            main()
        except SystemExit as end:
            return int(str(end.code)), capsys.readouterr().out
        return 0, capsys.readouterr().out

    code, out = ended()
    assert code == 0
    assert "what this work would cost on AWS; on this machine nothing is paid" in out
    assert "telemetry-1m" in out
    monkeypatch.setenv("OPS_PRICES", '{"database": 1}')
    code, out = ended("--json")
    found = json.loads(out)
    assert (code, found["level"]) == (1, "critical")
    assert found["usd"] == pytest.approx(sum(line["usd"] for line in found["lines"]))
    assert ended("--day", "2999-01-04")[0] == 2
    monkeypatch.setenv("OPS_PRICES", '{"databse": 1}')
    assert ended()[0] == 4


def tick(events: psycopg.Connection, kind: str, name: str, age: float) -> None:
    body = json.dumps({"job_name": name})
    at = (clock() - timedelta(seconds=age)).replace(tzinfo=None)
    events.execute(
        "insert into job_ticks (job_origin_id, selector_id, status, type, timestamp, tick_body)"
        " values ('x', 'x', 'SKIPPED', %s, %s, %s)",
        [kind, at, body],
    )


@pytest.mark.parametrize(
    ("ages", "stopped", "late"),
    [
        ({"minute_schedule": 59, "dispatch_sensor": 4}, [], []),
        ({"minute_schedule": 200, "dispatch_sensor": 4}, [], ["minute_schedule"]),
        ({"minute_schedule": 59, "dispatch_sensor": 200}, [], ["dispatch_sensor"]),
        ({"minute_schedule": 200, "dispatch_sensor": 4}, ["minute_schedule"], []),
        ({"minute_schedule": 59}, [], ["dispatch_sensor"]),
        ({}, ["minute_schedule", "dispatch_sensor"], []),
    ],
)
def test_a_schedule_or_sensor_that_does_not_tick_is_found_though_the_daemon_runs(
    installed: Settings,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    ages: dict[str, int],
    stopped: list[str],
    late: list[str],
) -> None:
    with postgres.connect(installed.dagster_database) as connection:
        for name, age in ages.items():
            tick(connection, "SCHEDULE" if "schedule" in name else "SENSOR", name, age + 1_000)
            tick(connection, "SCHEDULE" if "schedule" in name else "SENSOR", name, age)
        for name in stopped:
            body = json.dumps({"origin": {"job_name": name}})
            connection.execute(
                "insert into instigators (selector_id, status, instigator_body)"
                " values (%s, 'STOPPED', %s)",
                [name, body],
            )
    table = table_of(installed)
    assert late_ticks(installed, table, clock()) == {}
    monkeypatch.setattr(ProcessTable, "began", lambda *_: clock().timestamp() - 300)
    assert list(late_ticks(installed, table, clock())) == late
    if late:
        with pytest.raises(NotRunning, match=late[0]):
            _ticks(installed, clock)
    else:
        _ticks(installed, clock)
