"""config shows, changes, compares and takes back; what it refuses it refuses in one line."""

import getpass
import json
from dataclasses import replace
from datetime import timedelta

import pytest

from ops_pipeline.cli import replay
from ops_pipeline.cli.server import prepare
from ops_pipeline.operations.config import change, settle
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage.databases import drop_pipeline
from ops_pipeline.storage.engine import open_engine, opened
from ops_pipeline.storage.knowledge import clock
from ops_pipeline_tests.cli.test_verbs import Answer, Run, run  # noqa: F401 - fixtures


@pytest.fixture
def config(run: Run, server: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:  # noqa: F811
    """The verb in a simulated mode that nobody has changed."""
    monkeypatch.setattr(getpass, "getuser", lambda: "night shift")
    administrator = open_engine(server, "postgres")
    with administrator.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        name = replace(server, mode=Mode.SIMULATED).pipeline_database
        connection.exec_driver_sql(f'drop database if exists "{name}" with (force)')
    administrator.dispose()
    assert run("init", "--mode", "simulated").code == 0
    return lambda verb, *words: run("config", verb, "--mode", "simulated", *words)


def shown(config: Run) -> dict[str, object]:
    found = json.loads(config("show", "--effective", "--json").out)
    return {each["key"]: each["value"] for each in found["settings"]}


@pytest.mark.parametrize("change", ["confidence_min=0.60", '{"confidence_min": 0.60}'])
def test_set_says_before_and_after_and_changes_that_key_alone(config: Run, change: str) -> None:
    before = shown(config)
    answer = config("set", change, "--reason", "all signals below 0.70")
    assert answer.code == 0
    assert "confidence_min: 0.7 -> 0.6" in answer.out
    assert shown(config) == before | {"confidence_min": 0.6}
    (newest, *_) = json.loads(config("log", "--json").out)
    told = (newest["changed_by"], newest["reason"], newest["source"])
    assert told == ("night shift", "all signals below 0.70", "cli")


def test_show_tells_the_layer_of_each_value(config: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPS_DISPATCHER_CONFIG", '{"max_attempts": 2}')
    config("set", "tier=medium", "--for", "2h", "--reason", "a day")
    found = {each["key"]: each for each in json.loads(config("show", "--json").out)["settings"]}
    assert {key: each["layer"] for key, each in found.items()} == {
        "tier": "operator",
        "max_attempts": "environment or file",
    }
    assert found["tier"]["until"] is not None
    said = config("show").out
    assert "night shift: a day" in said
    assert "large" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["confidence_min=7"], "confidence_min: must be between 0 and 1, not 7"),
        (["confidence=0.6"], "confidence: no such key; did you mean confidence_min?"),
        (["confidence_min"], "a change must be KEY=VALUE"),
        (["{confidence_min: 0.6}"], "a change is no JSON"),
        (["tier=tiny", '{"tier": "small"}'], "a change of tier is given twice"),
        (["tier=tiny", "--for", "soon"], "--for must be a time like 30m"),
        (["tier=tiny", "--for", "0h"], "--for must be a time like 30m"),
    ],
)
def test_set_refuses_in_one_line_and_writes_nothing(
    config: Run, words: list[str], said: str
) -> None:
    config("set", "tier=medium", "--reason", "kept")
    before = config("log", "--json").out
    answer = config("set", *words, "--reason", "a try")
    assert (answer.code, len(answer.error_lines)) == (2, 1)
    assert said in answer.err
    assert config("log", "--json").out == before


def test_a_change_without_a_reason_is_none(config: Run) -> None:
    assert config("set", "tier=tiny").code == 2


def test_a_dry_run_says_what_would_change_and_changes_nothing(config: Run) -> None:
    answer = config("set", "tier=tiny", "--dry-run", "--reason", "a look")
    assert answer.code == 0
    assert "tier: large -> tiny" in answer.out
    assert json.loads(config("log", "--json").out) == []


def test_unset_takes_keys_back_and_says_which_and_a_dry_run_does_not(config: Run) -> None:
    config("set", "tier=tiny", "confidence_min=0.6", "max_attempts=2", "--reason", "one")
    before = config("log", "--json").out
    answer = config("unset", "tier", "confidence_min", "--dry-run", "--reason", "a look")
    assert "tier: tiny -> large" in answer.out
    assert config("log", "--json").out == before
    assert config("unset", "confidence", "--reason", "enough").code == 2
    assert config("unset", "tier").code == 2
    answer = config("unset", "tier", "confidence_min", "--reason", "enough")
    assert (answer.code, "confidence_min: 0.6 -> 0.7" in answer.out) == (0, True)
    values = shown(config)
    assert [values[key] for key in ("tier", "confidence_min", "max_attempts")] == ["large", 0.7, 2]
    newest = json.loads(config("log", "--json").out)[0]
    assert (newest["changed_by"], newest["reason"]) == ("night shift", "enough")


def test_a_change_for_a_time_says_when_it_returns_and_does(config: Run, server: Settings) -> None:
    answer = config("set", "tier=tiny", "--for", "1h30m", "--reason", "lunch")
    assert "tier returns by itself at" in answer.out
    settings = replace(server, mode=Mode.SIMULATED)
    with opened(settings) as engine:
        assert settle(engine, settings, clock() + timedelta(minutes=89)).effective["tier"] == "tiny"
        settle(engine, settings, clock() + timedelta(minutes=90))
    assert shown(config)["tier"] == "large"


def test_diff_and_rollback_go_by_number(config: Run) -> None:
    config("set", "tier=tiny", "--reason", "one")
    config("set", "confidence_min=0.6", "--reason", "two")
    newest = json.loads(config("diff", "--json").out)
    assert newest == {"before": 2, "after": 3, "changes": {"confidence_min": [0.7, 0.6]}}
    assert "tier: large -> tiny" in config("diff", "1", "2").out
    hashes = {v["version"]: v["config_hash"] for v in json.loads(config("log", "--json").out)}
    answer: Answer = config("rollback", "1", "--reason", "enough")
    assert answer.code == 0
    assert hashes[1] in answer.out
    assert "tier: tiny -> large" in answer.out
    assert config("rollback", "9", "--reason", "enough").code == 2
    assert config("diff", "9").code == 2


def test_the_log_is_the_page_that_the_runbook_asks_for(config: Run) -> None:
    config("set", "confidence_min=0.65", "--reason", "lower | a try")
    page = config("log", "--markdown").out
    assert "| version | at | by | source | changes | reason |" in page
    assert "| night shift | cli | confidence_min: 0.7 -> 0.65 | lower \\| a try |" in page
    assert "| ops-pipeline | init |" in page


def test_a_mode_without_a_database_is_told_so(run: Run) -> None:  # noqa: F811
    answer = run("config", "show", "--mode", "alpaca-paper")
    assert (answer.code, len(answer.error_lines)) == (2, 1)


def test_a_replay_that_is_rebuilt_keeps_its_settings(settings: Settings) -> None:
    with opened(settings) as engine, engine.begin() as connection:
        change(connection, settings, {"tier": "tiny"}, who="night", why="a try", now=clock())
    kept = replay._settings_of(settings)
    drop_pipeline(settings)
    prepare(settings)
    assert replay._settings_of(settings) == []
    replay._keep(settings, kept)
    assert replay._settings_of(settings) == kept
    with opened(settings) as engine:
        assert settle(engine, settings, clock()) == kept[-1]
