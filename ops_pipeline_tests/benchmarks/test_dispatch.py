"""Benchmark dispatch: that all systems do the work that is timed. No time fails a test."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmarks.commands.dispatch import _ratios, _show_found
from benchmarks.measure import peers
from benchmarks.measure.backlog import FRESH
from benchmarks.measure.throughput import OURS, Durability, Measured
from ops_pipeline.settings import Settings
from ops_pipeline.storage.databases import SCRATCH
from ops_pipeline.storage.engine import opened
from ops_pipeline_tests.cli.test_verbs import Answer, Run

COUNT = 20
SMALL = ("--recommendations", str(COUNT), "--workers", "1", "--batches", "10", "--repeats", "1")
IS_INSTALLED = all(find_spec(name) for name in peers.NEEDED)
DURABLE = {"synchronous_commit": "on", "fsync": "on", "full_page_writes": "on"}


def measured(ready: Run, *words: str) -> dict[str, Any]:
    answer = ready("dispatch", *words, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert isinstance(found, dict)
    return found


def left_behind(settings: Settings) -> list[str]:
    """Scratch databases that are still there."""
    with opened(settings) as engine, engine.connect() as connection:
        found = connection.exec_driver_sql("select datname from pg_database")
        return [row[0] for row in found if SCRATCH in row[0]]


def exactly_once(found: dict[str, Any]) -> None:
    for line in found["measured"]:
        assert line["ledger_rows"] == line["recommendations"] == COUNT
        assert line["durability"] == DURABLE
        assert line["seconds"] > 0
        assert line["per_second"] == pytest.approx(COUNT / line["seconds"])


@pytest.mark.usefixtures("durable")
def test_every_recommendation_is_in_the_ledger_exactly_once(
    ready: Run,
    server: Settings,
) -> None:
    found = measured(ready, *SMALL, "--without-peers")
    exactly_once(found)
    lines = [(line["system"], line["batch"]) for line in found["measured"]]
    assert lines == [("ops-pipeline, one by one", 1), ("ops-pipeline", 10)]
    assert found["measured"][1]["ratio_to_ours"] == 1
    assert found["backlog"] is None
    assert left_behind(server) == []


@pytest.mark.usefixtures("durable")
@pytest.mark.skipif(not IS_INSTALLED, reason=f"the peers are absent: {peers.INSTALL}")
def test_peers_do_the_same_work_as_durably_with_two_workers(ready: Run) -> None:
    words = ("--workers", "2", "--repeats", "1", "--batches", "5")
    found = measured(ready, "--recommendations", str(COUNT), *words)
    exactly_once(found)
    lines = {(line["system"], line["workers"]) for line in found["measured"]}
    names = {"ops-pipeline", *(peer.name for peer in peers.PEERS)}
    assert {(name, 2) for name in names} <= lines
    assert set(found["does"]) == {line["system"] for line in found["measured"]}


@pytest.mark.usefixtures("durable")
def test_backlog_ends_closed_and_what_is_fresh_is_executed(
    ready: Run,
    server: Settings,
) -> None:
    found = measured(ready, "--recommendations", "0", "--backlog", "3000")
    backlog = found["backlog"]
    assert found["measured"] == []
    assert backlog["statuses"] == {"SIMULATED": FRESH, "SKIPPED": 3_000 - FRESH}
    worked = backlog["worked"]
    assert (worked["executed"], worked["expired"]) == (FRESH, 3_000 - FRESH)
    assert 0 < worked["first_fresh_seconds"] <= worked["seconds"]
    assert 0 < worked["expiry_seconds"] <= worked["seconds"]
    assert 0 < worked["start_mb"] <= worked["peak_mb"]
    assert backlog["indexes"]
    assert worked["plan"]
    assert worked["durability"] == DURABLE
    assert left_behind(server) == []


def refused(answer: Answer) -> tuple[int, int, str]:
    return answer.code, len(answer.error_lines), answer.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recommendations", "-1"], "--recommendations must be a number from 0 to 5,000"),
        (["--recommendations", "5001"], "--recommendations must be a number from 0 to 5,000"),
        (["--recommendations", "0"], "nothing to measure"),
        (["--workers", "0"], "--workers must be numbers from 1 to 16"),
        (["--workers", ""], "--workers must be numbers"),
        (["--workers", "1,many"], "--workers must be numbers"),
        (["--workers", "17"], "--workers must be numbers"),
        (["--batches", "1001"], "--batches must be numbers from 1 to 1,000"),
        (["--batches", "1.5"], "--batches must be numbers"),
        (["--repeats", "0"], "--repeats must be a number from 1 to 20"),
        (["--backlog", "1000"], "--backlog must be a number from 1,001"),
        (["--backlog", "-5"], "--backlog must be a number from 1,001"),
    ],
)
def test_bench_dispatch_refuses_bad_words_in_one_line(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    said: str,
) -> None:
    monkeypatch.setenv("OPS_VAR_DIR", str(tmp_path / "var"))
    answer = run("dispatch", *words)
    assert refused(answer) == (2, 1, "")
    assert said in answer.err
    assert not (tmp_path / "var").exists()


def test_absent_peers_are_named_with_what_installs_them(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPS_VAR_DIR", str(tmp_path / "var"))
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name == "pgqueuer" else name)
    answer = run("dispatch")
    assert refused(answer) == (4, 1, "")
    assert "pgqueuer must be installed" in answer.err
    assert peers.INSTALL in answer.err
    assert "--without-peers" in answer.err
    assert not (tmp_path / "var").exists()


def line(system: str, workers: int, seconds: float) -> Measured:
    durable = Durability("on", "on", "on")
    return Measured(system, workers, 10, 1, 100, 100, (seconds, 99.0), durable)


FOUND = [
    line("ops-pipeline", 1, 4.0),
    line("ops-pipeline", 1, 2.0),
    line("ops-pipeline", 2, 1.0),
    line("procrastinate", 1, 2.0),
    line("pgqueuer", 1, 1.0),
    line("pgqueuer", 2, 4.0),
    line("procrastinate, no gates", 1, 1.0),
    line("pgqueuer, no gates", 1, 1.0),
]


def test_ratio_is_to_the_fastest_of_ours_with_as_many_workers() -> None:
    assert _ratios(FOUND) == [0.5, 1.0, 1.0, 1.0, 2.0, 0.25, 2.0, 2.0]


def test_what_each_system_does_and_waits_for_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _show_found([OURS, *peers.PEERS], FOUND)
    said = capsys.readouterr().out
    assert "to ours" in said
    for system in (OURS, *peers.PEERS):
        (told,) = [text for text in said.splitlines() if text.startswith(f"{system.name}: ")]
        assert system.does in told
        assert "synchronous_commit on, fsync on" in told
