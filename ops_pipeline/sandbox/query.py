"""Parameters of a query: read or refused in the vendor's words."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime


class BadQuery(Exception):
    """A query that is refused; the status is that of HTTP."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def choice(params: Mapping[str, str], name: str, choices: Sequence[str]) -> str:
    """One of these words; the first one where none is given.

    Raises:
        BadQuery: it is another.
    """
    value = params.get(name, choices[0])
    if value not in choices:
        raise BadQuery(f"invalid {name}: {value}")
    return value


def number(params: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A whole number from 1 to the most.

    Raises:
        BadQuery: it is none.
    """
    text = params.get(name, str(default))
    # Longer digits are refused before they are read, which can be slow.
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= most):
        raise BadQuery(f"{name} must be between 1 and {most}")
    return int(text)


def time(params: Mapping[str, str], name: str) -> datetime | None:
    """An instant or a day in UTC; none where none is given.

    Raises:
        BadQuery: it is no time.
    """
    if name not in params:
        return None
    try:
        # A "+" that was not escaped arrives as a space.
        told = datetime.fromisoformat(params[name].replace(" ", "+"))
        return told.astimezone(UTC) if told.tzinfo else told.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise BadQuery(f"invalid {name}: {params[name]}") from None
