"""Settings change key by key, come back by themselves, and are found where others changed them."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import Engine

from ops_pipeline.domain.config import Overrides, Source
from ops_pipeline.domain.errors import BadConfiguration, BadInput
from ops_pipeline.domain.thresholds import PROFILES, DispatcherConfig
from ops_pipeline.operations.config import change, config_of, in_force, rollback, settle, unset
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage.config import ConfigVersion, read_state, versions

NOW = datetime(2026, 11, 3, 15, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
RUNBOOK = {"confidence_min": 0.60}
Desk = Callable[..., ConfigVersion]


@pytest.fixture
def simulated(settings: Settings) -> Settings:
    """The database of a test under the rules of a mode without a profile."""
    return replace(settings, mode=Mode.SIMULATED)


@pytest.fixture
def put(engine: Engine, simulated: Settings) -> Desk:
    """Change settings, committed."""

    def put(at: datetime = NOW, until: datetime | None = None, **changes: Any) -> ConfigVersion:
        with engine.begin() as connection:
            return change(
                connection, simulated, changes, who="night", why="a try", now=at, until=until
            )

    return put


def log(engine: Engine) -> list[ConfigVersion]:
    """Every version, oldest first."""
    with engine.connect() as connection:
        return versions(connection)[::-1]


def told(engine: Engine) -> list[tuple[int, str, dict[str, Any]]]:
    return [(v.version, v.source.value, dict(v.changes)) for v in log(engine)]


def test_without_a_change_the_defaults_and_the_profile_hold(
    engine: Engine, settings: Settings
) -> None:
    usual = DispatcherConfig(**PROFILES["replay"])
    with engine.connect() as connection:
        assert in_force(connection, settings, NOW).effective == usual.document()
    assert log(engine) == []
    version = settle(engine, settings, NOW)
    assert (version.version, version.source) == (1, Source.INIT)
    assert config_of(version, settings) == usual
    assert settle(engine, settings, NOW + HOUR) == version


def test_a_change_of_one_key_leaves_all_others_byte_for_byte(put: Desk, engine: Engine) -> None:
    made = put(**RUNBOOK)
    before = log(engine)[0]
    assert made.changes == {"confidence_min": [0.7, 0.6]}
    assert (made.changed_by, made.reason, made.changed_at) == ("night", "a try", NOW)

    def others(version: ConfigVersion) -> str:
        return json.dumps({k: v for k, v in version.effective.items() if k != "confidence_min"})

    assert others(made) == others(before)
    second = put(processing_ttl_minutes=5.0)
    assert second.overrides.values == {"confidence_min": 0.6, "processing_ttl_minutes": 5.0}


def test_what_changes_nothing_is_no_version(put: Desk, engine: Engine) -> None:
    first = put(**RUNBOOK)
    assert put(**RUNBOOK) == first
    assert len(log(engine)) == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"confidence_min": 7}, "confidence_min: must be between 0 and 1, not 7"),
        ({"confidence": 0.6}, "confidence: no such key; did you mean confidence_min?"),
        ({"tier": "tiny", "max_attempts": "3"}, "max_attempts: must be a whole number between 1"),
        ({"max_recommendation_age_seconds": 59}, "processing_ttl_minutes (1) must not be longer"),
    ],
)
def test_what_is_refused_leaves_everything_as_it_was(
    put: Desk, engine: Engine, changes: dict[str, Any], told: str
) -> None:
    kept = put(**RUNBOOK)
    with pytest.raises(BadInput) as refused:
        put(**changes)
    assert str(refused.value).startswith(told)
    assert log(engine)[-1] == kept


def test_a_change_for_a_time_returns_by_itself_and_takes_nothing_else_along(
    put: Desk, engine: Engine, simulated: Settings
) -> None:
    before = put(max_attempts=2)
    put(until=NOW + 2 * HOUR, **RUNBOOK)
    kept = put(at=NOW + HOUR, tier="medium")
    assert settle(engine, simulated, NOW + 2 * HOUR - timedelta(seconds=1)) == kept
    after = settle(engine, simulated, NOW + 2 * HOUR)
    assert (after.source, after.changes) == (Source.EXPIRY, {"confidence_min": [0.6, 0.7]})
    assert after.overrides.values == {**before.overrides.values, "tier": "medium"}
    assert settle(engine, simulated, NOW + 3 * HOUR) == after


def test_a_key_set_again_for_a_time_returns_to_what_it_was_before_the_first(
    put: Desk, engine: Engine, simulated: Settings
) -> None:
    put(confidence_min=0.65)
    put(until=NOW + 2 * HOUR, confidence_min=0.6)
    put(until=NOW + HOUR, confidence_min=0.5)
    assert settle(engine, simulated, NOW + HOUR).effective["confidence_min"] == 0.65
    assert settle(engine, simulated, NOW + 2 * HOUR).effective["confidence_min"] == 0.65


def test_a_key_set_for_good_meanwhile_stays(put: Desk, engine: Engine, simulated: Settings) -> None:
    put(until=NOW + HOUR, confidence_min=0.6)
    put(confidence_min=0.62)
    assert settle(engine, simulated, NOW + HOUR).effective["confidence_min"] == 0.62


def test_a_key_that_is_taken_back_is_as_the_layers_below_say_and_no_other_is_touched(
    put: Desk, engine: Engine, simulated: Settings
) -> None:
    settings = replace(simulated, dispatcher_overrides='{"confidence_min": 0.66}')

    def take_back(*keys: str) -> ConfigVersion:
        with engine.begin() as connection:
            return unset(connection, settings, keys, who="night", why="enough", now=NOW)

    settle(engine, settings, NOW)
    put(max_attempts=2)
    put(confidence_min=0.65)
    put(until=NOW + HOUR, confidence_min=0.6)
    made = take_back("confidence_min")
    assert (made.changes, made.source) == ({"confidence_min": [0.6, 0.66]}, Source.CLI)
    assert (made.changed_by, made.reason, made.changed_at) == ("night", "enough", NOW)
    assert made.overrides == Overrides({"max_attempts": 2})
    assert settle(engine, settings, NOW + 2 * HOUR) == made
    assert take_back("confidence_min", "tier") == made
    with pytest.raises(BadInput, match="confidence: no such key; did you mean confidence_min"):
        take_back("max_attempts", "confidence")
    assert log(engine)[-1] == made


def test_a_key_that_the_others_need_is_not_taken_back(
    put: Desk, engine: Engine, simulated: Settings
) -> None:
    kept = put(max_recommendation_age_seconds=50, processing_ttl_minutes=0.5)
    with engine.begin() as connection, pytest.raises(BadInput, match="must not be longer"):
        unset(connection, simulated, ["processing_ttl_minutes"], who="night", why="", now=NOW)
    assert log(engine)[-1] == kept


def test_a_change_that_could_not_return_is_refused(put: Desk, engine: Engine) -> None:
    put(until=NOW + HOUR, max_recommendation_age_seconds=600, processing_ttl_minutes=1.0)
    with pytest.raises(BadInput, match="is over already"):
        put(until=NOW, confidence_min=0.6)
    put(max_recommendation_age_seconds=200)
    put(until=NOW + HOUR, max_recommendation_age_seconds=300)
    with pytest.raises(BadInput, match="must not be longer"):
        put(processing_ttl_minutes=4.0)


def test_a_rollback_has_the_hash_of_its_version_and_is_one_itself(
    put: Desk, engine: Engine, simulated: Settings
) -> None:
    first = put(**RUNBOOK)
    put(tier="tiny", confidence_min=0.8)
    with engine.begin() as connection:
        back = rollback(connection, simulated, 2, who="day", why="enough", now=NOW)
    assert (back.version, back.source) == (4, Source.ROLLBACK)
    assert back.config_hash == first.config_hash
    assert back.effective == first.effective
    assert back.changes == {"confidence_min": [0.8, 0.6], "tier": ["tiny", "large"]}


def test_a_rollback_has_the_hash_of_its_version_whatever_the_environment_says_now(
    put: Desk, engine: Engine, simulated: Settings
) -> None:
    first = put(**RUNBOOK)
    moved = replace(simulated, dispatcher_overrides='{"max_attempts": 9}')
    assert settle(engine, moved, NOW).effective["max_attempts"] == 9
    with engine.begin() as connection:
        back = rollback(connection, moved, first.version, who="day", why="enough", now=NOW)
    assert back.config_hash == first.config_hash
    assert settle(engine, moved, NOW) == back


def test_a_version_that_is_none_or_was_refused_is_not_gone_back_to(
    put: Desk, engine: Engine, simulated: Settings
) -> None:
    put(**RUNBOOK)
    with pytest.raises(BadConfiguration):
        settle(engine, replace(simulated, dispatcher_overrides='{"tier": 1}'), NOW)
    for number, said in ((9, "there is no version 9"), (3, "version 3 never was in force: tier")):
        with engine.begin() as connection, pytest.raises(BadInput, match=said):
            rollback(connection, simulated, number, who="day", why="", now=NOW)


def test_another_environment_is_found_and_kept_as_a_version(
    put: Desk, engine: Engine, simulated: Settings
) -> None:
    put(**RUNBOOK)
    moved = replace(simulated, dispatcher_overrides='{"confidence_min": 0.9, "max_attempts": 2}')
    found = settle(engine, moved, NOW)
    assert (found.source, found.changes) == (Source.ENVIRONMENT, {"max_attempts": [3, 2]})
    assert found.effective["confidence_min"] == 0.6
    assert found.base == {"confidence_min": 0.9, "max_attempts": 2}
    assert settle(engine, moved, NOW) == found
    assert settle(engine, simulated, NOW).changes == {"max_attempts": [2, 3]}


def test_a_change_from_another_environment_leaves_that_of_the_dispatcher(
    put: Desk, engine: Engine, simulated: Settings
) -> None:
    moved = replace(simulated, dispatcher_overrides='{"max_attempts": 2}')
    settle(engine, moved, NOW)
    made = put(**RUNBOOK)
    assert made.effective["max_attempts"] == 2
    assert settle(engine, moved, NOW) == made


@pytest.mark.parametrize("text", ["tier: tiny", '{"tier": "huge"}', '{"nonsense": 1}'])
def test_what_is_present_but_invalid_stops_the_dispatcher_and_is_kept_once(
    put: Desk, engine: Engine, simulated: Settings, text: str
) -> None:
    kept = put(**RUNBOOK)
    broken = replace(simulated, dispatcher_overrides=text)
    for minutes in range(3):
        with pytest.raises(BadConfiguration) as refused:
            settle(engine, broken, NOW + timedelta(minutes=minutes))
    newest = log(engine)[-1]
    assert (newest.version, newest.refusal) == (3, str(refused.value))
    with engine.connect() as connection:
        assert in_force(connection, broken, NOW) == kept
        assert read_state(connection).invalid == str(refused.value)
    assert settle(engine, simulated, NOW) == kept
    with engine.connect() as connection:
        assert read_state(connection).invalid == ""


def test_two_at_once_are_one_after_the_other_and_none_is_lost(
    put: Desk, engine: Engine, simulated: Settings
) -> None:
    keys: dict[str, Any] = {"confidence_min": 0.6, "max_attempts": 2, "tier": "tiny"}
    with engine.begin() as connection:
        change(connection, simulated, {"max_hold_minutes": 99}, who="a", why="", now=NOW)
        rest = [Thread(target=put, kwargs={key: value}) for key, value in keys.items()]
        for each in rest:
            each.start()
        assert all(each.is_alive() for each in rest)
    for each in rest:
        each.join(30)
    final = log(engine)[-1]
    assert final.version == 5
    assert final.overrides.values == keys | {"max_hold_minutes": 99}
