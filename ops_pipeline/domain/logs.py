"""Lines of logs: when, how bad, what; whatever wrote them, in one form."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TIME = re.compile(
    r"(?P<at>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d{1,6})?)\s?(?P<zone>[+-]\d{4}|UTC|Z)?\s*"
)
_LEVEL = re.compile(
    r"\b(DEBUG|INFO|NOTICE|LOG|WARNING|WARN|ERROR|FATAL|PANIC|CRITICAL)\b(?:\s+-|:)"
)
_SAME = {"LOG": "INFO", "NOTICE": "INFO", "WARN": "WARNING", "FATAL": "ERROR", "PANIC": "CRITICAL"}
_LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
HIDDEN = "***"
# Shorter ones stand in every other word.
SHORTEST_SECRET = 6


@dataclass(frozen=True)
class Line:
    """One line; without a time where its writer tells none, without a run where none wrote it."""

    at: datetime | None
    level: str
    text: str
    run_id: str = ""


def level_of(number: object) -> str:
    """A level by Python's number for it."""
    return _LEVELS.get(number, "INFO") if isinstance(number, int) else "INFO"


def read_lines(texts: Iterable[str], zone: tzinfo, run_id: str = "") -> Iterator[Line]:
    """What a file of lines says: JSON lines, and those that begin with a time.

    A line without a time, as those of a traceback, has that of the line before.

    Args:
        texts: the lines, in order.
        zone: of times that do not say theirs.
        run_id: the run that wrote them.
    """
    before: datetime | None = None
    for text in texts:
        line = _read(_COLOUR.sub("", text).rstrip(), zone)
        if line.text:
            before = line.at or before
            yield replace(line, at=before, run_id=run_id)


def _read(text: str, zone: tzinfo) -> Line:
    if text.startswith("{") and (line := _read_json(text)):
        return line
    level = _LEVEL.search(text[:200])
    word = level.group(1) if level else "INFO"
    found = _TIME.match(text) or _TIME.search(text[:120])
    at = _time(found, zone) if found else None
    rest = text[found.end() :] if found and found.start() == 0 else text
    return Line(at, _SAME.get(word, word), rest.strip(" -"))


def _read_json(text: str) -> Line | None:
    try:
        document = json.loads(text)
        at = datetime.fromisoformat(document["timestamp"]).astimezone(UTC)
        data = document.get("data") or {}
        parts = [str(document["event"]), json.dumps(data) if data else "", document.get("error")]
    except (ValueError, KeyError, TypeError):
        return None
    return Line(at, str(document.get("level") or "INFO"), " ".join(filter(None, parts)))


def _time(found: re.Match[str], zone: tzinfo) -> datetime | None:
    try:
        at = datetime.fromisoformat(found["at"].replace(",", "."))
        told = found["zone"]
        if told and told not in ("UTC", "Z"):
            return datetime.fromisoformat(f"{at.isoformat()}{told}").astimezone(UTC)
        return at.replace(tzinfo=UTC if told else zone).astimezone(UTC)
    except ValueError:
        return None


def without(secrets: Iterable[str], line: Line) -> Line:
    """A line in which none of these can be read; too short ones cannot be told from words."""
    text = line.text
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, HIDDEN)
    return replace(line, text=text)
