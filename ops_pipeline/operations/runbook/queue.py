"""The queue: what waits too long, and what is held too long."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from ops_pipeline.domain.acceptance import BACKLOG, RUNS, STUCK, Level, Verdict
from ops_pipeline.domain.session import both_zones
from ops_pipeline.domain.stages import DISPATCH
from ops_pipeline.operations.runbook.causes import (
    CONFIG_INVALID,
    SERVICE_OFF,
    catalogue,
    config_invalid,
    config_of,
    switched_off,
    verdict_of,
)
from ops_pipeline.operations.runbook.changes import by_hand, set_config, sweep_queue
from ops_pipeline.operations.runbook.section import Cause, Change, Found, OwnCheck, Scene, Section
from ops_pipeline.operations.runbook.skips import CONFIDENCE, loosen_confidence
from ops_pipeline.storage import runbook

QUEUE_MOVES = OwnCheck(
    "queue_moves", "the dispatcher is on, its settings are valid, nothing that is too old waits"
)
AN_HOUR = timedelta(hours=1)
TTL_DEFAULT_MINUTES, RUN_LIMIT_MAX = 1.0, 1_000

DISPATCHER_OFF = Cause(
    "DISPATCHER_OFF",
    "The dispatcher is switched off: what is recommended waits until it expires.",
    Level.HIGH,
    "switches it on, while the ledger is sound, and closes what is too old to trade",
)
DISPATCHER_NOT_RUNNING = Cause(
    "DISPATCHER_NOT_RUNNING",
    "The dispatcher is on, and its runs do not finish, or none was made lately.",
    Level.HIGH,
    "closes what is too old to trade; a person follows service-wont-start",
)
RUN_LIMIT_TOO_LOW = Cause(
    "RUN_LIMIT_TOO_LOW",
    "Every one of the newest runs claimed as many rows as it may.",
    Level.MEDIUM,
    "doubles max_signals_per_run for two hours",
)
GATES_TOO_STRICT = Cause(
    "GATES_TOO_STRICT",
    "Most of what was skipped in the last hour was skipped for its confidence.",
    Level.MEDIUM,
    "lowers confidence_min to 0.60 for two hours, where it is higher",
)
LEFT_OVER = Cause(
    "LEFT_OVER",
    "Rows wait that are too old to trade.",
    Level.MEDIUM,
    "closes them",
)
REAPER_NOT_RUNNING = Cause(
    "REAPER_NOT_RUNNING",
    "Leases have run out, and no run of the dispatcher has released their rows.",
    Level.HIGH,
    "releases them, and closes those that are too old to trade",
)
TTL_TOO_HIGH = Cause(
    "TTL_TOO_HIGH",
    "processing_ttl_minutes is above its default: a dead run's rows are held for longer.",
    Level.MEDIUM,
    "sets it back to 1",
)


def _backlog(scene: Scene) -> Iterator[Found]:
    """Is the dispatcher running, are gates too strict, is its limit too low."""
    yield from _standing(scene)
    if all(one.is_normal for one in catalogue(scene, BACKLOG)):
        return
    now = scene.now
    with scene.engine.connect() as connection:
        pulls = runbook.newest_pulls(connection)
        reasons = runbook.skip_reasons(connection, now - AN_HOUR, now)
    if pulls and all(one.pulled_count == one.run_limit for one in pulls):
        limit = pulls[0].run_limit or 1
        doubled = min(limit * 2, RUN_LIMIT_MAX)
        why = "backlog grows: each run claims as many as it may"
        change = set_config(scene, {"max_signals_per_run": doubled}, why, is_temporary=True)
        yield Found(RUN_LIMIT_TOO_LOW, {"run_limit": limit, "runs": len(pulls)}, [change])
    total, low = sum(reasons.values()), reasons.get(CONFIDENCE, 0)
    if low * 2 > total:
        yield Found(GATES_TOO_STRICT, {"skipped": total, "low": low}, loosen_confidence(scene))


def _standing(scene: Scene) -> Iterator[Found]:
    """Why nobody works on what waits."""
    yield from config_invalid(scene)
    now = scene.now
    with scene.engine.connect() as connection:
        waiting = runbook.waiting(connection, now)
    evidence = {"waiting": waiting.count, "too_old": waiting.expired, "oldest": _at(waiting.oldest)}
    close = sweep_queue(scene, f"close {waiting.expired} rows that are too old to trade")
    closes: list[Change] = [close] if waiting.expired else []
    off = next((one for one in switched_off(scene, [DISPATCH]) if one.cause is SERVICE_OFF), None)
    (runs,) = catalogue(scene, RUNS)
    if off:
        yield Found(DISPATCHER_OFF, {**off.evidence, **evidence}, [*off.changes, *closes])
    elif not runs.is_normal:
        further = by_hand("look further", "ops-pipeline runbook diagnose service-wont-start")
        told = {"runs": runs.finding, **evidence}
        yield Found(DISPATCHER_NOT_RUNNING, told, [*closes, further])
    elif waiting.expired:
        yield Found(LEFT_OVER, evidence, closes)


def _stuck(scene: Scene) -> Iterator[Found]:
    """Is the reaper running, is the lease too long."""
    with scene.engine.connect() as connection:
        held = runbook.held(connection)
    evidence = {"held": held.count, "overdue": held.overdue, "oldest": _at(held.oldest)}
    if held.overdue:
        release = sweep_queue(scene, f"release {held.overdue} rows whose lease has run out")
        off = [one for one in switched_off(scene, [DISPATCH]) if one.cause is SERVICE_OFF]
        on = [change for one in off for change in one.changes]
        yield Found(REAPER_NOT_RUNNING, evidence, [release, *on])
    yield from config_invalid(scene)
    ttl = None if list(config_invalid(scene)) else config_of(scene).processing_ttl_minutes
    if held.count and ttl is not None and ttl > TTL_DEFAULT_MINUTES:
        why = "rows are stuck in PROCESSING"
        change = set_config(scene, {"processing_ttl_minutes": TTL_DEFAULT_MINUTES}, why)
        yield Found(TTL_TOO_HIGH, {"processing_ttl_minutes": ttl, **evidence}, [change])


def _at(instant: datetime | None) -> str | None:
    return both_zones(instant) if instant else None


def _verify_backlog(scene: Scene) -> list[Verdict]:
    moves = verdict_of(QUEUE_MOVES, _standing(scene), "what waits is worked off")
    return [*catalogue(scene, BACKLOG, RUNS), moves]


def _verify_stuck(scene: Scene) -> list[Verdict]:
    return catalogue(scene, STUCK)


SECTIONS = (
    Section(
        name="backlog-growing",
        heading="Issue: Backlog Growing (PENDING Accumulating)",
        symptom="The count of PENDING rows grows from hour to hour.",
        checks=(BACKLOG, RUNS),
        own=(QUEUE_MOVES,),
        causes=(
            CONFIG_INVALID,
            DISPATCHER_OFF,
            DISPATCHER_NOT_RUNNING,
            LEFT_OVER,
            RUN_LIMIT_TOO_LOW,
            GATES_TOO_STRICT,
        ),
        look=_backlog,
        verify=_verify_backlog,
    ),
    Section(
        name="stuck-processing",
        heading="Issue: Stuck PROCESSING Rows",
        symptom="Acceptance query 2 counts rows that have been PROCESSING for ten minutes.",
        checks=(STUCK,),
        causes=(REAPER_NOT_RUNNING, CONFIG_INVALID, TTL_TOO_HIGH),
        look=_stuck,
        verify=_verify_stuck,
    ),
)
