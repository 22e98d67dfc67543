from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import struct_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.domain.feed_times import publication_time
from ops_pipeline.domain.news import back_off, next_state
from ops_pipeline.domain.values import FeedOutcome, FeedState, FeedStatus
from ops_pipeline_tests.builders import NOON

STATE = FeedState("wire", '"1"', "Mon", failures=0)
FAILED = FeedOutcome("wire", FeedStatus.FAILED, "HTTP 500")


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def test_back_off_doubles_up_to_an_hour() -> None:
    waits = [back_off(failures) / minutes(1) for failures in range(10)]
    assert waits == [0, 0, 2, 4, 8, 16, 32, 60, 60, 60]


@given(st.integers(0, 10**9))
def test_back_off_never_shrinks_and_never_exceeds_an_hour(failures: int) -> None:
    assert back_off(failures) <= back_off(failures + 1) <= minutes(60)


@pytest.mark.parametrize("status", [FeedStatus.OK, FeedStatus.NOT_MODIFIED])
def test_an_answer_ends_the_back_off_and_brings_its_validators(status: FeedStatus) -> None:
    failing = replace(STATE, failures=3, retry_at=NOON)
    outcome = FeedOutcome("wire", status, etag='"2"', last_modified="Tue")
    assert next_state(failing, outcome, NOON) == FeedState("wire", '"2"', "Tue")


def test_a_first_failure_is_retried_the_next_minute() -> None:
    assert next_state(STATE, FAILED, NOON) == replace(STATE, failures=1, retry_at=None)


def test_further_failures_wait_and_keep_the_validators() -> None:
    state = STATE
    waits = []
    for _ in range(4):
        state = next_state(state, FAILED, NOON)
        waits.append(state.retry_at and (state.retry_at - NOON) / minutes(1))
    assert waits == [None, 2, 4, 8]
    assert (state.etag, state.last_modified, state.failures) == ('"1"', "Mon", 4)


def test_a_feed_that_backs_off_stays_as_it_is() -> None:
    failing = replace(STATE, failures=3, retry_at=NOON)
    assert next_state(failing, FeedOutcome("wire", FeedStatus.BACKING_OFF), NOON) == failing


@pytest.mark.parametrize(
    ("failures", "asked", "waits"),
    [(0, 30, 0.5), (0, 0, None), (2, 30, 4), (2, 600, 10), (0, 1e9, 360), (0, 21_601, 360)],
)
def test_the_longer_of_both_waits_wins_up_to_six_hours(
    failures: int, asked: float, waits: float | None
) -> None:
    outcome = replace(FAILED, retry_after_seconds=asked)
    retry_at = next_state(replace(STATE, failures=failures), outcome, NOON).retry_at
    assert (retry_at and (retry_at - NOON) / minutes(1)) == waits


@pytest.mark.parametrize(
    ("at", "counts"),
    [
        (NOON, True),
        (NOON + timedelta(days=1), True),
        (NOON + timedelta(days=1, seconds=1), False),
        (datetime(1990, 1, 1, tzinfo=UTC), True),
        (datetime(1989, 12, 31, 23, 59, 59, tzinfo=UTC), False),
    ],
)
def test_a_time_counts_where_something_can_have_been_published(at: datetime, counts: bool) -> None:  # noqa: FBT001
    assert publication_time(at.isoformat(), None, NOON) == (at if counts else None)


@pytest.mark.parametrize("year", [0, 10_000, 10**9, -5])
def test_a_year_that_is_none_is_no_time(year: int) -> None:
    reading = struct_time((year, 1, 1, 0, 0, 0, 0, 1, 0))
    assert publication_time(f"1 Jan {year}", reading, NOON) is None


SUMMER, WINTER = "Tue, 02 Jul 2024 10:00:00", "Tue, 03 Dec 2024 10:00:00"


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        (f"{SUMMER} GMT", "10:00"),
        (f"{SUMMER} gmt", "10:00"),
        (f"{SUMMER} Z", "10:00"),
        (f"{SUMMER} -0400", "14:00"),
        (f"{SUMMER} -0800 (PST)", "18:00"),
        (f"{SUMMER} +05:30", "04:30"),
        (f"{SUMMER} GMT+1", "09:00"),
        (f"{SUMMER} GMT+01:00", "09:00"),
        (f"{SUMMER} UTC+0200", "08:00"),
        (f"{SUMMER} UTC-5", "15:00"),
        (f"{SUMMER} BST", "09:00"),
        (f"{SUMMER} CEST", "08:00"),
        (f"{SUMMER} MEST", "08:00"),
        (f"{SUMMER} JST", "01:00"),
        (f"{SUMMER} HKT", "02:00"),
        (f"{SUMMER} SGT", "02:00"),
        (f"{SUMMER} AEST", "00:00"),
        (f"{SUMMER} EST", "15:00"),
        (f"{SUMMER} EDT", "14:00"),
        (f"{SUMMER} ET", "14:00"),
        (f"{WINTER} ET", "15:00"),
        (f"{SUMMER} PT", "17:00"),
        (f"{SUMMER} America/New_York", "14:00"),
        ("Tue Jul  2 10:00:00 EST 2024", "15:00"),
        ("Tue, 02 Jul 24 10:00 GMT", "10:00"),
        ("2024-07-02T10:00:00Z", "10:00"),
        ("2024-07-02 10:00:00 BST", "09:00"),
        ("2024-07-02T10:00:00.123+02:00", "08:00"),
        ("20240702T100000Z", "10:00"),
        # Not certain, and so no time.
        (SUMMER, None),
        ("Tue Jul  2 10:00:00 2024", None),
        ("2024-07-02 10:00:00", None),
        ("2024-07-02T10:00", None),
        (f"{SUMMER} IST", None),
        (f"{SUMMER} AST", None),
        (f"{SUMMER} A", None),
        (f"{SUMMER} XYZ", None),
        (f"{SUMMER} Nowhere/City", None),
        (f"{SUMMER} ../../etc/passwd", None),
        (f"{SUMMER} PM EDT", None),
        ("Jul 02, 2024 10:00 AM", None),
        ("Sun, 03 Nov 2024 01:30:00 ET", None),
        ("Tue, 02 Jul 2024 25:00:00 GMT", None),
        ("Tue, 05 Mar 2030 10:00:00 GMT", None),
        ("yesterday at 10:00 GMT", None),
    ],
)
def test_a_time_is_read_in_its_zone_or_not_at_all(text: str, hour: str | None) -> None:
    read_as_utc = struct_time((2024, 7, 2, 10, 0, 0, 1, 184, 0))
    at = publication_time(text, read_as_utc, NOON)
    assert (at and f"{at:%H:%M}") == hour


def test_a_date_without_a_time_of_day_is_what_the_parser_read() -> None:
    reading = struct_time((2024, 7, 2, 0, 0, 0, 1, 184, 0))
    assert publication_time("2024-07-02", reading, NOON) == datetime(2024, 7, 2, tzinfo=UTC)
