"""The stock Dagster web server behind a guard against other web pages, and a login."""

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from pathlib import Path

from starlette.types import ASGIApp

from ops_pipeline.engine.guard import LOOPBACK, Guard, allowed_hosts
from ops_pipeline.engine.login import Login

UNSAFE = 6
STATEMENT_TIMEOUT_MS = 15_000
POOL_RECYCLE_SECONDS = 3600
POOL_MAX_OVERFLOW = 20
SECONDS_TO_FINISH = 5


def serve(host: str, port: int, workspace: str, hosts: Collection[str], token_file: Path) -> None:
    """Serve the workspace with the instance of DAGSTER_HOME until SIGTERM or SIGINT."""
    import uvicorn

    with _dagster_app(workspace) as app:
        uvicorn.run(
            Guard(Login(app, token_file, port), hosts),
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=SECONDS_TO_FINISH,
        )


@contextlib.contextmanager
def _dagster_app(workspace: str) -> Iterator[ASGIApp]:
    from dagster import DagsterInstance, __version__
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster_webserver.app import create_app_from_workspace_process_context

    from ops_pipeline.engine.code import wait_for
    from ops_pipeline.engine.partitions import make_light

    make_light()
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(
            STATEMENT_TIMEOUT_MS, POOL_RECYCLE_SECONDS, POOL_MAX_OVERFLOW
        )
        target = WorkspaceFileTarget([workspace])
        wait_for(target)
        with WorkspaceProcessContext(instance, target, version=__version__) as context:
            yield create_app_from_workspace_process_context(context, lifespan=_lifespan)


@contextlib.asynccontextmanager
async def _lifespan(app: ASGIApp) -> AsyncIterator[None]:
    # uvicorn cancels the lifespan when a signal ends it early.
    with contextlib.suppress(asyncio.CancelledError):
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server; the answer is the exit code."""
    options = _parser().parse_args(arguments)
    if options.host not in LOOPBACK and not options.proxied_host:
        sys.stderr.write(
            f"{options.host} can be reached from other machines and this server has no TLS; "
            "give --behind-authenticating-proxy HOST if something in front of it has it.\n"
        )
        return UNSAFE
    # uvicorn raises the signal again when it is done; the default would end the process before
    # the code servers are stopped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    hosts = allowed_hosts(options.port, options.proxied_host)
    with contextlib.suppress(KeyboardInterrupt):
        serve(options.host, options.port, options.workspace, hosts, options.token_file)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ops_pipeline.engine.web", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default=LOOPBACK[0])
    parser.add_argument("-w", "--workspace", default="workspace.yaml")
    parser.add_argument(
        "--token-file", type=Path, required=True, help="what lets in; made if it is not there"
    )
    parser.add_argument(
        "--behind-authenticating-proxy",
        dest="proxied_host",
        metavar="HOST",
        help="the host name, with its port if it has one, that the proxy's users type",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
