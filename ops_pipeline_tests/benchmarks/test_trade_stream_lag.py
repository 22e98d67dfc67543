"""Benchmark stream: that what is told is known. No time fails a test."""

import json
from pathlib import Path

import pytest

from ops_pipeline.settings import Settings
from ops_pipeline_tests.benchmarks.test_dispatch import left_behind, refused
from ops_pipeline_tests.cli.test_verbs import Run


def test_all_that_is_told_is_known_and_adds_up(ready: Run, server: Settings) -> None:
    answer = ready("trade-stream", "--rate", "50", "--seconds", "3", "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert found["sent"] == found["frames"] == found["events"]
    assert found["sent"] in range(140, 161)
    assert found["outcomes"] == {"APPLIED": found["sent"]}
    assert (found["lost"], found["adds_up"], found["connections"]) == (0, True, 1)
    for lag in (found["lag_since_received"], found["lag_since_sent"]):
        assert 0 < lag["p50"] <= lag["p95"] <= lag["longest"]
    assert 0 < found["start_mb"] <= found["peak_mb"]
    assert left_behind(server) == []


def test_what_was_measured_is_a_table(ready: Run) -> None:
    answer = ready("trade-stream", "--rate", "20", "--seconds", "1")
    assert answer.code == 0, answer.err
    for said in ("events lost", "memory at half time", "from sent to applied"):
        assert said in answer.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rate", "0"], "--rate must be a number from 1 to 2,000"),
        (["--seconds", "3601"], "--seconds must be a number from 1 to 3,600"),
    ],
)
def test_bench_stream_refuses_bad_words_in_one_line(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    said: str,
) -> None:
    monkeypatch.setenv("OPS_VAR_DIR", str(tmp_path / "var"))
    answer = run("trade-stream", *words)
    assert refused(answer) == (2, 1, "")
    assert said in answer.err
