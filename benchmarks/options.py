"""Checks of option values that several benchmarks share."""

from ops_pipeline.domain.errors import BadInput


def counts(name: str, text: str, most: int) -> list[int]:
    """Numbers as they are given to an option, separated by commas.

    Raises:
        BadInput: one of them is no number from 1 to `most`.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and 0 < int(word) <= most for word in words):
        raise BadInput(f"--{name} must be numbers from 1 to {most:,}, not {text!r}")
    return [int(word) for word in words]


def within(name: str, number: int, least: int, most: int) -> None:
    """Refuse a number that is out of bounds.

    Raises:
        BadInput: it is.
    """
    if not least <= number <= most:
        raise BadInput(f"--{name} must be a number from {least:,} to {most:,}, not {number:,}")
