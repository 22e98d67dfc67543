"""Failed checks and failed runs of Dagster become alerts, and good ones their end."""

from collections.abc import Iterator

import dagster as dg
import pytest

from ops_pipeline.defs.alerts import alerts_sensor, verdicts_of_checks, verdicts_of_jobs
from ops_pipeline.domain.acceptance import Level
from ops_pipeline.settings import Mode, Settings
from ops_pipeline_tests.defs.world import World, open_world

KEY = dg.AssetCheckKey(dg.AssetKey("features"), "features_are_unique")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def live(template: Settings) -> Iterator[World]:
    with open_world(template, Mode.SANDBOX) as world:
        yield world


def say(instance: dg.DagsterInstance, *, passed: bool, is_error: bool = True) -> None:
    severity = dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN
    found = dg.AssetCheckEvaluation(
        asset_key=KEY.asset_key,
        check_name=KEY.name,
        passed=passed,
        severity=severity,
        description="3 twice",
        metadata={},
    )
    instance.report_runless_asset_event(found)


@pytest.mark.parametrize(
    ("passed", "is_error", "level"),
    [(False, True, Level.HIGH), (False, False, Level.MEDIUM), (True, True, Level.NORMAL)],
)
def test_a_check_says_what_it_said_last(
    instance: dg.DagsterInstance, *, passed: bool, is_error: bool, level: Level
) -> None:
    assert verdicts_of_checks(instance, [KEY]) == ([], {})
    say(instance, passed=not passed)
    say(instance, passed=passed, is_error=is_error)
    (verdict,), links = verdicts_of_checks(instance, [KEY])
    name = "features/features_are_unique"
    assert (verdict.name, verdict.level, verdict.finding) == (name, level, "3 twice")
    assert links == {name: "/assets/features?view=checks"}


def test_one_failed_run_is_noted_and_three_in_a_row_are_a_fault(
    instance: dg.DagsterInstance,
) -> None:
    @dg.op(config_schema={"fails": bool})
    def work(context: dg.OpExecutionContext) -> None:
        if context.op_config["fails"]:
            raise ValueError

    @dg.job
    def some_job() -> None:
        work()

    found = []
    for fails in (False, True, True, True, False):
        config = {"ops": {"work": {"config": {"fails": fails}}}}
        some_job.execute_in_process(run_config=config, instance=instance, raise_on_error=False)
        (verdict,), links = verdicts_of_jobs(instance, ["some_job", "never_ran"])
        found.append(verdict.level)
    assert found == [Level.NORMAL, Level.LOW, Level.LOW, Level.HIGH, Level.NORMAL]
    assert links["some_job"].startswith("/runs/")


def test_the_sensor_opens_an_alert_and_ends_it(live: World) -> None:
    def look() -> list[tuple[str, str]]:
        with dg.build_sensor_context(
            instance=live.instance,
            resources={"pipeline": live.pipeline},
            definitions=live.definitions,
        ) as context:
            assert isinstance(alerts_sensor(context), dg.SkipReason)
        found = live.rows(
            "select m.kind, a.cause from alert_messages m join alerts a on a.id = m.alert_id"
            " order by m.id"
        )
        return [(row["kind"], row["cause"]) for row in found]

    assert look() == []
    say(live.instance, passed=False)
    opened = ("opened", "features/features_are_unique")
    assert [look(), look()] == [[opened]] * 2
    say(live.instance, passed=True)
    assert look() == [opened]
    assert look() == [opened, ("resolved", opened[1])]


def test_a_replay_is_not_watched(world: World) -> None:
    with dg.build_sensor_context(
        instance=world.instance, resources={"pipeline": world.pipeline}
    ) as context:
        answer = alerts_sensor(context)
    assert isinstance(answer, dg.SkipReason)
    assert "replay" in str(answer.skip_message)
