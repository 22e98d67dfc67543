import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from ops_pipeline.cli import main
from ops_pipeline.local.ports import free_port
from ops_pipeline.settings import Settings
from ops_pipeline.storage.engine import open_engine, server_of
from ops_pipeline.storage.knowledge import insert_replay_session
from ops_pipeline_tests.defs.world import administrator

GOOD_ROW = "AAPL,2025-02-12T14:30:00Z,10,11,9,10,100"
HEADER = "ticker,ts,open,high,low,close,volume"


@dataclass(frozen=True)
class Answer:
    """What a verb printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        """Lines that a person has to read."""
        return [line for line in self.err.splitlines() if line.strip()]


Run = Callable[..., Answer]


def runner(
    command: Callable[[], None],
    server: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run a command line in this process, on the session's server."""
    monkeypatch.setenv("OPS_VAR_DIR", str(server.var_dir))
    monkeypatch.setenv("COLUMNS", "200")

    def run_verb(*words: str) -> Answer:
        monkeypatch.setattr("sys.argv", ["ops-pipeline", *words])
        capsys.readouterr()
        try:
            command()
            code: object = 0
        except SystemExit as end:
            code = end.code or 0
        printed = capsys.readouterr()
        assert isinstance(code, int)
        return Answer(code, printed.out, printed.err)

    return run_verb


@pytest.fixture
def run(
    server: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run the command line in this process, on the session's server."""
    return runner(main, server, monkeypatch, capsys)


@pytest.fixture
def ready(run: Run) -> Run:
    """The same, after init."""
    assert run("init").code == 0
    return run


@pytest.fixture
def held_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def _bars(folder: Path, *rows: str, header: str = HEADER) -> str:
    path = folder / "bars.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(path)


def _state(settings: Settings) -> list[object]:
    """All that a refused replay might have left behind."""
    market = settings.mode_dir / "market" / "bars.parquet"
    kept = pd.read_parquet(market).values.tolist() if market.exists() else []
    window = settings.window_file.read_text() if settings.window_file.exists() else ""
    engine = open_engine(settings)
    with engine.connect() as connection:
        sql = "select count(*) from bars_1m union all select count(*) from replay_sessions"
        counts = [row[0] for row in connection.exec_driver_sql(sql)]
    engine.dispose()
    return [kept, window, counts]


BAD_ROWS = {
    "nan price": "AAPL,2025-02-12T14:31:00Z,nan,11,9,10,100",
    "infinite price": "AAPL,2025-02-12T14:31:00Z,inf,inf,9,10,100",
    "negative price": "AAPL,2025-02-12T14:31:00Z,-10,11,9,10,100",
    "zero price": "AAPL,2025-02-12T14:31:00Z,0,11,0,10,100",
    "high below low": "AAPL,2025-02-12T14:31:00Z,10,8,9,10,100",
    "negative volume": "AAPL,2025-02-12T14:31:00Z,10,11,9,10,-1",
    "naive timestamp": "AAPL,2025-02-12T14:31:00,10,11,9,10,100",
    "no timestamp": "AAPL,yesterday,10,11,9,10,100",
    "hostile ticker": "A';drop--,2025-02-12T14:31:00Z,10,11,9,10,100",
    "text for a price": "AAPL,2025-02-12T14:31:00Z,ten,11,9,10,100",
}


@pytest.mark.parametrize("row", BAD_ROWS.values(), ids=list(BAD_ROWS))
def test_replay_refuses_a_bad_row_in_one_line_and_keeps_nothing(
    ready: Run, server: Settings, tmp_path: Path, row: str
) -> None:
    before = _state(server)
    answer = ready("replay", "--bars", _bars(tmp_path, GOOD_ROW, row))
    assert answer.code == 2
    assert len(answer.error_lines) == 1
    assert "row 2" in answer.err
    assert _state(server) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bars", "absent.csv"], "does not exist"),
        ([], "needs --from"),
        (["--from", "2025-02-17"], "closed"),
        (["--from", "2025-02-15", "--to", "2025-02-16"], "closed"),
        (["--from", "2025-02-13", "--to", "2025-02-12"], "lies before"),
        (["--from", "12.02.2025"], "must be a day"),
        (["--from", "2025-02-12", "--tickers", "ZZZZ"], "unknown ticker"),
    ],
)
def test_replay_refuses_bad_words_in_one_line(ready: Run, words: list[str], said: str) -> None:
    answer = ready("replay", *words)
    assert answer.code == 2
    assert len(answer.error_lines) == 1
    assert said in answer.err


def test_replay_refuses_a_malformed_file(ready: Run, tmp_path: Path) -> None:
    (tmp_path / "bars.parquet").write_bytes(b"\x00not parquet")
    answer = ready("replay", "--bars", str(tmp_path / "bars.parquet"))
    assert (answer.code, len(answer.error_lines)) == (2, 1)


def test_replay_refuses_a_file_without_a_column(ready: Run, tmp_path: Path) -> None:
    path = _bars(tmp_path, "AAPL,1", header="ticker,close")
    answer = ready("replay", "--bars", path)
    assert answer.code == 2
    assert "no column ts, open, high, low, volume" in answer.err


def test_replay_refuses_a_ticker_that_the_file_does_not_have(ready: Run, tmp_path: Path) -> None:
    answer = ready("replay", "--bars", _bars(tmp_path, GOOD_ROW), "--tickers", "MSFT")
    assert answer.code == 2
    assert "has no bars of MSFT" in answer.err


def test_replay_refuses_a_day_without_bars(ready: Run, tmp_path: Path) -> None:
    words = ["--bars", _bars(tmp_path, GOOD_ROW), "--from", "2025-02-13", "--to", "2025-02-13"]
    answer = ready("replay", *words)
    assert answer.code == 2
    assert "has no bars from 2025-02-13" in answer.err


def test_unreachable_database_is_one_line_without_the_password(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql://someone:s3cret-word@127.0.0.1:{free_port()}/ops"
    monkeypatch.setenv("DATABASE_URL", url)
    answer = run("status")
    assert answer.code == 3
    assert len(answer.error_lines) == 1
    assert "s3cret-word" not in answer.out + answer.err


def test_status_of_a_database_that_is_away_tells_what_runs(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u:p@127.0.0.1:{free_port()}/ops")
    answer = run("status", "--mode", "sandbox", "--json")
    found = json.loads(answer.out)
    assert (answer.code, found["mode"], len(found["processes"])) == (3, "sandbox", 7)
    assert "does not answer" in found["database"]


def test_status_needs_neither_dagster_nor_pandas_and_is_quick(ready: Run) -> None:
    code = (
        "import sys, time; began = time.process_time()\n"
        "sys.argv = ['ops-pipeline', 'status', '--mode', 'replay']\n"
        "from ops_pipeline.cli import main\n"
        "try:\n    main()\nfinally:\n"
        "    print(time.process_time(), [n for n in ('dagster', 'pandas') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, _, modules = done.stdout.splitlines()[-1].partition(" ")
    assert modules == "[]"
    # Of this processor alone; two seconds of a clock would be those of all that runs beside it.
    assert float(seconds) < 2


def test_status_in_a_session_shows_it_again_until_ctrl_c(
    ready: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", sleep)
    answer = ready("status", "--watch")
    assert (answer.code, looks) == (0, [2.0, 2.0])
    assert "rss-ingest" in answer.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["absent"], "there is no service 'absent'"),
        (["dispatcher", "--since", "soon"], "--since must be a time like 30m"),
        (["dispatcher", "--since", "0m"], "--since must be a time like 30m"),
        (["dispatcher", "--follow", "--json"], "leave --json out"),
        (["dispatcher"], "no line of dispatcher in the last 10m: nothing runs here"),
    ],
)
def test_logs_says_in_one_line_why_it_shows_nothing(
    ready: Run, words: list[str], said: str
) -> None:
    answer = ready("logs", *words)
    assert (answer.code, len(answer.error_lines)) == (2, 1)
    assert said in answer.err


def test_status_before_init_says_what_to_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPS_VAR_DIR", str(tmp_path))
    answer = run("status")
    assert answer.code == 3
    assert "ops-pipeline up" in answer.err


@pytest.fixture
def unmigrated(run: Run, server: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """The same, at databases in which nothing was made yet."""
    names = ("fresh_replay", "fresh_replay_dagster")
    with administrator(server) as connection:
        for name in names:
            connection.execute(f"create database {name}")
        known = server_of(server)
        url = f"postgresql://{known.user}:{known.password}@{known.host}:{known.port}/fresh"
        monkeypatch.setenv("DATABASE_URL", url)
        yield run
        for name in names:
            connection.execute(f"drop database {name} with (force)")


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["halt", "--reason", "a test"],
        ["logs", "dispatcher"],
        ["runbook", "diagnose", "backlog-growing"],
    ],
)
def test_a_database_without_tables_is_one_line_with_what_to_run(
    unmigrated: Run, words: list[str]
) -> None:
    answer = unmigrated(*words)
    assert answer.code == 4
    (line,) = answer.error_lines
    assert "migrations did not run in fresh_replay (run: ops-pipeline init)" in line


def test_occupied_port_is_refused_before_anything_starts(ready: Run, held_port: int) -> None:
    answer = ready("up", "--port", str(held_port))
    assert answer.code == 4
    assert f"port {held_port} is taken" in answer.err


def test_a_market_to_play_is_for_the_sandbox_alone(ready: Run) -> None:
    answer = ready("up", "--bars", "bars.csv")
    assert answer.code == 2
    assert "--bars belongs to the sandbox (add --mode sandbox)" in answer.err


def test_unknown_mode_is_bad_configuration(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPS_MODE", "live")
    answer = run("status")
    assert answer.code == 4
    assert "unknown mode" in answer.err


def test_init_twice_does_nothing_the_second_time(ready: Run) -> None:
    assert "nothing was to do" in ready("init").out


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_sql_prints_rows_in_each_format(ready: Run, form: str) -> None:
    answer = ready("sql", "select 1 as one, null as nothing", "--format", form)
    assert answer.code == 0
    assert "one" in answer.out


def test_sql_json_is_json(ready: Run) -> None:
    answer = ready("sql", "select 1 as one, now() as at", "--format", "json")
    assert json.loads(answer.out)[0]["one"] == 1


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("delete from services", 6),
        ("create table mine (id int)", 6),
        ("select 1; select 2", 2),
        ("selekt 1", 2),
        ("select * from absent", 2),
    ],
)
def test_sql_refuses_what_is_not_reading(ready: Run, statement: str, code: int) -> None:
    answer = ready("sql", statement)
    assert (answer.code, len(answer.error_lines)) == (code, 1)


def test_service_is_switched_off_and_on(ready: Run) -> None:
    assert ready("service", "disable", "telemetry-1m", "--reason", "upkeep").code == 0
    off = {s["stage"]["service"]: s for s in json.loads(ready("service", "list", "--json").out)}
    assert off["telemetry-1m"]["is_enabled"] is False
    assert ready("service", "enable", "telemetry-1m").code == 0
    on = json.loads(ready("service", "list", "--json").out)
    assert [s["is_enabled"] for s in on] == [True] * 7


@pytest.mark.parametrize(
    "words",
    [
        ["disable", "absent"],
        ["disable", "dispatcher", "--until", "soon"],
        ["disable", "dispatcher", "--until", "2026-10-14T15:00"],
    ],
)
def test_service_refuses_bad_words(ready: Run, words: list[str]) -> None:
    answer = ready("service", *words)
    assert (answer.code, len(answer.error_lines)) == (2, 1)


def test_check_refuses_an_unknown_name(ready: Run) -> None:
    assert ready("check", "absent").code == 2


def test_status_names_seven_services_and_the_mode(ready: Run) -> None:
    found = json.loads(ready("status", "--json").out)
    assert found["mode"] == "replay"
    assert len(found["services"]) == 7


def test_replay_refuses_a_second_market_in_one_session_and_keeps_the_first(
    ready: Run, server: Settings, tmp_path: Path
) -> None:
    engine = open_engine(server)
    with engine.begin() as connection:
        insert_replay_session(connection, date(2025, 2, 12), "another")
    engine.dispose()
    before = _state(server)
    answer = ready("replay", "--bars", _bars(tmp_path, GOOD_ROW))
    assert answer.code == 6
    assert "--rebuild" in answer.err
    assert _state(server) == before


def test_sql_shows_text_that_looks_like_markup_as_it_is(ready: Run) -> None:
    answer = ready("sql", "select '[/x] [bold]' as odd")
    assert answer.code == 0
    assert "[/x] [bold]" in answer.out
