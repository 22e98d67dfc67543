"""Dagster's daemon, with what its runs are forked from loading beside it from the first second.

Under Dagster's own command everything works as well, and the first run waits for that.
"""

import argparse
import contextlib
from collections.abc import Sequence

from ops_pipeline.engine.code import wait_for
from ops_pipeline.engine.launcher import WarmRunLauncher


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until interrupted or terminated."""
    parser = argparse.ArgumentParser(
        prog="python -m ops_pipeline.engine.daemon", description=__doc__
    )
    parser.add_argument("-w", "--workspace", default="workspace.yaml")
    options = parser.parse_args(arguments)
    with contextlib.suppress(KeyboardInterrupt):
        run(options.workspace)


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
        target = WorkspaceFileTarget([workspace])
        wait_for(target)
        with daemon_controller_from_instance(
            instance, target, log_level="info", code_server_log_level="warning"
        ) as controller:
            controller.check_daemon_loop()


if __name__ == "__main__":
    main()
