"""Dagster's storage as dagster.yaml names it: it lets Dagster's own commands find the database.

Dagster asks a storage for its configuration before it reads the environment for it. So
`dagster dev` and `dagster asset materialize` work in the project folder as they are.
"""

import os
import sys

from dagster._config.config_schema import UserConfigSchema

from ops_pipeline.cli.console import say_aside
from ops_pipeline.cli.server import existing_server, prepare, running_server, settings_of
from ops_pipeline.domain.errors import OperatorError
from ops_pipeline.engine.storage import BatchedPostgresStorage
from ops_pipeline.environment import adopt, apply, enter
from ops_pipeline.local.keeper import environment_in_use
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.storage.engine import opened

HANDED_OUT = "OPS_DAGSTER_DB_PORT"


class PipelineStorage(BatchedPostgresStorage):
    """The batched PostgreSQL storage, in the environment that all processes share."""

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return what may stand under `config:`, after the environment is complete."""
        if HANDED_OUT not in os.environ:
            try:
                _complete()
            except OperatorError as error:
                hint = f" ({error.hint})" if error.hint else ""
                sys.exit(f"error: {error}{hint}")
        return super().config_type()


def _complete() -> None:
    """Take this installation's settings; beside a running instance, those that it runs with."""
    enter()
    settings = settings_of(None)
    if running := environment_in_use(settings):
        adopt(running)
    elif settings.is_embedded:
        EmbeddedServer.in_folder(settings.var_dir).start()
        with running_server(settings.mode) as answering:
            prepare(answering)
        say_aside("PostgreSQL runs; stop it with: ops-pipeline down")
    with existing_server(settings.mode) as answering, opened(answering) as engine, engine.connect():
        apply(answering)
