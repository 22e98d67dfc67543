from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import gmtime, struct_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops_pipeline.domain.news import back_off, next_state, publication_time
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
    told = gmtime(at.timestamp())
    assert publication_time(told, NOON) == (at if counts else None)


@pytest.mark.parametrize("year", [0, 10_000, 10**9, -5])
def test_a_year_that_is_none_is_no_time(year: int) -> None:
    assert publication_time(struct_time((year, 1, 1, 0, 0, 0, 0, 1, 0)), NOON) is None
