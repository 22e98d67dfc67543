"""Benchmark bars: one minute of bars from a sandbox, and what it leaves behind."""

import json
from pathlib import Path

import pytest

from ops_pipeline.settings import Settings
from ops_pipeline_tests.benchmarks.test_day import scratches
from ops_pipeline_tests.benchmarks.test_dispatch import refused
from ops_pipeline_tests.cli.test_verbs import Run


def test_a_minute_of_three_tickers_is_one_request(run: Run, server: Settings) -> None:
    answer = run("bars", "--tickers", "3", "--json")
    assert answer.code == 0, answer.err
    (found,) = json.loads(answer.out)
    assert (found["tickers"], found["naive_tickers"], found["requests"]) == (3, 3, 1)
    # A minute and five of overlap, where trading is not halted.
    assert 9 <= found["bars"] <= 18
    assert found["bytes"] > 0
    assert found["ratio"] > 0
    naive = found["naive_fetch_seconds"] / 3
    assert found["ratio"] == pytest.approx(naive / (found["fetch_seconds"] / 3))
    assert scratches(server) == []


@pytest.mark.parametrize("tickers", ["", "0", "-3", "three", "7,", "7;8", "10001", "1.5", "\u00b2"])
def test_a_universe_of_no_size_is_refused_in_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tickers: str
) -> None:
    monkeypatch.setenv("OPS_VAR_DIR", str(tmp_path / "var"))
    answer = run("bars", "--tickers", tickers)
    assert refused(answer) == (2, 1, "")
    assert "--tickers must be numbers from 1 to 10,000" in answer.err
    assert not (tmp_path / "var").exists()
