"""The jobs: the minute graph, the dispatcher, the checks, the look-ahead proof, the measure."""

import dagster as dg

from ops_pipeline.defs.checks.acceptance import KEYS
from ops_pipeline.domain.stages import DATA_STAGES

LANE = "ops/lane"
LOOKAHEAD = dg.AssetCheckKey(dg.AssetKey("signals"), "nothing_looks_ahead")
DATA_ASSETS = [stage.name for stage in DATA_STAGES]

minute_job = dg.define_asset_job(
    "minute_job",
    selection=dg.AssetSelection.assets(*DATA_ASSETS).without_checks(),
    description="All data stages of a minute, or of a range of minutes, in one run.",
    tags={LANE: "minute"},
)

dispatch_job = dg.define_asset_job(
    "dispatch_job",
    selection=dg.AssetSelection.assets("executions"),
    description="The dispatcher, and the checks of its executions after it.",
    tags={LANE: "dispatch", "dagster/max_runtime": "120"},
)

acceptance_job = dg.define_asset_job(
    "acceptance_job",
    selection=dg.AssetSelection.checks_for_assets("executions", "features", "sentiment")
    | dg.AssetSelection.checks(*KEYS),
    description="Every check of the catalogue, and dbt's tests of the features.",
    tags={LANE: "acceptance", "dagster/max_runtime": "300"},
)

lookahead_job = dg.define_asset_job(
    "lookahead_job",
    selection=dg.AssetSelection.checks(LOOKAHEAD),
    description="Decide minutes of the newest closed session again, without their future.",
    tags={LANE: "proof", "dagster/max_runtime": "1800"},
)

slo_job = dg.define_asset_job(
    "slo_job",
    selection=dg.AssetSelection.assets("pipeline_slo"),
    description="How fast a session's minutes were, and the checks of that.",
    tags={LANE: "slo", "dagster/max_runtime": "300"},
)

retention_job = dg.define_asset_job(
    "retention_job",
    selection=dg.AssetSelection.assets("retention"),
    description="Remove what is kept for some days only.",
    tags={LANE: "retention", "dagster/max_runtime": "3600"},
)
