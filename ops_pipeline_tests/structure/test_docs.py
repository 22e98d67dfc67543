import re
from pathlib import Path

import pytest

from ops_pipeline.cli import VERBS
from ops_pipeline_tests.structure.pages import DOCS, ranges_page, runbook_page, thresholds_page

ROOT = DOCS.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_thresholds_page_is_what_the_code_says() -> None:
    assert (DOCS / "thresholds.md").read_text(encoding="utf-8") == thresholds_page()


def test_ranges_page_is_what_the_code_says() -> None:
    assert (DOCS / "ranges.md").read_text(encoding="utf-8") == ranges_page()


def test_runbook_page_is_what_the_code_says() -> None:
    assert (DOCS / "runbook.md").read_text(encoding="utf-8") == runbook_page()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_stands_in_the_readme(verb: str) -> None:
    assert re.search(rf"\b{verb}\b", README)


def test_every_path_that_a_page_names_exists() -> None:
    pages = [README, *(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))]
    pattern = r"`((?:ops_pipeline|dbt_features|docs)/[\w./]*)`|\]\((docs/[\w./-]+)\)"
    named = [a or b for page in pages for a, b in re.findall(pattern, page)]
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_readme_is_one_page() -> None:
    assert len(README.splitlines()) <= 160


@pytest.mark.parametrize(
    "variable",
    re.findall(
        r"\b((?:OPS|DB|DATABASE)(?:_[A-Z]+)+)=",
        (ROOT / ".env.example").read_text(encoding="utf-8"),
    ),
)
def test_every_variable_of_the_example_is_read(variable: str) -> None:
    readers = [ROOT / "ops_pipeline" / name for name in ("settings.py", "environment.py")]
    assert f'"{variable}"' in "".join(path.read_text(encoding="utf-8") for path in readers)


def test_nothing_names_a_machine_path() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("ops_pipeline/**/*.py")]
    assert [p for p in pages if re.search(r"/(work|home|Users)/", p.read_text("utf-8"))] == []


def test_runbook_page_names_every_service() -> None:
    from ops_pipeline.domain.stages import SERVICES

    page = Path(DOCS / "runbook.md").read_text(encoding="utf-8")
    assert all(stage.service in page for stage in SERVICES)
