"""halt, reduce and resume say what stops and what goes on, and each change is kept."""

from dataclasses import replace

import pytest

from ops_pipeline.cli import trading
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage.dispatch import read_trading_state, trading_state_changes
from ops_pipeline.storage.engine import open_engine
from ops_pipeline_tests.cli.test_verbs import Run, ready, run  # noqa: F401 - fixtures
from ops_pipeline_tests.dispatcher.world import World


@pytest.fixture
def active(ready: Run) -> Run:  # noqa: F811 - the fixture
    assert ready("resume").code == 0
    return ready


def state(settings: Settings) -> str:
    engine = open_engine(settings)
    with engine.connect() as connection:
        found = read_trading_state(connection)
    engine.dispose()
    return found


@pytest.mark.parametrize(
    ("verb", "expected", "said"),
    [
        ("halt", "HALTED", "neither to open nor to close"),
        ("reduce", "REDUCING", "nothing is opened any more"),
        ("resume", "ACTIVE", "trade when they pass every gate"),
    ],
)
def test_a_verb_changes_the_state_and_says_what_that_means(
    active: Run, server: Settings, verb: str, expected: str, said: str
) -> None:
    answer = active(verb, "--reason", "a drill")
    assert (answer.code, state(server)) == (0, expected)
    assert said in answer.out
    assert "nothing is held" in answer.out
    assert f"trading {expected}" in active("status").out


def test_every_change_is_kept_with_who_and_why(
    active: Run, server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trading.getpass, "getuser", lambda: "night shift")
    active("halt", "--reason", "odd prices")
    active("resume")
    engine = open_engine(server)
    with engine.connect() as connection:
        newest, before = trading_state_changes(connection, 2)
    engine.dispose()
    assert (newest.state, newest.reason) == ("ACTIVE", "")
    told = (before.state, before.changed_by, before.reason)
    assert told == ("HALTED", "night shift", "odd prices")


def test_what_is_held_is_named(run: Run, server: Settings) -> None:  # noqa: F811 - the fixture
    assert run("init", "--mode", "sandbox").code == 0
    engine = open_engine(replace(server, mode=Mode.SANDBOX))
    World(engine).hold("NVDA")
    engine.dispose()
    try:
        assert "without stop or target: NVDA +10" in run("halt", "--mode", "sandbox").out
        assert "end of the session: NVDA +10" in run("reduce", "--mode", "sandbox").out
    finally:
        assert "held: NVDA +10" in run("resume", "--mode", "sandbox").out
