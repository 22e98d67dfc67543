"""A mode of a test's own to inject faults into: its database, its processes, its Dagster."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine, text

from ops_pipeline.domain.acceptance import Verdict
from ops_pipeline.local.keeper import Keeper, Kept, log_dir, table_of
from ops_pipeline.local.ports import free_port
from ops_pipeline.local.processes import wait_until
from ops_pipeline.operations.runbook.section import (
    Diagnosis,
    Fix,
    LastRun,
    Orchestrator,
    Scene,
    diagnose,
    fix,
    verify,
)
from ops_pipeline.operations.runbook.sections import section_of
from ops_pipeline.settings import KEEPER, PROJECT_DIR, Settings, load
from ops_pipeline.storage.engine import open_engine
from ops_pipeline_tests.defs.world import administrator
from ops_pipeline_tests.operations.sleepers import SLEEPS


class QuietDagster:
    """An orchestrator of which all is well."""

    def stopped(self) -> list[str]:
        return []

    def start(self, name: str) -> None:
        raise AssertionError(name)

    def silent_seconds(self, now: object) -> float | None:
        return None

    def last_run(self, job: str) -> LastRun | None:
        return None


@dataclass
class Ward:
    """A mode, and what a section says of it."""

    settings: Settings
    engine: Engine
    environ: Mapping[str, str] = field(default_factory=dict)
    dagster: Orchestrator = field(default_factory=QuietDagster)

    @cached_property
    def scene(self) -> Scene:
        return Scene(self.settings, self.engine, "a test", lambda: self.dagster)

    def diagnose(self, name: str) -> Diagnosis:
        return diagnose(section_of(name), self.scene)

    def codes(self, name: str) -> list[str]:
        return [one.cause.code for one in self.diagnose(name).found]

    def fix(self, name: str, *, apply: bool) -> Fix:
        return fix(section_of(name), self.scene, apply=apply)

    def verify(self, name: str) -> list[Verdict]:
        return verify(section_of(name), self.scene)

    def is_normal(self, name: str) -> bool:
        verdicts = self.verify(name)
        return bool(verdicts) and all(verdict.is_normal for verdict in verdicts)

    def execute(self, statement: str, **parameters: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement), parameters)

    def value(self, statement: str) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(text(statement)).scalar()

    def digest(self, but: Sequence[str] = ()) -> str:
        """A hash of every row of every table, and of what guards them; `but` tables that live."""
        names = "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname in"
        found = hashlib.sha256()
        with self.engine.connect() as connection:
            tables = connection.execute(text(f"{names} ('public', 'features') order by 1"))
            for (name,) in tables.all():
                if name.partition(".")[2] not in but:
                    rows = connection.execute(text(f"select t::text from {name} t order by 1"))
                    found.update(f"{name} {rows.all()}".encode())
            for kind in ("pg_constraint", "pg_trigger", "pg_index"):
                rows = connection.execute(text(f"select t::text from {kind} t order by 1"))
                found.update(str(rows.all()).encode())
        return found.hexdigest()

    @contextmanager
    def kept(self, **commands: Sequence[str]) -> Iterator[None]:
        """Every process of this mode runs, a sleeping one where no command is given."""
        table, folder = table_of(self.settings), log_dir(self.settings)
        names = [name for name in self.settings.mode.processes if name != KEEPER]
        kept = [Kept(name, [*commands.get(name, SLEEPS)]) for name in names]
        keeper = Keeper(table, kept, lambda: self.environ, folder)
        table.start(KEEPER, SLEEPS, self.environ, folder / f"{KEEPER}.log", PROJECT_DIR)
        thread = Thread(target=keeper.run, daemon=True)
        thread.start()
        try:
            wait_until(lambda: all(map(table.find, names)), 10, "they did not start")
            yield
        finally:
            keeper.ended.set()
            thread.join(20)
            table.stop(KEEPER)


@contextmanager
def a_ward(
    template: Settings,
    folder: Path,
    mode: str = "sandbox",
    *,
    port: int | None = None,
    **variables: str,
) -> Iterator[Ward]:
    """A ward with a database of its own, migrated and with the default universe."""
    server, base = template.server, f"t{uuid4().hex[:12]}"
    assert server is not None
    environ = {
        "OPS_MODE": mode,
        "OPS_VAR_DIR": str(folder),
        "OPS_SANDBOX_PORT": str(port or free_port()),
        "DATABASE_URL": f"postgresql://{server.user}:{server.password}@{server.host}:{server.port}"
        f"/{base}",
        **variables,
    }
    settings = load(mode, environ)
    database = settings.pipeline_database
    with administrator(template) as connection:
        connection.execute(f'create database "{database}" template "{template.pipeline_database}"')
    engine = open_engine(settings)
    try:
        yield Ward(settings, engine, environ)
    finally:
        engine.dispose()
        with administrator(template) as connection:
            connection.execute(f'drop database "{database}" with (force)')


OpenWard = Callable[..., Ward]
