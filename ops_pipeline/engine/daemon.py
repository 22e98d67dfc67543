"""Dagster's daemon, with what its runs are forked from loading beside it from the first second.

Under Dagster's own command everything works as well, and the first run waits for that.
"""

import argparse
import contextlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ops_pipeline.engine.code import wait_for
from ops_pipeline.engine.launcher import WarmRunLauncher

if TYPE_CHECKING:
    from dagster import DagsterInstance
    from dagster._core.storage.dagster_run import RunRecord


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until interrupted or terminated."""
    parser = argparse.ArgumentParser(
        prog="python -m ops_pipeline.engine.daemon", description=__doc__
    )
    parser.add_argument("-w", "--workspace", default="workspace.yaml")
    options = parser.parse_args(arguments)
    with contextlib.suppress(KeyboardInterrupt):
        run(options.workspace)


def monitor_starting_runs(launcher: WarmRunLauncher) -> None:
    """Make run monitoring ask for the process of a run that has not reported its start.

    Dagster asks only for runs that have; any other keeps its lane until the start timeout.
    """
    from dagster._core.launcher import WorkerStatus
    from dagster._daemon.monitoring import run_monitoring

    stock = run_monitoring.monitor_starting_run

    def monitor(instance: "DagsterInstance", record: "RunRecord", logger: logging.Logger) -> None:
        run = record.dagster_run
        health = launcher.check_run_worker_health(run)
        # Read after the process is known to be dead: from then on nothing else changes the status.
        now = instance.get_run_by_id(run.run_id)
        if health.status is not WorkerStatus.NOT_FOUND or now is None:
            stock(instance, record, logger)
        elif now.status == run.status:
            instance.report_run_failed(now, f"The run did not start: {health.msg}.")

    run_monitoring.monitor_starting_run = monitor  # type: ignore[assignment]


def run(workspace: str) -> None:
    """All daemons that the instance is configured for, over this workspace file."""
    from dagster import DagsterInstance
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster._daemon.controller import daemon_controller_from_instance
    from dagster._utils.interrupts import capture_interrupts

    with capture_interrupts(), DagsterInstance.get() as instance:
        launcher = instance.run_launcher
        if isinstance(launcher, WarmRunLauncher):
            launcher.warm_up()
            monitor_starting_runs(launcher)
        target = WorkspaceFileTarget([workspace])
        wait_for(target)
        with daemon_controller_from_instance(
            instance, target, log_level="info", code_server_log_level="warning"
        ) as controller:
            controller.check_daemon_loop()


if __name__ == "__main__":
    main()
