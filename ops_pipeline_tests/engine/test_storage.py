import os
from collections import Counter

import dagster as dg
import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterInstance, EventLogEntry
from dagster._core.events import AssetObservationData, StepMaterializationData
from dagster._core.execution.execution_result import ExecutionResult
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.base import AssetEntry
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
)

from ops_pipeline.engine.storage import BatchedPostgresEventLogStorage, BatchedPostgresStorage
from ops_pipeline_tests.engine.conftest import Postgres

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.dagster,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`:dagster.BetaWarning"),
]

DAYS = dg.DailyPartitionsDefinition("2025-02-01", end_date="2025-04-01")
KEYS = DAYS.get_partition_keys()[:30]
BATCH_SIZES = pytest.mark.parametrize("batch_size", ["0", "7", "1000"])


class BatchBroke(RuntimeError):
    """What a broken connection would raise."""


def asset(name: str, *, after: str | None = None, broken: bool = False) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        deps=[after] if after else [],
        partitions_def=DAYS,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def made() -> dg.MaterializeResult:
        if broken:
            raise ValueError("no rows")
        return dg.MaterializeResult(metadata={"rows": 1})

    return made


def check_of(name: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=name, name="has_rows")
    def has_rows() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    return has_rows


def range_run(instance: DagsterInstance, *assets: object, fails: bool = False) -> ExecutionResult:
    return dg.materialize(
        list(assets),
        instance=instance,
        raise_on_error=not fails,
        tags={ASSET_PARTITION_RANGE_START_TAG: KEYS[0], ASSET_PARTITION_RANGE_END_TAG: KEYS[-1]},
    )


def bars_and_features(instance: DagsterInstance) -> ExecutionResult:
    return range_run(instance, asset("bars"), asset("features", after="bars"), check_of("bars"))


def stored(instance: DagsterInstance, run_id: str) -> Counter[tuple[str, str]]:
    return Counter(
        (entry.dagster_event.event_type_value, entry.dagster_event.asset_key.to_user_string())
        for entry in instance.all_logs(run_id)
        if entry.dagster_event and entry.dagster_event.asset_key
    )


def asset_entry(instance: DagsterInstance, name: str) -> AssetEntry:
    return instance.get_asset_records([dg.AssetKey(name)])[0].asset_entry


def last_made(instance: DagsterInstance, name: str) -> tuple[str, str | None]:
    made = asset_entry(instance, name).last_materialization.asset_materialization
    return made.asset_key.to_user_string(), made.partition


def materialized(name: str, day: str) -> EventLogEntry:
    made = dg.AssetMaterialization(name, partition=day, tags={"dagster/data_version": day})
    return entry_of(DagsterEventType.ASSET_MATERIALIZATION, StepMaterializationData(made))


def entry_of(kind: DagsterEventType, data: object) -> EventLogEntry:
    event = DagsterEvent(kind.value, job_name="by_hand", event_specific_data=data)
    return EventLogEntry(None, 20, "", "a-run", 1_700_000_000.0, None, "by_hand", event)


def test_the_projects_dagster_yaml_loads_our_storage(instance: DagsterInstance) -> None:
    assert type(instance.event_log_storage) is BatchedPostgresEventLogStorage
    assert instance.event_log_storage._engine.url.drivername == "postgresql+psycopg2"


def test_lanes_and_limits_of_dagster_yaml_are_in_force(instance: DagsterInstance) -> None:
    queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    assert queue.max_concurrent_runs == 6
    assert [limit["value"] for limit in queue.tag_concurrency_limits] == ["minute", "dispatch"]
    assert instance.run_coordinator.dequeue_interval_seconds == 1
    assert not instance.telemetry_enabled


def test_password_is_not_in_what_code_servers_get_as_arguments(instance: DagsterInstance) -> None:
    reference = str(instance.get_ref().to_dict())
    assert "env: OPS_DAGSTER_DB_PASSWORD" in reference
    assert os.environ["OPS_DAGSTER_DB_PASSWORD"] not in reference


def test_other_processes_and_the_web_server_get_our_storage_too(
    instance: DagsterInstance,
) -> None:
    with DagsterInstance.from_ref(instance.get_ref()) as elsewhere:
        elsewhere.optimize_for_webserver(1000, 3600, 5)
        storage = elsewhere.event_log_storage
        assert type(storage) is BatchedPostgresEventLogStorage
        storage.store_event_batch([materialized("bars", day) for day in KEYS])
        assert last_made(elsewhere, "bars") == ("bars", KEYS[-1])


def test_both_classes_answer_with_themselves_when_configured(
    postgres: Postgres, database: str
) -> None:
    config = {
        "postgres_db": {
            "scheme": "postgresql+psycopg2",
            "hostname": "127.0.0.1",
            "port": postgres.port,
            "db_name": database,
            "username": postgres.user,
            "password": postgres.password,
        }
    }
    storage = BatchedPostgresStorage.from_config_value(None, config)
    event_log = BatchedPostgresEventLogStorage.from_config_value(None, config)
    assert type(storage) is BatchedPostgresStorage
    assert type(storage.event_log_storage) is type(event_log) is BatchedPostgresEventLogStorage


@BATCH_SIZES
def test_range_run_stores_each_event_once_whatever_the_batch_size(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch, batch_size: str
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", batch_size)
    run = bars_and_features(instance)
    counts = stored(instance, run.run_id)
    for name in ("bars", "features"):
        assert counts["ASSET_MATERIALIZATION", name] == len(KEYS)
        assert counts["ASSET_MATERIALIZATION_PLANNED", name] == len(KEYS)
        assert instance.get_materialized_partitions(dg.AssetKey(name)) == set(KEYS)


@BATCH_SIZES
def test_each_asset_of_a_run_gets_its_own_last_materialization(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch, batch_size: str
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", batch_size)
    run = bars_and_features(instance)
    for name in ("bars", "features"):
        entry = asset_entry(instance, name)
        assert last_made(instance, name) == (name, KEYS[-1])
        assert entry.last_run_id == run.run_id
        newest = instance.fetch_materializations(dg.AssetKey(name), limit=1).records[0]
        assert entry.last_materialization_storage_id == newest.storage_id


@BATCH_SIZES
def test_check_planned_in_the_same_batch_gets_its_evaluation(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch, batch_size: str
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", batch_size)
    run = bars_and_features(instance)
    key = dg.AssetCheckKey(dg.AssetKey("bars"), "has_rows")
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
    assert Counter(record.status for record in history) == {
        AssetCheckExecutionRecordStatus.SUCCEEDED: 1,
        # Dagster plans an unpartitioned check once per partition of a range run.
        AssetCheckExecutionRecordStatus.PLANNED: len(KEYS),
    }
    assert history[0].status is AssetCheckExecutionRecordStatus.SUCCEEDED
    kinds = Counter(entry.dagster_event_type for entry in instance.all_logs(run.run_id))
    assert kinds[DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED] == 1
    assert kinds[DagsterEventType.ASSET_CHECK_EVALUATION] == 1


def test_every_planned_asset_has_an_entry_even_if_it_was_never_made(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    bars = asset("bars", broken=True)
    graph = [bars, asset("features", after="bars"), asset("signals", after="features")]
    run = range_run(instance, *graph, fails=True)
    assert not run.success
    for name in ("bars", "features", "signals"):
        assert asset_entry(instance, name).last_run_id == run.run_id
        assert stored(instance, run.run_id)["ASSET_MATERIALIZATION_PLANNED", name] == len(KEYS)


def test_range_run_is_written_in_few_inserts(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    storage = instance.event_log_storage
    singly = []
    store_event = storage.store_event
    monkeypatch.setattr(
        storage, "store_event", lambda event: (singly.append(1), store_event(event))
    )
    bars_and_features(instance)
    assert len(singly) < len(KEYS)


def test_batch_that_breaks_leaves_nothing_behind(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise BatchBroke

    monkeypatch.setattr(instance.event_log_storage, "_store_asset_event", breaks)
    with pytest.raises(BatchBroke):
        instance.event_log_storage.store_event_batch([materialized("bars", day) for day in KEYS])
    assert not instance.event_log_storage.get_logs_for_run("a-run")


def test_batch_that_breaks_is_stored_once_by_dagsters_second_try(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    storage = instance.event_log_storage
    store_tags = storage._store_asset_event_tags

    def breaks_for_many(conn: object, events: list[EventLogEntry], event_ids: list[int]) -> None:
        if len(events) > 1:
            raise BatchBroke
        store_tags(conn, events, event_ids)

    monkeypatch.setattr(storage, "_store_asset_event_tags", breaks_for_many)
    run = bars_and_features(instance)
    counts = stored(instance, run.run_id)
    assert counts["ASSET_MATERIALIZATION", "features"] == len(KEYS)
    assert counts["ASSET_MATERIALIZATION_PLANNED", "bars"] == len(KEYS)
    assert "Falling back" in capsys.readouterr().err


def test_batch_of_several_assets_keeps_tags_and_entries_apart(
    instance: DagsterInstance, postgres: Postgres, database: str
) -> None:
    events = [materialized(name, day) for day in KEYS for name in ("bars", "features")]
    instance.event_log_storage.store_event_batch(events)
    with postgres.connect(database) as connection:
        tags = connection.execute(
            "select e.partition, e.asset_key, t.value, t.asset_key"
            " from event_logs e join asset_event_tags t on t.event_id = e.id"
        ).fetchall()
    assert len(tags) == len(events)
    assert all(day == tag and asset == of for day, asset, tag, of in tags)
    for name in ("bars", "features"):
        assert last_made(instance, name) == (name, KEYS[-1])


def test_observation_after_a_materialization_does_not_hide_it(instance: DagsterInstance) -> None:
    seen = dg.AssetObservation("bars", partition=KEYS[1])
    observed = entry_of(DagsterEventType.ASSET_OBSERVATION, AssetObservationData(seen))
    instance.event_log_storage.store_event_batch([materialized("bars", KEYS[0]), observed])
    assert last_made(instance, "bars") == ("bars", KEYS[0])
    assert len(instance.event_log_storage.get_logs_for_run("a-run")) == 2
