"""Dagster's tables after a purge: what is gone, what the UI still says, and how large they stay."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster import DagsterInstance, EventLogEntry
from dagster._core.execution.execution_result import ExecutionResult
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler.instigation import InstigatorType, TickData, TickStatus
from dagster._core.test_utils import create_run_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster_graphql.schema import create_schema

from ops_pipeline.engine import retention
from ops_pipeline.engine.retention import (
    OldChecks,
    OldEvents,
    OldOutput,
    OldRuns,
    OldTicks,
    has_tables,
)
from ops_pipeline_tests.engine.conftest import Postgres

pytestmark = [pytest.mark.postgres, pytest.mark.dagster, pytest.mark.slow]

NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
WEEK_AGO = NOW - timedelta(days=7)
CODE = """
import dagster as dg

KEYS = dg.StaticPartitionsDefinition(["p1", "p2", "p3", "p4"])

@dg.asset(partitions_def=KEYS)
def bars(context):
    context.log.info("said by the code")
    if context.run.tags.get("broken"):
        raise ValueError("no rows")
    return dg.MaterializeResult(metadata={"rows": 1})

@dg.asset
def executions():
    return dg.MaterializeResult(metadata={"rows": 1})

@dg.asset_check(asset=executions)
def has_rows():
    return dg.AssetCheckResult(passed=False, metadata={"rows": 0})

defs = dg.Definitions(assets=[bars, executions], asset_checks=[has_rows])
"""
ASSET_PAGES = """{
  assetNodes { assetKey { path }
    partitionStats { numPartitions numMaterialized numFailed numMaterializing }
    assetPartitionStatuses { ... on DefaultPartitionStatuses {
      materializedPartitions failedPartitions unmaterializedPartitions materializingPartitions } }
    latestMaterializationByPartition { runId partition timestamp }
    assetMaterializations { runId partition timestamp stepStats { stepKey }
      metadataEntries { label } runOrError { __typename } }
    assetChecksOrError { ... on AssetChecks { checks { name
      executionForLatestMaterialization { status runId evaluation { success timestamp
        metadataEntries { label } } } } } }
  } }"""
RUN_PAGE = """query Page($id: ID!) {
  runOrError(runId: $id) { __typename ... on Run {
    status startTime endTime assets { key { path } }
    stats { ... on RunStatsSnapshot { stepsFailed materializations } }
    stepStats { stepKey status }
    eventConnection { events { __typename } } } }
  logsForRun(runId: $id) { __typename } }"""


@pytest.fixture
def engine(postgres: Postgres, database: str) -> Iterator[sa.Engine]:
    made = engine_on(postgres, database)
    yield made
    made.dispose()


def engine_on(postgres: Postgres, database: str) -> sa.Engine:
    url = f"postgresql+psycopg://{postgres.user}:{postgres.password}@127.0.0.1:{postgres.port}"
    return sa.create_engine(f"{url}/{database}")


@pytest.fixture
def code() -> dg.Definitions:
    found: dict[str, Any] = {}
    exec(compile(CODE, "code.py", "exec"), found)  # noqa: S102 - the same text that the UI loads
    defs: dg.Definitions = found["defs"]
    return defs


def materialize(
    instance: DagsterInstance,
    code: dg.Definitions,
    partition: str | None = None,
    *,
    days_ago: float,
    broken: bool = False,
) -> str:
    """A finished run of so long ago; the newest must come last, as in life."""
    selected = "bars" if partition else "executions"
    job = code.resolve_implicit_global_asset_job_def()
    outcome: ExecutionResult = job.execute_in_process(
        instance=instance,
        partition_key=partition,
        asset_selection=[dg.AssetKey(selected)],
        tags={"broken": "yes"} if broken else {},
        raise_on_error=False,
    )
    age(instance, outcome.run_id, NOW - timedelta(days=days_ago))
    return outcome.run_id


def age(instance: DagsterInstance, run_id: str, ended_at: datetime) -> None:
    """Move a run and its events to the past."""
    at, epoch = ended_at.replace(tzinfo=None), ended_at.timestamp()
    with instance.event_log_storage.index_transaction() as connection:
        for statement in (
            "update event_logs set timestamp = :at where run_id = :run",
            "update runs set create_timestamp = :at, update_timestamp = :at where run_id = :run",
            "update runs set start_time = :epoch - 20 where run_id = :run",
            "update runs set end_time = :epoch where run_id = :run and end_time is not null",
        ):
            connection.execute(sa.text(statement), {"at": at, "epoch": epoch, "run": run_id})


def purge_events(engine: sa.Engine, before: datetime = WEEK_AGO) -> int:
    return sum(rows for rows, _ in OldEvents(engine, before).remove())


def kinds(instance: DagsterInstance, run_id: str) -> Counter[str | None]:
    return Counter(
        entry.dagster_event.event_type_value if entry.dagster_event else None
        for entry in instance.all_logs(run_id)
    )


class Pages:
    """What the UI's pages ask, answered by Dagster's own GraphQL."""

    def __init__(self, instance: DagsterInstance, folder: Path) -> None:
        path = folder / "code.py"
        path.write_text(CODE, encoding="utf-8")
        origin = InProcessCodeLocationOrigin(
            LoadableTargetOrigin(python_file=str(path), attribute="defs"), location_name="code"
        )
        self._process = WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget([origin]))
        self._instance = instance
        self._schema = create_schema()

    def ask(self, query: str, **variables: str) -> Any:
        # As the first look after a deploy that changed the partitions: nothing is cached.
        self._instance.wipe_asset_cached_status([dg.AssetKey("bars"), dg.AssetKey("executions")])
        answer = asyncio.run(
            self._schema.execute_async(
                query,
                context_value=self._process.create_request_context(),
                variable_values=variables,
            )
        )
        assert not answer.errors, answer.errors
        return answer.data

    def close(self) -> None:
        self._process.__exit__(None, None, None)


@pytest.fixture
def pages(instance: DagsterInstance, tmp_path: Path) -> Iterator[Pages]:
    made = Pages(instance, tmp_path)
    yield made
    made.close()


def test_asset_pages_say_the_same_after_a_purge(
    instance: DagsterInstance, engine: sa.Engine, code: dg.Definitions, pages: Pages
) -> None:
    materialize(instance, code, "p1", days_ago=30)
    materialize(instance, code, "p2", days_ago=29, broken=True)
    materialize(instance, code, "p3", days_ago=28, broken=True)
    materialize(instance, code, "p3", days_ago=27)
    materialize(instance, code, days_ago=26)
    materialize(instance, code, "p4", days_ago=1)
    before = pages.ask(ASSET_PAGES)
    statuses = before["assetNodes"][0]["assetPartitionStatuses"]
    assert statuses["materializedPartitions"] == ["p1", "p3", "p4"]
    assert statuses["failedPartitions"] == ["p2"]
    assert purge_events(engine) > 50
    assert pages.ask(ASSET_PAGES) == before


def test_a_partition_made_and_failed_again_stays_failed(
    instance: DagsterInstance, engine: sa.Engine, code: dg.Definitions, pages: Pages
) -> None:
    materialize(instance, code, "p1", days_ago=30)
    materialize(instance, code, "p1", days_ago=29, broken=True)
    before = pages.ask(ASSET_PAGES)
    assert before["assetNodes"][0]["assetPartitionStatuses"]["failedPartitions"] == ["p1"]
    purge_events(engine)
    assert pages.ask(ASSET_PAGES) == before


def test_pages_of_old_runs_open_with_a_thinned_log(
    instance: DagsterInstance, engine: sa.Engine, code: dg.Definitions, pages: Pages
) -> None:
    made = materialize(instance, code, days_ago=30)
    failed = materialize(instance, code, "p2", days_ago=29, broken=True)
    before = {run: pages.ask(RUN_PAGE, id=run)["runOrError"] for run in (made, failed)}
    purge_events(engine)
    after = {run: pages.ask(RUN_PAGE, id=run)["runOrError"] for run in (made, failed)}
    for run in (made, failed):
        kept = ("__typename", "status", "startTime", "endTime", "assets", "stats")
        assert {k: after[run][k] for k in kept} == {k: before[run][k] for k in kept}
    assert kinds(instance, made) == {"ASSET_MATERIALIZATION": 1, "ASSET_CHECK_EVALUATION": 1}
    # Why it failed, and the plan that nothing has answered.
    assert kinds(instance, failed) == {
        "ASSET_MATERIALIZATION_PLANNED": 1,
        "STEP_FAILURE": 1,
        "PIPELINE_FAILURE": 1,
    }


def test_without_the_rows_of_runs_the_ui_forgets_a_failure(
    instance: DagsterInstance, code: dg.Definitions, pages: Pages
) -> None:
    """The reason why a purge leaves those that failed."""
    made = materialize(instance, code, "p1", days_ago=30)
    failed = materialize(instance, code, "p2", days_ago=29, broken=True)
    for run in (made, failed):
        instance.run_storage.delete_run(run)
    bars = pages.ask(ASSET_PAGES)["assetNodes"][0]
    assert bars["assetPartitionStatuses"]["failedPartitions"] == []
    assert bars["assetMaterializations"][0]["runOrError"]["__typename"] == "RunNotFoundError"


def test_a_run_in_progress_and_a_young_one_are_not_touched(
    instance: DagsterInstance, engine: sa.Engine, code: dg.Definitions
) -> None:
    runs = [
        materialize(instance, code, "p1", days_ago=30),
        materialize(instance, code, "p2", days_ago=6.9),
    ]
    with engine.begin() as connection:
        going = sa.text("update runs set status = 'STARTED', end_time = null where run_id = :run")
        connection.execute(going, {"run": runs[0]})
    before = [kinds(instance, run) for run in runs]
    assert purge_events(engine) == 0
    assert [kinds(instance, run) for run in runs] == before


def test_a_run_that_never_started_goes_by_its_last_change(
    instance: DagsterInstance, engine: sa.Engine
) -> None:
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.CANCELED)
    instance.report_engine_event("was canceled", run)
    age(instance, run.run_id, NOW - timedelta(days=8))
    assert purge_events(engine) == 1


def test_events_without_a_run_stay(instance: DagsterInstance, engine: sa.Engine) -> None:
    instance.report_runless_asset_event(dg.AssetObservation("bars"))
    with engine.begin() as connection:
        connection.execute(sa.text("update event_logs set timestamp = '2020-01-01'"))
    assert purge_events(engine) == 0


def test_count_is_what_remove_removes_and_the_second_time_nothing(
    instance: DagsterInstance, engine: sa.Engine, code: dg.Definitions
) -> None:
    for days_ago in (30, 29, 28):
        materialize(instance, code, "p1", days_ago=days_ago)
    old = OldEvents(engine, WEEK_AGO)
    counted = old.count()
    removed = list(old.remove())
    assert (sum(rows for rows, _ in removed), sum(size for _, size in removed)) == counted
    assert counted[0] == 3 * 12
    assert list(old.remove()) == []
    assert old.count() == (0, 0)


def test_killed_between_batches_the_next_purge_does_the_rest(
    instance: DagsterInstance,
    engine: sa.Engine,
    code: dg.Definitions,
    pages: Pages,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    runs = [materialize(instance, code, "p1", days_ago=30 - number) for number in range(5)]
    before = pages.ask(ASSET_PAGES)
    old = OldEvents(engine, WEEK_AGO)
    total = old.count()[0]
    work = old.remove()
    assert [next(work)[0], next(work)[0]] == [2, 2]
    # What is going on holds no lock that anybody else would wait for.
    with engine.begin() as connection:
        connection.execute(sa.text("set local lock_timeout = '200ms'"))
        connection.execute(sa.text("lock table event_logs in access exclusive mode"))
    work.close()
    assert pages.ask(ASSET_PAGES) == before
    assert old.count()[0] == total - 4
    batches = [rows for rows, _ in old.remove()]
    assert sum(batches) == total - 4
    assert max(batches) == 2
    assert pages.ask(ASSET_PAGES) == before
    assert [kinds(instance, run) for run in runs] == [{"ASSET_MATERIALIZATION": 1}] * 5


def test_a_database_that_dagster_never_saw_has_no_tables(
    postgres: Postgres, untouched: str, engine: sa.Engine
) -> None:
    assert has_tables(engine)
    found = engine_on(postgres, untouched)
    assert not has_tables(found)
    found.dispose()


def test_of_empty_tables_nothing_goes(instance: DagsterInstance, engine: sa.Engine) -> None:
    assert instance.get_runs_count() == 0
    assert has_tables(engine)
    for old in (OldEvents(engine, NOW), OldTicks(engine, NOW)):
        assert old.count() == (0, 0)
        assert list(old.remove()) == []


# Ticks.


def tick(instance: DagsterInstance, name: str, days_ago: float) -> None:
    instance.create_tick(
        TickData(
            f"{name}_origin",
            name,
            InstigatorType.SCHEDULE,
            TickStatus.SKIPPED,
            (NOW - timedelta(days=days_ago)).timestamp(),
            selector_id=f"{name}_selector",
        )
    )


def days_of_ticks(instance: DagsterInstance, name: str) -> list[float]:
    ticks = instance.get_ticks(f"{name}_origin", f"{name}_selector")
    return [(NOW.timestamp() - each.timestamp) / 86_400 for each in ticks]


def test_old_ticks_go_but_the_newest_of_each(
    instance: DagsterInstance, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    for days_ago in (40, 30):
        tick(instance, "retired_schedule", days_ago)
    for days_ago in (40, 30, 20, 1):
        tick(instance, "minute_schedule", days_ago)
    old = OldTicks(engine, NOW - timedelta(days=14))
    assert old.count()[0] == 4
    assert [rows for rows, _ in old.remove()] == [2, 2]
    assert days_of_ticks(instance, "retired_schedule") == [30]
    assert days_of_ticks(instance, "minute_schedule") == [1]


def test_a_young_tick_between_old_ones_stays(instance: DagsterInstance, engine: sa.Engine) -> None:
    """A schedule that catches up writes ticks of the past after those of the present."""
    for days_ago in (40, 1, 30, 20, 15, 0.5):
        tick(instance, "minute_schedule", days_ago)
    assert sum(rows for rows, _ in OldTicks(engine, NOW - timedelta(days=14)).remove()) == 4
    assert sorted(days_of_ticks(instance, "minute_schedule")) == [0.5, 1]


# Results of checks.


def tell(instance: DagsterInstance, name: str, verdicts: str, days_ago: float = 30) -> None:
    """What a sensor reports of a check, one day after the other; + is that it passed."""
    bars = dg.AssetKey("bars")
    for number, verdict in enumerate(verdicts):
        told = dg.AssetCheckEvaluation(bars, name, passed=verdict == "+", metadata={})
        instance.report_runless_asset_event(told)
        at = (NOW - timedelta(days=days_ago - number)).replace(tzinfo=None)
        with instance.event_log_storage.index_transaction() as connection:
            connection.execute(
                sa.text(
                    "update asset_check_executions set evaluation_event_timestamp = :at"
                    " where id = (select max(id) from asset_check_executions)"
                ),
                {"at": at},
            )


def said(instance: DagsterInstance, name: str) -> list[str]:
    """The verdicts that are known of a check, the newest first."""
    key = dg.AssetCheckKey(dg.AssetKey("bars"), name)
    found = instance.event_log_storage.get_asset_check_execution_history(key, 100)
    return [record.status.value for record in found]


def rows(instance: DagsterInstance, table: str) -> int:
    with instance.event_log_storage.index_transaction() as connection:
        return int(connection.execute(sa.text(f"select count(*) from {table}")).scalar_one())


def test_of_a_check_the_changes_of_its_verdict_and_the_newest_stay(
    instance: DagsterInstance, engine: sa.Engine
) -> None:
    tell(instance, "fresh", "++---+++")
    tell(instance, "room", "+")
    tell(instance, "steady", "+++")
    old = OldChecks(engine, WEEK_AGO)
    counted = old.count()
    removed = list(old.remove())
    assert said(instance, "fresh") == ["SUCCEEDED", "SUCCEEDED", "FAILED", "SUCCEEDED"]
    assert said(instance, "room") == ["SUCCEEDED"]
    assert said(instance, "steady") == ["SUCCEEDED", "SUCCEEDED"]
    assert (sum(done for done, _ in removed), sum(size for _, size in removed)) == counted
    assert counted[0] == 5
    # The event of each went with it.
    assert rows(instance, "event_logs") == rows(instance, "asset_check_executions") == 7
    assert old.count() == (0, 0)
    assert list(old.remove()) == []


def test_young_results_of_checks_stay(instance: DagsterInstance, engine: sa.Engine) -> None:
    tell(instance, "fresh", "+++", days_ago=6.5)
    assert OldChecks(engine, WEEK_AGO).count() == (0, 0)


def test_results_of_checks_go_in_batches_and_after_a_kill_the_rest(
    instance: DagsterInstance, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    tell(instance, "fresh", "++++++++")
    work = OldChecks(engine, WEEK_AGO).remove()
    assert next(work)[0] == 2
    work.close()
    assert len(said(instance, "fresh")) == 6
    assert [done for done, _ in OldChecks(engine, WEEK_AGO).remove()] == [2, 2]
    assert len(said(instance, "fresh")) == 2


def test_checks_that_were_planned_and_never_told_are_thinned_as_one_more_verdict(
    instance: DagsterInstance, engine: sa.Engine, code: dg.Definitions, pages: Pages
) -> None:
    for days_ago in (31, 30, 29, 28):
        materialize(instance, code, days_ago=days_ago)
    with instance.event_log_storage.index_transaction() as connection:
        old = "update asset_check_executions set evaluation_event_timestamp = '2026-01-01'"
        connection.execute(sa.text(old))
        never = "update asset_check_executions set execution_status = 'PLANNED' where id < 4"
        connection.execute(sa.text(never))
    before = pages.ask(ASSET_PAGES)
    assert sum(done for done, _ in OldChecks(engine, WEEK_AGO).remove()) == 1
    assert pages.ask(ASSET_PAGES) == before


# Rows of runs.


def purge_runs(engine: sa.Engine) -> int:
    return sum(done for done, _ in OldRuns(engine, WEEK_AGO).remove())


def test_runs_that_succeeded_go_with_their_tags_once_their_log_is_thinned(
    instance: DagsterInstance, engine: sa.Engine, code: dg.Definitions
) -> None:
    made = [materialize(instance, code, "p1", days_ago=days_ago) for days_ago in (30, 29, 6)]
    assert purge_runs(engine) == 0
    purge_events(engine)
    old = OldRuns(engine, WEEK_AGO)
    assert old.count()[0] == 2
    assert purge_runs(engine) == 2
    assert [run.run_id for run in instance.get_runs()] == made[2:]
    with instance.event_log_storage.index_transaction() as connection:
        tagged = connection.execute(sa.text("select distinct run_id from run_tags")).scalars()
        assert set(tagged) == {made[2]}
    assert old.count() == (0, 0)


def test_runs_stay_that_failed_are_the_last_of_an_asset_or_part_of_a_backfill(
    instance: DagsterInstance, engine: sa.Engine, code: dg.Definitions
) -> None:
    part = materialize(instance, code, "p1", days_ago=31)
    instance.add_run_tags(part, {"dagster/backfill": "by-hand"})
    gone = materialize(instance, code, "p1", days_ago=30)
    failed = materialize(instance, code, "p2", days_ago=29, broken=True)
    last = [
        materialize(instance, code, "p3", days_ago=28),
        materialize(instance, code, days_ago=27),
    ]
    purge_events(engine)
    assert purge_runs(engine) == 1
    assert {run.run_id for run in instance.get_runs()} == {part, failed, *last}
    assert not instance.has_run(gone)


def test_asset_pages_say_the_same_without_the_runs_but_for_the_links_to_them(
    instance: DagsterInstance, engine: sa.Engine, code: dg.Definitions, pages: Pages
) -> None:
    gone = materialize(instance, code, "p1", days_ago=30)
    materialize(instance, code, "p2", days_ago=29, broken=True)
    materialize(instance, code, days_ago=28)
    materialize(instance, code, "p3", days_ago=27)
    purge_events(engine)
    before = pages.ask(ASSET_PAGES)
    assert purge_runs(engine) == 1
    after = pages.ask(ASSET_PAGES)
    links = [
        made.pop("runOrError")["__typename"]
        for node in after["assetNodes"]
        for made in node["assetMaterializations"]
        if made["runId"] == gone
    ]
    assert links == ["RunNotFoundError"]
    for node in before["assetNodes"]:
        for made in node["assetMaterializations"]:
            if made["runId"] == gone:
                assert made.pop("runOrError") == {"__typename": "Run"}
    assert after == before


# Files of what steps printed.


def printed(folder: Path, run_id: str, days_ago: float = 0) -> Path:
    made = folder / run_id / "compute_logs"
    made.mkdir(parents=True)
    (made / "step.out").write_text("printed", encoding="utf-8")
    (made / "step.err").write_text("", encoding="utf-8")
    then = (NOW - timedelta(days=days_ago)).timestamp()
    os.utime(made, (then, then))
    return made


def test_output_of_old_runs_goes_and_no_other_file(
    instance: DagsterInstance, engine: sa.Engine, code: dg.Definitions, tmp_path: Path
) -> None:
    folder = tmp_path / "dagster"
    ended = materialize(instance, code, days_ago=8)
    gone = folder / ended / "compute_logs"
    # The step wrote its files there itself.
    assert list(gone.iterdir())
    going = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED).run_id
    young = create_run_for_test(instance, status=dg.DagsterRunStatus.SUCCESS).run_id
    forgotten = printed(folder, str(uuid4()), days_ago=8)
    elsewhere = printed(tmp_path / "elsewhere", str(uuid4()), days_ago=8)
    (folder / str(uuid4())).symlink_to(elsewhere.parent)
    stays = [
        printed(folder, going, days_ago=8),
        printed(folder, young),
        printed(folder, str(uuid4())),
        printed(folder, "storage", days_ago=8),
        elsewhere,
    ]
    age(instance, young, NOW - timedelta(days=1))
    age(instance, going, NOW - timedelta(days=8))
    old = OldOutput(engine, WEEK_AGO, folder)
    counted = old.count()
    removed = list(old.remove())
    assert [path.exists() for path in stays] == [True] * 5
    assert not gone.parent.exists()
    assert not forgotten.parent.exists()
    assert sum(rows for rows, _ in removed) == counted[0] >= 4
    assert list(old.remove()) == []


def test_without_the_folder_no_file_goes(instance: DagsterInstance, engine: sa.Engine) -> None:
    assert OldOutput(engine, NOW, Path("/nonexistent")).count() == (0, 0)


# Simulated days.


class Days:
    """Days of the past, written by Dagster's own storage: copies of one real run and its ticks."""

    def __init__(self, instance: DagsterInstance, code: dg.Definitions) -> None:
        self._instance = instance
        job = code.resolve_implicit_global_asset_job_def()
        outcome = job.execute_in_process(
            instance=instance, partition_key="p1", asset_selection=[dg.AssetKey("bars")]
        )
        self._run = instance.get_run_by_id(outcome.run_id)
        self._entries = instance.all_logs(outcome.run_id)
        age(instance, outcome.run_id, NOW - timedelta(days=1_000))

    @property
    def events_of_a_run(self) -> int:
        return len(self._entries)

    def write(self, day: datetime, runs: int) -> None:
        """So many finished runs, evenly over a day, with one tick each."""
        for number in range(runs):
            at = day + timedelta(days=number / runs)
            run = self._run._replace(run_id=str(uuid4()))
            self._instance.run_storage.add_run(run)
            for entry in self._entries:
                self._instance.event_log_storage.store_event(self._copy(entry, run.run_id, at))
            age(self._instance, run.run_id, at)
            tick(self._instance, "minute_schedule", (NOW - at) / timedelta(days=1))

    @staticmethod
    def _copy(entry: EventLogEntry, run_id: str, at: datetime) -> EventLogEntry:
        fields = {
            name: getattr(entry, name)
            for name in ("error_info", "level", "user_message", "step_key", "job_name")
        }
        return EventLogEntry(
            **fields,
            run_id=run_id,
            timestamp=at.timestamp(),
            dagster_event=entry.dagster_event,
        )


def purge_day(engine: sa.Engine, day_end: datetime, days: int) -> None:
    before = day_end - timedelta(days=days)
    for kind in (OldEvents, OldTicks, OldChecks, OldRuns):
        old = kind(engine, before)
        for _ in old.remove():
            pass
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in ("event_logs", "job_ticks"):
            connection.execute(sa.text(f"vacuum (analyze) {table}"))


def measured(engine: sa.Engine) -> dict[str, int]:
    """Rows that are history and rows that are not, and bytes with indexes."""
    history = "dagster_event_type = 'ASSET_MATERIALIZATION'"
    with engine.connect() as connection:
        row = connection.execute(
            sa.text(
                f"select count(*) filter (where {history}) as history,"
                f" count(*) filter (where ({history}) is not true) as other,"
                " pg_total_relation_size('event_logs') as event_bytes,"
                " pg_total_relation_size('job_ticks') as tick_bytes,"
                " pg_total_relation_size('runs') + pg_total_relation_size('run_tags') as run_bytes,"
                " (select count(*) from job_ticks) as ticks,"
                " (select count(*) from runs) as runs,"
                " pg_database_size(current_database()) as database_bytes from event_logs"
            )
        )
        return dict(row.mappings().one())


def test_after_the_days_that_are_kept_only_the_history_grows(
    instance: DagsterInstance, engine: sa.Engine, code: dg.Definitions
) -> None:
    runs, kept, count = 12, 2, 7
    days = Days(instance, code)
    found = []
    for number in range(count):
        begin = NOW - timedelta(days=count - number)
        days.write(begin, runs)
        purge_day(engine, begin + timedelta(days=1), kept)
        found.append(measured(engine))
    flat = found[kept:]
    assert {day["other"] for day in flat} == {kept * runs * (days.events_of_a_run - 1)}
    assert {day["ticks"] for day in flat} == {kept * runs}
    assert {day["runs"] for day in flat} == {kept * runs}
    assert [day["history"] for day in found] == [1 + runs * (n + 1) for n in range(count)]
    # Before it, a day adds all its rows; after it, its history, which is one row of thirteen.
    a_whole_day = found[1]["event_bytes"] - found[0]["event_bytes"]
    a_day_after = (flat[-1]["event_bytes"] - flat[0]["event_bytes"]) / (len(flat) - 1)
    assert a_day_after < 0.4 * a_whole_day
