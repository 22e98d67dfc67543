import ast
import re
import subprocess
from pathlib import Path

import pytest

from ops_pipeline.domain.stages import DATA_STAGES, SERVICES
from ops_pipeline.storage.migrate import shipped
from ops_pipeline_tests.conftest import LONGEST
from ops_pipeline_tests.structure.pages import DOCS

ROOT = DOCS.parent
PACKAGE = ROOT / "ops_pipeline"
MODULES = sorted(PACKAGE.rglob("*.py"))
NOT_A_NAME = re.compile(r"_(v2|new|old|final|fix|utils?|helpers?|manager|processor)$")


@pytest.mark.parametrize("stage", [stage.name for stage in DATA_STAGES])
def test_a_stage_has_one_word_on_every_floor(stage: str) -> None:
    floors = [
        f"domain/{stage}.py",
        f"storage/{stage}.py",
        f"storage/sql/{stage}.sql",
        f"defs/assets/{stage}.py",
    ]
    assert [floor for floor in floors if not (PACKAGE / floor).exists()] == []


def test_migrations_are_numbered_from_one_without_a_gap() -> None:
    assert [m.number for m in shipped()] == list(range(1, len(shipped()) + 1))


def test_every_sql_file_of_the_migrations_is_one() -> None:
    names = {path.name for path in (PACKAGE / "storage" / "migrations").glob("*.sql")}
    assert names == {migration.name for migration in shipped()}


def test_seven_services_have_switches() -> None:
    assert len(SERVICES) == 7


def test_each_file_of_tests_that_begins_first_is_there() -> None:
    tests = ROOT / "ops_pipeline_tests"
    assert [name for name in LONGEST if not (tests / name).is_file()] == []


def test_no_module_is_named_after_nothing() -> None:
    assert [path.name for path in MODULES if NOT_A_NAME.search(path.stem)] == []


def test_no_function_is_longer_than_fifty_lines() -> None:
    functions = (
        (path.name, node.name, (node.end_lineno or 0) - node.lineno)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    assert [found for found in functions if found[2] > 50] == []


def test_the_clock_is_read_in_one_place() -> None:
    readers = [
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if re.search(r"datetime\.now\(|time\.time\(|utcnow", path.read_text(encoding="utf-8"))
    ]
    assert readers == ["storage/knowledge.py"]


def test_recorded_data_is_not_committed() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    data = [name for name in tracked if Path(name).suffix in (".gz", ".parquet", ".csv", ".jsonl")]
    assert data == []
