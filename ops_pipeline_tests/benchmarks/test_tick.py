"""Benchmark tick: our way runs minutes, and what is said of both. No time fails a test."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.commands.tick import _order, _show
from benchmarks.measure.plot import draw
from benchmarks.measure.tick import OURS, PHASES, STOCK, Tick, at, typical
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.settings import Settings
from ops_pipeline_tests.cli.test_verbs import Run

# The stock way is run by defs/test_launchers.py.
SMALL = ("--ticks", "2", "--stock", "0")
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def ran(way: str, seconds: float) -> Tick:
    phases = dict.fromkeys(PHASES, seconds / len(PHASES))
    return Tick(way, NOON, phases, seconds, 2 * seconds, 100.0)


FOUND = [ran("ops-pipeline", s) for s in (1.0, 2.0, 3.0)] + [ran("stock", 20.0)]


@pytest.mark.timeout(300)
def test_minutes_are_run_in_order_and_the_phases_of_each_add_up(server: Settings) -> None:
    # In a process of its own: the code location of another test's settings may be loaded here.
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "tick", *SMALL, "--json"],
        env={**os.environ, "OPS_VAR_DIR": str(server.var_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["way"] for one in found] == ["ops-pipeline"] * 2
    for one in found:
        assert list(one["phases"]) == list(PHASES)
        assert all(seconds > 0 for seconds in one["phases"].values())
        assert one["seconds"] == pytest.approx(sum(one["phases"].values()))
        assert one["cpu_seconds"] > 0
        assert one["memory_mb"] > 0
    first, second = (datetime.fromisoformat(one["minute"]) for one in found)
    assert second - first == MINUTE


@pytest.mark.parametrize(
    "words", [["--ticks", "0"], ["--ticks", "501"], ["--stock", "-1"], ["--tickers", "10001"]]
)
def test_numbers_out_of_bounds_are_refused_in_one_line(run: Run, words: list[str]) -> None:
    answer = run("tick", *words)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "must be a number from" in answer.err


def test_the_few_are_spread_among_the_many() -> None:
    assert [way.name[0] for way in _order(OURS, 4, STOCK, 2)] == ["s", "o", "o", "s", "o", "o"]
    assert _order(OURS, 5, STOCK, 5).count(STOCK) == 5


def test_p50_p95_and_the_longest_are_of_the_ticks() -> None:
    ticks = [ran("ops-pipeline", float(number)) for number in range(1, 101)]
    assert [at(ticks, share) for share in (0, 0.5, 0.95, 1)] == [1, 51, 96, 100]
    assert typical(ticks, "bars") == pytest.approx(50.5 / len(PHASES))


def test_table_compares_the_ways_by_phase(capsys: pytest.CaptureFixture[str]) -> None:
    _show(FOUND, 7)
    said = capsys.readouterr().out
    assert "3 ops-pipeline, 1 stock" in said
    (line,) = [text for text in said.splitlines() if text.strip().startswith("longest")]
    assert line.split()[-3:] == ["3.00", "20.00", "6.67"]


def test_scale_tells_how_the_cost_grows(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import importlib

    module = importlib.import_module("benchmarks.commands.scale")

    def measured(ticks: int, stock: int, tickers: int, *, quiet: bool) -> list[Tick]:
        assert (ticks, stock, quiet) == (3, 0, False)
        return [ran("ops-pipeline", tickers / 10)] * ticks

    monkeypatch.setattr(module, "measured", measured)
    monkeypatch.setattr(module, "alone", lambda work, *words, **named: work(*words, **named))
    answer = run("scale", "--tickers", "10,40")
    assert answer.code == 0, answer.err
    assert "4 times the tickers take 4.0 times as long" in answer.out
    refused = run("scale", "--tickers", "7,none")
    assert (refused.code, refused.err.count("\n")) == (2, 1)


def test_phases_are_drawn(tmp_path: Path) -> None:
    draw(FOUND, tmp_path / "phases.png")
    assert (tmp_path / "phases.png").read_bytes().startswith(b"\x89PNG")
