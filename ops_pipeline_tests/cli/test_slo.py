"""The verb slo: what was measured of a session, as a table or JSON, and the exit code."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ops_pipeline.cli import main
from ops_pipeline.domain.slo import (
    NAMES,
    SETTLE_TO_SIGNALS,
    Growth,
    Measurement,
    Phase,
    Turns,
)
from ops_pipeline.settings import Settings, load
from ops_pipeline.storage import slo
from ops_pipeline.storage.engine import open_engine
from ops_pipeline_tests.builders import DAY, at

MEASURED = Measurement(
    DAY,
    at(395),
    Turns(390),
    Growth(9_000_000, 20_000_000, 1_500_000, 2_000_000),
    (Phase(SETTLE_TO_SIGNALS, 390, 1.5, 2.5, 3.5, 4.5),),
)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    server: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """The command line in simulated mode, on databases of these tests' own."""
    own = server.server
    assert own is not None
    address = f"postgresql://{own.user}:{own.password}@{own.host}:{own.port}/slo"
    monkeypatch.setenv("DATABASE_URL", address)
    monkeypatch.setenv("OPS_VAR_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")

    def run_verb(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ops-pipeline", *words])
        capsys.readouterr()
        try:
            main()
            code: object = 0
        except SystemExit as end:
            code = end.code or 0
        printed = capsys.readouterr()
        assert isinstance(code, int)
        return code, printed.out, printed.err

    return run_verb


@pytest.fixture
def engine(run: Run) -> Iterator[Engine]:
    assert run("init", "--mode", "simulated")[0] == 0
    made = open_engine(load("simulated"), as_owner=True)
    with made.begin() as connection:
        connection.exec_driver_sql("truncate pipeline_slo, pipeline_slo_counters")
    yield made
    made.dispose()


def keep(engine: Engine, measured: Measurement = MEASURED) -> None:
    with engine.begin() as connection:
        slo.replace(connection, measured, None)


def test_slo_shows_phases_counts_sizes_and_verdicts(run: Run, engine: Engine) -> None:
    keep(engine)
    code, out, _ = run("slo", "--mode", "simulated")
    assert code == 0
    assert "session 2025-02-12, measured 2025-02-12 16:05 ET (21:05 UTC): 390 minutes" in out
    assert SETTLE_TO_SIGNALS in out
    assert "2.50" in out
    assert "event log" in out
    assert all(name in out for name in NAMES)


def test_slo_json_has_the_same(run: Run, engine: Engine) -> None:
    keep(engine)
    found = json.loads(run("slo", "--mode", "simulated", "--day", "2025-02-12", "--json")[1])
    assert found["measured"]["turns"]["minutes"] == 390
    assert found["measured"]["phases"][0]["p95_seconds"] == 2.5
    assert [verdict["name"] for verdict in found["verdicts"]] == [*NAMES]


def test_slo_ends_with_1_when_a_limit_is_broken(run: Run, engine: Engine) -> None:
    keep(engine, replace(MEASURED, turns=Turns(390, 1, 0, at(3))))
    # As JSON, because a cell of a narrow terminal is folded.
    code, out, _ = run("slo", "--mode", "simulated", "--json")
    assert code == 1
    findings = [verdict["finding"] for verdict in json.loads(out)["verdicts"]]
    assert any("1 of 390 minutes, the first at 2025-02-12 09:33 ET" in each for each in findings)


def test_slo_keeps_the_operators_limits(
    run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(engine)
    monkeypatch.setenv("OPS_SLO", '{"signals_warn_seconds": 2}')
    assert run("slo", "--mode", "simulated")[0] == 1
    monkeypatch.setenv("OPS_SLO", '{"signals_warn": 2}')
    code, _, errors = run("slo", "--mode", "simulated")
    assert (code, len(errors.splitlines())) == (4, 1)


@pytest.mark.parametrize("words", [(), ("--day", "2025-02-13")])
def test_slo_of_what_was_never_measured_ends_with_1(
    run: Run, engine: Engine, words: tuple[str, ...]
) -> None:
    if words:
        keep(engine)
    code, out, _ = run("slo", "--mode", "simulated", *words)
    # An hour after it was installed there is nothing that should have been measured.
    assert (code, "not measured yet" in out) == ((1, False) if words else (0, True))
    with engine.begin() as connection:
        connection.exec_driver_sql("update installation set created_at = '2000-01-01Z'")
    code, out, _ = run("slo", "--mode", "simulated", *words)
    with engine.begin() as connection:
        connection.exec_driver_sql("update installation set created_at = clock_timestamp()")
    assert code == 1
    assert "no session was measured" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--mode", "replay"), "a replay is not measured"),
        (("--mode", "simulated", "--day", "soon"), "must be a day"),
    ],
)
def test_slo_refuses_in_one_line(
    run: Run, engine: Engine, words: tuple[str, ...], said: str
) -> None:
    assert run("init", "--mode", "replay")[0] == 0
    code, _, errors = run("slo", *words)
    assert (code, len(errors.splitlines())) == (2, 1)
    assert said in errors
