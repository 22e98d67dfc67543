"""How a stage is declared to Dagster: partitions, freshness, group and dependencies."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.storage.tags import SCHEDULE_NAME_TAG
from dagster_dbt import dbt_assets, get_asset_key_for_model

from ops_pipeline.defs import dbt
from ops_pipeline.defs.assets import executions
from ops_pipeline.defs.assets.executions import DispatchConfig
from ops_pipeline.defs.minutes import Minutes, alone, done_already, minutes_of
from ops_pipeline.defs.partitions import minute_partitions
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.stages import FEATURES, Stage
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage.engine import TurnTaken

Body = Callable[[Minutes, Pipeline], dg.MaterializeResult[Any]]
# A tick may have to wait at each of its stages, and is ended after three minutes.
TICK_WAIT_SECONDS = 20
# For an asset without partitions: where it depends on all minutes, each run lists every one.
NEWEST_MINUTE = dg.LastPartitionMapping()
PREVIOUS_MINUTE = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)


def data_asset(
    settings: Settings,
    stage: Stage,
    body: Body,
    deps: Iterable[Stage] = (),
    *,
    reads_itself: bool = False,
) -> dg.AssetsDefinition:
    """One data stage as an asset of minutes; a range of them is one run."""
    itself = [dg.AssetDep(stage.name, partition_mapping=PREVIOUS_MINUTE)] if reads_itself else []

    @dg.asset(
        name=stage.name,
        # A tick that does not get its turn leaves the stage out, and with it all that stand on it.
        output_required=False,
        group_name=stage.name,
        deps=[*(dep.name for dep in deps), *itself],
        description=body.__doc__,
        partitions_def=minute_partitions(settings),
        backfill_policy=dg.BackfillPolicy.single_run(),
        freshness_policy=_freshness(settings),
        metadata={"service": stage.service, "mode": settings.mode.value},
    )
    def asset(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        outcome = _work(stage, body, context, pipeline)
        if outcome:
            yield outcome

    return asset


def features_asset(settings: Settings, body: Body) -> dg.AssetsDefinition:
    """The dbt models as assets, one for each table; lineage comes from dbt's own graph."""

    @dbt_assets(
        manifest=dbt.manifest_document(settings),
        name=FEATURES.name,
        partitions_def=minute_partitions(settings),
        backfill_policy=dg.BackfillPolicy.single_run(),
        dagster_dbt_translator=dbt.TRANSLATOR,
    )
    def features(
        context: dg.AssetExecutionContext, pipeline: dg.ResourceParam[Pipeline]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        outcome = _work(FEATURES, body, context, pipeline)
        if outcome is None:
            return
        said: Mapping[str, Any] = outcome.metadata or {}
        found = {
            get_asset_key_for_model([context.assets_def], model): metadata
            for model, metadata in said.get("models", {}).items()
        }
        for key in sorted(context.selected_asset_keys):
            metadata = said if key == dg.AssetKey(FEATURES.name) else found.get(key, {})
            yield dg.MaterializeResult(asset_key=key, metadata=metadata)

    def declare(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(
            group_name=FEATURES.name,
            freshness_policy=_freshness(settings),
        ).merge_attributes(metadata={"service": FEATURES.service, "mode": settings.mode.value})

    return features.map_asset_specs(declare)


def executions_asset(settings: Settings, deps: Sequence[Stage]) -> dg.AssetsDefinition:
    """The dispatcher as an asset without partitions, downstream of the signals."""

    @dg.asset(
        name="executions",
        group_name="dispatch",
        deps=[dg.AssetDep(dep.name, partition_mapping=NEWEST_MINUTE) for dep in deps],
        description=executions.materialize.__doc__,
        metadata={"service": "dispatcher", "mode": settings.mode.value},
    )
    def asset(
        context: dg.AssetExecutionContext,
        config: DispatchConfig,
        pipeline: dg.ResourceParam[Pipeline],
    ) -> dg.MaterializeResult[Any]:
        return executions.materialize(context, config, pipeline)

    return asset


def _work(
    stage: Stage, body: Body, context: dg.AssetExecutionContext, pipeline: Pipeline
) -> dg.MaterializeResult[Any] | None:
    """Do what a stage does for the minutes of this run, with no other run at the same stage.

    None where a tick does not get its turn, because a long run is at work; the next one catches up.
    """
    minutes = minutes_of(context, pipeline)
    is_tick = SCHEDULE_NAME_TAG in context.run.tags
    wait_seconds = TICK_WAIT_SECONDS if is_tick else None
    try:
        with alone(
            stage, minutes, pipeline, lambda: _requested_at(context), wait_seconds
        ) as has_work:
            outcome = body(minutes, pipeline) if has_work else done_already(minutes)
    except TurnTaken as error:
        if not is_tick:
            raise
        context.log.warning("%s; the next tick takes these minutes along", error)
        return None
    pipeline.progress(stage.name)
    return outcome


def _requested_at(context: dg.AssetExecutionContext) -> datetime:
    record = context.instance.get_run_record_by_id(context.run.run_id)
    return record.create_timestamp if record else datetime.max.replace(tzinfo=UTC)


def _freshness(settings: Settings) -> dg.FreshnessPolicy | None:
    """In live modes, something each five minutes of the session; a replay's past is never fresh."""
    if not settings.mode.is_live:
        return None
    round_the_clock = settings.mode is Mode.SANDBOX
    return dg.FreshnessPolicy.cron(
        deadline_cron="*/5 * * * *" if round_the_clock else "*/5 10-15 * * 1-5",
        lower_bound_delta=timedelta(minutes=4),
        timezone="UTC" if round_the_clock else "America/New_York",
    )
