"""The trade stream as Dagster sees it: a process of its own follows the account, we look at it."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from ops_pipeline.defs.checks.results import evaluation_of, result_of
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.stream import (
    ADDS_UP,
    DOWN_AFTER,
    IS_LIVE,
    StreamHealth,
    live_verdict,
    sums_verdict,
)
from ops_pipeline.operations.stream import markdown, report
from ops_pipeline.storage import stream as storage
from ops_pipeline.storage.dispatch import ACCOUNT

KEY = "trade_stream"
NOT_FOLLOWED = "this mode follows no account"
# Told so often while all is well; what is not told for two of them is late.
TOLD = timedelta(minutes=5)

trade_stream = dg.AssetSpec(
    KEY,
    group_name="stream",
    deps=["executions"],
    description=(
        "The account at the broker, followed in real time by the process of ops-pipeline"
        " trade-stream. Materialised each five minutes in which it was heard."
    ),
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=2 * TOLD),
)
SPECS = [
    dg.AssetCheckSpec(
        IS_LIVE,
        asset=KEY,
        description=f"The broker was heard within {DOWN_AFTER.total_seconds():g} s.",
    ),
    dg.AssetCheckSpec(ADDS_UP, asset=KEY, description="The account holds what its orders come to."),
]


@dg.multi_asset_check(specs=SPECS, name="stream")
def stream_checks(
    context: dg.AssetCheckExecutionContext, pipeline: dg.ResourceParam[Pipeline]
) -> Iterator[dg.AssetCheckResult]:
    """Whether the account is followed, and whether it adds up."""
    if not pipeline.mode.is_followed:
        for spec in SPECS:
            yield dg.AssetCheckResult(
                asset_key=KEY, check_name=spec.name, passed=True, description=NOT_FOLLOWED
            )
        return
    now = pipeline.now()
    for evaluation in evaluate(read(pipeline), now):
        yield result_of(evaluation)


def read(pipeline: Pipeline) -> StreamHealth | None:
    """How the process is."""
    with pipeline.engine.connect() as connection:
        return storage.read_health(connection, ACCOUNT)


def evaluate(health: StreamHealth | None, now: datetime) -> list[dg.AssetCheckEvaluation]:
    """What both checks say at an instant."""
    verdicts = (live_verdict(health, now), sums_verdict(health))
    return [evaluation_of(KEY, verdict, verdict.observed) for verdict in verdicts]


def told(
    pipeline: Pipeline, now: datetime, *, is_live: bool
) -> Sequence[dg.AssetObservation | dg.AssetMaterialization]:
    """What came since the last time, as numbers that the UI draws; materialised where it lives."""
    with pipeline.engine.connect() as connection:
        found = storage.frame_counts(connection, ACCOUNT, now - TOLD, now)
        reconciled = report(connection, ACCOUNT, now)
    metadata: dict[str, Any] = {
        "frames": sum(found.by_outcome.values()),
        "unreadable": found.by_outcome.get(storage.UNREADABLE, 0),
        "repeated": found.by_outcome.get(storage.REPEATED, 0),
        "told_by_request_first": found.gaps,
        "lag_p95_seconds": round(found.lag_p95, 3),
        "account": dg.MetadataValue.md(markdown(reconciled)),
    }
    observed = dg.AssetObservation(KEY, metadata=metadata)
    return [observed, dg.AssetMaterialization(KEY, metadata=metadata)] if is_live else [observed]
