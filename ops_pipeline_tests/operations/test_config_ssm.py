"""A parameter of SSM is one more place where settings are changed; what is put there is found."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from ops_pipeline.domain.config import Source
from ops_pipeline.domain.errors import BadConfiguration, NotRunning
from ops_pipeline.operations.config import change, in_force, settle, unset
from ops_pipeline.operations.operator import operator
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage.config import ConfigVersion, read_state, versions
from ops_pipeline_tests.clients.ssm_server import NAME, REGION, SOMEBODY, aws, forget, put_by_hand
from ops_pipeline_tests.clients.test_aws import PARAMETER

NOW = datetime(2026, 11, 3, 15, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
RUNBOOK = '{"confidence_min": 0.60}'


@pytest.fixture(scope="module")
def served() -> Iterator[pytest.MonkeyPatch]:
    with aws() as patch:
        yield patch


@pytest.fixture
def paired(settings: Settings, served: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A mode whose settings stand in a parameter, too; nothing is in it yet."""
    yield replace(settings, mode=Mode.SIMULATED, ssm_parameter=NAME, aws_region=REGION)
    forget()


def put(engine: Engine, settings: Settings, **changes: Any) -> ConfigVersion:
    until = changes.pop("until", None)
    with engine.begin() as connection:
        return change(connection, settings, changes, who="night", why="", now=NOW, until=until)


def held() -> Any:
    return json.loads(PARAMETER.read() or "null")


def test_what_is_changed_here_stands_there_and_is_no_news(engine: Engine, paired: Settings) -> None:
    made = put(engine, paired, confidence_min=0.6)
    assert held() == {"confidence_min": 0.6}
    assert settle(engine, paired, NOW) == made


def test_what_is_taken_back_here_leaves_the_parameter_as_well(
    engine: Engine, paired: Settings
) -> None:
    put(engine, paired, confidence_min=0.6, max_attempts=2)
    with engine.begin() as connection:
        made = unset(connection, paired, ["confidence_min"], who="night", why="", now=NOW)
    assert held() == {"max_attempts": 2}
    assert settle(engine, paired, NOW) == made


def test_the_runbooks_one_key_is_found_with_who_and_drops_nothing(
    engine: Engine, paired: Settings
) -> None:
    put(engine, paired, max_attempts=2, tier="medium")
    put_by_hand(RUNBOOK)
    found = settle(engine, paired, NOW + HOUR)
    assert (found.source, found.changed_by) == (Source.SSM, SOMEBODY)
    assert found.reason == "changed in SSM by hand"
    assert found.changes == {"confidence_min": [0.7, 0.6]}
    assert found.overrides.values == {"max_attempts": 2, "tier": "medium", "confidence_min": 0.6}
    assert settle(engine, paired, NOW + HOUR) == found


def test_a_change_here_takes_along_what_was_put_there_unseen(
    engine: Engine, paired: Settings
) -> None:
    put(engine, paired, max_attempts=2)
    put_by_hand(RUNBOOK)
    made = put(engine, paired, tier="medium")
    assert made.changes == {"tier": ["large", "medium"]}
    assert held() == {"max_attempts": 2, "tier": "medium", "confidence_min": 0.6}
    with engine.connect() as connection:
        sources = [version.source.value for version in versions(connection)]
    assert sources == ["cli", "ssm", "cli", "init"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("confidence_min: 0.6", "is no JSON: expecting value, line 1, column 1"),
        ('{"confidence_min": 7}', ": confidence_min: must be between 0 and 1, not 7"),
        ('{"confidence": 0.6}', ": confidence: no such key; did you mean confidence_min?"),
    ],
)
def test_what_is_put_there_and_invalid_stops_the_dispatcher_and_the_version_before_stays(
    engine: Engine, paired: Settings, text: str, told: str
) -> None:
    kept = put(engine, paired, tier="medium")
    put_by_hand(text)
    for _ in range(3):
        with pytest.raises(BadConfiguration) as refused:
            settle(engine, paired, NOW)
    assert str(refused.value) == f"{NAME}{told if told.startswith(':') else ' ' + told}"
    with engine.connect() as connection:
        newest, *_ = versions(connection)
        assert (newest.changed_by, newest.refusal) == (SOMEBODY, str(refused.value))
        assert len(versions(connection)) == 3
        assert in_force(connection, paired, NOW) == kept
    put_by_hand('{"tier": "small"}')
    assert settle(engine, paired, NOW).changes == {"tier": ["medium", "small"]}


def test_a_change_here_puts_right_what_was_invalid_there(engine: Engine, paired: Settings) -> None:
    put(engine, paired, tier="medium")
    put_by_hand("tier: small")
    made = put(engine, paired, tier="small")
    assert held() == {"tier": "small"}
    assert settle(engine, paired, NOW) == made


def test_what_was_set_for_a_time_leaves_the_parameter_as_well(
    engine: Engine, paired: Settings
) -> None:
    put(engine, paired, max_attempts=2)
    put(engine, paired, confidence_min=0.6, until=NOW + HOUR)
    settle(engine, paired, NOW + HOUR)
    assert held() == {"max_attempts": 2}


def test_a_whole_document_that_is_put_back_by_hand_leaves_what_was_set_for_a_time(
    engine: Engine, paired: Settings
) -> None:
    put(engine, paired, confidence_min=0.6, until=NOW + HOUR)
    put_by_hand('{"confidence_min": 0.6, "max_attempts": 2}')
    assert settle(engine, paired, NOW).changes == {"max_attempts": [3, 2]}
    after = settle(engine, paired, NOW + HOUR)
    assert after.changes["confidence_min"][0] == 0.6
    assert held() == {"max_attempts": 2}


def test_a_parameter_that_is_taken_away_drops_nothing(engine: Engine, paired: Settings) -> None:
    made = put(engine, paired, max_attempts=2)
    forget()
    assert settle(engine, paired, NOW) == made


def test_while_ssm_is_away_what_is_known_holds_and_nothing_is_changed(
    engine: Engine, paired: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = put(engine, paired, max_attempts=2)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert settle(engine, paired, NOW) == made
    with engine.connect() as connection:
        assert read_state(connection).unread.startswith("SSM does not answer")
    with pytest.raises(NotRunning):
        put(engine, paired, max_attempts=4)
    monkeypatch.undo()
    assert settle(engine, paired, NOW) == made
    with engine.connect() as connection:
        assert read_state(connection).unread == ""


def test_a_parameter_that_was_never_read_stops_the_dispatcher(
    engine: Engine, paired: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(NotRunning, match="SSM does not answer"):
        settle(engine, paired, NOW)


def test_a_region_that_is_missing_stops_the_dispatcher_and_is_kept_once(
    engine: Engine, paired: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    lost = replace(paired, aws_region="")
    for _ in range(2):
        with pytest.raises(BadConfiguration, match="AWS has no region"):
            settle(engine, lost, NOW)
    with engine.connect() as connection:
        assert [version.refusal for version in versions(connection)] == ["AWS has no region", None]
    assert settle(engine, paired, NOW).version == 1


def test_who_acts_is_whom_aws_knows_or_this_machine_where_it_is_away(
    paired: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "night shift")
    assert operator(paired).startswith("arn:aws:sts::")
    assert operator(replace(paired, ssm_parameter="")) == "night shift"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert operator(paired) == "night shift (AWS does not tell)"
