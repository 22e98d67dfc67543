"""The verb runbook, and every command of ours that answers one of the operators' runbook."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops_pipeline.cli.server import prepare
from ops_pipeline.operations.runbook.commands import COMMANDS, Answered
from ops_pipeline.operations.runbook.sections import SECTIONS
from ops_pipeline.settings import Settings
from ops_pipeline.storage import knowledge
from ops_pipeline_tests.cli.test_verbs import Run, run  # noqa: F401 - it is a fixture
from ops_pipeline_tests.operations.scenes import Ward, a_ward
from ops_pipeline_tests.sandbox.served import served
from ops_pipeline_tests.sandbox.worlds import a_world
from ops_pipeline_tests.storage.rows import TS
from ops_pipeline_tests.structure.test_runbook import commands, runbook  # noqa: F401 - it is a fixture


@pytest.fixture
def call(request: pytest.FixtureRequest) -> Run:
    """Run the command line in this process."""
    made: Run = request.getfixturevalue("run")
    return made


@pytest.fixture
def ward(
    template: Settings, tmp_path: Path, call: Run, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ward]:
    """A replay that stands at noon, which the command line works with."""
    with a_ward(template, tmp_path, "replay") as made:
        enter(made, monkeypatch)
        with made.engine.begin() as connection:
            knowledge.set_present(connection, TS)
        yield made


def enter(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ward.environ.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def installed(template: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    """A sandbox that answers, with both its databases; nothing of it runs."""
    folder, before = tmp_path_factory.mktemp("installed"), dict(os.environ)
    with (
        served(a_world(knowledge.clock)) as url,
        a_ward(template, folder, port=int(url.rpartition(":")[2])) as made,
    ):
        prepare(made.settings)
        yield made
    # A verb that asks Dagster tells this process where it is.
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("answered", COMMANDS, ids=lambda one: " ".join(one.ours[:4]))
def test_what_answers_a_command_of_the_runbook_runs(
    installed: Ward, call: Run, monkeypatch: pytest.MonkeyPatch, answered: Answered
) -> None:
    enter(installed, monkeypatch)
    answer = call(*answered.ours)
    if answered.ours[0] == "logs" and answer.code == 2:
        # Nothing has run here, so that nothing was logged.
        assert answer.err.startswith("error: no line of ")
        return
    assert answer.code in (0, 1), answer.err
    assert answer.out.strip()
    assert answer.err == ""


def test_every_query_of_the_runbook_runs_word_for_word(
    ward: Ward, call: Run, request: pytest.FixtureRequest
) -> None:
    printed = commands(request.getfixturevalue("runbook"))
    queries = [one for one in printed if one.startswith("SELECT")]
    assert call("init").code == 0
    assert len(queries) == 9
    for query in queries:
        answer = call("sql", query)
        assert (answer.code, answer.err) == (0, ""), query


@pytest.mark.parametrize("name", [section.name for section in SECTIONS])
def test_each_section_tells_programs_what_it_tells_people(
    ward: Ward,
    call: Run,
    name: str,
) -> None:
    told, found = call("runbook", "diagnose", name), call("runbook", "diagnose", name, "--json")
    document = json.loads(found.out)
    assert told.code == found.code == int(document["level"] != "normal")
    assert document["code"] in told.out
    assert call("runbook", "verify", name).code in (0, 1)


def test_a_fix_is_a_dry_run_until_it_is_told_to_apply(
    ward: Ward,
    call: Run,
) -> None:
    call("service", "disable", "telemetry-1m")
    assert call("runbook", "diagnose", "quick-health-check").code == 1
    before = ward.digest()
    planned = call("runbook", "fix", "quick-health-check")
    assert planned.code == 0
    assert "nothing was changed" in planned.out
    assert ward.digest() == before
    applied = call("runbook", "fix", "quick-health-check", "--apply", "--json")
    assert applied.code == 0
    assert [step["outcome"] for step in json.loads(applied.out)["steps"]] == ["done"]
    assert call("runbook", "verify", "quick-health-check").code == 0


def test_what_is_not_mended_is_exit_code_1(ward: Ward, call: Run) -> None:
    call("halt", "--reason", "a test")
    assert call("runbook", "fix", "quick-health-check", "--apply").code == 1


def test_a_name_that_is_no_section_is_refused_with_the_nearest(
    ward: Ward,
    call: Run,
) -> None:
    answer = call("runbook", "diagnose", "stuck-procesing")
    assert (answer.code, len(answer.error_lines)) == (2, 1)
    assert "did you mean stuck-processing?" in answer.err


def test_a_database_that_is_away_is_diagnosed_and_no_stack_of_calls(
    call: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone:s3cret-word@127.0.0.1:9/ops")
    found = call("runbook", "diagnose", "rds-connection-timeout")
    assert (found.code, found.err) == (1, "")
    assert "REFUSED" in found.out
    assert "s3cret-word" not in found.out
    other = call("runbook", "diagnose", "backlog-growing")
    assert (other.code, len(other.error_lines)) == (3, 1)
