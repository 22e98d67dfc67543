"""The embedded server: it starts once, keeps what was committed, and lets nobody else in."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from ops_pipeline.domain.errors import BadConfiguration, NotRunning
from ops_pipeline.local.cluster import SETTINGS
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.local.processes import wait_until
from ops_pipeline.settings import PROJECT_DIR, Server, load

START = "import sys, pathlib; from ops_pipeline.local.postgres import EmbeddedServer; "
START += "EmbeddedServer.in_folder(pathlib.Path(sys.argv[1])).start()"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer.in_folder(tmp_path_factory.mktemp("running"))
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer.in_folder(tmp_path)
    try:
        yield server
    finally:
        server.remove()


def folder_of(server: EmbeddedServer) -> Path:
    return server.var_dir / "postgres"


def connection_of(server: EmbeddedServer) -> dict[str, Any]:
    return json.loads((folder_of(server) / "connection.json").read_text())


def connect(server: EmbeddedServer, **changes: Any) -> psycopg.Connection:
    kept = connection_of(server)
    address = {name: kept[name] for name in ("host", "port", "user", "password")}
    known = {"dbname": "postgres", "autocommit": True, "passfile": os.devnull}
    return psycopg.connect(**(address | known | changes))


def values(server: EmbeddedServer, sql: str) -> list[Any]:
    with connect(server) as connection:
        return [row[0] for row in connection.execute(sql).fetchall()]


def write(server: EmbeddedServer, value: int) -> None:
    with connect(server) as connection:
        connection.execute("create table if not exists kept (value int)")
        connection.execute("insert into kept values (%s)", [value])


def kill_postmaster(server: EmbeddedServer) -> None:
    pid = server.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def servers_on(data: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if command and Path(command[0]).name == "postgres" and str(data) in command:
            found.append(process.pid)
    return found


def start_elsewhere(server: EmbeddedServer) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", START, str(server.var_dir)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=PROJECT_DIR, **pipes)


def in_threads(count: int, work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_starting_twice_leaves_the_one_server(running: EmbeddedServer) -> None:
    before = running.pid(), connection_of(running)
    running.start()
    assert (running.pid(), connection_of(running)) == before
    assert running.is_running()


def test_settings_find_the_server_by_its_connection_file(running: EmbeddedServer) -> None:
    settings = load(environ={"OPS_VAR_DIR": str(running.var_dir)})
    kept = connection_of(running)
    address = kept["host"], kept["port"], kept["user"], kept["password"]
    assert settings.server == Server(*address, is_embedded=True)
    assert settings.reader_password == kept["reader_password"] != kept["password"]


def test_only_the_owner_may_read_passwords_log_and_data(running: EmbeddedServer) -> None:
    folder, data = folder_of(running), running.data_dir
    assert data is not None
    modes = [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()]
    assert set(modes) - {0o700} == {0o600}
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert not list(data.parent.glob(f"{data.name}.*"))


@pytest.mark.parametrize("password", ["", "wrong"])
def test_without_the_password_nobody_gets_in(running: EmbeddedServer, password: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        connect(running, password=password)


def test_it_listens_on_loopback_and_on_no_unix_socket(running: EmbeddedServer) -> None:
    pid = running.pid()
    connections = psutil.Process(pid).net_connections(kind="inet")
    listening = [each.laddr for each in connections if each.status == psutil.CONN_LISTEN]
    assert listening == [("127.0.0.1", connection_of(running)["port"])]
    assert values(running, "show unix_socket_directories") == [""]


def test_it_runs_with_the_settings_that_were_written(running: EmbeddedServer) -> None:
    told = {name: values(running, f"show {name}")[0] for name in SETTINGS}
    assert told == SETTINGS | {"idle_in_transaction_session_timeout": "1min"}
    assert values(running, "show server_encoding") == ["UTF8"]
    assert values(running, "select datlocale from pg_database") == ["C.UTF-8"] * 3


def test_it_never_runs_as_root(running: EmbeddedServer) -> None:
    assert running.data_dir is not None
    uid = psutil.Process(running.pid()).uids().effective
    assert uid == running.data_dir.stat().st_uid != 0
    assert uid == os.geteuid() or os.geteuid() == 0


def test_the_server_inherits_none_of_our_environment(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALPACA_SECRET_KEY", "do-not-tell")
    monkeypatch.setenv("PGPORT", "1")
    server.start()
    assert not {"ALPACA_SECRET_KEY", "PGPORT"} & set(psutil.Process(server.pid()).environ())


def test_rows_survive_an_orderly_stop_and_the_port_stays(server: EmbeddedServer) -> None:
    server.start()
    write(server, 1)
    before = connection_of(server)
    server.stop()
    assert not server.is_running()
    assert server.pid() is None
    server.start()
    assert values(server, "select value from kept") == [1]
    assert connection_of(server) == before


def test_the_last_holder_stops_a_server_that_a_holder_started(server: EmbeddedServer) -> None:
    with server.held():
        with server.held():
            write(server, 1)
        assert values(server, "select value from kept") == [1]
    assert not server.is_running()
    with ExitStack() as others:
        with server.held():
            others.enter_context(server.held())
        assert server.is_running()
    assert not server.is_running()


def test_a_server_that_was_started_for_good_outlives_its_holders(server: EmbeddedServer) -> None:
    with server.held():
        # As the keeper does, which finds it running.
        server.start()
    assert server.is_running()
    with server.held():
        pass
    assert server.is_running()


def test_stopping_what_does_not_run_does_nothing(server: EmbeddedServer) -> None:
    server.stop()
    assert not server.is_running()
    assert not folder_of(server).exists()


def test_committed_rows_survive_kill_9_with_a_session_in_full_swing(server: EmbeddedServer) -> None:
    server.start()
    write(server, 1)
    with connect(server) as busy:

        def spin() -> None:
            with pytest.raises(psycopg.OperationalError):
                busy.execute("do $$ begin loop perform 1; end loop; end $$")

        spinner = threading.Thread(target=spin)
        spinner.start()
        active = "select pid from pg_stat_activity where state = 'active' and query like 'do %'"
        wait_until(lambda: bool(values(server, active)), 10, "the session did not start to work")
        kill_postmaster(server)
        server.start()
        spinner.join(timeout=10)
        assert not spinner.is_alive()
    assert values(server, "select value from kept") == [1]
    write(server, 2)


def test_it_recovers_again_and_again(server: EmbeddedServer) -> None:
    for value in range(3):
        server.start()
        write(server, value)
        kill_postmaster(server)
    server.start()
    assert values(server, "select value from kept order by value") == [0, 1, 2]


def test_a_pid_file_that_names_another_live_process_does_not_stop_a_start(
    server: EmbeddedServer,
) -> None:
    server.start()
    server.stop()
    assert server.data_dir is not None
    remains = f"{os.getpid()}\n{server.data_dir}\n0\n1\n\n127.0.0.1\n\nready\n"
    (server.data_dir / "postmaster.pid").write_text(remains)
    assert server.pid() is None
    server.start()
    assert server.is_running()


def test_a_port_that_somebody_took_is_replaced(server: EmbeddedServer) -> None:
    server.start()
    before = connection_of(server)
    server.stop()
    with socket.create_server(("127.0.0.1", before["port"])):
        assert not server.is_running()
        server.start()
        after = connection_of(server)
        assert after["port"] != before["port"]
        assert after | {"port": before["port"]} == before
        assert values(server, "show port") == [str(after["port"])]


def test_four_processes_that_start_at_once_make_one_server(server: EmbeddedServer) -> None:
    starters = [start_elsewhere(server) for _ in range(4)]
    said = [starter.communicate(timeout=60) for starter in starters]
    assert [starter.returncode for starter in starters] == [0] * 4, said
    assert server.data_dir is not None
    assert servers_on(server.data_dir) == [server.pid()]
    assert server.log_file.read_text().count("ready to accept connections") == 1


def test_four_threads_that_start_at_once_make_one_server(server: EmbeddedServer) -> None:
    in_threads(4, server.start)
    assert server.is_running()
    assert server.log_file.read_text().count("ready to accept connections") == 1


def test_the_server_outlives_its_starter_and_holds_none_of_its_pipes(
    server: EmbeddedServer,
) -> None:
    starter = start_elsewhere(server)
    assert starter.communicate(timeout=30) == (b"", b"")
    assert server.is_running()


def test_a_failing_start_tells_postgresqls_own_reason(server: EmbeddedServer) -> None:
    server.start()
    server.stop()
    assert server.data_dir is not None
    with (server.data_dir / "postgresql.conf").open("a") as conf:
        conf.write("max_connections = 'many'\n")
    with pytest.raises(NotRunning, match=r"did not start: .*postgresql\.conf.* errors") as caught:
        server.start()
    assert "\n" not in str(caught.value)
    assert str(server.log_file) in caught.value.hint


def test_databases_without_their_passwords_are_refused_and_kept(server: EmbeddedServer) -> None:
    server.start()
    server.stop()
    (folder_of(server) / "connection.json").unlink()
    with pytest.raises(BadConfiguration, match="password is gone") as caught:
        server.start()
    assert str(server.data_dir) in caught.value.hint
    assert server.data_dir is not None


def test_a_first_start_that_was_cut_short_is_begun_anew(server: EmbeddedServer) -> None:
    places = server._places if os.geteuid() == 0 else server._places[:1]
    drafts = [place.with_name(f"{place.name}.new") for place in places]
    for draft in drafts:
        draft.mkdir(parents=True)
        (draft / "half").touch()
    server.start()
    assert server.is_running()
    server.remove()
    assert not any(draft.exists() for draft in drafts)


def test_a_var_folder_that_is_a_file_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "var").touch()
    with pytest.raises(BadConfiguration, match=r"cannot use .*var") as caught:
        EmbeddedServer.in_folder(tmp_path / "var").start()
    assert "\n" not in str(caught.value)


def test_removing_leaves_no_server_no_data_and_no_password(server: EmbeddedServer) -> None:
    server.start()
    pid, data = server.pid(), server.data_dir
    server.remove()
    assert data is not None
    assert servers_on(data) == []
    assert pid is not None
    assert not data.exists()
    assert [path.name for path in folder_of(server).iterdir()] == ["lock"]
    server.remove()
