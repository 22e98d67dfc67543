"""What is seen of a Dagster instance: who lives, how runs ended, and in which words they failed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.types import DaemonHeartbeat

from ops_pipeline.engine.watch import LONGEST, EndedRun, Watch

NOW = datetime(2025, 2, 12, 17, 0, tzinfo=UTC)


@pytest.fixture
def watch() -> Iterator[Watch]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Watch(instance)


def run(watch: Watch, *, fails: str = "") -> None:
    """Run a job that ends well, or with these words below another error."""

    def work() -> None:
        if fails:
            raise RuntimeError("a step above it") from ValueError(fails)

    @dg.job(name="minute_job")
    def job() -> None:
        dg.op(name="work")(work)()

    job.execute_in_process(instance=watch.instance, raise_on_error=False)


def test_a_job_that_never_ran_has_no_last_run(watch: Watch) -> None:
    assert watch.last_run("minute_job") is None


def test_the_last_run_tells_in_one_line_what_lies_below(watch: Watch) -> None:
    run(watch, fails="no such feed\nand more of it")
    found = watch.last_run("minute_job")
    assert found is not None
    assert (found.status, found.error) == ("FAILURE", "ValueError: no such feed and more of it")
    run(watch)
    found = watch.last_run("minute_job")
    assert found is not None
    assert (found.status, found.error) == ("SUCCESS", "")


def test_an_error_is_cut(watch: Watch) -> None:
    run(watch, fails="x" * 10_000)
    found = watch.last_run("minute_job")
    assert found is not None
    assert len(found.error) == LONGEST


def test_silence_is_counted_from_the_daemon_that_was_heard_last(watch: Watch) -> None:
    assert watch.silent_seconds(NOW) is None
    for seconds, daemon in ((300, "SENSOR"), (100, "SCHEDULER")):
        at = (NOW - timedelta(seconds=seconds)).timestamp()
        watch.instance.add_daemon_heartbeat(DaemonHeartbeat(at, daemon, "one", []))
    assert watch.silent_seconds(NOW) == 100


def test_a_launch_that_failed_without_a_message_and_an_error_of_many_lines_are_one_line(
    watch: Watch,
) -> None:
    instance = watch.instance
    silent = create_run_for_test(instance, job_name="silent")
    event = dg.DagsterEvent(dg.DagsterEventType.RUN_FAILURE.value, "silent", message="")
    instance.report_dagster_event(event, silent.run_id)
    assert watch.last_run("silent") == EndedRun(silent.run_id, "FAILURE", "")
    told = create_run_for_test(instance, job_name="told")
    instance.report_run_failed(told, "Database Error in model x\n  column y does not exist\n")
    found = watch.last_run("told")
    assert found is not None
    assert found.error == "Database Error in model x column y does not exist"
