"""Comparing ways on rows that are made up: what differs is named, and nothing else is."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from ops_pipeline.proofs.parity import SHOWN, Difference, Parity, compare, digest_minutes
from ops_pipeline.storage.fingerprint import Row
from ops_pipeline_tests.builders import DAY, at

MINUTES = [at(number) for number in range(20)]
BEFORE_OPEN = at(-30)


def a_row(minute: datetime = MINUTES[0], key: str = "AAPL", **columns: Any) -> Row:
    return Row(minute, key, json.dumps({"close": 100.5, "rank": 1, **columns}, sort_keys=True))


def difference(column: str, *values: str, key: str = "AAPL", **changes: Any) -> Difference:
    minute: datetime = changes.get("minute", MINUTES[0])
    return Difference("bars", minute, key, column, ("one", "other"), (values[0], values[1]))


def compared(one: Sequence[Row], other: Sequence[Row]) -> tuple[int, list[Difference]]:
    """How many minutes are equal, and what differs."""
    counted, differences = compare("bars", MINUTES, {"one": one, "other": other})
    return counted.minutes_equal, differences


def test_equal_rows_are_equal_in_every_minute() -> None:
    rows = [a_row(minute) for minute in MINUTES]
    counted, differences = compare("bars", MINUTES, {"one": rows, "other": list(rows)})
    assert (counted.table, counted.rows, counted.minutes, counted.minutes_equal) == (
        "bars",
        20,
        20,
        20,
    )
    assert differences == []


def test_a_changed_column_is_named_with_table_minute_row_and_both_values() -> None:
    one = [a_row(minute) for minute in MINUTES]
    other = [*one[:7], a_row(MINUTES[7], close=100.25), *one[8:]]
    assert compared(one, other) == (
        19,
        [difference("close", "100.5", "100.25", minute=MINUTES[7])],
    )


def test_every_changed_column_is_named() -> None:
    _, differences = compared([a_row()], [a_row(close=1, rank=None)])
    assert differences == [difference("close", "100.5", "1"), difference("rank", "1", "null")]


@pytest.mark.parametrize(
    ("one", "other", "values"),
    [
        ([a_row(), a_row(key="MSFT")], [a_row()], ("a row", "no row")),
        ([a_row()], [a_row(), a_row(key="MSFT")], ("no row", "a row")),
    ],
)
def test_a_row_that_only_one_way_has_is_a_difference(
    one: list[Row], other: list[Row], values: tuple[str, str]
) -> None:
    assert compared(one, other) == (19, [difference("row", *values, key="MSFT")])


def test_a_minute_that_only_one_way_has_is_not_equal() -> None:
    assert compared([], [a_row()]) == (19, [difference("row", "no row", "a row")])


def test_a_difference_outside_the_session_counts_but_lowers_no_minute() -> None:
    found = compared([], [a_row(BEFORE_OPEN)])
    assert found == (20, [difference("row", "no row", "a row", minute=BEFORE_OPEN)])


def test_minutes_without_rows_are_equal() -> None:
    assert compared([a_row()], [a_row()]) == (20, [])
    assert compared([], []) == (20, [])


def test_order_of_rows_does_not_matter() -> None:
    rows = [a_row(minute, key) for minute in MINUTES[:3] for key in ("AAPL", "MSFT")]
    mixed = [rows[number] for number in (5, 0, 3, 1, 4, 2)]
    assert digest_minutes(mixed) == digest_minutes(rows)
    one, other = (compare("bars", MINUTES, {"one": found})[0] for found in (rows, mixed))
    assert one == other
    assert compared(rows, mixed) == (20, [])


def test_number_written_otherwise_is_a_difference() -> None:
    """What the digest sees must be named, or the ways would pass for equal."""
    found = compared([a_row(close=1)], [a_row(close=1.0)])
    assert found == (19, [difference("close", "1", "1.0")])


def test_rows_that_share_a_key_are_compared_one_by_one() -> None:
    shared = a_row(close=2)
    minutes_equal, differences = compared([a_row(close=1), shared], [a_row(close=1.5), shared])
    assert minutes_equal == 19
    assert [(d.column, d.values) for d in differences] == [("close", ("1", "1.5"))]
    assert compared([shared], [shared, shared])[1]


def test_only_the_first_minutes_of_differences_are_shown_and_all_are_counted() -> None:
    one = [a_row(minute) for minute in MINUTES]
    other = [a_row(minute, close=1) for minute in MINUTES[: SHOWN + 3]] + one[SHOWN + 3 :]
    minutes_equal, differences = compared(one, other)
    assert minutes_equal == 20 - SHOWN - 3
    assert [found.minute for found in differences] == MINUTES[:SHOWN]


def test_every_other_way_is_held_to_the_first() -> None:
    found = {"one": [a_row()], "two": [a_row()], "three": [a_row(close=3), a_row(MINUTES[1])]}
    counted, differences = compare("bars", MINUTES, found)
    assert counted.minutes_equal == 18
    assert {found.ways for found in differences} == {("one", "three")}


def test_digest_of_a_table_changes_with_any_row() -> None:
    rows = [a_row(minute) for minute in MINUTES]
    changed = [*rows[:-1], a_row(MINUTES[-1], close=1)]
    one, other = (compare("bars", MINUTES, {"one": found})[0] for found in (rows, changed))
    assert one.sha256 != other.sha256


def test_ways_are_equal_only_without_any_difference() -> None:
    counted, differences = compare("bars", MINUTES, {"one": [], "other": [a_row(BEFORE_OPEN)]})
    assert counted.minutes_equal == counted.minutes
    assert not Parity(DAY, [], [counted], differences).is_equal
    assert Parity(DAY, [], [counted], []).is_equal


def test_digest_is_by_minute() -> None:
    rows = [a_row(MINUTES[0]), a_row(MINUTES[0] + timedelta(minutes=1))]
    digests = digest_minutes(rows)
    assert list(digests) == MINUTES[:2]
    assert digests[MINUTES[0]] == digests[MINUTES[1]]
