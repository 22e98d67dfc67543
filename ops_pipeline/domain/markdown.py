"""Text of others inside Markdown: it can break no table, and hides no link, image or HTML."""

import re
from collections.abc import Iterable, Sequence

_MARKS = str.maketrans({**{mark: f"\\{mark}" for mark in "\\`*[]|~"}, "&": "&amp;", "<": "&lt;"})
# An arrow of ours stays readable.
_CLOSING = re.compile(r"(?<!-)>|>(?! )")


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table of Markdown, whatever its cells say."""
    lines = [[markdown_text(column) for column in columns], ["---"] * len(columns)]
    lines += [[markdown_text(str(cell)) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_text(text: str) -> str:
    """Return one line of text that Markdown and HTML leave as it is."""
    return _CLOSING.sub("&gt;", one_line(text).translate(_MARKS))


def one_line(text: str) -> str:
    """Return text without line breaks and without anything that moves a cursor."""
    return " ".join("".join(mark if mark.isprintable() else " " for mark in text).split())
