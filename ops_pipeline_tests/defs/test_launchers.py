"""A whole day through Dagster's own processes, forked from a loaded one and the stock way."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import dagster as dg
import pytest

from benchmarks.measure.tick import OURS, STOCK, Way, lab_of
from ops_pipeline.clients.replay import RecordedMarket, table_of
from ops_pipeline.clients.universe import tickers_of
from ops_pipeline.domain.stages import DATA_STAGES
from ops_pipeline.proofs.scratch import entered, environment, scratch
from ops_pipeline.sandbox.market import DEFAULT_TICKERS
from ops_pipeline.settings import PartitionWindow, Settings, save_window
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.fingerprint import TABLES, rows_of
from ops_pipeline.storage.universe import replace_universe
from ops_pipeline_tests.defs.markets import generated

DAY = date(2026, 10, 14)
NAME = "launchers"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@contextmanager
def installed(server: Settings) -> Iterator[Settings]:
    """A replay of one generated day, and what its processes read."""
    with scratch(server, NAME) as made, entered(environment(server, NAME)):
        RecordedMarket(made.mode_dir / "market").save(
            table_of(generated(DAY)[0]), generated(DAY)[1]
        )
        save_window(made, PartitionWindow(DAY, DAY))
        with opened(made) as engine, engine.begin() as connection:
            replace_universe(connection, tickers_of(DEFAULT_TICKERS))
        os.environ.update(made.environment())
        yield made


def day_by(server: Settings, way: Way) -> tuple[dict[str, list[str]], dict[str, int]]:
    """The day as one run: the rows of each table, and how many minutes Dagster holds of a stage."""
    with installed(server) as settings, lab_of(way) as lab:
        calendar = settings.mode.calendar
        session = calendar.on(DAY)
        assert session
        minutes = session.minutes()
        lab.finished(lab.minutes(minutes[0], minutes[-1], calendar))
        made = {
            stage.name: len(lab.instance.get_materialized_partitions(dg.AssetKey(stage.name)))
            for stage in DATA_STAGES
        }
        with opened(settings) as engine, engine.connect() as connection:
            rows = {t.name: [row.document for row in rows_of(connection, t)] for t in TABLES}
    return rows, made


def test_whole_day_is_the_same_forked_and_on_the_stock_launcher(server: Settings) -> None:
    rows, made = day_by(server, OURS)
    stock_rows, stock_made = day_by(server, STOCK)
    assert made == stock_made == {stage.name: 390 for stage in DATA_STAGES}
    assert len(rows["signals"]) == 390 * len(DEFAULT_TICKERS)
    for name, found in rows.items():
        assert found == stock_rows[name], name
