"""Benchmark model: each way is measured beside the naive one, on a tiny model."""

import json
from pathlib import Path

import pytest

from benchmarks.measure.model_speed import ways
from ops_pipeline import cli
from ops_pipeline.settings import Settings
from ops_pipeline_tests.cli.test_verbs import Run, runner
from ops_pipeline_tests.clients.tiny_finbert import make_finbert


@pytest.fixture
def model(run: Run, server: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The benchmark, with a var folder that holds no model yet, and a tiny one to export."""
    monkeypatch.setenv("OPS_VAR_DIR", str(tmp_path / "var"))
    monkeypatch.setenv("OPS_FINBERT_PATH", str(make_finbert(tmp_path / "tiny")))
    monkeypatch.delenv("OPS_SENTIMENT", raising=False)
    return lambda *words: run("model", *words)


def test_without_an_exported_model_it_says_what_to_do(model: Run) -> None:
    answer = model()
    assert (answer.code, len(answer.error_lines)) == (4, 1)
    assert "run: ops-pipeline model export" in answer.err


def test_each_way_is_measured_beside_the_naive_one(
    model: Run,
    tmp_path: Path,
    server: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    verbs = runner(cli.main, server, monkeypatch, capsys)
    monkeypatch.setenv("OPS_VAR_DIR", str(tmp_path / "var"))
    assert verbs("model", "export").code == 0
    answer = model("--headlines", "8", "--rounds", "1", "--json")
    found = json.loads(answer.out)
    assert (answer.code, [each["way"] for each in found]) == (0, ways())
    by_way = {each["way"]: each for each in found}
    assert by_way["ONNX fp32"]["from_naive"] < 1e-3
    assert by_way["ONNX fp32"]["start_seconds"] < by_way["torch fp32"]["start_seconds"]
    assert all(each["per_second"] > 0 and each["peak_mb"] > 0 for each in found)
