"""A replay of a test's own: its database, its market, its Dagster, and ways to play minutes."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime
from functools import cached_property
from typing import Any

import dagster as dg
import pandas as pd
import psycopg
from sqlalchemy import text

from ops_pipeline.clients.replay import RecordedMarket, table_of
from ops_pipeline.clients.universe import tickers_of
from ops_pipeline.defs.partitions import partition_key
from ops_pipeline.defs.replay import QUIET
from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.defs.tick import tick
from ops_pipeline.dispatcher.replay import Played, play
from ops_pipeline.domain.session import Session
from ops_pipeline.domain.stages import DATA_STAGES
from ops_pipeline.domain.values import Bar, NewsEntry
from ops_pipeline.settings import Mode, PartitionWindow, Settings, save_window
from ops_pipeline.storage.fingerprint import TABLES, Row, rows_of
from ops_pipeline.storage.universe import replace_universe

START = "dagster/asset_partition_range_start"
END = "dagster/asset_partition_range_end"
STAGES = [stage.name for stage in DATA_STAGES]


class World:
    """One replay and everything that it is made of."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.calendar = settings.mode.calendar
        self.pipeline = Pipeline(settings)
        self.window = PartitionWindow(date(2025, 2, 12), date(2025, 2, 12))

    def close(self) -> None:
        if "instance" in self.__dict__:
            self.instance.dispose()
        self.pipeline.engine.dispose()
        if "definitions" in self.__dict__:
            _pipeline_of(self.definitions).engine.dispose()

    def session(self, day: date) -> Session:
        found = self.calendar.on(day)
        assert found is not None
        return found

    def open_market(
        self,
        bars: Iterable[Bar] | pd.DataFrame,
        entries: Iterable[NewsEntry] = (),
        days: tuple[date, date] | None = None,
    ) -> None:
        """Make these the market, its tickers the universe, and these days the partitions."""
        table = bars if isinstance(bars, pd.DataFrame) else table_of(bars)
        shutil.rmtree(self._market.folder, ignore_errors=True)
        self._market.save(table, entries)
        self.track(sorted(table["ticker"].unique()))
        if days:
            self.window = PartitionWindow(*days)
            save_window(self.settings, self.window)
            if "definitions" in self.__dict__:
                _pipeline_of(self.__dict__.pop("definitions")).engine.dispose()

    def track(self, symbols: Iterable[str]) -> None:
        with self.pipeline.engine.begin() as connection:
            replace_universe(connection, tickers_of(symbols))

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        return dg.DagsterInstance.ephemeral()

    @cached_property
    def definitions(self) -> dg.Definitions:
        from ops_pipeline.definitions import build

        made = build(replace(self.settings, window=self.window))
        # One set of settings for all windows, so that dbt is parsed once for all tests.
        _pipeline_of(made).settings = self.settings
        return made

    def job(self, name: str, **how: Any) -> dg.ExecuteInProcessResult:
        """Run a job as a replay does."""
        job = self.definitions.resolve_job_def(name)
        outcome: dg.ExecuteInProcessResult = _on_a_short_stack(
            job.execute_in_process, instance=self.instance, run_config=QUIET, **how
        )
        return outcome

    def minute(self, minute: datetime) -> dg.ExecuteInProcessResult:
        """All data stages of one minute, as one run."""
        return self.job("minute_job", partition_key=partition_key(minute, self.calendar))

    def range(self, first: datetime | str, last: datetime | str) -> dg.ExecuteInProcessResult:
        """All data stages from the first minute to the last one, as one run."""
        keys = [
            at if isinstance(at, str) else partition_key(at, self.calendar) for at in (first, last)
        ]
        return self.job("minute_job", tags={START: keys[0], END: keys[1]})

    def stages(
        self, first: datetime, last: datetime, names: Sequence[str] = STAGES
    ) -> dict[str, dict[str, Any]]:
        """The stages' own functions over these minutes, without a run around them."""
        chosen = [stage for stage in DATA_STAGES if stage.name in names]
        said: dict[str, dict[str, Any]] = _on_a_short_stack(
            tick, self.pipeline, first, last, chosen, "by hand"
        )
        return said

    def dispatch(self, minutes: Sequence[datetime]) -> Played:
        """The dispatcher, stepping over these minutes."""
        return play(self.pipeline.desk("test"), minutes, self.pipeline.timing)

    def rows(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        with self.pipeline.engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(statement), parameters).mappings()]

    def value(self, statement: str, **parameters: Any) -> Any:
        (row,) = self.rows(statement, **parameters)
        return next(iter(row.values()))

    def table(self, statement: str, **parameters: Any) -> pd.DataFrame:
        return pd.DataFrame(self.rows(statement, **parameters))

    def execute(self, statement: str, **parameters: Any) -> None:
        with self.pipeline.engine.begin() as connection:
            connection.execute(text(statement), parameters)

    def features(self) -> dict[tuple[str, datetime], dict[str, Any]]:
        """The feature rows by ticker and minute, but for when they were written."""
        rows = self.rows("select * from features.features_1m")
        for row in rows:
            del row["written_at"]
        return {(row["ticker"], row["minute"]): row for row in rows}

    def hashes(self) -> dict[str, str]:
        """One digest for each table: its rows in order, without what may differ."""
        with self.pipeline.engine.connect() as connection:
            return {table.name: _digest(rows_of(connection, table)) for table in TABLES}

    @property
    def _market(self) -> RecordedMarket:
        return RecordedMarket(self.settings.mode_dir / "market")


def _digest(rows: Sequence[Row]) -> str:
    text = "\n".join(row.document for row in rows)
    return f"{len(rows)} rows {hashlib.sha256(text.encode()).hexdigest()}"


@contextmanager
def open_world(template: Settings, mode: Mode = Mode.REPLAY) -> Iterator[World]:
    """A world in a new database; each has the same name, because dbt's manifest knows it."""
    assert template.server is not None
    server = replace(template.server, base_name="world")
    settings = replace(template, mode=mode, server=server)
    _copy_database(template, template.pipeline_database, settings.pipeline_database)
    before = dict(os.environ)
    # The code location loads from this var folder; what dbt's runs leave behind is undone.
    os.environ["OPS_VAR_DIR"] = str(settings.var_dir)
    world = World(settings)
    try:
        yield world
    finally:
        world.close()
        os.environ.clear()
        os.environ.update(before)


def _on_a_short_stack(work: Callable[..., Any], *args: Any, **how: Any) -> Any:
    """Do work in a thread: dbt inspects its callers' frames, and below pytest they are many."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work, *args, **how).result()


def prepare(template: Settings, name: str, play: Callable[[World], None]) -> Settings:
    """Play once in a world, and keep its database as a template for any number of others."""
    with open_world(template) as world:
        play(world)
        played = world.settings.pipeline_database
    assert template.server is not None
    kept = replace(template, server=replace(template.server, base_name=name))
    _copy_database(template, played, kept.pipeline_database)
    return kept


def _copy_database(settings: Settings, source: str, target: str) -> None:
    with administrator(settings) as connection:
        connection.execute(f'drop database if exists "{target}" with (force)')
        connection.execute(f'create database "{target}" template "{source}"')


def _pipeline_of(definitions: dg.Definitions) -> Pipeline:
    pipeline: Pipeline = (definitions.resources or {})["pipeline"]
    return pipeline


def administrator(settings: Settings) -> psycopg.Connection:
    """A connection that may make and drop databases."""
    server = settings.server
    assert server is not None
    return psycopg.connect(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        dbname="postgres",
        autocommit=True,
    )
