"""The verb purge: what it prints, and what it refuses."""

import json
from pathlib import Path

import pytest

from ops_pipeline.settings import Mode, Settings, load
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.retention import sole_purge
from ops_pipeline_tests.cli.test_verbs import Run, ready, run  # noqa: F401 - fixtures
from ops_pipeline_tests.defs.test_retention import put_signals, tickers

SANDBOX = ("--mode", "sandbox")


@pytest.fixture
def sandbox(run: Run, server: Settings) -> Settings:  # noqa: F811
    """Sandbox mode with one signal of last year, which recommended nothing."""
    assert run("init", *SANDBOX).code == 0
    settings = load(Mode.SANDBOX.value, {"OPS_VAR_DIR": str(server.var_dir)})
    if not tickers(settings):
        put_signals(settings, "MSFT")
    return settings


def test_a_dry_run_as_json_counts_and_removes_nothing(run: Run, sandbox: Settings) -> None:  # noqa: F811
    answer = run("purge", "--dry-run", "--json", *SANDBOX)
    assert (answer.code, answer.err) == (0, "")
    told = json.loads(answer.out)
    assert told["is_dry_run"] is True
    assert {one["kind"]: one["rows"] for one in told["removed"]}["signals"] == 1
    assert told["tables"] == []
    assert tickers(sandbox) == ["MSFT"]


def test_a_purge_says_what_went_and_how_large_the_tables_are(run: Run, sandbox: Settings) -> None:  # noqa: F811
    answer = run("purge", *SANDBOX)
    assert answer.code == 0
    lines = [line.split() for line in answer.out.splitlines()]
    assert ["signals", "90", "1"] in [words[:3] for words in lines]
    assert "MB after" in answer.out
    assert "both databases: " in answer.out
    assert tickers(sandbox) == []


def test_before_the_first_run_of_dagster_there_is_nothing_to_purge(ready: Run) -> None:  # noqa: F811
    answer = ready("purge", "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["removed"] == []


def test_a_second_purge_is_refused_in_one_line(run: Run, sandbox: Settings) -> None:  # noqa: F811
    with opened(sandbox) as engine, sole_purge(engine):
        answer = run("purge", *SANDBOX)
    assert answer.code == 6
    assert len(answer.error_lines) == 1
    assert "another purge is at work here; nothing was removed" in answer.err
    assert tickers(sandbox) == ["MSFT"]


@pytest.mark.parametrize("text", ["0", "-3", "seven"])
def test_days_that_are_none_are_refused_in_one_line(
    run: Run,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    text: str,
) -> None:
    monkeypatch.setenv("OPS_KEEP_LOGS_DAYS", text)
    answer = run("purge")
    assert answer.code == 4
    assert len(answer.error_lines) == 1
    assert "OPS_KEEP_LOGS_DAYS must be a whole number of days from 1 to 3,650" in answer.err


def test_without_a_server_nothing_is_started_for_it(
    run: Run,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("OPS_VAR_DIR", str(tmp_path))
    answer = run("purge")
    assert answer.code == 3
    assert list(tmp_path.iterdir()) == []
