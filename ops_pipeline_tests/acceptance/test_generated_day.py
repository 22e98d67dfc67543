"""One generated day through the command line, in a folder of its own, and what is there after."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ops_pipeline.domain.acceptance import QUERIES
from ops_pipeline.domain.checks import CHECKS, NAMES
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.settings import Settings, load
from ops_pipeline.storage.queries import texts
from ops_pipeline_tests.cli.test_verbs import Run
from ops_pipeline_tests.cli.test_verbs import run as run_here  # noqa: F401 - the fixture

PROJECT = Path(__file__).resolve().parents[2]
STAGES = ("news", "bars", "sentiment", "features", "watchlist", "signals")
# What a replay does not ask: its clock is the past.
LIVE_ALONE = {check.name for check in CHECKS if not check.is_for_replay}


@dataclass(frozen=True)
class Installation:
    """A var folder, and what the replay in it said and left."""

    var_dir: Path
    outcome: subprocess.CompletedProcess[str]

    @property
    def settings(self) -> Settings:
        return load("replay", {"OPS_VAR_DIR": str(self.var_dir)})

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.outcome.stdout)
        return found

    @property
    def day(self) -> dict[str, Any]:
        (found,) = self.report["days"]
        return dict(found)

    def rows(self, database: str, statement: str) -> list[tuple[Any, ...]]:
        server = self.settings.server
        assert server is not None
        with psycopg.connect(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            dbname=database,
        ) as connection:
            return connection.execute(statement.encode()).fetchall()


def run(var_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, in this folder."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("ops-pipeline")), *words],
        env={**os.environ, "OPS_VAR_DIR": str(var_dir)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    var_dir = tmp_path_factory.mktemp("installation")
    server = EmbeddedServer.in_folder(var_dir)
    try:
        outcome = run(var_dir, "replay", "--from", "2025-02-12", "--json")
        # The verb has stopped what it started; looking needs a server that runs.
        assert not server.is_running()
        server.start()
        yield Installation(var_dir, outcome)
    finally:
        server.remove()


def test_replay_of_a_day_ends_with_exit_code_0(installation: Installation) -> None:
    assert installation.outcome.returncode == 0, installation.outcome.stderr


def test_report_names_its_mode_and_confidence(installation: Installation) -> None:
    report = installation.report
    assert (report["mode"], report["confidence_min"]) == ("replay", 0.55)


def test_every_stage_has_rows(installation: Installation) -> None:
    assert min(installation.day["rows"].values()) > 0


def test_each_of_the_seven_tickers_has_features_in_each_minute(installation: Installation) -> None:
    found = installation.rows(
        installation.settings.pipeline_database,
        "select ticker, count(*) from features.features_1m group by 1 order by 1",
    )
    tickers = ["AAPL", "AMZN", "GOOGL", "META", "MSFT", "NVDA", "TSLA"]
    assert found == [(ticker, 390) for ticker in tickers]


def test_every_recommendation_is_terminal(installation: Installation) -> None:
    assert installation.day["not_terminal"] == 0
    assert installation.day["failed"] == 0


def test_something_is_executed(installation: Installation) -> None:
    assert installation.day["executions"] > 0


def test_no_position_is_left_at_the_close(installation: Installation) -> None:
    assert installation.day["positions_left"] == 0
    assert installation.day["entries"] > 0


def test_the_catalogue_and_the_seven_other_checks_are_normal(installation: Installation) -> None:
    found = {check["name"]: check["level"] for check in installation.report["checks"]}
    assert set(found) > set(NAMES)
    assert len(found) == len(NAMES) + 7
    assert {name: level for name, level in found.items() if level != "normal"} == dict.fromkeys(
        LIVE_ALONE, "not applicable"
    )


def test_dagster_keeps_a_materialization_of_each_minute_of_each_asset(
    installation: Installation,
) -> None:
    found = installation.rows(
        installation.settings.dagster_database,
        """
        select asset_key, count(*), count(distinct partition) from event_logs
        where dagster_event_type = 'ASSET_MATERIALIZATION' and partition is not null
        group by 1""",
    )
    assert sorted(found) == sorted((f'["{name}"]', 390, 390) for name in STAGES)


def test_dagster_keeps_the_checks_as_passed(installation: Installation) -> None:
    found = installation.rows(
        installation.settings.dagster_database,
        """
        select count(distinct check_name), count(*) filter (where execution_status <> 'SUCCEEDED')
        from asset_check_executions""",
    )
    assert found == [(len(NAMES) + 7, 0)]


def test_every_run_of_dagster_succeeded_and_carries_its_mode(installation: Installation) -> None:
    found = installation.rows(
        installation.settings.dagster_database,
        """
        select pipeline_name, status, count(*) filter (where key = 'ops/mode')
        from runs join run_tags using (run_id) group by run_id, 1, 2 order by 1""",
    )
    names = ["acceptance_job", "dispatch_job", "minute_job"]
    assert found == [(name, "SUCCESS", 1) for name in names]


@pytest.mark.parametrize("name", QUERIES)
def test_runbooks_query_runs_word_for_word(
    installation: Installation,
    run_here: Run,  # noqa: F811 - the fixture
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setenv("OPS_VAR_DIR", str(installation.var_dir))
    outcome = run_here("sql", texts("acceptance")[name], "--format", "json")
    assert outcome.code == 0, outcome.err
    assert isinstance(json.loads(outcome.out), list)


def test_runbooks_backlog_query_finds_what_the_report_counts(installation: Installation) -> None:
    outcome = run(
        installation.var_dir, "sql", texts("acceptance")["backlog_state"], "--format", "json"
    )
    found = {row["status"]: row["count"] for row in json.loads(outcome.stdout)}
    assert found["SIMULATED"] == installation.day["executions"]
    assert set(found) == {"SIMULATED", "SKIPPED"}


def test_runbooks_queries_are_those_that_are_asked(runbook: str) -> None:
    said = " ".join(runbook.split())
    assert [n for n in QUERIES if " ".join(texts("acceptance")[n].split()) not in said] == []


@pytest.fixture
def runbook(recorded: Path) -> str:
    path = recorded.parent / "runbook" / "ops-runbook.md"
    if not path.exists():
        pytest.skip("no runbook beside the recorded data")
    return path.read_text(encoding="utf-8")
