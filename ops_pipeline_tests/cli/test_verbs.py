import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer

from ops_pipeline.cli import app, main
from ops_pipeline.local.ports import free_port
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.settings import Settings
from ops_pipeline.storage.engine import open_engine, server_of
from ops_pipeline.storage.knowledge import insert_replay_session
from ops_pipeline_tests.defs.world import administrator
from ops_pipeline_tests.storage.test_queries import RUNBOOK

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
    "statement",
    [
        "-- why\nselect 1 as one",
        "/* why */ select 1 as one;",
        "  -- a\n/* b */ -- c\nselect 1 as one; -- done",
        "with a as (select 1 as one) select * from a;",
        "with a as (select 1 as one) table a",
        "table services",
        "values (1, 2)",
        "explain select 1",
        "--mode\nselect 1 as one",
    ],
)
def test_sql_reads_whatever_reads(ready: Run, statement: str) -> None:
    answer = ready("sql", statement, "--format", "json")
    assert (answer.code, answer.err) == (0, "")
    assert isinstance(json.loads(answer.out), list)


def test_sql_runs_the_runbooks_queries_as_they_are_pasted(ready: Run) -> None:
    if not RUNBOOK.exists():
        pytest.skip(f"no runbook at {RUNBOOK}")
    printed = re.findall(r"```sql\n(.*?)\n```", RUNBOOK.read_text(encoding="utf-8"), re.DOTALL)
    assert [ready("sql", query).code for query in printed] == [0] * 9


def test_sql_prints_csv_that_postgresql_and_json_can_read(ready: Run) -> None:
    statement = """select null as nothing, '' as empty, 'a "b", c' as text, true as yes,
        cast('{"a": [1, null, true]}' as jsonb) as document, array['x', 'y,z'] as list,
        cast('2025-02-12 15:00+00' as timestamptz) as at, date '2025-02-12' as day,
        1.50 as exact, cast('NaN' as double precision) as unknown, interval '90 s' as took"""
    assert ready("sql", statement, "--format", "csv").out.splitlines() == [
        "nothing,empty,text,yes,document,list,at,day,exact,unknown,took",
        (
            ',"","a ""b"", c",true,"{""a"": [1, null, true]}","[""x"", ""y,z""]",'
            "2025-02-12T15:00:00+00:00,2025-02-12,1.50,NaN,PT90S"
        ),
    ]
    (row,) = json.loads(ready("sql", statement, "--format", "json").out)
    assert (row["unknown"], row["took"], row["list"]) == ("NaN", "PT90S", ["x", "y,z"])


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every verb with the words that call it."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from leaves(below, (*path, name))


def verbs_with(option: str) -> list[tuple[str, ...]]:
    found = leaves(typer.main.get_command(app()))
    return [path for path, verb in found if any(option in each.opts for each in verb.params)]


# What a verb needs besides; the others do their work, or say in an error why they do not.
WORDS = {
    ("explain",): ["1"],
    ("logs",): ["dispatcher"],
    ("runbook", "diagnose"): ["backlog-growing"],
    ("chaos",): ["--seeds", "0"],
    ("bench",): ["absent"],
}


@pytest.mark.parametrize("path", verbs_with("--json"), ids=" ".join)
def test_nothing_but_json_is_on_standard_output(ready: Run, path: tuple[str, ...]) -> None:
    heavy = path[0] in ("bench", "parity", "lookahead", "chaos", "model", "doctor")
    words = ["--mode", "absent"] if heavy else WORDS.get(path, [])
    answer = ready(*path, *words, "--json")
    assert answer.out == "" or json.loads(answer.out) is not None
    assert answer.out or answer.err


def test_what_a_library_or_a_child_prints_is_not_among_the_json() -> None:
    code = """
import os, subprocess, typer
from ops_pipeline.cli.console import JsonOption, print_json, say
def noisy(as_json: JsonOption = False) -> None:
    print("library", flush=True)
    os.write(1, b"raw\\n")
    subprocess.run(["echo", "child"], check=True)
    say("a line")
    print_json({"a": 1})
app = typer.Typer()
app.command()(noisy)
app(["--json"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"a": 1}
    assert sorted(done.stderr.split()) == ["a", "child", "library", "line", "raw"]


REASONED = [(path, option) for option in ("--reason", "--because") for path in verbs_with(option)]


@pytest.mark.parametrize("given", ["", "  \t"])
def test_a_reason_that_is_given_says_something(run: Run, given: str) -> None:
    assert len(REASONED) >= 11
    for path, option in REASONED:
        answer = run(*path, option, given)
        assert (answer.code, answer.out) == (2, "")
        assert f"error: {option} is empty (say why in a few words)" in answer.err


def test_verbs_that_look_start_the_server_and_stop_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPS_VAR_DIR", str(tmp_path))
    monkeypatch.setenv("OPS_MODE", "replay")
    server = EmbeddedServer.in_folder(tmp_path)
    try:
        assert run("init").code == 0
        looked = {
            word: run(*word.split())
            for word in ("status", "check", "gates", "service list", "universe list", "cost")
        }
        looked["sql"] = run("sql", "select 1")
        # They ask for the present of a replay, which has none yet.
        without_present = {"check": 3, "cost": 3}
        assert {word: one.code for word, one in looked.items() if one.code} == without_present
        assert "the replay has no present yet (run: ops-pipeline demo)" in looked["check"].err
        assert "does not run: keeper, code, daemon, web, postgres" in looked["status"].out
        assert not server.is_running()
    finally:
        server.remove()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--from", "2025-02-12"], ""),
        (["--from", "2025-02-13"], ""),
        (["--from", "2025-02-11", "--to", "2025-02-14"], " (add --to 2025-02-11)"),
        (["--from", "2099-01-05"], ""),
    ],
)
def test_a_day_that_is_not_over_is_not_replayed(
    ready: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], hint: str
) -> None:
    noon = datetime(2025, 2, 12, 17, tzinfo=UTC)
    monkeypatch.setattr("ops_pipeline.cli.market.clock", lambda: noon)
    answer = ready("replay", *words)
    assert (answer.code, len(answer.error_lines)) == (2, 1)
    assert answer.err.endswith(
        f"{words[-1]} is not over yet; the newest day to play is 2025-02-11{hint}\n"
    )


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("delete from services", 6),
        ("/* read */ -- only\ndelete from services", 6),
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
