"""The verb runbook: each section diagnoses, fixes and verifies itself."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Annotated

import typer

from ops_pipeline.cli.console import (
    JsonOption,
    ModeOption,
    out,
    print_json,
    say,
    show_result,
    table,
)
from ops_pipeline.cli.server import settings_of, watched_server
from ops_pipeline.domain.acceptance import Verdict
from ops_pipeline.environment import apply
from ops_pipeline.operations.operator import operator
from ops_pipeline.operations.runbook import section as runbook
from ops_pipeline.operations.runbook.commands import COMMANDS
from ops_pipeline.operations.runbook.section import (
    Diagnosis,
    Fix,
    Orchestrator,
    Outcome,
    Scene,
    Section,
)
from ops_pipeline.operations.runbook.sections import SECTIONS, section_of
from ops_pipeline.settings import Settings
from ops_pipeline.storage.engine import opened, reachable
from ops_pipeline.storage.migrate import migrated

app = typer.Typer(help="The runbook's sections: find the cause, mend it, see that it is mended.")

Name = Annotated[str, typer.Argument(help="A section, as `runbook list` names it.")]


@app.command("list")
def list_sections(
    commands: Annotated[
        bool, typer.Option("--commands", help="What answers each command of the old runbook.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """The sections, their codes and checks; or the runbook's commands and ours."""
    if commands:
        rows = [[one.runbook, one.text] for one in COMMANDS]
        columns = ["runbook command", "ours"]
    else:
        rows = [
            [s.name, " ".join(c.code for c in s.causes), " ".join(s.check_names)] for s in SECTIONS
        ]
        columns = ["section", "codes", "checks"]
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        out.print(table("", columns, rows))


@app.command()
def diagnose(name: Name, mode: ModeOption = None, as_json: JsonOption = False) -> None:
    """Look for the causes of a section; nothing is changed. Exit code 1 where one is found."""
    section = section_of(name)
    with _scene(section, mode) as scene:
        found = runbook.diagnose(section, scene)
    show_result(
        found,
        lambda one: _print_diagnosis(section, one),
        as_json=as_json,
        is_normal=not found.is_problem,
    )


@app.command()
def fix(
    name: Name,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without, only say what.")] = False,
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Mend what a section finds; a dry run until --apply. Exit code 1 where it is not mended."""
    section = section_of(name)
    with _scene(section, mode) as scene:
        done = runbook.fix(section, scene, apply=apply)
    show_result(done, _print_fix, as_json=as_json, is_normal=not apply or done.is_well)


@app.command()
def verify(name: Name, mode: ModeOption = None, as_json: JsonOption = False) -> None:
    """Ask a section's own checks; exit code 1 where one is not normal."""
    section = section_of(name)
    with _scene(section, mode) as scene:
        verdicts = runbook.verify(section, scene)
    is_normal = all(verdict.is_normal for verdict in verdicts)
    show_result(
        verdicts,
        lambda found: _print_verdicts(found) if found else say(f"{name}: not in a replay"),
        as_json=as_json,
        is_normal=is_normal,
    )


@contextmanager
def _scene(section: Section, mode: ModeOption) -> Iterator[Scene]:
    """Where the section looks; its database may be away, which some are there to find out."""
    with ExitStack() as stack:
        settings = (
            settings_of(mode)
            if section.is_about_database
            else stack.enter_context(watched_server(mode))
        )
        engine = stack.enter_context(opened(settings))
        if not section.is_about_database:
            stack.enter_context(reachable(settings))
            stack.enter_context(migrated(settings))
        yield Scene(
            settings=settings,
            engine=engine,
            who=operator(settings),
            open_dagster=cache(lambda: stack.enter_context(_dagster(settings))),
        )


@contextmanager
def _dagster(settings: Settings) -> Iterator[Orchestrator]:
    """This mode's Dagster; its import takes seconds, and most sections do without."""
    import dagster as dg

    from ops_pipeline.engine.watch import Watch

    apply(settings)
    with dg.DagsterInstance.get() as instance:
        yield Watch(instance)


def _print_diagnosis(section: Section, found: Diagnosis) -> None:
    say(f"{section.heading}: {found.code} ({found.level.value})")
    for one in found.found:
        say(f"{one.cause.code}: {one.cause.meaning}")
        for key, value in one.evidence.items():
            say(f"  {key}: {value}")
        say(f"  fix: {one.cause.remedy}")
    _print_verdicts([*found.verdicts])
    if any(change.apply for one in found.found for change in one.changes):
        say(f"next: ops-pipeline runbook fix {section.name}")
    elif found.code == runbook.UNEXPLAINED:
        say("none of the causes that this section knows; next: ops-pipeline doctor, status, logs")


def _print_fix(done: Fix) -> None:
    say(f"{done.section}: {done.code}")
    rows = [
        [step.outcome.value, step.what + (f": {step.reason}" if step.reason else ""), step.command]
        for step in done.steps
    ]
    if rows:
        out.print(table("", ["", "step", "by hand"], rows))
    else:
        say("nothing is to be done")
    _print_verdicts([*done.verdicts])
    if any(step.outcome is Outcome.PLANNED for step in done.steps):
        say("nothing was changed; add --apply to do it")


def _print_verdicts(verdicts: list[Verdict]) -> None:
    rows = [[v.name, v.level.value, v.finding, v.expected] for v in verdicts]
    if rows:
        out.print(table("", ["check", "verdict", "found", "expected"], rows))
