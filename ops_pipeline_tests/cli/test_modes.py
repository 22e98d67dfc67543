"""Without a mode a command means what is up here; a halt never hits another one."""

import json
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ops_pipeline.cli.server import settings_of
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.settings import Mode

Up = Callable[[str, float], None]
# A record with another start is of a process that is gone, whoever has its pid now.
ALIVE = psutil.Process().create_time()
DEAD = ALIVE - 1_000


@pytest.fixture
def brought_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Up:
    """Note a keeper of a mode, alive or dead, in a var folder that has none."""
    monkeypatch.setenv("OPS_VAR_DIR", str(tmp_path))
    monkeypatch.delenv("OPS_MODE", raising=False)

    def note(mode: str, started: float) -> None:
        record = tmp_path / mode / "run" / "keeper.json"
        record.parent.mkdir(parents=True)
        keeper = {"name": "keeper", "pid": psutil.Process().pid, "started": started}
        record.write_text(json.dumps(keeper))

    return note


@pytest.mark.usefixtures("brought_up")
def test_where_nothing_is_up_it_is_the_replay() -> None:
    assert settings_of(None).mode is Mode.REPLAY


def test_it_is_what_is_up_and_that_is_said(
    brought_up: Up, capsys: pytest.CaptureFixture[str]
) -> None:
    brought_up("sandbox", ALIVE)
    assert settings_of(None).mode is Mode.SANDBOX
    assert capsys.readouterr().err == "mode sandbox, which is up here\n"


def test_what_died_is_meant_until_it_is_taken_down(brought_up: Up) -> None:
    brought_up("sandbox", DEAD)
    assert settings_of(None).mode is Mode.SANDBOX


def test_what_runs_is_meant_before_what_died(brought_up: Up) -> None:
    brought_up("replay", DEAD)
    brought_up("sandbox", ALIVE)
    assert settings_of(None).mode is Mode.SANDBOX


def test_of_two_that_are_up_one_has_to_be_named(brought_up: Up) -> None:
    brought_up("replay", ALIVE)
    brought_up("sandbox", ALIVE)
    with pytest.raises(BadInput, match="replay and sandbox are up"):
        settings_of(None)
    assert settings_of(Mode.REPLAY).mode is Mode.REPLAY


def test_a_mode_that_is_given_or_set_wins(brought_up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    brought_up("sandbox", ALIVE)
    assert settings_of(Mode.REPLAY).mode is Mode.REPLAY
    monkeypatch.setenv("OPS_MODE", "replay")
    assert settings_of(None).mode is Mode.REPLAY
