"""The runbook's two looks at the whole: the quick one, and whether each service ran."""

from collections.abc import Iterator

from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.checks import SERVICES_RUN
from ops_pipeline.domain.gates import ACTIVE
from ops_pipeline.domain.session import both_zones
from ops_pipeline.operations.runbook.causes import (
    MAINTENANCE,
    NOT_MIGRATED,
    NOT_WORKING,
    PROCESSES,
    RUNS_FAIL,
    SCHEDULE_STOPPED,
    SERVICE_OFF,
    catalogue,
    failing,
    not_migrated,
    not_working,
    processes_down,
    stopped,
    switched_off,
    verdict_of,
)
from ops_pipeline.operations.runbook.changes import by_hand
from ops_pipeline.operations.runbook.section import Cause, Found, OwnCheck, Scene, Section
from ops_pipeline.storage import dispatch

ALL_ON = OwnCheck(
    "everything_is_on", "7 services on, schedules and processes running, trading ACTIVE"
)
SERVICES_ON = OwnCheck("services_are_on", "7 services on, or off until a time that is to come")

NOT_ACTIVE = Cause(
    "NOT_ACTIVE",
    "Trading is HALTED or REDUCING.",
    Level.MEDIUM,
    "a person resumes, once the reason is gone",
)
SERVICE_SILENT = Cause(
    "SERVICE_SILENT",
    "A service is on, the market is open, and it has finished no minute lately.",
    Level.HIGH,
    "a person follows service-wont-start, which looks for the cause",
)
MARKET_CLOSED = Cause(
    "MARKET_CLOSED",
    "The market is closed: nothing is due.",
    Level.NORMAL,
    "nothing: wait for the open",
)


def _quick(scene: Scene) -> Iterator[Found]:
    """Switches, schedules, processes, tables and the trading state, at a glance."""
    if waiting := list(not_migrated(scene)):
        yield from waiting
        return
    yield from switched_off(scene)
    yield from stopped(scene)
    yield from processes_down(scene)
    yield from not_working(scene)
    with scene.engine.connect() as connection:
        state = dispatch.read_trading_state(connection)
        changes = dispatch.trading_state_changes(connection, 1)
    if state != ACTIVE:
        why = {"by": changes[0].changed_by, "reason": changes[0].reason} if changes else {}
        resume = by_hand("trade again", "ops-pipeline resume")
        yield Found(NOT_ACTIVE, {"state": state, **why}, [resume])


def _verify_quick(scene: Scene) -> list[Verdict]:
    return [verdict_of(ALL_ON, _quick(scene), "7 services on, everything runs")]


def _ran_recently(scene: Scene) -> Iterator[Found]:
    """Which services did not run lately, and why."""
    yield from _silent(scene)
    yield from switched_off(scene)
    yield from stopped(scene)
    yield from processes_down(scene)
    yield from not_working(scene)
    yield from failing(scene, "minute_job", "dispatch_job")


def _silent(scene: Scene) -> Iterator[Found]:
    now = scene.now
    if scene.settings.mode.calendar.at(now) is None:
        yield Found(MARKET_CLOSED, {"now": both_zones(now)})
    for verdict in catalogue(scene, SERVICES_RUN):
        if not verdict.is_normal:
            further = by_hand("look further", "ops-pipeline runbook diagnose service-wont-start")
            late = {name: f"for {round(lag)} s" for name, lag in verdict.observed.items()}
            yield Found(SERVICE_SILENT, {"found": verdict.finding, **late}, [further])


def _verify_ran(scene: Scene) -> list[Verdict]:
    on = verdict_of(SERVICES_ON, switched_off(scene), "none is off for good")
    return [*catalogue(scene, SERVICES_RUN), on]


SECTIONS = (
    Section(
        name="quick-health-check",
        heading="Quick Health Check (30 seconds)",
        symptom="Nothing in particular: the first look at anything, and at the start of a day.",
        own=(ALL_ON,),
        causes=(
            NOT_MIGRATED,
            SERVICE_OFF,
            MAINTENANCE,
            SCHEDULE_STOPPED,
            *PROCESSES,
            *NOT_WORKING,
            NOT_ACTIVE,
        ),
        look=_quick,
        verify=_verify_quick,
    ),
    Section(
        name="check-if-service-executed-recently",
        heading="Check If Service Executed Recently",
        symptom="A service's rows, or its log, do not go on.",
        checks=(SERVICES_RUN,),
        own=(SERVICES_ON,),
        causes=(
            MARKET_CLOSED,
            SERVICE_SILENT,
            SERVICE_OFF,
            MAINTENANCE,
            SCHEDULE_STOPPED,
            *PROCESSES,
            *NOT_WORKING,
            RUNS_FAIL,
        ),
        look=_ran_recently,
        verify=_verify_ran,
        in_replay=False,
    ),
)
