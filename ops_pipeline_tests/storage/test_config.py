"""Versions of the settings are only added, and how a look went is kept with since when."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from ops_pipeline.domain.config import Overrides, Source, Temporary
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.storage.config import (
    ConfigState,
    ConfigVersion,
    insert_version,
    newest_version,
    read_state,
    update_state,
    version_of,
    versions,
)
from ops_pipeline_tests.storage.rows import TS, rows

CONFIG = DispatcherConfig(confidence_min=0.6)
MADE = ConfigVersion(
    version=0,
    source=Source.CLI,
    base={"max_attempts": 2},
    overrides=Overrides(
        {"confidence_min": 0.6, "allowed_actions": ["BUY_STOCK"]},
        {"confidence_min": Temporary(TS + timedelta(hours=2), 0.65)},
    ),
    effective=CONFIG.document(),
    config_hash=CONFIG.fingerprint(),
    changes={"confidence_min": [0.7, 0.6]},
    changed_by="night shift",
    reason="all signals below 0.70",
    changed_at=TS,
)


def test_a_version_is_read_as_it_was_written_under_the_next_number(connection: Connection) -> None:
    first, second = (insert_version(connection, MADE) for _ in range(2))
    assert (first.version, second.version) == (1, 2)
    assert newest_version(connection) == second == replace(MADE, version=2)
    assert version_of(connection, 1) == first
    assert version_of(connection, 3) is None
    assert versions(connection) == [second, first]
    assert versions(connection, 1) == [second]


def test_what_was_refused_stands_in_the_log_and_is_never_in_force(connection: Connection) -> None:
    first = insert_version(connection, MADE)
    refused = insert_version(connection, replace(MADE, changes={}, refusal="tier: no"))
    assert newest_version(connection) == first
    assert versions(connection) == [refused, first]


@pytest.mark.parametrize(
    "statement",
    [
        "update config_versions set reason = 'another'",
        "delete from config_versions",
        "truncate config_versions",
    ],
)
def test_a_version_never_changes_again(connection: Connection, statement: str) -> None:
    insert_version(connection, MADE)
    with pytest.raises(DBAPIError, match="ledger"):
        connection.execute(text(statement))


def test_what_is_wrong_is_wrong_since_the_first_look_that_saw_it(connection: Connection) -> None:
    assert read_state(connection) == ConfigState()
    bad = ConfigState(seen="abc", invalid="tier: no", unread="SSM does not answer")
    for minutes in (0, 5):
        update_state(connection, bad, TS + timedelta(minutes=minutes))
    assert read_state(connection) == bad
    since = rows(connection, "select invalid_since, unread_since from config_state")
    assert since == [(TS, TS)]
    update_state(connection, ConfigState(seen="abc"), TS + timedelta(minutes=6))
    assert rows(connection, "select invalid_since, unread_since from config_state") == [
        (None, None)
    ]
