"""Benchmarks day and backfill: each way does its minutes. No time fails a test."""

import json
import os
import subprocess
import sys
from datetime import date, timedelta

import pytest

from benchmarks.commands.backfill import _ratios
from benchmarks.commands.day import _document
from benchmarks.market import generated
from benchmarks.measure.backfill import Filled, sample_of
from benchmarks.measure.day import Played
from benchmarks.measure.minutes import middle
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage.databases import SCRATCH
from ops_pipeline.storage.engine import open_engine
from ops_pipeline_tests.benchmarks.test_dispatch import refused
from ops_pipeline_tests.cli.test_verbs import Run

SESSION = generated(1, 1).sessions[0]
HALF_DAY = ("--from", "2025-11-28", "--tickers", "1")


def scratches(settings: Settings) -> list[str]:
    """Databases and folders of a bench that are still there."""
    engine = open_engine(settings, "postgres")
    with engine.connect() as connection:
        found = [row[0] for row in connection.exec_driver_sql("select datname from pg_database")]
    engine.dispose()
    folders = [path.name for path in (settings.var_dir / "scratch").glob("*")]
    return folders + [name for name in found if SCRATCH in name]


def test_day_has_the_same_rows_minute_by_minute_and_leaves_nothing(
    run: Run,
    server: Settings,
) -> None:
    answer = run("day", *HALF_DAY, "--sample", "2", "--json")
    assert answer.code == 0, answer.out + answer.err
    found = json.loads(answer.out)
    ranged, single = found["ways"]
    assert found["differences"] == []
    assert (ranged["minutes"], single["minutes"]) == (210, 2)
    assert ranged["rows"] > 210 * 3
    assert 2 * 3 <= single["rows"] < ranged["rows"]
    for way in (ranged, single):
        assert way["seconds"] == pytest.approx(way["data_seconds"] + way["dispatch_seconds"])
        assert 0 < way["loaded_mb"] <= way["peak_mb"]
    assert found["naive_to_ours"] == pytest.approx(
        single["seconds"] * 105 / ranged["seconds"], rel=1e-6
    )
    assert scratches(server) == []


@pytest.mark.timeout(300)
def test_backfill_writes_the_events_of_each_minute_in_every_way(server: Settings) -> None:
    # In a process of its own: the code location of another test's settings may be loaded here.
    words = (*HALF_DAY, "--sessions", "1", "--sample", "1", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "backfill", *words],
        env={**os.environ, "OPS_VAR_DIR": str(server.var_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    told = [(one["way"], one["minutes"], one["runs"]) for one in found]
    assert told == [
        ("a run a session", 210, 1),
        ("a run a minute", 1, 1),
        ("batched events", 1, 1),
        ("stock events", 1, 1),
    ]
    sessions, by_minute, ours, stock = found
    # Six assets tell of each minute that they are planned, and that they are made.
    assert sessions["events"] >= 2 * 6 * 210
    assert by_minute["events"] == ours["events"] == stock["events"] > 2 * 6
    assert all(one["rows"] >= 3 * one["minutes"] for one in found)
    assert scratches(server) == []


@pytest.mark.parametrize(
    "words",
    [
        ["day", "--tickers", "0"],
        ["day", "--sample", "391"],
        ["backfill", "--sessions", "60"],
        ["backfill", "--sample", "131"],
        ["features", "--repeats", "0"],
        ["features", "--sessions", "61"],
    ],
)
def test_numbers_out_of_bounds_are_refused_in_one_line(run: Run, words: list[str]) -> None:
    answer = run(*words)
    assert refused(answer) == (2, 1, "")
    assert "must be a number from" in answer.err


def test_sample_lies_around_the_middle_in_a_row() -> None:
    minutes = SESSION.minutes()
    assert middle(minutes, 30) == minutes[180:210]
    assert middle(minutes, 390) == middle(minutes, 500) == minutes


def test_stretches_of_a_backfill_follow_each_other_and_fit() -> None:
    minutes = SESSION.minutes()
    sample = sample_of(SESSION, 10)
    assert [*sample.by_minute, *sample.ours, *sample.stock] == middle(minutes, 30)
    assert sample.before[-1] == sample.by_minute[0] - MINUTE
    whole = sample_of(SESSION, 130)
    assert [*whole.before, *whole.by_minute, *whole.ours, *whole.stock] == minutes


def test_naive_minutes_are_scaled_to_the_session() -> None:
    ours = Played("range", 390, 3_900, 8.0, 2.0, 100.0, 200.0)
    naive = Played("by minute", 30, 300, 25.0, 5.0, 100.0, 200.0)
    document = _document([ours, naive], [])
    assert [way["seconds_of_session"] for way in document["ways"]] == [10.0, 390.0]
    assert document["naive_to_ours"] == 39.0
    assert [way["per_second"] for way in document["ways"]] == [390.0, 10.0]


def test_ratios_are_by_minute_and_each_to_its_own() -> None:
    found = [
        Filled("a run a session", 780, 2, 1, 1, 7.8),
        Filled("a run a minute", 10, 10, 1, 1, 5.0),
        Filled("batched events", 10, 1, 1, 1, 2.0),
        Filled("stock events", 10, 1, 1, 1, 6.0),
    ]
    assert _ratios(found) == pytest.approx([1, 50, 1, 3])


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_market_has_so_many_sessions_in_a_row_and_one_before(count: int) -> None:
    request = generated(count, 1)
    days = [session.day for session in request.sessions]
    calendar = Mode.REPLAY.calendar
    assert days == [session.day for session in calendar.between(days[0], days[-1])]
    assert len(days) == count
    first = request.bars["minute"].min().date()
    assert date(2025, 1, 31) == first < days[0] == first + timedelta(days=3)
