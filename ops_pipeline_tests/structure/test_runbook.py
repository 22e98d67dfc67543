"""Sections, jobs and the operators' own document match, both ways."""

import re
from typing import Any

import pytest
from typer.main import get_command

from ops_pipeline.cli import app
from ops_pipeline.domain.acceptance import Level
from ops_pipeline.domain.alerts import NEXT_STEPS, Alert
from ops_pipeline.domain.checks import NAMES
from ops_pipeline.operations.runbook.commands import COMMANDS
from ops_pipeline.operations.runbook.sections import HEADINGS, SECTIONS
from ops_pipeline.settings import PROJECT_DIR
from ops_pipeline_tests.builders import NOON

RUNBOOK = PROJECT_DIR.parent / "shared" / "runbook" / "ops-runbook.md"
# What stands under a heading of this level and is no look at anything, and no issue.
CHAPTERS = {
    "Service Health Checks",
    "Acceptance Queries (Run Via Lambda)",
    "Common Issues & Fixes",
    "Normal Operating Ranges",
    "Escalation",
    "Configuration Management",
    "Contact / Escalation",
    "Maintenance Windows",
}


@pytest.fixture(scope="module")
def runbook() -> str:
    if not RUNBOOK.exists():
        pytest.skip(f"no runbook at {RUNBOOK}")
    return RUNBOOK.read_text(encoding="utf-8")


def commands(runbook: str) -> list[str]:
    """Every command and every query that the runbook prints, each on one line."""
    found = []
    for language, block in re.findall(r"```(\w+)\n(.*?)```", runbook, re.DOTALL):
        comment = "--" if language == "sql" else "#"
        lines = [line.strip() for line in block.replace("\\\n", " ").splitlines()]
        kept = [line for line in lines if line and not line.startswith(f"{comment} ")]
        found += [" ".join(kept)] if language == "sql" else kept
    return [" ".join(command.split()) for command in found]


def test_each_heading_has_its_section_and_each_section_its_heading() -> None:
    assert [section.heading for section in SECTIONS] == [*HEADINGS]
    names = [section.name for section in SECTIONS]
    assert len({*names}) == len(names) == 13


def test_a_section_is_named_after_its_heading() -> None:
    for section in SECTIONS:
        heading = re.sub(r"^Issue: | \(.*\)$", "", section.heading).lower()
        words = re.sub(r"[^a-z -]", "", heading).replace(" ", "-")
        assert words.startswith(section.name.replace("-not-running", "")), section.name


def test_every_heading_of_the_runbook_is_a_section(runbook: str) -> None:
    found = re.findall(r"^##+ (.+?)\s*$", runbook, re.MULTILINE)
    issues = [one for one in found if one.startswith("Issue: ")]
    checks = [one for one in found if one.startswith(("Check ", "Quick Health"))]
    assert len(issues) == 10
    assert [one for one in found if one in (*issues, *checks)] == [*HEADINGS]


def test_every_command_of_the_runbook_has_a_row(runbook: str) -> None:
    printed = commands(runbook)
    assert len(printed) > 30
    assert [one for one in printed if not any(one.startswith(c.runbook) for c in COMMANDS)] == []


def test_every_row_answers_a_command_of_the_runbook(runbook: str) -> None:
    printed = commands(runbook)
    idle = [c for c in COMMANDS if not any(one.startswith(c.runbook) for one in printed)]
    assert idle == []


@pytest.mark.parametrize("source", [*NAMES, *NEXT_STEPS])
def test_what_an_alert_says_to_do_next_can_be_done(source: str) -> None:
    alert = Alert(source, source, Level.HIGH, "", NOON, NOON)
    program, *words = alert.next_command.split()
    assert program == "ops-pipeline"
    found: Any = get_command(app())
    while words and words[0] in getattr(found, "commands", ()):
        found = found.commands[words.pop(0)]
    options = [option for each in found.params for option in each.opts]
    assert words == [] or words[0] in [*options, *(section.name for section in SECTIONS)]
    # A group that looks by itself may be the whole of it.
    assert not hasattr(found, "commands") or found.invoke_without_command


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_a_section_says_what_it_finds_and_how_it_is_verified(section: object) -> None:
    from ops_pipeline.operations.runbook.section import Section

    assert isinstance(section, Section)
    codes = [cause.code for cause in section.causes]
    assert len({*codes}) == len(codes) >= 2
    assert all(re.fullmatch(r"[A-Z]+(_[A-Z]+)*", code) for code in codes)
    assert {*section.checks} <= {*NAMES}
    assert section.check_names
