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
# One row at most each, so that they need no order; the rest of them counts without groups.
ONE_ROW = {
    "acceptance": "installed executions_since cost_per_day config_drift bar_volume news_volume"
    " feature_completeness watchlist_cadence sentiment_volume news_are_scored signal_volume"
    " decision_volume abandoned_runs clock_skew",
    "alerts": "one_alert opened_message",
    "config": "read_state",
    "cost": "logged_bytes",
    "dispatch": "read_trading_state lock_account must_be_flat",
    "explain": "execution recommendation run features cutoff",
    "knowledge": "read_present",
    "orders": "installation server_clock order_of",
    "retention": "size_of_table",
    "slo": "launches event_log_bytes database_bytes",
    "stream": "lease_holder require_lease health since lock_followed broker_price",
}
# The runbook's text; a set is made of what it finds.
WORD_FOR_WORD = {("acceptance", "duplicate_executions")}
COUNTS = re.compile(r"(coalesce|count|min|max|exists|mode)\b")
RUNBOOK = PROJECT_DIR.parent / "shared" / "runbook" / "ops-runbook.md"


def bare(body: str) -> str:
    """A query in lower case, without its comments."""
    return re.sub(r"--.*", "", body).strip().lower()


def reads(body: str) -> bool:
    """Return True if a query only selects."""
    code = bare(body)
    return code.startswith(("select", "with")) and not re.search(
        r"^(update|insert|delete)", code, re.MULTILINE
    )


def outermost(code: str) -> str:
    """The words of a query that stand in no parentheses."""
    while (shorter := re.sub(r"\([^()]*\)", " ", code)) != code:
        code = shorter
    return code


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


@pytest.mark.parametrize(("stage", "name"), sorted(NAMED - WORD_FOR_WORD))
def test_a_query_of_several_rows_says_in_which_order(stage: str, name: str) -> None:
    body = texts(stage)[name]
    if not reads(body) or name in ONE_ROW.get(stage, "").split():
        return
    code = outermost(bare(body))
    chosen = code.rpartition("select")[2].split()
    counts = COUNTS.match(" ".join(chosen)) and "group by" not in code and "union" not in code
    assert counts or "order by" in code


def test_a_name_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError):
        query("bars", "no_such_query")


@pytest.mark.parametrize("name", QUERIES)
def test_an_acceptance_query_is_the_runbooks_word_for_word(name: str) -> None:
    if not RUNBOOK.exists():
        pytest.skip(f"no runbook at {RUNBOOK}")
    printed = re.findall(r"```sql\n(.*?)\n```", RUNBOOK.read_text(encoding="utf-8"), re.DOTALL)
    assert texts("acceptance")[name] == printed[QUERIES.index(name)]
