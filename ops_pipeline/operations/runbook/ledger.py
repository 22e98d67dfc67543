"""The ledger: nothing is executed twice, and the server itself sees to it."""

from collections.abc import Iterator

from ops_pipeline.domain.acceptance import DUPLICATES, Level, Verdict
from ops_pipeline.domain.gates import HALTED
from ops_pipeline.domain.stages import DISPATCH
from ops_pipeline.operations.runbook.causes import catalogue, verdict_of
from ops_pipeline.operations.runbook.changes import by_hand, halt, mend, switch_off
from ops_pipeline.operations.runbook.section import Cause, Change, Found, OwnCheck, Scene, Section
from ops_pipeline.storage import dispatch, runbook
from ops_pipeline.storage.services import switches

GUARDED = OwnCheck("ledger_is_guarded", "recommendation_id is unique, and every trigger fires")
AGAIN = "ops-pipeline runbook fix duplicate-executions --apply"

DUPLICATE_ROWS = Cause(
    "DUPLICATE_ROWS",
    "A recommendation has more than one execution.",
    Level.CRITICAL,
    "halts trading and switches the dispatcher off; no row of the ledger is ever removed, so that"
    " the rest is a person's",
)
UNIQUE_CONSTRAINT_MISSING = Cause(
    "UNIQUE_CONSTRAINT_MISSING",
    "The database does not refuse a second execution of a recommendation.",
    Level.CRITICAL,
    "puts the constraint back, where no duplicate stands in its way",
)
GUARDS_OFF = Cause(
    "GUARDS_OFF",
    "Triggers that keep queue and ledger true are gone, or switched off.",
    Level.CRITICAL,
    "switches on those that are there; one that is gone is a person's",
)


def _look(scene: Scene) -> Iterator[Found]:
    """Rows first, then what should have refused them."""
    with scene.engine.connect() as connection:
        rows = runbook.duplicates(connection)
        is_unique = runbook.executions_are_unique(connection)
        guards = runbook.guards_missing(connection)
    if rows:
        yield Found(DUPLICATE_ROWS, _evidence(rows), _stop(scene))
    if not is_unique:
        yield Found(UNIQUE_CONSTRAINT_MISSING, {"table": "dispatch_executions"}, _unique(scene))
    if guards:
        what, work = "let the guards fire again", runbook.switch_guards_on
        on = mend(scene, what, AGAIN, work, as_owner=True)
        yield Found(GUARDS_OFF, {"guards": guards}, [on])


def _evidence(rows: list[dict[str, object]]) -> dict[str, object]:
    """Which rows, and whether two runs met there or one repeated itself."""
    races = sum(int(str(row["runs"])) > 1 for row in rows)
    return {
        "recommendation_ids": [row["recommendation_id"] for row in rows],
        "by_two_runs": races,
        "by_one_run": len(rows) - races,
        "newest": str(max(str(row["newest"]) for row in rows)),
    }


def _stop(scene: Scene) -> list[Change]:
    with scene.engine.connect() as connection:
        is_halted = dispatch.read_trading_state(connection) == HALTED
        is_on = any(
            one.stage == DISPATCH and one.is_enabled for one in switches(connection, scene.now)
        )
    why = "duplicate executions"
    return [
        *([] if is_halted else [halt(scene, why)]),
        *([switch_off(scene, DISPATCH, why)] if is_on else []),
        by_hand(
            "compare the executions with the broker's orders, and find out why there are two",
            "ops-pipeline explain ID, ops-pipeline logs dispatcher",
        ),
        by_hand("resume, once it is known why", "ops-pipeline service enable dispatcher, resume"),
    ]


def _unique(scene: Scene) -> list[Change]:
    what = "put the unique constraint back, which the server refuses while there is a duplicate"
    return [mend(scene, what, AGAIN, runbook.make_executions_unique, as_owner=True)]


def _verify(scene: Scene) -> list[Verdict]:
    found = [one for one in _look(scene) if one.cause is not DUPLICATE_ROWS]
    guarded = verdict_of(GUARDED, found, "the server refuses a second execution")
    return [*catalogue(scene, DUPLICATES), guarded]


SECTIONS = (
    Section(
        name="duplicate-executions",
        heading="Issue: Duplicate Executions (CRITICAL)",
        symptom="Acceptance query 3 returns rows; trading is HALTED by what found them.",
        checks=(DUPLICATES,),
        own=(GUARDED,),
        causes=(DUPLICATE_ROWS, UNIQUE_CONSTRAINT_MISSING, GUARDS_OFF),
        look=_look,
        verify=_verify,
    ),
)
