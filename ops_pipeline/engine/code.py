"""One code server for the daemon and the web server, which ends when what it serves from dies.

Each of the two starts a code server of its own when a workspace names a module, and the daemon
starts its own anew every minute: a quarter of a gigabyte each, and seconds of processor. Dagster's
`code-server` serves both and reloads from the UI, but when its inner process dies it stays up and
answers nothing; this one ends then, so that whoever keeps it starts it again.
"""

import argparse
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._core.workspace.load_target import WorkspaceLoadTarget

WATCH_SECONDS = 1.0
LOAD_SECONDS = 90.0
ASK_SECONDS = 2


def wait_for(target: WorkspaceLoadTarget) -> None:
    """Return when the code servers of a workspace answer, or after a minute and a half.

    Dagster would show an error for the first seconds, and ask again only after ten.
    """
    deadline = time.monotonic() + LOAD_SECONDS
    for origin in target.create_origins():
        if isinstance(origin, GrpcServerCodeLocationOrigin):
            while not _answers(origin) and time.monotonic() < deadline:
                time.sleep(0.1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a module at a socket until interrupted, or until the inner process dies."""
    parser = argparse.ArgumentParser(prog="python -m ops_pipeline.engine.code", description=__doc__)
    parser.add_argument("--module", required=True)
    parser.add_argument("--location", required=True)
    parser.add_argument("--socket", required=True)
    options = parser.parse_args(arguments)
    # Dagster puts a `.env` of the working folder above the environment. No process writes one here.
    os.chdir(Path(options.socket).parent)
    threading.Thread(target=_end_with_the_inner, daemon=True).start()
    _serve(options.module, options.location, options.socket)


def _serve(module: str, location: str, socket: str) -> None:
    from dagster._cli.code_server import start_command

    words = ["--module-name", module, "--location-name", location, "--socket", socket]
    start_command.main([*words, "--log-level", "warning"], standalone_mode=False)


def _end_with_the_inner() -> None:
    this = psutil.Process()
    while not this.children():
        time.sleep(WATCH_SECONDS)
    while any(child.status() != psutil.STATUS_ZOMBIE for child in this.children()):
        time.sleep(WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _answers(origin: GrpcServerCodeLocationOrigin) -> bool:
    try:
        origin.create_client().get_server_id(timeout=ASK_SECONDS)
    except DagsterUserCodeUnreachableError:
        return False
    return True


if __name__ == "__main__":
    main()
