"""Past days are filled one run each; what cannot be filled is said in one line."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pytest

from ops_pipeline.cli import market
from ops_pipeline.clients.universe import tickers_of
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.sandbox.live import UnfoldingMarket
from ops_pipeline.sandbox.world import SandboxWorld
from ops_pipeline.settings import Mode, Settings, load
from ops_pipeline.storage.engine import open_engine, opened
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.universe import replace_universe
from ops_pipeline_tests.cli.test_verbs import Answer, Run, ready, run  # noqa: F401 - fixtures
from ops_pipeline_tests.sandbox.served import served

HALF_DAY = date(2025, 11, 28)
TICKERS = ("AAPL", "MSFT")


def rows(
    settings: Settings, statement: str, database: str | None = None
) -> list[tuple[object, ...]]:
    engine = open_engine(settings, database)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.exec_driver_sql(statement)]
    engine.dispose()
    return found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "2999-01-04"], "lies in the future"),
        (["--from", "2025-02-12", "--to", "2999-01-04"], "lies in the future"),
        (["--from", "2025-02-13", "--to", "2025-02-12"], "lies before"),
        (["--from", "2025-02-15", "--to", "2025-02-17"], "closed"),
        (["--from", "yesterday"], "must be a day"),
        (["--from", "2020-01-02", "--to", "2025-01-02"], "at once"),
    ],
    ids=["future", "future end", "reversed", "closed days", "no day", "too many"],
)
def test_backfill_refuses_days_in_one_line(ready: Run, words: list[str], said: str) -> None:  # noqa: F811
    answer = ready("backfill", *words)
    assert (answer.code, len(answer.error_lines)) == (2, 1)
    assert said in answer.err


@dataclass(frozen=True)
class Installation:
    """A var folder of these tests' own, with a server that runs."""

    var_dir: Path

    @property
    def settings(self) -> Settings:
        return load("replay", {"OPS_VAR_DIR": str(self.var_dir)})

    def run(self, *words: str, **variables: str) -> Answer:
        """The command line, in this folder."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ops-pipeline")), *words],
            env={**os.environ, "OPS_VAR_DIR": str(self.var_dir), "COLUMNS": "200", **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    made = Installation(tmp_path_factory.mktemp("installation"))
    server = EmbeddedServer.in_folder(made.var_dir)
    try:
        server.start()
        assert made.run("init").code == 0
        yield made
    finally:
        server.remove()


@pytest.fixture(scope="module")
def market_saved(installation: Installation) -> Installation:
    """The same, with a market of two tickers for one half day, and no bars for the days after."""
    refused = installation.run("backfill", "--from", "2025-02-12")
    assert (refused.code, len(refused.error_lines)) == (2, 1)
    assert "no recorded market yet" in refused.err
    days = (HALF_DAY, HALF_DAY)
    request = market.generated(Mode.REPLAY.calendar, TICKERS, days, 7)
    market.put(installation.settings, request)
    return installation


def test_backfill_over_a_gap_in_the_data_names_the_days(market_saved: Installation) -> None:
    answer = market_saved.run("backfill", "--from", "2025-11-28", "--to", "2025-12-02")
    assert (answer.code, len(answer.error_lines)) == (2, 1)
    assert "no bars on 2025-12-01, 2025-12-02" in answer.err


def test_backfill_previews_fills_and_trades_a_day_and_is_safe_to_repeat(
    market_saved: Installation,
) -> None:
    settings = market_saved.settings
    words = ("backfill", "--from", "2025-11-28")

    preview = market_saved.run(*words, "--dry-run", "--json")
    plan = json.loads(preview.out)
    (day,) = plan["days"]
    assert (preview.code, day["day"], day["minutes"], day["minutes_done"]) == (
        0,
        "2025-11-28",
        210,
        0,
    )
    # At most one bar, one feature and one signal a minute, and a decision each fifth one.
    assert 0 < day["bars"] <= 420
    assert day["rows"] == day["bars"] + 2 * 420 + 42 * 2
    assert plan["seconds"] > day["seconds"] > 0
    assert rows(settings, "select count(*) from stage_minutes") == [(0,)]

    first = market_saved.run(*words)
    assert first.code == 0, first.err
    assert "1 days, 210 minutes" in first.out
    assert "2025-11-28, day 1 of 1" in first.err
    decided = "select status, count(*) from dispatch_recommendations group by 1 order by 1"
    runs = "select count(*) from dispatcher_runs"
    before = rows(settings, decided), rows(settings, runs)
    assert before[0]
    assert {status for status, _ in before[0]} <= {"SIMULATED", "SKIPPED"}

    again = market_saved.run(*words, "--json")
    assert again.code == 0, again.err
    (summary,) = json.loads(again.out)["days"]
    assert summary["rows"]["features"] == 420
    assert (rows(settings, decided), rows(settings, runs)) == before


def test_backfill_of_a_live_mode_trades_nothing(installation: Installation) -> None:
    today = clock().date()
    refused = installation.run("backfill", "--mode", "sandbox", "--from", str(today))
    assert refused.code == 2
    assert "is not over" in refused.err
    sandbox = replace(installation.settings, mode=Mode.SANDBOX)
    with opened(sandbox) as engine, engine.begin() as connection:
        replace_universe(connection, tickers_of(TICKERS))

    yesterday = Mode.SANDBOX.calendar.before(today).day
    words = ("backfill", "--mode", "sandbox", "--from", str(yesterday), "--json")
    with served(SandboxWorld(UnfoldingMarket(clock), clock)) as url:
        answer = installation.run(*words, OPS_SANDBOX_PORT=url.rpartition(":")[2])
    assert answer.code == 0, answer.err
    (day,) = json.loads(answer.out)["days"]
    assert day["rows"]["features"] == 1440 * len(TICKERS)
    assert rows(sandbox, "select count(*) from dispatcher_runs") == [(0,)]
    assert rows(sandbox, "select distinct status from dispatch_recommendations") == [("PENDING",)]
    late = "select count(*) from dispatch_recommendations where expires_at > clock_timestamp()"
    assert rows(sandbox, late) == [(0,)]
    # Its lane is not the ticks': the live minute does not wait for it.
    lane = "select value from run_tags where key = 'ops/lane'"
    assert rows(sandbox, lane, sandbox.dagster_database) == [("backfill",)]
