"""A fingerprint covers every table, and shows every column but those that may differ."""

import json
from datetime import datetime

import pytest
from sqlalchemy import Connection

from ops_pipeline.domain.session import MINUTE
from ops_pipeline.storage.fingerprint import TABLES, VOLATILE, Row, rows_of
from ops_pipeline_tests.builders import DAY, NOON
from ops_pipeline_tests.storage.rows import insert, put_recommendation, put_run, rows
from ops_pipeline_tests.storage.trade import (
    change,
    put_basis,
    put_features,
    put_opening,
    put_signal,
    put_watchlist,
)

BY_NAME = {table.name: table for table in TABLES}
# What is no part of a session: it is set before one is played, or moved while it is; a crash adds
# attempts, a replay has no orders and measures nothing, no broker tells it of any, nobody is told
# of it, and each installation is its own.
LEFT_OUT = {
    "account_adjustments",
    "downtimes",
    "accounts",
    "alert_deliveries",
    "alert_messages",
    "alert_silences",
    "alerts",
    "bar_coverage",
    "broker_events",
    "broker_frames",
    "broker_orders",
    "broker_positions",
    "config_state",
    "config_versions",
    "cost_lines",
    "dispatch_attempts",
    "feed_state",
    "installation",
    "leases",
    "machine_events",
    "manual_fills",
    "news_scoring_attempts",
    "order_intents",
    "pipeline_slo",
    "pipeline_slo_counters",
    "replay_clock",
    "replay_sessions",
    "schema_migrations",
    "service_changes",
    "services",
    "stream_leases",
    "stream_looks",
    "trading_state",
    "trading_state_changes",
    "universe",
    "universe_changes",
}
# Where the rows of the trade below stand: a story ten minutes before noon, the rest at noon.
STORY_AT = NOON - 10 * MINUTE
MINUTES = dict.fromkeys(BY_NAME, NOON) | {
    "news_items": STORY_AT,
    "news_tickers": STORY_AT,
    "news_sentiments": NOON - 9 * MINUTE,
}


@pytest.fixture
def trade(connection: Connection) -> Connection:
    """A trade at noon with one row in each table, by a run that finished."""
    put_basis(connection)
    put_opening(connection)
    change(
        connection,
        "update dispatcher_runs set pulled_count = 1, outcome = 'FINISHED', finished_at = now()",
    )
    prices = dict.fromkeys(("open", "high", "low", "close"), 201.0)
    insert(
        connection,
        "bar_revisions",
        ticker="AAPL",
        minute=NOON,
        volume=1,
        available_at=NOON + 2 * MINUTE,
        **prices,
    )
    insert(
        connection,
        "quarantines",
        ticker="AAPL",
        session_date=DAY,
        cause="split",
        observed=2.0,
        available_at=NOON,
    )
    return connection


def read(connection: Connection, name: str, *between: datetime) -> list[Row]:
    return rows_of(connection, BY_NAME[name], (between[0], between[1]) if between else None)


def documents(connection: Connection, name: str) -> list[str]:
    return [row.document for row in read(connection, name)]


def columns_of(connection: Connection, name: str) -> dict[str, str]:
    """The columns of a table and their types."""
    found = rows(
        connection,
        "select attname, format_type(atttypid, atttypmod) from pg_attribute"
        " where attrelid = cast(:name as regclass) and attnum > 0 and not attisdropped",
        name=name,
    )
    return {row[0]: row[1] for row in found}


def test_every_table_is_compared_or_left_out_on_purpose(connection: Connection) -> None:
    found = rows(
        connection,
        "select table_schema, table_name from information_schema.tables"
        " where table_schema in ('public', 'features') and table_type = 'BASE TABLE'",
    )
    names = {name if schema == "public" else f"{schema}.{name}" for schema, name in found}
    assert names == set(BY_NAME) | LEFT_OUT
    assert not set(BY_NAME) & LEFT_OUT


@pytest.mark.parametrize("name", BY_NAME)
def test_rows_of_every_table_are_read_in_their_minute(trade: Connection, name: str) -> None:
    found = read(trade, name)
    assert found
    assert {row.minute for row in found} == {MINUTES[name]}
    assert len({row.key for row in found}) == len(found)


@pytest.mark.parametrize("name", BY_NAME)
def test_document_shows_every_column_that_may_not_differ(trade: Connection, name: str) -> None:
    shown = set(columns_of(trade, name)) - set(VOLATILE)
    assert {frozenset(json.loads(text)) for text in documents(trade, name)} == {frozenset(shown)}


WITH_DOUBLES = (
    "bars_1m",
    "bar_revisions",
    "quarantines",
    "news_sentiments",
    "features.features_1m",
    "watchlist_entries",
    "signals",
    "dispatch_recommendations",
    "dispatch_executions",
)


@pytest.mark.parametrize("name", WITH_DOUBLES)
def test_smallest_change_of_any_number_changes_the_document(trade: Connection, name: str) -> None:
    before = documents(trade, name)
    doubles = [c for c, kind in columns_of(trade, name).items() if kind == "double precision"]
    assert doubles
    for column in doubles:
        with trade.begin_nested() as tried:
            change(trade, f"update {name} set {column} = coalesce({column}, 1) - 1e-12")
            assert documents(trade, name) != before, column
            tried.rollback()
    assert documents(trade, name) == before


LATER = "now() + interval '1 hour'"
MAY_DIFFER = {
    "stage_minutes": f"run_id = 'another', written_at = {LATER}, first_written_at = {LATER}",
    "minute_cutoffs": f"run_id = 'another', written_at = {LATER}",
    "bars_1m": f"written_at = {LATER}",
    "bar_revisions": f"written_at = {LATER}",
    "quarantines": f"written_at = {LATER}",
    "news_provenance": f"written_at = {LATER}",
    "dispatch_recommendations": f"claim_epoch = 9, claimed_at = now(), created_at = {LATER}",
    "dispatch_executions": f"execution_id = gen_random_uuid(), written_at = {LATER}",
    "dispatcher_runs": f"orchestrator_run_id = 'another', written_at = {LATER}",
}


@pytest.mark.parametrize("name", MAY_DIFFER)
def test_what_may_differ_shows_in_neither_key_nor_document(trade: Connection, name: str) -> None:
    before = read(trade, name)
    change(trade, f"update {name} set {MAY_DIFFER[name]}")
    assert read(trade, name) == before


def test_only_the_minutes_between_are_read(connection: Connection) -> None:
    for minute in (NOON, NOON + MINUTE, NOON + 2 * MINUTE):
        put_features(connection, minute=minute)
        put_watchlist(connection, minute=minute)
        put_signal(connection, minute=minute)
    for name in ("features.features_1m", "watchlist_entries", "signals"):
        found = read(connection, name, NOON + MINUTE, NOON + 2 * MINUTE)
        assert [row.minute for row in found] == [NOON + MINUTE]
        assert len(read(connection, name)) == 3


def test_rows_come_by_minute_and_key_whatever_the_order_of_writing(
    connection: Connection,
) -> None:
    for minute, ticker in ((NOON + MINUTE, "AAPL"), (NOON, "MSFT"), (NOON, "AAPL")):
        put_signal(connection, minute=minute, ticker=ticker)
    found = [(row.minute, row.key) for row in read(connection, "signals")]
    assert found == [(NOON, "AAPL"), (NOON, "MSFT"), (NOON + MINUTE, "AAPL")]


@pytest.mark.parametrize(
    "left_behind",
    ["pulled_count = 0", "outcome = 'ABANDONED'", "outcome = null, finished_at = null"],
)
def test_run_that_a_kill_left_behind_is_not_compared(trade: Connection, left_behind: str) -> None:
    before = read(trade, "dispatcher_runs")
    run_id = put_run(trade)
    change(
        trade,
        "update dispatcher_runs set pulled_count = 1, outcome = 'FINISHED', finished_at = now()"
        " where run_id = :run_id",
        run_id=run_id,
    )
    assert len(read(trade, "dispatcher_runs")) == len(before) + 1
    change(trade, f"update dispatcher_runs set {left_behind} where run_id = :r", r=run_id)
    assert read(trade, "dispatcher_runs") == before


def test_recommendation_in_another_state_is_a_difference(connection: Connection) -> None:
    number = put_recommendation(connection, session_date=DAY)
    before = documents(connection, "dispatch_recommendations")
    change(
        connection,
        "update dispatch_recommendations set status = 'SKIPPED', failure_reason = 'x',"
        " processed_at = ts where id = :number",
        number=number,
    )
    assert documents(connection, "dispatch_recommendations") != before
