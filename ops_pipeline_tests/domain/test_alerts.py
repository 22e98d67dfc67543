"""When an alert opens, what is said of it, and when it is over."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ops_pipeline.domain import alerts
from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.alerts import (
    CALM,
    LONGEST_CALM,
    LONGEST_RETRY,
    MAX_ATTEMPTS,
    Alert,
    Channel,
    Kind,
    Silence,
    message_of,
    read_quiet,
    retry_at,
    service_of,
)
from ops_pipeline_tests.builders import NOON

BAD = Verdict("stuck_processing", Level.HIGH, "3 stuck", {"count": 3}, "0")
GOOD = Verdict("stuck_processing", Level.NORMAL, "0 stuck", {"count": 0}, "0")


def an_alert(**changes: object) -> Alert:
    return replace(alerts.opened("acceptance", BAD, NOON, flaps=0), **changes)  # type: ignore[arg-type]


def after(alert: Alert, *verdicts: Verdict) -> Alert:
    for number, verdict in enumerate(verdicts, 1):
        alert = alerts.followed(alert, verdict, NOON + number * timedelta(seconds=15))
    return alert


def test_it_is_over_after_two_good_verdicts_in_a_row_and_no_sooner() -> None:
    assert after(an_alert(), GOOD).resolved_at is None
    assert after(an_alert(), GOOD, BAD, GOOD).resolved_at is None
    assert after(an_alert(), GOOD, BAD, GOOD, GOOD).resolved_at == NOON + timedelta(minutes=1)


def test_what_comes_back_again_and_again_needs_longer_to_be_over() -> None:
    needed = [alerts.opened("x", BAD, NOON, flaps=n).calm_needed for n in (0, 1, 2, 3, 99)]
    assert needed == [CALM, 2 * CALM, 4 * CALM, 8 * CALM, LONGEST_CALM]


def test_its_level_is_the_worst_that_was_seen_and_its_finding_the_last() -> None:
    worse = replace(BAD, level=Level.CRITICAL, finding="300 stuck")
    found = after(an_alert(), worse, BAD)
    assert (found.level, found.finding, found.seen_count) == (Level.CRITICAL, "3 stuck", 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, Kind.OPENED),
        ({"told_level": Level.HIGH}, None),
        ({"told_level": Level.MEDIUM}, Kind.RAISED),
        ({"suppressed_by": "service dispatcher is off"}, None),
        ({"told_level": Level.HIGH, "resolved_at": NOON}, Kind.RESOLVED),
        ({"resolved_at": NOON}, None),
        (
            {"told_level": Level.HIGH, "suppressed_by": "silenced", "resolved_at": NOON},
            Kind.RESOLVED,
        ),
    ],
)
def test_each_thing_is_said_once(changes: dict[str, object], said: Kind | None) -> None:
    assert alerts.due(an_alert(**changes)) is said


def test_a_message_says_all_that_whoever_is_woken_needs() -> None:
    said = message_of(an_alert(id=12), Kind.OPENED, NOON)
    assert said.title == "[HIGH] stuck_processing: 3 stuck"
    assert said.body.splitlines() == [
        "level: high",
        "cause: stuck_processing",
        "found: 3 stuck (normal: 0)",
        "since: 2025-02-12 12:00 ET (17:00 UTC)",
        "seen: once, the last at 2025-02-12 12:00 ET (17:00 UTC)",
        "next: ops-pipeline runbook diagnose stuck-processing",
        "alert 12",
    ]
    over = message_of(an_alert(), Kind.RESOLVED, NOON + timedelta(minutes=3))
    assert over.title.startswith("[RESOLVED]")
    assert "after 0:03:00" in over.body


def test_a_text_of_any_length_is_cut() -> None:
    long = replace(BAD, finding="x" * 10_000)
    assert len(alerts.opened("x", long, NOON, flaps=0).finding) == 500


@pytest.mark.parametrize(
    ("cause", "service"),
    [
        ("backlog_state", "dispatcher"),
        ("missed_ticks:telemetry-1m", "telemetry-1m"),
        ("features/not_null_close", "feature-computer-1m"),
        ("executions/every_execution_explained", "dispatcher"),
        ("duplicate_executions", ""),
        ("process_runs:daemon", ""),
    ],
)
def test_a_cause_belongs_to_the_service_that_it_names(cause: str, service: str) -> None:
    assert service_of(cause) == service


def test_a_silence_with_a_star_covers_all_that_begin_so() -> None:
    silences = [Silence("process_runs:*", NOON, "moving house", "somebody")]
    assert "moving house" in alerts.silenced_by("process_runs:web", silences)
    assert alerts.silenced_by("process", silences) == ""


def test_a_channel_hears_of_its_least_level_and_above() -> None:
    heard = [level for level in Level if Channel("pager", Level.HIGH).wants(level)]
    assert heard == [Level.HIGH, Level.CRITICAL]


@pytest.mark.parametrize(
    ("at", "until"),
    [
        ("2025-02-12T23:30-05:00", "2025-02-13T07:00-05:00"),
        ("2025-02-12T22:00-05:00", "2025-02-13T07:00-05:00"),
        ("2025-02-12T03:00-05:00", "2025-02-12T07:00-05:00"),
        ("2025-02-12T07:00-05:00", None),
        ("2025-02-12T21:59-05:00", None),
        # The clocks go forward in that night.
        ("2025-03-08T23:00-05:00", "2025-03-09T07:00-04:00"),
    ],
)
def test_quiet_hours_hold_what_can_wait_until_they_end(at: str, until: str | None) -> None:
    quiet, now = read_quiet("22:00-07:00"), datetime.fromisoformat(at).astimezone(UTC)
    held = datetime.fromisoformat(until) if until else now
    assert quiet.held_until(Level.MEDIUM, now) == held
    assert quiet.held_until(Level.HIGH, now) == now


def test_quiet_hours_within_a_day() -> None:
    quiet = read_quiet("12:00-13:00")
    assert quiet.held_until(Level.LOW, NOON) == NOON + timedelta(hours=1)
    later = NOON + timedelta(hours=1)
    assert quiet.held_until(Level.LOW, later) == later


@pytest.mark.parametrize(
    "text", ["", "22:00", "22-25", "7:00-7:00", "07:00-07:00", "22:00Z-07:00Z"]
)
def test_quiet_hours_that_read_otherwise_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whoever reads the setting says it in words
        read_quiet(text)


def test_a_message_is_tried_later_and_later_and_given_up() -> None:
    waits = []
    for attempts in range(1, MAX_ATTEMPTS):
        again = retry_at(attempts, NOON)
        assert again
        waits.append(again - NOON)
    assert waits == sorted(waits)
    assert waits[0] == timedelta(seconds=15)
    assert waits[-1] == LONGEST_RETRY
    assert timedelta(hours=3) < sum(waits, timedelta()) < timedelta(hours=5)
    assert retry_at(MAX_ATTEMPTS, NOON) is None
