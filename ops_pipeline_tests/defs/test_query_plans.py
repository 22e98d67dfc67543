"""A named query gives the same rows in the same order, whatever plan PostgreSQL chooses."""

from collections.abc import Iterator
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, text

from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.slo import PHASES
from ops_pipeline.settings import Settings
from ops_pipeline.storage.acceptance import statement
from ops_pipeline.storage.queries import texts
from ops_pipeline_tests.defs.markets import generated
from ops_pipeline_tests.defs.world import STAGES, World, open_world, prepare
from ops_pipeline_tests.storage.test_queries import NAMED, reads

HALF_DAY = date(2025, 11, 28)
PLAYED = 90
SERIAL = {"max_parallel_workers_per_gather": "0", "debug_parallel_query": "off"}
PARALLEL = {
    "max_parallel_workers_per_gather": "4",
    "parallel_setup_cost": "0",
    "parallel_tuple_cost": "0",
    "min_parallel_table_scan_size": "0",
    "min_parallel_index_scan_size": "0",
    "debug_parallel_query": "on",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_incremental_sort": "off",
}
# Of Dagster's own database.
ELSEWHERE = {("slo", "launches"), ("slo", "event_log_bytes"), ("cost", "logged_bytes")}
# The instant of the server's clock, and its sessions at that instant.
OF_THE_MOMENT = {
    ("acceptance", "clock_skew"),
    ("orders", "server_clock"),
    ("runbook", "connections"),
    ("runbook", "end_idle"),
}
# The runbook's own text, in order of the start; in a replay several runs begin at one present.
WITH_TIES = {("acceptance", "recent_dispatcher_runs")}
ASKED = sorted(
    (stage, name)
    for stage, name in NAMED - ELSEWHERE - OF_THE_MOMENT - WITH_TIES
    if stage != "runs" and reads(texts(stage)[name])
)


@pytest.fixture(scope="module")
def played(template: Settings) -> Settings:
    def play(world: World) -> None:
        world.open_market(*generated(HALF_DAY))
        minutes = world.session(HALF_DAY).minutes()[:PLAYED]
        world.stages(minutes[0], minutes[-1])
        world.dispatch(minutes)

    return prepare(template, "plans", play)


@pytest.fixture(scope="module")
def morning(played: Settings) -> Iterator[World]:
    """An hour and a half of all stages, with the rows of each table in no order on their pages."""
    with open_world(played) as world:
        with world.pipeline.engine.begin() as connection:
            _shuffle(connection)
        yield world


@pytest.fixture(scope="module")
def parameters(morning: World) -> dict[str, Any]:
    """A value for each name that a query asks with, so that it finds rows."""
    session = morning.session(HALF_DAY)
    start, end = session.opens_at, session.opens_at + PLAYED * MINUTE
    (fill,) = morning.rows("select * from dispatch_executions order by written_at desc limit 1")
    (scored,) = morning.rows("select model, revision from news_sentiments limit 1")
    ids = [row["id"] for row in morning.rows("select id from dispatch_recommendations")]
    news = [row["news_id"] for row in morning.rows("select news_id from news_items")]
    return {
        "now": end, "clock": end, "until": end, "end": end, "cutoff": end,
        "highest": UUID(int=2**128 - 1),
        "since": start, "start": start, "opened_at": start, "lowest": UUID(int=0), "day": HALF_DAY,
        "opens_at": start, "closes_at": session.closes_at, "opens": start,
        "closes": session.closes_at, "today": start, "session_date": HALF_DAY, "before": end,
        "minute": end - MINUTE, "decided_at": end - 5 * MINUTE, "minutes": session.minutes(),
        "ticker": fill["ticker"], "tickers": ["AAPL", "MSFT", "NVDA"], "account": fill["account"],
        "id": ids[0], "ids": ids, "epochs": [1] * len(ids), "execution_id": fill["execution_id"],
        "recommendation_id": fill["recommendation_id"], "orchestrator_run_id": "test",
        "run_id": fill["dispatcher_run_id"], "news_ids": news, "limit": 50, "shown": 50,
        "look_back": 100, "at_most": 50, "first": start, "last": end, "model": "another",
        "revision": scored["revision"], "stages": STAGES, "stage": "bars", "most_attempts": 3,
        "settle": 20, "phases": list(PHASES), "causes": ["bars_are_fresh"], "alert_id": 1,
        "version": None, "table": "bars_1m", "column": "ticker", "orders_move": False, "epoch": 1,
        "is_live": False, "feed": [], "entry_key": [], "entry_id": [], "text_hash": [],
        "news_id": news, "window_starts_at": start, "opened": [start] * 3,
    }  # fmt: skip


@pytest.mark.parametrize(("stage", "name"), ASKED)
def test_a_query_gives_the_same_rows_in_any_plan(
    morning: World, parameters: dict[str, Any], stage: str, name: str
) -> None:
    found = [_rows(morning, stage, name, parameters, plan) for plan in (SERIAL, PARALLEL)]
    assert found[0] == found[1]


def test_most_queries_find_rows(morning: World, parameters: dict[str, Any]) -> None:
    several = sum(len(_rows(morning, *key, parameters, SERIAL)) > 1 for key in ASKED)
    assert several >= 40


def _rows(
    world: World, stage: str, name: str, known: dict[str, Any], plan: dict[str, str]
) -> list[Any]:
    asked = text(statement(name) if stage == "acceptance" else texts(stage)[name])
    values = {key: known[key] for key in asked.compile().params}
    if (stage, name) in (("bars", "coverage"), ("explain", "count_executions")):
        values |= {"first": HALF_DAY, "last": HALF_DAY}
    with world.pipeline.engine.connect() as connection:
        for key, value in plan.items():
            connection.execute(text(f"set local {key} = '{value}'"))
        return [tuple(row) for row in connection.execute(asked, values)]


def _shuffle(connection: Connection) -> None:
    """Write a third of each table's rows anew, twice: they move to its end, guards or not."""
    connection.execute(text("set local session_replication_role = replica"))
    tables = connection.execute(
        text(
            "select format('%I.%I', table_schema, table_name), min(column_name)"
            " from information_schema.columns join information_schema.tables"
            " using (table_schema, table_name)"
            " where table_type = 'BASE TABLE' and table_schema in ('public', 'features')"
            " and is_generated = 'NEVER' and is_identity = 'NO' group by 1"
        )
    ).all()
    connection.execute(text("select setseed(0.5)"))
    for table, column in tables * 2:
        connection.execute(text(f'update {table} set "{column}" = "{column}" where random() < 0.3'))
