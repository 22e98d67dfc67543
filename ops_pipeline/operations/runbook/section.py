"""What a section of the runbook is, and how it is diagnosed, fixed and verified."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.errors import OperatorError
from ops_pipeline.settings import Settings
from ops_pipeline.storage import knowledge

log = logging.getLogger(__name__)

NORMAL, UNEXPLAINED, NOT_IN_REPLAY = "NORMAL", "UNEXPLAINED", "NOT_IN_REPLAY"


class LastRun(Protocol):
    """The newest run of a job: how it ended, and what it failed with, in one line."""

    @property
    def run_id(self) -> str:
        """Its id, as the UI has it."""

    @property
    def status(self) -> str:
        """SUCCESS, FAILURE or CANCELED."""

    @property
    def error(self) -> str:
        """Its error in one line; empty where it has none."""


class Orchestrator(Protocol):
    """What a section asks Dagster."""

    def stopped(self) -> list[str]:
        """Schedules and sensors that somebody has stopped."""

    def start(self, name: str) -> None:
        """Let one of them run again."""

    def silent_seconds(self, now: datetime) -> float | None:
        """How long no daemon has given a sign of life; None where none ever did."""

    def last_run(self, job: str) -> LastRun | None:
        """The newest run of a job that has ended."""


@dataclass(frozen=True)
class Scene:
    """Where a section looks, at what instant, and who asks; Dagster only where it is needed."""

    settings: Settings
    engine: Engine
    who: str
    open_dagster: Callable[[], Orchestrator]

    @property
    def now(self) -> datetime:
        """The present of this mode.

        Raises:
            NotRunning: a replay that has not begun.
        """
        with self.engine.connect() as connection:
            return knowledge.read_now(connection, self.settings.mode)

    @property
    def dagster(self) -> Orchestrator:
        """What Dagster says of itself."""
        return self.open_dagster()


@dataclass(frozen=True)
class Cause:
    """A diagnosis code: what it means, how bad it is, and what is done about it.

    A cause of normal level is an answer, and no problem.
    """

    code: str
    meaning: str
    level: Level
    remedy: str


@dataclass(frozen=True)
class Change:
    """One step of a fix, and the command that does the same; without `apply`, a person's step."""

    what: str
    command: str
    apply: Callable[[], None] | None = None


@dataclass(frozen=True)
class Found:
    """A cause that was found, what shows it, and what would be changed."""

    cause: Cause
    evidence: Mapping[str, Any] = field(default_factory=dict)
    changes: Sequence[Change] = ()


@dataclass(frozen=True)
class OwnCheck:
    """A check that only a section asks, beside those of the catalogue; `normal` is in words."""

    name: str
    normal: str


@dataclass(frozen=True)
class Section:
    """One section of the runbook; `heading` is its own, word for word.

    Attributes:
        name: what the commands and the job call it.
        heading: as it stands in the runbook.
        symptom: what an operator sees.
        checks: the checks of the catalogue that verify it.
        own: those that verify it besides.
        causes: every code that `look` may find, the worst first.
        look: finds causes, by queries and by looking at processes and files.
        verify: asks the section's own checks.
        in_replay: whether it means anything in a replay.
        is_about_database: whether it is there to find out that the database does not answer.
    """

    name: str
    heading: str
    symptom: str
    causes: tuple[Cause, ...]
    look: Callable[[Scene], Iterator[Found]]
    verify: Callable[[Scene], list[Verdict]]
    checks: tuple[str, ...] = ()
    own: tuple[OwnCheck, ...] = ()
    in_replay: bool = True
    is_about_database: bool = False

    @property
    def job_name(self) -> str:
        """The name of its Dagster job."""
        return f"runbook_{self.name.replace('-', '_')}"

    @property
    def check_names(self) -> tuple[str, ...]:
        """The names of all verdicts that verify it."""
        return (*self.checks, *(one.name for one in self.own))


@dataclass(frozen=True)
class Diagnosis:
    """What a section found; `code` is that of the first cause, and there may be more."""

    section: str
    code: str
    level: Level
    found: Sequence[Found]
    verdicts: Sequence[Verdict]

    @property
    def is_problem(self) -> bool:
        """Whether there is anything to do."""
        return self.level is not Level.NORMAL


class Outcome(StrEnum):
    """What became of a step of a fix."""

    PLANNED = "planned"
    DONE = "done"
    FAILED = "FAILED"
    BY_HAND = "by hand"


@dataclass(frozen=True)
class Step:
    """A change, and what became of it."""

    what: str
    command: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Fix:
    """What a fix changed, or would change; verdicts are those afterwards."""

    section: str
    code: str
    is_applied: bool
    steps: Sequence[Step]
    verdicts: Sequence[Verdict]

    @property
    def is_well(self) -> bool:
        """Whether every step that is ours was done, and the section's checks are normal."""
        failed = any(step.outcome is Outcome.FAILED for step in self.steps)
        return not failed and all(verdict.is_normal for verdict in self.verdicts)


def diagnose(section: Section, scene: Scene) -> Diagnosis:
    """Look for the section's causes; nothing is changed."""
    if not (section.in_replay or scene.settings.mode.is_live):
        return Diagnosis(section.name, NOT_IN_REPLAY, Level.NORMAL, (), ())
    found = tuple(section.look(scene))
    verdicts = section.verify(scene)
    if found:
        level = max((one.cause.level for one in found), key=list(Level).index)
        return Diagnosis(section.name, found[0].cause.code, level, found, verdicts)
    level = max((one.level for one in verdicts), key=list(Level).index, default=Level.NORMAL)
    code = NORMAL if level is Level.NORMAL else UNEXPLAINED
    return Diagnosis(section.name, code, level, found, verdicts)


def fix(section: Section, scene: Scene, *, apply: bool) -> Fix:
    """Say what would be changed, or change it; a step that fails keeps no other from being done."""
    diagnosis = diagnose(section, scene)
    # Two causes may ask for the same step.
    changes = {change.what: change for one in diagnosis.found for change in one.changes}
    steps = [_step(change, apply=apply) for change in changes.values()]
    verdicts = verify(section, scene) if apply else diagnosis.verdicts
    if apply:
        data = {"section": section.name, "code": diagnosis.code, "who": scene.who}
        outcomes = [f"{step.outcome.value}: {step.what}" for step in steps]
        log.info("runbook_fix_applied", extra={"data": {**data, "steps": outcomes}})
    return Fix(section.name, diagnosis.code, apply, steps, verdicts)


def verify(section: Section, scene: Scene) -> list[Verdict]:
    """What the section's own checks say now; nothing in a replay where they mean nothing."""
    if not (section.in_replay or scene.settings.mode.is_live):
        return []
    return section.verify(scene)


def _step(change: Change, *, apply: bool) -> Step:
    if change.apply is None:
        return Step(change.what, change.command, Outcome.BY_HAND)
    if not apply:
        return Step(change.what, change.command, Outcome.PLANNED)
    try:
        change.apply()
    except (OperatorError, SQLAlchemyError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return Step(change.what, change.command, Outcome.FAILED, reason[:200])
    return Step(change.what, change.command, Outcome.DONE)
