"""Benchmark features: three ways make the same rows, and it is seen where not."""

import importlib
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.features import duck
from benchmarks.features.agreement import (
    CLOSE,
    EXACT,
    KEY,
    TOLERANCE,
    Agreement,
    agreement,
)
from benchmarks.measure.features import PHASES, Measured
from benchmarks.measure.peers import INSTALL
from ops_pipeline.settings import Settings
from ops_pipeline_tests.benchmarks.test_day import scratches
from ops_pipeline_tests.benchmarks.test_dispatch import refused
from ops_pipeline_tests.cli.test_verbs import Run

SMALL = ("--sessions", "1", "--tickers", "2", "--repeats", "1")
IS_INSTALLED = find_spec(duck.NEEDED) is not None


@pytest.mark.skipif(not IS_INSTALLED, reason=f"DuckDB is absent: {INSTALL}")
def test_dbt_pandas_and_duckdb_make_the_same_rows_and_leave_nothing(
    run: Run,
    server: Settings,
) -> None:
    answer = run("features", *SMALL, "--json")
    assert answer.code == 0, answer.out + answer.err
    found = json.loads(answer.out)
    assert found["tolerance"] == TOLERANCE
    ours, *peers = found["ways"]
    assert [way["way"] for way in found["ways"]] == ["dbt", "pandas", "DuckDB"]
    assert (ours["rows"], ours["agreement"], ours["ratio_to_ours"]["range"]) == (780, None, 1)
    for peer in peers:
        assert peer["agreement"]["rows"] == peer["rows"] == 780
        assert peer["is_equal"] is True
        assert 0 <= peer["agreement"]["largest"] <= TOLERANCE
        assert list(peer["phases"]) == list(PHASES)
        assert peer["ratio_to_ours"]["minute"] == pytest.approx(
            peer["minute_seconds"] / ours["minute_seconds"]
        )
    assert scratches(server) == []


def rows(**changed: object) -> pd.DataFrame:
    """Three rows of one ticker, of whose columns some are other ones."""
    minutes = pd.date_range("2025-02-12 15:00", periods=3, freq="min", tz="UTC")
    columns: dict[str, object] = {
        **dict.fromkeys(EXACT, 1),
        **dict.fromkeys(CLOSE, 1e-3),
        "sma20": [101.0, 100.0, 99.0],
        "sma50": 100.0,
        "trend_state": [1, 0, -1],
        "volume_ratio": 3.0,
        "volume_surge": True,
    }
    frame = pd.DataFrame({"ticker": "AAPL", "minute": minutes, **columns, **changed})
    return frame.set_index(KEY)


def test_value_that_differs_by_more_than_the_tolerance_is_counted_in_its_column() -> None:
    seen = agreement(rows(), rows(recent_vol=[1e-3, 1e-3, 1e-3 + 1e-11], volume=[1, 2, 2]))
    assert seen.unequal == {"recent_vol": 1, "volume": 2}
    assert (seen.column, seen.largest) == ("recent_vol", pytest.approx(1e-8))
    assert not seen.is_equal


def test_value_within_the_tolerance_is_equal_and_told() -> None:
    seen = agreement(rows(), rows(sma50=100.0 * (1 + 1e-12)))
    assert seen.is_equal
    assert (seen.column, seen.largest) == ("sma50", pytest.approx(1e-12, rel=1e-2))


def test_number_beside_no_number_is_a_difference() -> None:
    seen = agreement(rows(), rows(sentiment_30=[1e-3, np.nan, 1e-3]))
    assert (seen.unequal, seen.largest) == ({"sentiment_30": 1}, 0)
    empty = rows(sentiment_30=np.nan)
    assert agreement(empty, empty).is_equal


def test_flag_may_differ_only_where_it_hangs_on_a_last_digit() -> None:
    tie = agreement(rows(), rows(trend_state=[1, 1, -1]))
    assert (tie.is_equal, tie.undecided) == (True, 1)
    wrong = agreement(rows(), rows(trend_state=[-1, 0, -1], volume_surge=False))
    assert (wrong.unequal, wrong.undecided) == ({"trend_state": 1, "volume_surge": 3}, 0)


def test_rows_that_only_one_has_are_counted() -> None:
    seen = agreement(rows().iloc[:2], rows().iloc[1:])
    assert (seen.rows, seen.missing, seen.added, seen.is_equal) == (1, 1, 1, False)


def test_ways_that_differ_are_said_and_end_with_one(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    differs = Agreement(9, 1, 0, {"sma20": 4}, 0, 0.25, "sma20")
    found = [
        Measured("dbt", "ours", 10, 2.0, {}, 1.0),
        Measured("pandas", "theirs", 9, 1.0, dict.fromkeys(PHASES, 0.1), 0.5, differs),
    ]
    # The package has the verb itself under this name.
    module = importlib.import_module("benchmarks.commands.features")
    monkeypatch.setattr(module, "_measured", lambda *_, **__: found)
    monkeypatch.setattr(module, "need_duckdb", lambda: None)
    answer = run("features")
    assert answer.code == 1
    assert "pandas: NOT the rows of dbt: 1 rows missing, 0 too many, 4 of sma20" in answer.out
    assert "largest difference 2.5e-01, in sma20" in answer.out


def test_absent_duckdb_is_named_with_what_installs_it(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPS_VAR_DIR", str(tmp_path / "var"))
    monkeypatch.setattr(duck, "find_spec", lambda _: None)
    answer = run("features")
    assert refused(answer) == (4, 1, "")
    assert "duckdb must be installed" in answer.err
    assert INSTALL in answer.err
    assert not (tmp_path / "var").exists()
