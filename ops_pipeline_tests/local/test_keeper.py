import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from ops_pipeline.domain.errors import BadConfiguration, Unsafe
from ops_pipeline.local import keeper as keepers
from ops_pipeline.local.installation_lock import installation_lock
from ops_pipeline.local.keeper import FIRST_WAIT, LONGEST_WAIT, WELL_SECONDS, Asked, Keeper, Kept
from ops_pipeline.local.processes import Process, ProcessTable, wait_until
from ops_pipeline.local.started_with import differing, digests, unknown_channels
from ops_pipeline.local.ticks import MAX_TICK_AGE_SECONDS, TickWatch
from ops_pipeline.settings import PROJECT_DIR, Mode, Settings, load

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]
START = datetime(2026, 10, 14, 14, tzinfo=UTC)
ENDS = [sys.executable, "-c", "pass"]


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Callable[..., Keeper]]:
    made: list[Keeper] = []

    def keep(*kept: Kept) -> Keeper:
        table = ProcessTable(tmp_path / "run")
        made.append(Keeper(table, kept, lambda: os.environ, tmp_path / "logs"))
        return made[-1]

    yield keep
    for one in made:
        one._end_all()


def found(keeper: Keeper, name: str) -> Process:
    process = keeper.table.find(name)
    assert process is not None
    return process


def kill(keeper: Keeper, name: str) -> int:
    process = found(keeper, name)
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: keeper.table.find(name) is None, 10, "it did not die")
    return process.pid


def test_what_was_killed_is_started_again_and_what_was_not_stays(
    keep: Callable[..., Keeper],
) -> None:
    keeper = keep(Kept("one", SLEEPS), Kept("two", SLEEPS))
    keeper.look(0)
    one, two = kill(keeper, "one"), found(keeper, "two")
    keeper.look(1)
    assert keeper.table.find("one") is None
    keeper.look(1 + FIRST_WAIT)
    assert found(keeper, "one").pid != one
    assert found(keeper, "two") == two


def test_what_dies_at_once_is_tried_less_and_less_often(keep: Callable[..., Keeper]) -> None:
    kept = Kept("one", ENDS)
    keeper, now, starts = keep(kept), 0.0, []
    while now < 300:
        keeper.look(now)
        if kept.was_started and kept.not_before == now:
            starts.append(now)
        wait_until(lambda: keeper.table.find("one") is None, 10, "it did not end")
        now += FIRST_WAIT / 2
    waits = [later - earlier for earlier, later in pairwise(starts)]
    assert waits == sorted(waits)
    assert FIRST_WAIT <= waits[0] <= FIRST_WAIT * 2
    assert LONGEST_WAIT <= waits[-1] <= LONGEST_WAIT + FIRST_WAIT
    assert len(starts) < 15


def test_what_ran_well_for_long_is_started_at_once_again(keep: Callable[..., Keeper]) -> None:
    kept = Kept("one", SLEEPS, deaths=9)
    keeper = keep(kept)
    keeper.look(0)
    keeper.look(WELL_SECONDS + 1)
    kill(keeper, "one")
    keeper.look(WELL_SECONDS + 2)
    keeper.look(WELL_SECONDS + 2 + FIRST_WAIT)
    assert keeper.table.find("one")


def test_nothing_is_left_when_it_ends(keep: Callable[..., Keeper]) -> None:
    keeper = keep(Kept("one", SLEEPS), Kept("two", SLEEPS))
    keeper.look(0)
    keeper.ended.set()
    keeper.run()
    assert keeper.table.all() == []


def test_what_cannot_be_started_is_logged_and_keeps_nothing_else_from_its_start(
    keep: Callable[..., Keeper], caplog: pytest.LogCaptureFixture
) -> None:
    keeper = keep(Kept("none", ["/no/such/program"]), Kept("one", SLEEPS))
    keeper.look(0)
    assert "none could not be started" in caplog.text
    assert keeper.table.find("one")


def test_a_log_that_grew_too_long_is_put_aside_while_its_writer_goes_on(
    keep: Callable[..., Keeper], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "LONGEST_LOG", 1000)
    writes = "import time\nwhile True:\n  print('x' * 99, flush=True)\n  time.sleep(0.01)"
    keeper, log = keep(Kept("one", [sys.executable, "-c", writes])), tmp_path / "logs" / "one.log"
    keeper.look(0)
    wait_until(lambda: log.exists() and log.stat().st_size > 1000, 10, "it did not write")
    keeper.look(1)
    assert log.stat().st_size < 1000
    assert log.with_suffix(".log.1").stat().st_size > 1000
    wait_until(lambda: log.stat().st_size > 1000, 10, "it does not go on")
    assert b"\0" not in log.read_bytes()


def test_a_var_folder_whose_path_is_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    settings = Settings(Mode.REPLAY, tmp_path / ("x" * 100), None)
    with pytest.raises(BadConfiguration, match="too long"):
        keepers._keeper(settings, Asked(3000))


def test_nobody_else_may_enter_the_folder_of_the_code_servers_socket(tmp_path: Path) -> None:
    settings = Settings(Mode.REPLAY, tmp_path, None)
    keepers._keeper(settings, Asked(3000))
    assert (tmp_path / "replay" / "run").stat().st_mode & 0o777 == 0o700


def test_the_sandbox_is_told_what_to_play(tmp_path: Path) -> None:
    settings = Settings(Mode.SANDBOX, tmp_path, None)
    asked = Asked(3000, ["--day", "D"])
    sandbox = next(one for one in keepers._keeper(settings, asked).kept)
    assert sandbox.command[-4:] == ["--port", "8600", "--day", "D"]
    command = keepers.keeper_command(Mode.SANDBOX, asked)
    assert command[-3:] == ["--", "--day", "D"]


def test_a_daemon_that_is_alive_and_does_not_tick_starts_again_with_its_code_server(
    keep: Callable[..., Keeper], tmp_path: Path
) -> None:
    ticks: dict[str, datetime | None] = {"minute_schedule": START, "dispatch_sensor": START}
    made = keep(Kept("code", SLEEPS), Kept("daemon", SLEEPS), Kept("web", SLEEPS))
    keeper = replace(made, ticks=TickWatch(lambda: ticks))
    keeper.look(0)
    before = {name: found(keeper, name).pid for name in ("code", "daemon", "web")}
    for now in range(15, 400, 15):
        ticks["dispatch_sensor"] = START + timedelta(seconds=now)
        if now <= MAX_TICK_AGE_SECONDS:
            ticks["minute_schedule"] = START + timedelta(minutes=now // 60)
        keeper.look(now)
        if keeper.table.find("daemon") is None:
            break
    assert MAX_TICK_AGE_SECONDS < now - 180 <= MAX_TICK_AGE_SECONDS + 15
    keeper.look(now + 1)
    keeper.look(now + 2)
    after = {name: found(keeper, name).pid for name in ("code", "daemon", "web")}
    assert [name for name in after if after[name] != before[name]] == ["code", "daemon"]


def test_ticks_that_cannot_be_read_count_from_anew() -> None:
    answers: list[dict[str, datetime | None]] = [{"a": START}, {}, {"a": START}, {"a": START}]
    watch = TickWatch(lambda: answers.pop(0))
    looks = [watch.late(now) for now in (0, MAX_TICK_AGE_SECONDS, MAX_TICK_AGE_SECONDS + 15)]
    assert [*looks, watch.late(MAX_TICK_AGE_SECONDS + 30)] == [[], [], [], []]


def test_what_was_started_with_other_settings_is_named_and_no_value_is_kept(
    tmp_path: Path,
) -> None:
    def settings(**environ: str) -> Settings:
        return load("sandbox", {"OPS_VAR_DIR": str(tmp_path), **environ})

    secret = "json://secret-host/secret-token"
    first = settings(OPS_ALERT_URLS=f"desk={secret}", OPS_SEED="7")
    kept = digests(first)
    assert "secret" not in json.dumps(kept)
    assert (
        differing(kept, first) == differing(kept, settings(OPS_ALERT_URLS=f"desk={secret}")) == []
    )
    other = settings(
        OPS_ALERT_URLS=f"desk={secret} phone=json://other", OPS_UNIVERSE_FILE="u.yaml", OPS_SEED="8"
    )
    assert sorted(differing(kept, other)) == ["OPS_ALERT_URLS", "OPS_SEED", "OPS_UNIVERSE_FILE"]
    assert unknown_channels(kept, other) == ["phone"]
    assert unknown_channels(kept, settings(OPS_ALERT_URLS="desk=json://elsewhere")) == ["desk"]
    assert differing({}, other) == []


def test_two_that_start_an_installation_at_once_are_one_and_a_refusal(tmp_path: Path) -> None:
    refused = rf"up \(pid {os.getpid()}\) is starting or stopping"
    with (
        installation_lock(tmp_path, "up"),
        pytest.raises(Unsafe, match=refused),
        installation_lock(tmp_path, "up"),
    ):
        raise AssertionError
    with installation_lock(tmp_path, "up"):
        pass


HOLDS = """
import sys, time
from pathlib import Path
from ops_pipeline.local.installation_lock import installation_lock
with installation_lock(Path(sys.argv[1]), "up"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_down_ends_an_up_and_a_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    for ends in (True, False):
        command = [sys.executable, "-c", HOLDS, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PROJECT_DIR) as holder:
            assert holder.stdout
            assert holder.stdout.readline() == b"held\n"
            if not ends:
                holder.kill()
                holder.wait()
            with installation_lock(tmp_path, "down", takes_over=ends):
                assert holder.wait() in (-signal.SIGTERM, -signal.SIGKILL)
