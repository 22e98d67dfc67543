"""Whether the same session, played in different ways, has the same rows in every minute."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby, zip_longest

from ops_pipeline.storage.fingerprint import Row

# More would be the same story again.
SHOWN = 10


@dataclass(frozen=True)
class Way:
    """How a session was played, and how long that took."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Difference:
    """One value that is not the same; `values` are the first way's and the other's."""

    table: str
    minute: datetime
    key: str
    column: str
    ways: tuple[str, str]
    values: tuple[str, str]


@dataclass(frozen=True)
class TableParity:
    """One table over all ways; `sha256` is the first way's, over its minutes' digests."""

    table: str
    rows: int
    minutes: int
    minutes_equal: int
    sha256: str


@dataclass(frozen=True)
class Parity:
    """What the comparison of all ways came to."""

    day: date
    ways: list[Way]
    tables: list[TableParity]
    differences: list[Difference]

    @property
    def is_equal(self) -> bool:
        """Whether no minute of any table differs, those before the open included."""
        return not self.differences


def compare(
    table: str, minutes: Sequence[datetime], found: Mapping[str, Sequence[Row]]
) -> tuple[TableParity, list[Difference]]:
    """Compare one table.

    Args:
        table: its name.
        minutes: the minutes of the session; rows of other minutes are compared too.
        found: the table's rows by the name of the way; the first one is what others are held to.

    Returns:
        The counts, and for each other way the first differing values of its first minutes.
    """
    digests = {way: digest_minutes(rows) for way, rows in found.items()}
    first, *others = found
    differing = {
        way: sorted(
            minute
            for minute in {*digests[first], *digests[way]}
            if digests[first].get(minute) != digests[way].get(minute)
        )
        for way in others
    }
    unequal = {minute for found_minutes in differing.values() for minute in found_minutes}
    differences = [
        difference
        for way in others
        for minute in differing[way][:SHOWN]
        for difference in _differences(table, minute, (first, way), found)
    ]
    whole = hashlib.sha256("".join(digests[first].values()).encode()).hexdigest()
    equal = sum(minute not in unequal for minute in minutes)
    return TableParity(table, len(found[first]), len(minutes), equal, whole), differences


def digest_minutes(rows: Sequence[Row]) -> dict[datetime, str]:
    """SHA-256 over the sorted rows of each minute."""
    in_order = sorted(rows, key=lambda row: (row.minute, row.key, row.document))
    return {
        minute: hashlib.sha256("\n".join(row.document for row in group).encode()).hexdigest()
        for minute, group in groupby(in_order, key=lambda row: row.minute)
    }


def _differences(
    table: str, minute: datetime, ways: tuple[str, str], found: Mapping[str, Sequence[Row]]
) -> Iterator[Difference]:
    one, other = (_by_key(row for row in found[way] if row.minute == minute) for way in ways)
    for key in sorted({*one, *other}):
        for left, right in zip_longest(one[key], other[key]):
            if left == right:
                continue
            if left is None or right is None:
                values = ("a row", "no row") if left else ("no row", "a row")
                yield Difference(table, minute, key, "row", ways, values)
                continue
            for column, values in _columns(left, right):
                yield Difference(table, minute, key, column, ways, values)


def _by_key(rows: Iterable[Row]) -> defaultdict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.document):
        found[row.key].append(row.document)
    return found


def _columns(left: str, right: str) -> Iterator[tuple[str, tuple[str, str]]]:
    one, other = (
        {column: json.dumps(value, sort_keys=True) for column, value in json.loads(text).items()}
        for text in (left, right)
    )
    for column in sorted({*one, *other}):
        # As text, because 1 and 1.0 are equal to Python and not to a digest.
        values = one.get(column, "null"), other.get(column, "null")
        if values[0] != values[1]:
            yield column, values
