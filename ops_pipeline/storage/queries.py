"""Loads the named queries of sql/*.sql."""

import re
from functools import cache
from importlib.resources import files

from sqlalchemy import TextClause, text

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def source(stage: str) -> str:
    """The text of one stage's file of queries."""
    return files("ops_pipeline.storage").joinpath(f"sql/{stage}.sql").read_text(encoding="utf-8")


@cache
def texts(stage: str) -> dict[str, str]:
    """Each query of a stage by its name, as it stands in the file."""
    parts = _NAME.split(source(stage))
    return {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


@cache
def query(stage: str, name: str) -> TextClause:
    """One named query, with :name parameters."""
    return text(texts(stage)[name])
