"""One code server for the daemon and the web server, which ends when what it serves from dies.

Each of the two starts a code server of its own when a workspace names a module, and the daemon
starts its own anew every minute: a quarter of a gigabyte each, and seconds of processor. Dagster's
`code-server` serves both and reloads from the UI, but when its inner process dies it stays up and
answers nothing; this one ends then, so that whoever keeps it starts it again.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import psutil
from dagster._api.list_repositories import sync_list_repositories_grpc
from dagster._core.errors import DagsterUserCodeProcessError, DagsterUserCodeUnreachableError
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._core.workspace.load_target import WorkspaceLoadTarget
from dagster._grpc.client import DagsterGrpcClient
from dagster_shared.error import SerializableErrorInfo

from ops_pipeline.private_files import replace_private

WATCH_SECONDS = 1.0
MAX_ERROR_CHARS = 500
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
    parser.add_argument("--state", required=True, type=Path, help="file for how loading ended")
    options = parser.parse_args(arguments)
    watch = partial(_end_with_the_inner, options.socket, options.state)
    threading.Thread(target=watch, daemon=True).start()
    _serve(options.module, options.location, options.socket)


def _serve(module: str, location: str, socket: str) -> None:
    from dagster._cli.code_server import start_command

    words = ["--module-name", module, "--location-name", location, "--socket", socket]
    start_command.main([*words, "--log-level", "warning"], standalone_mode=False)


def _end_with_the_inner(socket: str, state: Path) -> None:
    """End this server once its code cannot be loaded, or the inner process that loaded it is gone.

    What is served then stays broken for ever; the next server loads again.
    """
    this, recorded = psutil.Process(), None
    while True:
        time.sleep(WATCH_SECONDS)
        inner = [child for child in this.children() if child.status() != psutil.STATUS_ZOMBIE]
        error = load_error(socket)
        if error is None and recorded is None:
            # Still loading.
            continue
        if error is not None and error != recorded:
            replace_private(state, json.dumps({"pid": this.pid, "error": error}))
            recorded = error
        if error or not inner:
            sys.stderr.write(f"{error or 'the inner process is gone'}\n")
            os.kill(this.pid, signal.SIGTERM)
            return


def load_error(socket: str) -> str | None:
    """Return why the code served at a socket is not loaded, in one line; empty where it is.

    None where nobody answers.
    """
    try:
        sync_list_repositories_grpc(DagsterGrpcClient(socket=socket))
    except DagsterUserCodeUnreachableError:
        return None
    except DagsterUserCodeProcessError as error:
        return _reason(error.user_code_process_error_infos)
    return ""


def _reason(errors: Sequence[SerializableErrorInfo]) -> str:
    """Return the message of the cause at the bottom: what is around it is Dagster's own."""
    found = errors[0] if errors else None
    while found and found.cause:
        found = found.cause
    text = " ".join(found.message.split()) if found else ""
    return text[:MAX_ERROR_CHARS] or "the code could not be loaded, and gave no reason"


def _answers(origin: GrpcServerCodeLocationOrigin) -> bool:
    try:
        origin.create_client().get_server_id(timeout=ASK_SECONDS)
    except DagsterUserCodeUnreachableError:
        return False
    return True


if __name__ == "__main__":
    main()
