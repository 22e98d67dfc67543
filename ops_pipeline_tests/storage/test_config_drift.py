"""The check config_drift: silent while the newest version runs, and told apart by how bad it is."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Connection, text

from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.checks import DRIFT
from ops_pipeline.domain.config import Overrides, Temporary
from ops_pipeline.domain.session import Calendar
from ops_pipeline.storage.acceptance import verdicts
from ops_pipeline.storage.config import ConfigState, insert_version, update_state
from ops_pipeline.storage.knowledge import clock
from ops_pipeline_tests.storage.rows import TS, put_run
from ops_pipeline_tests.storage.test_config import MADE

FOR_GOOD = replace(MADE, overrides=Overrides(MADE.overrides.values))


@pytest.fixture
def drift(connection: Connection, xnys: Calendar) -> "Drift":
    return Drift(connection, xnys)


class Drift:
    """A database, and what the check says of it."""

    def __init__(self, connection: Connection, calendar: Calendar) -> None:
        self.connection, self._calendar = connection, calendar

    def ran(self, version: int | None, seconds_after: float) -> None:
        run_id = put_run(self.connection)
        self.connection.execute(
            text(
                "update dispatcher_runs set config_version = :version,"
                " written_at = (select max(written_at) from config_versions)"
                " + make_interval(secs => :seconds) where run_id = :id"
            ),
            {"version": version, "seconds": seconds_after, "id": run_id},
        )

    def ask(self, *, is_live: bool = True) -> tuple[Level, str]:
        found: Verdict
        (found,) = verdicts(self.connection, TS, self._calendar, is_live=is_live, names=[DRIFT])
        return found.level, found.finding


def test_a_pipeline_without_a_version_is_normal(drift: Drift) -> None:
    assert drift.ask() == (Level.NORMAL, "no version yet")


@pytest.mark.parametrize(("version", "seconds"), [(1, 3_600), (None, 60), (9, 120)])
def test_the_newest_version_is_normal_and_another_for_two_minutes(
    drift: Drift, version: int | None, seconds: float
) -> None:
    insert_version(drift.connection, FOR_GOOD)
    drift.ran(version, seconds)
    assert drift.ask() == (Level.NORMAL, "version 1")


def test_a_run_under_an_older_version_is_drift(drift: Drift) -> None:
    for _ in range(2):
        insert_version(drift.connection, FOR_GOOD)
    drift.ran(1, 121)
    assert drift.ask() == (Level.MEDIUM, "version 1 ran last, and 2 is the newest")


def test_what_is_refused_is_no_newer_version(drift: Drift) -> None:
    insert_version(drift.connection, FOR_GOOD)
    insert_version(drift.connection, replace(FOR_GOOD, changes={}, refusal="tier: no"))
    drift.ran(1, 600)
    assert drift.ask() == (Level.NORMAL, "version 1")


@pytest.mark.parametrize(("seconds", "level"), [(60, Level.NORMAL), (200, Level.MEDIUM)])
def test_what_does_not_return_is_drift(drift: Drift, seconds: float, level: Level) -> None:
    ends = {"confidence_min": Temporary(clock() - timedelta(seconds=seconds))}
    insert_version(drift.connection, replace(MADE, overrides=Overrides({}, ends)))
    assert drift.ask()[0] is level


def test_what_is_present_but_invalid_is_high_and_said(drift: Drift) -> None:
    insert_version(drift.connection, FOR_GOOD)
    update_state(drift.connection, ConfigState(invalid="tier: no", unread="gone"), TS)
    assert drift.ask() == (Level.HIGH, "the dispatcher stands: tier: no")
    assert drift.ask(is_live=False)[0] is Level.NOT_APPLICABLE


def test_a_parameter_that_is_out_of_reach_is_low(drift: Drift) -> None:
    insert_version(drift.connection, FOR_GOOD)
    update_state(drift.connection, ConfigState(unread="SSM does not answer"), TS)
    assert drift.ask() == (Level.LOW, "what is known holds: SSM does not answer")
