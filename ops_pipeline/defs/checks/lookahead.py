"""Nothing looks ahead: the newest closed session is decided again without its future."""

import dagster as dg

from ops_pipeline.defs.lookahead import copy_and_prove
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.markdown import markdown_text
from ops_pipeline.domain.session import Session
from ops_pipeline.domain.stages import SIGNALS
from ops_pipeline.proofs.lookahead import Lookahead
from ops_pipeline.storage.knowledge import finished_minutes, newest_stage_minutes


@dg.asset_check(
    asset="signals",
    name="nothing_looks_ahead",
    description="Minutes of the newest closed session, decided again without and with an absurd"
    " future, come out as they are stored.",
)
def nothing_looks_ahead(pipeline: dg.ResourceParam[Pipeline]) -> dg.AssetCheckResult:
    """Prove the newest closed session in a scratch; the pipeline's own rows are only read."""
    session = _newest_closed(pipeline)
    if session is None:
        return dg.AssetCheckResult(passed=True, description="no session has closed yet")
    return _result(copy_and_prove(pipeline.settings, session))


def _newest_closed(pipeline: Pipeline) -> Session | None:
    with pipeline.engine.connect() as connection:
        progress = newest_stage_minutes(connection).get(SIGNALS.name)
        if progress is None:
            return None
        today = pipeline.calendar.day(progress.minute)
        session = pipeline.calendar.on(today)
        if session is None or progress.minute != session.minutes()[-1]:
            session = pipeline.calendar.before(today)
        opens, closes = session.opens_at, session.closes_at
        return session if finished_minutes(connection, [SIGNALS.name], opens, closes) else None


def _result(found: Lookahead) -> dg.AssetCheckResult:
    unequal = [sample.minute.isoformat() for sample in found.samples if not sample.is_equal]
    lines = [
        f"{d.table} {d.minute.isoformat()} {d.key}, {d.column}: {d.values[0]}, {d.ways[1]}:"
        f" {d.values[1]}"
        for d in found.differences[:20]
    ]
    listed = "\n".join(f"- {markdown_text(line)}" for line in [*lines, *found.early[:20]])
    left_out = f", {found.left_out} left out: another model's scores" if found.left_out else ""
    return dg.AssetCheckResult(
        # A session of which nothing was decided proves nothing; a change of the model is no fault.
        passed=found.is_clean and bool(found.samples or found.left_out),
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{found.day}: {len(found.samples)} minutes, {len(unequal)} of them differ,"
        f" {len(found.early)} rows known too early{left_out}",
        metadata={
            "minutes": len(found.samples),
            "differ": len(unequal),
            "known_too_early": len(found.early),
            "left_out": found.left_out,
            "differences": dg.MetadataValue.md(listed or "none"),
        },
    )
