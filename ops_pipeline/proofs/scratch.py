"""An installation of its own beside the real one: databases and a folder that are gone after."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from ops_pipeline.settings import Settings, load
from ops_pipeline.storage.databases import SCRATCH, scratch_databases
from ops_pipeline.storage.engine import opened, server_of
from ops_pipeline.storage.migrate import migrate


@contextmanager
def scratch(settings: Settings, name: str) -> Iterator[Settings]:
    """Settings of an installation of the same mode, on the same server, that holds nothing yet."""
    variables = environment(settings, name)
    made = load(settings.mode.value, variables)
    with scratch_databases(made):
        shutil.rmtree(made.var_dir, ignore_errors=True)
        with opened(made) as engine:
            migrate(engine)
        try:
            yield made
        finally:
            shutil.rmtree(made.var_dir, ignore_errors=True)


def environment(settings: Settings, name: str) -> dict[str, str]:
    """What a process reads to work in this scratch."""
    server = server_of(settings)
    login = f"{quote(server.user, safe='')}:{quote(server.password, safe='')}"
    base_name = f"{settings.base_name}{SCRATCH}{name}"
    return {
        "OPS_MODE": settings.mode.value,
        "OPS_VAR_DIR": str(settings.var_dir / "scratch" / name),
        "OPS_PARTITIONS_START": "",
        # Made to be dropped, by the user that may: it has no roles of its own.
        "OPS_RUNTIME_PASSWORD": "",
        "DATABASE_URL": f"postgresql://{login}@{server.host}:{server.port}/{base_name}",
    }


@contextmanager
def entered(variables: dict[str, str]) -> Iterator[Settings]:
    """Work in a scratch; what this process read from its environment before comes back."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield load()
    finally:
        os.environ.clear()
        os.environ.update(before)
