"""Loads the named queries of sql/*.sql."""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from sqlalchemy import TextClause, text

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_LABEL = re.compile(r"/\* (\w+\.\w+) \*/")


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
    """One named query, with :name parameters; the server sees the name, too."""
    return text(f"/* {stage}.{name} */ {texts(stage)[name]}")


def name_of(statement: str) -> str | None:
    """The name of a query, as `stage.name`; None for a statement that has none."""
    found = _LABEL.match(statement)
    return found[1] if found else None


def as_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as one JSON parameter, for jsonb_populate_recordset; NaN is refused."""
    return json.dumps(list(rows), default=str, allow_nan=False)
