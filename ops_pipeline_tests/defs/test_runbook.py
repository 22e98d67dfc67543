"""The runbook's sections as jobs: of the same names, dry runs by default, with what they found."""

import json

import dagster as dg
import pytest

from ops_pipeline.operations.runbook.sections import SECTIONS
from ops_pipeline.storage import knowledge
from ops_pipeline_tests.defs.world import World
from ops_pipeline_tests.storage.rows import TS


def told(outcome: dg.ExecuteInProcessResult) -> dict[str, object]:
    """The metadata of a job's only op."""
    outputs = [event for event in outcome.all_events if event.is_successful_output]
    metadata = outputs[0].step_output_data.metadata
    return {key: value.value for key, value in metadata.items()}


@pytest.fixture
def replayed(world: World) -> World:
    """A replay that stands at noon."""
    with world.pipeline.engine.begin() as connection:
        knowledge.set_present(connection, TS)
    return world


def test_each_section_has_its_job_and_each_job_its_section(replayed: World) -> None:
    jobs = {job.name for job in replayed.definitions.get_repository_def().get_all_jobs()}
    assert {name for name in jobs if name.startswith("runbook_")} == {
        section.job_name for section in SECTIONS
    }


def test_a_job_is_a_dry_run_until_it_is_told_to_apply(replayed: World) -> None:
    name = "runbook_quick_health_check"
    replayed.execute(
        "insert into services (service, is_enabled, reason) values ('rss-ingest', false, 'a test')"
    )
    found = told(replayed.job(name))
    assert (found["diagnosis"], found["level"], found["applied"]) == ("SERVICE_OFF", "high", False)
    assert found["evidence"] == {"SERVICE_OFF": {"rss-ingest": "off: a test"}}
    assert found["plan"] == [
        ["planned", "switch rss-ingest on", "ops-pipeline service enable rss-ingest"]
    ]
    assert replayed.value("select is_enabled from services") is False
    job = replayed.definitions.resolve_job_def(name)
    applied = told(
        job.execute_in_process(
            instance=replayed.instance, run_config={"ops": {"runbook": {"config": {"apply": True}}}}
        )
    )
    assert applied["plan"][0][0] == "done"  # type: ignore[index]
    assert replayed.value("select is_enabled from services") is True


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_each_job_runs_and_tells_no_secret(replayed: World, section: object) -> None:
    name = section.job_name  # type: ignore[attr-defined]
    found = told(replayed.job(name))
    server = replayed.settings.server
    assert server is not None
    assert server.password not in json.dumps(found, default=str)
    assert {"diagnosis", "level", "evidence", "plan", "verdicts", "applied"} == {*found}
