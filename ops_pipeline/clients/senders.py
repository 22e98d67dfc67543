"""Sends messages to where people read them, by apprise, in a process of its own.

That process is ended when it takes too long: a channel that hangs holds nobody up. It is given the
addresses by a pipe, so that they stand in no list of processes, and what it says is free of them.
"""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from itertools import groupby
from threading import get_ident
from typing import Any

from ops_pipeline.domain.acceptance import Level
from ops_pipeline.domain.alerts import Kind
from ops_pipeline.settings import PROJECT_DIR

# All channels have this time together; one that answers needs a second or two.
SEND_SECONDS = 20.0
LONGEST_ERROR = 200
# What is shorter is a word of the error rather than a part of the address.
SHORTEST_SECRET = 5


@dataclass(frozen=True)
class Letter:
    """One message to one address; the number tells it apart from the others."""

    number: int
    url: str = field(repr=False)
    title: str
    body: str
    level: Level
    kind: Kind


def send(letters: Sequence[Letter], seconds: float = SEND_SECONDS) -> dict[int, str | None]:
    """Send them, those to one address in order, and those to several side by side.

    Returns:
        The error of each by its number; None where the channel took it. What had no answer in time
        may have arrived all the same.
    """
    if not letters:
        return {}
    told = _told_by_child(json.dumps([asdict(letter) for letter in letters]), seconds)
    silent = f"no answer in {seconds:g} s"
    return {one.number: told.get(one.number, silent) for one in letters}


def _told_by_child(text: str, seconds: float) -> dict[int, str | None]:
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=PROJECT_DIR,
        text=True,
    ) as child:
        try:
            said, _ = child.communicate(text, timeout=seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            said, _ = child.communicate()
    lines = [line for line in said.splitlines() if line.startswith('{"number"')]
    return {told["number"]: told["error"] for told in map(json.loads, lines)}


def main() -> None:
    """Send what stands on the input; a line for each that is done."""
    letters = sorted(json.load(sys.stdin), key=lambda each: (each["url"], each["number"]))
    groups = [list(group) for _, group in groupby(letters, key=lambda each: each["url"])]
    with ThreadPoolExecutor(max(len(groups), 1)) as pool:
        for done in as_completed([pool.submit(_send_in_order, group) for group in groups]):
            done.result()


def _send_in_order(letters: Sequence[Mapping[str, Any]]) -> None:
    """Those to one address; after the first that fails it has no more of this time."""
    error: str | None = None
    for letter in letters:
        if error is None:
            error = _without_secrets(_sent(letter), letter["url"])
        _tell(letter["number"], error)


def _tell(number: int, error: str | None) -> None:
    # At once: who waits for us may end us before the others are done. One write, so that two
    # threads do not mix their lines.
    sys.stdout.write(json.dumps({"number": number, "error": error}) + "\n")
    sys.stdout.flush()


def _sent(letter: Mapping[str, Any]) -> str | None:
    import apprise

    kinds = {Kind.RESOLVED: "success", Kind.SUMMARY: "info", Kind.TEST: "info"}
    worst = "failure" if Level(letter["level"]).is_error else "warning"
    heard = _Heard()
    log = logging.getLogger("apprise")
    log.addHandler(heard)
    try:
        channel = apprise.Apprise.instantiate(letter["url"])
        if channel is None:
            return "apprise cannot read its address"
        was_taken = channel.notify(
            body=letter["body"],
            title=letter["title"],
            notify_type=apprise.NotifyType(kinds.get(letter["kind"], worst)),
        )
    except Exception as error:  # noqa: BLE001 - whatever a channel's code meets is its error
        return f"{type(error).__name__}: {error}"
    finally:
        log.removeHandler(heard)
    return None if was_taken else "; ".join(heard.lines) or "it was refused"


class _Heard(logging.Handler):
    """What apprise says is wrong, in the thread that made it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.thread = get_ident()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.lines.append(record.getMessage())


def _without_secrets(error: str | None, url: str) -> str | None:
    """An error in one line, without any part of the address that it is about."""
    if error is None:
        return None
    told = " ".join(error.split())
    for part in sorted(re.split(r"[/:@?&=,]+", url), key=len, reverse=True):
        if len(part) >= SHORTEST_SECRET:
            told = told.replace(part, "...")
    return told[:LONGEST_ERROR]


if __name__ == "__main__":
    main()
