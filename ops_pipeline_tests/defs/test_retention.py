"""A purge of one mode's two databases: what goes, what never goes, and who may purge."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
from psycopg import sql
from sqlalchemy import text

from ops_pipeline.defs import retention as defs
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.defs.retention import purge, retention
from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.errors import Unsafe
from ops_pipeline.domain.retention import Purge, Retention
from ops_pipeline.domain.stream import BrokerEvent
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage import retention as storage
from ops_pipeline.storage.alerts import observe, recent_alerts
from ops_pipeline.storage.dispatch import ACCOUNT
from ops_pipeline.storage.engine import open_engine, opened
from ops_pipeline.storage.retention import OldSignals, sole_purge
from ops_pipeline.storage.stream import (
    FrameVerdict,
    RawFrame,
    close_frames,
    insert_events,
    insert_frames,
    received_frames,
)
from ops_pipeline_tests.builders import NOON
from ops_pipeline_tests.defs.world import administrator
from ops_pipeline_tests.storage.rows import insert
from ops_pipeline_tests.storage.trade import put_basis, put_opening

# Long after the trade of NOON.
NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
PROJECT = Path(__file__).resolve().parents[2]


@dg.asset
def bars() -> None:
    """Trivial."""


@pytest.fixture
def live(template: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Sandbox mode with databases of its own; that of Dagster is empty."""
    assert template.server is not None
    server = replace(template.server, base_name=f"p{uuid4().hex[:12]}")
    own = replace(template, mode=Mode.SANDBOX, var_dir=tmp_path, server=server)
    with administrator(template) as connection:
        connection.execute(
            f'create database "{own.pipeline_database}" template "{template.pipeline_database}"'
        )
        connection.execute(f'create database "{own.dagster_database}"')
    yield own
    with administrator(template) as connection:
        for name in (own.pipeline_database, own.dagster_database):
            connection.execute(f'drop database "{name}" with (force)')


@pytest.fixture
def instance(
    live: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """Dagster on its database, as the project's own dagster.yaml has it."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(PROJECT / "dagster.yaml", home)
    for name, value in live.environment().items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.from_config(str(home)) as loaded:
        yield loaded


def put_signals(settings: Settings, *tickers: str, minute: datetime = NOON) -> None:
    """Signals that said HOLD, written when their minute was over."""
    with opened(settings) as engine, engine.begin() as connection:
        for ticker in tickers:
            insert(
                connection,
                "signals",
                minute=minute,
                ticker=ticker,
                session_date=minute.date(),
                action="HOLD",
                rule="NO_SETUP",
                confidence=0.1,
                reason="{}",
                available_at=minute + timedelta(seconds=80),
                written_at=minute + timedelta(seconds=81),
            )


def tickers(settings: Settings) -> list[str]:
    with opened(settings) as engine, engine.connect() as connection:
        found = connection.execute(text("select ticker from signals order by minute, ticker"))
        return list(found.scalars())


def contents(settings: Settings) -> dict[str, str]:
    """Of every table of the pipeline but the signals: its rows, hashed."""
    listed = (
        "select schemaname || '.' || tablename from pg_tables"
        " where schemaname in ('public', 'features') and tablename <> 'signals'"
    )
    with opened(settings) as engine, engine.connect() as connection:
        names = connection.execute(text(listed)).scalars().all()
        rows = {
            name: connection.execute(text(f"select cast(t as text) from {name} as t")).scalars()
            for name in names
        }
        return {
            name: hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()
            for name, found in rows.items()
        }


def put_a_trade(settings: Settings) -> None:
    with opened(settings) as engine, engine.begin() as connection:
        put_basis(connection)
        put_opening(connection)
        connection.execute(text("update signals set written_at = minute"))


def rows_of(done: Purge) -> dict[str, int]:
    return {one.kind: one.rows for one in done.removed}


def old_run(instance: dg.DagsterInstance) -> None:
    """A run of the last year."""
    assert dg.materialize([bars], instance=instance).success
    with instance.event_log_storage.index_transaction() as connection:
        connection.execute(text("update event_logs set timestamp = '2025-01-01'"))
        connection.execute(text("update runs set start_time = 1, end_time = 2"))


def test_signals_go_that_recommended_nothing_and_all_else_stays(live: Settings) -> None:
    put_a_trade(live)
    put_signals(live, "MSFT", "NVDA")
    put_signals(live, "TSLA", minute=NOW - timedelta(days=89))
    before = contents(live)
    assert len(before) > 20
    assert tickers(live) == ["AAPL", "MSFT", "NVDA", "TSLA"]
    done = purge(live, NOW)
    # The signal of AAPL became a recommendation, and a trade.
    assert tickers(live) == ["AAPL", "TSLA"]
    assert rows_of(done) == {"signals": 2, "frames": 0, "alerts": 0}
    assert done.bytes > 100
    assert contents(live) == before


def test_a_signal_of_an_old_minute_that_was_written_lately_stays(live: Settings) -> None:
    put_signals(live, "MSFT")
    with opened(live) as engine, engine.begin() as connection:
        connection.execute(text("update signals set written_at = :now"), {"now": NOW})
    assert rows_of(purge(live, NOW)) == {"signals": 0, "frames": 0, "alerts": 0}


def test_a_replay_keeps_its_signals(live: Settings) -> None:
    replayed = replace(live, mode=Mode.REPLAY)
    with administrator(live) as connection:
        for own, other in (
            (replayed.pipeline_database, live.pipeline_database),
            (replayed.dagster_database, live.dagster_database),
        ):
            connection.execute(f'create database "{own}" template "{other}"')
    put_signals(replayed, "MSFT")
    assert rows_of(purge(replayed, NOW)) == {}
    assert tickers(replayed) == ["MSFT"]


def test_a_dry_run_counts_what_the_purge_then_removes(
    live: Settings, instance: dg.DagsterInstance
) -> None:
    put_signals(live, "MSFT")
    old_run(instance)
    counted = purge(live, NOW, is_dry_run=True)
    assert counted == purge(live, NOW, is_dry_run=True)
    assert counted.tables == []
    assert tickers(live) == ["MSFT"]
    told: list[tuple[str, int, int]] = []
    removed = purge(live, NOW, on_progress=lambda *what: told.append(what))
    assert rows_of(removed) == rows_of(counted)
    assert rows_of(removed)["run_events"] > 5
    assert rows_of(removed)["output_files"] > 0
    for kind, rows in rows_of(removed).items():
        assert [what for what in told if what[0] == kind][-1] == (kind, rows, rows)
    assert purge(live, NOW).rows == 0


def test_what_was_thinned_is_vacuumed_and_measured(
    live: Settings, instance: dg.DagsterInstance
) -> None:
    old_run(instance)
    done = purge(live, NOW)
    assert {size.table for size in done.tables} == {
        "signals",
        "broker_frames",
        "alerts",
        "alert_messages",
        "alert_deliveries",
        "asset_check_executions",
        "event_logs",
        "job_ticks",
        "run_tags",
        "runs",
    }
    assert all(size.is_vacuumed and size.bytes_before > 0 for size in done.tables)
    engine = open_engine(live, live.dagster_database)
    asked = text(
        "select vacuum_count, analyze_count from pg_stat_user_tables where relname = 'event_logs'"
    )
    with engine.connect() as connection:
        assert connection.execute(asked).one() == (1, 1)
    engine.dispose()


def test_days_are_those_of_the_settings(live: Settings) -> None:
    put_signals(live, "MSFT", minute=NOW - timedelta(days=5))
    kept = replace(live, retention=Retention(signals_days=6))
    assert rows_of(purge(kept, NOW)) == {"signals": 0, "frames": 0, "alerts": 0}
    shorter = replace(live, retention=Retention(signals_days=4))
    assert rows_of(purge(shorter, NOW)) == {"signals": 1, "frames": 0, "alerts": 0}


def test_frames_go_that_were_looked_at_and_what_they_told_stays(live: Settings) -> None:
    told = BrokerEvent("k1", "new", "o1", "AAPL", "buy", Decimal(0), NOON)
    with opened(live) as engine:
        with engine.begin() as connection:
            for at in (NOW - timedelta(days=8), NOW - timedelta(days=6)):
                insert_frames(connection, ACCOUNT, [RawFrame("{}", at)] * 3)
            first, *_, last = received_frames(connection, ACCOUNT, 10)
            insert_events(connection, ACCOUNT, {"k1": (told, first.id)})
            done = [first.id, first.id + 1, last.id]
            close_frames(connection, [FrameVerdict(one, "APPLIED") for one in done])
        assert rows_of(purge(live, NOW)) == {"signals": 0, "frames": 2, "alerts": 0}
        with engine.connect() as connection:
            left = connection.execute(text("select count(*) from broker_frames")).scalar_one()
            event = connection.execute(text("select event_key, frame_id from broker_events")).one()
    # The third of the old ones was never looked at.
    assert (left, tuple(event)) == (4, ("k1", None))


def test_alerts_go_that_were_over_long_ago_with_what_was_said_of_them(live: Settings) -> None:
    bad, good = (Verdict("stuck", level, "found") for level in (Level.HIGH, Level.NORMAL))
    with opened(live) as engine:
        with engine.begin() as connection:
            for at in (NOW - timedelta(days=91), NOW - timedelta(days=89)):
                for verdict in (bad, good, good):
                    observe(connection, at, "test", [verdict])
            observe(connection, NOW - timedelta(days=91), "test", [replace(bad, name="open")])
        done = purge(live, NOW)
        with engine.connect() as connection:
            left = {alert.cause for alert in recent_alerts(connection, None, 10)}
            said = connection.execute(text("select count(*) from alert_messages")).scalar_one()
    assert rows_of(done)["alerts"] == 1
    assert (left, said) == ({"stuck", "open"}, 3)


def test_a_second_purge_says_so_and_does_nothing(live: Settings) -> None:
    put_signals(live, "MSFT")
    with opened(live) as engine:
        with sole_purge(engine), pytest.raises(Unsafe, match="another purge is at work"):
            purge(live, NOW)
        assert tickers(live) == ["MSFT"]
    assert purge(live, NOW).rows == 1


def test_signals_go_in_batches_and_after_a_kill_the_rest(
    live: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "BATCH", 2)
    put_a_trade(live)
    for number in range(5):
        put_signals(live, "MSFT", "NVDA", "TSLA", minute=NOON + timedelta(minutes=number))
    with opened(live) as engine:
        work = OldSignals(engine, NOW).remove()
        assert next(work)[0] == 2
        work.close()
        assert len(tickers(live)) == 14
        assert [rows for rows, _ in OldSignals(engine, NOW).remove()] == [2] * 6 + [1]
    assert tickers(live) == ["AAPL"]


def test_a_role_that_owns_nothing_purges_and_leaves_the_vacuum_to_the_owner(
    live: Settings, instance: dg.DagsterInstance
) -> None:
    put_signals(live, "MSFT")
    old_run(instance)
    role = f"{live.base_name}_poor"
    name = sql.Identifier(role)
    grants = ("grant select, delete on all tables in schema public to {}",)
    owner = live.server
    assert owner is not None
    with administrator(live) as connection:
        connection.execute(sql.SQL("create role {} login password 'poor'").format(name))
    try:
        for database in (live.pipeline_database, live.dagster_database):
            engine = open_engine(live, database)
            with engine.begin() as owned:
                for grant in grants:
                    owned.exec_driver_sql(grant.format(f'"{role}"'))
            engine.dispose()
        poor = replace(live, server=replace(owner, user=role, password="poor"))
        done = purge(poor, NOW)
        assert rows_of(done)["signals"] == 1
        assert rows_of(done)["run_events"] > 5
        assert {size.is_vacuumed for size in done.tables} == {False}
    finally:
        for database in (live.pipeline_database, live.dagster_database):
            engine = open_engine(live, database)
            with engine.begin() as owned:
                owned.exec_driver_sql(f'drop owned by "{role}"')
            engine.dispose()
        with administrator(live) as connection:
            connection.execute(sql.SQL("drop role {}").format(name))


def test_the_asset_tells_numbers_that_the_ui_draws(
    live: Settings, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defs, "clock", lambda: NOW)
    put_signals(live, "MSFT")
    old_run(instance)
    made = dg.materialize([retention], instance=instance, resources={"pipeline": Pipeline(live)})
    assert made.success
    (event,) = made.asset_materializations_for_node("retention")
    told: dict[str, Any] = {name: value.value for name, value in event.metadata.items()}
    assert told["removed_signals"] == 1
    assert told["removed_run_events"] > 5
    kept = {
        "ticks": 14,
        "run_events": 7,
        "check_results": 7,
        "output_files": 7,
        "runs": 14,
        "signals": 90,
        "frames": 7,
        "alerts": 90,
    }
    assert told["removed_rows"] == sum(told[f"removed_{kind}"] for kind in kept)
    assert told["database_mb_before"] >= told["database_mb_after"] - 1 > 1
    assert told["days_kept"] == kept
