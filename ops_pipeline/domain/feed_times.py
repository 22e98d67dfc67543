"""When a feed says that an entry was published: never a guess at the zone.

A time of day counts with an offset, UTC, GMT, an IANA name, or a name of the table below. A time
without a zone, or with a name that means several zones, is no time; the entry is then undated.
"""

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate
from time import struct_time
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

EARLIEST = datetime(1990, 1, 1, tzinfo=UTC)
LONGEST_AHEAD = timedelta(days=1)
# Hours ahead of UTC. The American names are those of RFC 822. Names with several meanings, such as
# IST (India, Ireland, Israel) and AST (Atlantic, Arabia), are left out on purpose.
ZONE_HOURS = {
    "Z": 0,
    "UT": 0,
    "UTC": 0,
    "GMT": 0,
    "WET": 0,
    "WEST": 1,
    "BST": 1,
    "EST": -5,
    "EDT": -4,
    "CST": -6,
    "CDT": -5,
    "MST": -7,
    "MDT": -6,
    "PST": -8,
    "PDT": -7,
    "CET": 1,
    "CEST": 2,
    "MEZ": 1,
    "MESZ": 2,
    "MET": 1,
    "MEST": 2,
    "EET": 2,
    "EEST": 3,
    "MSK": 3,
    "HKT": 8,
    "SGT": 8,
    "AWST": 8,
    "JST": 9,
    "KST": 9,
    "ACST": 9.5,
    "ACDT": 10.5,
    "AEST": 10,
    "AEDT": 11,
    "NZST": 12,
    "NZDT": 13,
}
# Names that are used in summer and in winter.
_PLACES = {
    "ET": "America/New_York",
    "CT": "America/Chicago",
    "MT": "America/Denver",
    "PT": "America/Los_Angeles",
}
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?|(?<=\d)T\d{4,6}(?:[.,]\d+)?")
_OFFSET = re.compile(r"(?:UTC|GMT|UT)?\s*([+-])(\d{1,2}):?(\d{2})?(?:\s*\([^()]*\))?")


def publication_time(text: str, reading: struct_time | None, now: datetime) -> datetime | None:
    """Return the instant in UTC; None where it is not certain, or nothing can be published then.

    `reading` is what a feed parser made of the text. It counts for a date without a time of day.
    """
    try:
        at = _instant(text, reading)
    except (ValueError, OverflowError, TypeError, ZoneInfoNotFoundError):
        return None
    return at if at and EARLIEST <= at <= now + LONGEST_AHEAD else None


def _instant(text: str, reading: struct_time | None) -> datetime | None:
    time = _TIME_OF_DAY.search(text)
    if time is None:
        return datetime(*reading[:6], tzinfo=UTC) if reading else None
    zone, year = text[time.end() :].strip(), ""
    # As C and Perl print it: Tue Jul  7 10:00:00 EST 2026.
    if found := re.fullmatch(r"(.*\s|)(\d{4})", zone):
        zone, year = found[1].strip(), found[2]
    return _in_utc(_local_time(f"{text[: time.end()]} {year}".strip()), zone)


def _local_time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        told = parsedate(text)
        if told is None:
            raise
        return datetime(*told[:6])  # noqa: DTZ001 - its zone is still to be read


def _in_utc(local: datetime, zone: str) -> datetime | None:
    if offset := _OFFSET.fullmatch(zone):
        hours, minutes = int(offset[2]), int(offset[3] or 0)
        ahead = timedelta(hours=hours, minutes=minutes)
        return (local - ahead if offset[1] == "+" else local + ahead).replace(tzinfo=UTC)
    if (fixed := ZONE_HOURS.get(zone.upper())) is not None:
        return (local - timedelta(hours=fixed)).replace(tzinfo=UTC)
    place = _PLACES.get(zone.upper(), zone)
    if not re.fullmatch(r"[A-Z][A-Za-z_]+/[A-Za-z_/+-]+", place):
        return None
    first, second = (local.replace(tzinfo=ZoneInfo(place), fold=fold) for fold in (0, 1))
    # An hour that the clocks show twice, or skip, is not certain.
    return first.astimezone(UTC) if first.utcoffset() == second.utcoffset() else None
