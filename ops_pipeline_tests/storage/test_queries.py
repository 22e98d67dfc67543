"""Every named query is used, every used name exists, and each text is one statement."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

from ops_pipeline.domain.acceptance import QUERIES
from ops_pipeline.domain.checks import CHECKS
from ops_pipeline.settings import PROJECT_DIR
from ops_pipeline.storage import lookahead
from ops_pipeline.storage.queries import query, source, texts

STAGES = sorted(
    path.name.removesuffix(".sql")
    for path in files("ops_pipeline.storage").joinpath("sql").iterdir()
    if path.name.endswith(".sql")
)
NAMED = {(stage, name) for stage in STAGES for name in texts(stage)}
COUNTED = {(stage, "count_by_minute") for stage in ("bars", "news", "sentiment", "features")}
LATE = {(stage, "late_decisions") for stage in ("watchlist", "signals")}
RUNBOOK = PROJECT_DIR.parent / "shared" / "runbook" / "ops-runbook.md"


def used_names() -> set[tuple[str, str]]:
    """The names in the package's source; five families are asked for by a variable."""
    found: set[tuple[str, str]] = set()
    for path in Path(PROJECT_DIR, "ops_pipeline").rglob("*.py"):
        code = path.read_text(encoding="utf-8")
        found |= set(re.findall(r'query\(\s*"(\w+)",\s*"(\w+)"\s*\)', code))
        taken = re.findall(r'_taken\(\s*connection,\s*"(\w+)"', code)
        found |= {(path.stem, name) for name in taken}
    steps = (*lookahead.FORGET, *lookahead.POISON, *lookahead.EARLY)
    proof = {("lookahead", name) for name in steps}
    return found | COUNTED | LATE | proof | _of_checks()


def _of_checks() -> set[tuple[str, str]]:
    asked = {name for check in CHECKS for name in check.asked}
    return {("acceptance", name) for name in (*asked, "installed", "services_off")}


def test_every_query_that_is_used_exists() -> None:
    assert used_names() - NAMED == set()


def test_every_query_that_exists_is_used() -> None:
    assert NAMED - used_names() == set()


@pytest.mark.parametrize("stage", STAGES)
def test_no_name_stands_twice_in_one_file(stage: str) -> None:
    assert source(stage).count("-- name: ") == len(texts(stage))


@pytest.mark.parametrize(("stage", "name"), sorted(NAMED))
def test_a_query_is_one_statement(stage: str, name: str) -> None:
    code = re.sub(r"--.*", "", texts(stage)[name])
    assert code.strip().index(";") == len(code.strip()) - 1


def test_a_name_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError):
        query("bars", "no_such_query")


@pytest.mark.parametrize("name", QUERIES)
def test_an_acceptance_query_is_the_runbooks_word_for_word(name: str) -> None:
    if not RUNBOOK.exists():
        pytest.skip(f"no runbook at {RUNBOOK}")
    printed = re.findall(r"```sql\n(.*?)\n```", RUNBOOK.read_text(encoding="utf-8"), re.DOTALL)
    assert texts("acceptance")[name] == printed[QUERIES.index(name)]
