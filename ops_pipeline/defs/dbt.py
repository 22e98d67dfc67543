"""dbt in process: the project is parsed once for its text, and run with the window of a run."""

import hashlib
import json
import logging
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtCliResource

from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.domain.features import TREND_TOLERANCE, VOLUME_SURGE_RATIO, WINDOWS
from ops_pipeline.domain.sentiment import CONFIDENT_PROBABILITY
from ops_pipeline.domain.values import Model
from ops_pipeline.environment import apply
from ops_pipeline.settings import PROJECT_DIR, Settings, load, read_object

log = logging.getLogger(__name__)

DBT_DIR = PROJECT_DIR / "dbt_features"
MANIFEST, PARTIAL_PARSE = "manifest.json", "partial_parse.msgpack"
# What is kept of dbt's own words: its message, the lines of SQL and the file of one failed model.
MAX_ERROR_CHARS = 8_000
NO_MINUTE = datetime(2000, 1, 1, tzinfo=UTC)
# Checks stand for themselves, and several sources come from one stage.
TRANSLATOR = DagsterDbtTranslator(
    DagsterDbtTranslatorSettings(
        enable_asset_checks=False,
        enable_duplicate_source_asset_keys=True,
        enable_code_references=False,
    )
)


def manifest_document(settings: Settings) -> dict[str, Any]:
    """Return the manifest of the dbt project as it reads now, parsed if there is none to be used.

    Raises:
        BadConfiguration: the project cannot be parsed; the message says why.
    """
    path = _target(settings) / MANIFEST
    with suppress(BadConfiguration):
        found = read_object(path)
        if found and "nodes" in found:
            return found
    _manifest.cache_clear()
    _manifest(settings)
    return read_object(path) or {}


def warm() -> None:
    """Parse the project and run it over no minute, so that a fork of this process finds dbt warm.

    Most of what a first run takes is dbt reading its own macros.
    """
    settings = load()
    _manifest(settings)
    try:
        run(settings, "run", window_vars(NO_MINUTE, NO_MINUTE, Model("none", "", "", "")))
    except dg.Failure as failure:
        # Without it runs are slower, and where the database is at fault they say so themselves.
        log.warning("dbt is not warm: %s", failure.description)


def window_vars(start: datetime, end: datetime, model: Model) -> dict[str, object]:
    """What the models are told: the minutes in [start, end), the model, the formulas' numbers."""
    return {
        "first_minute": start.isoformat(),
        "end_minute": end.isoformat(),
        "sentiment_model": model.name,
        "sentiment_revision": model.revision,
        "confident_probability": CONFIDENT_PROBABILITY,
        "volume_surge_ratio": VOLUME_SURGE_RATIO,
        "trend_tolerance": TREND_TOLERANCE,
        **WINDOWS,
    }


def run(settings: Settings, verb: str, variables: Mapping[str, object]) -> "dict[str, Node]":
    """Run a dbt verb over the whole project.

    Returns:
        What dbt says of each node, by its name.

    Raises:
        dagster.Failure: a node of `dbt run` failed, or dbt could not run at all.
    """
    with tempfile.TemporaryDirectory(prefix="ops-dbt-") as target:
        words = [verb, *_common(Path(target)), "--vars", json.dumps(variables)]
        if settings.dbt_as_command:
            nodes = _as_command(settings, words, Path(target))
        else:
            nodes = _in_process(settings, words)
    failed = [f"{node.name}: {node.message}" for node in nodes if node.status != "success"]
    if verb == "run" and failed:
        raise dg.Failure(f"dbt {verb} failed: {'; '.join(failed)}"[:MAX_ERROR_CHARS])
    return {node.name: node for node in nodes}


@dataclass(frozen=True)
class Node:
    """What dbt says of one node that it ran: how it ended, how long it took, what it wrote."""

    name: str
    status: str
    message: str
    seconds: float
    rows: int


def _in_process(settings: Settings, words: list[str]) -> list[Node]:
    from dbt.cli.main import dbtRunner

    apply(settings)
    # A copy, because dbt writes into it what it compiled, and would not compile that again.
    runner = dbtRunner(manifest=_manifest(settings).deepcopy())
    # In a thread: dbt walks up its callers' frames for each of its flags.
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(runner.invoke, [*words, "--no-write-json"]).result()
    nodes: Any = outcome.result
    if nodes is None:
        raise dg.Failure(f"dbt {words[0]} could not run: {outcome.exception}")
    return [
        _node(n.node.name, n.status.value, n.message, n.execution_time, n.adapter_response)
        for n in nodes
    ]


def _as_command(settings: Settings, words: list[str], target: Path) -> list[Node]:
    apply(settings)
    document = manifest_document(settings)
    command = DbtCliResource(
        project_dir=str(DBT_DIR),
        profiles_dir=str(DBT_DIR),
        dbt_executable=str(Path(sys.executable).with_name("dbt")),
    )
    done = command.cli(words, manifest=document, target_path=target, raise_on_error=False).wait()
    try:
        found = done.get_artifact("run_results.json")["results"]
    except FileNotFoundError:
        raise dg.Failure(f"dbt {words[0]} could not run: {done.get_error()}") from None
    words_of = ("status", "message", "execution_time", "adapter_response")
    return [_node(n["unique_id"].split(".")[2], *(n[word] for word in words_of)) for n in found]


def _node(name: str, status: Any, message: Any, seconds: float, response: Any) -> Node:
    rows = int((response or {}).get("rows_affected") or 0)
    return Node(name, str(status), str(message), round(float(seconds), 3), rows)


def test_names(settings: Settings) -> list[str]:
    """The dbt tests of the project, by name."""
    nodes = manifest_document(settings)["nodes"].values()
    return sorted(node["name"] for node in nodes if node["resource_type"] == "test")


@cache
def _manifest(settings: Settings) -> Any:
    """The parsed project, once in a process; dbt itself parses only what changed.

    dbt writes in place, while other processes read: it writes into a folder of its own, and what
    is complete is renamed.
    """
    from dbt.cli.main import dbtRunner

    # Without a database there is nothing to reach yet, and parsing needs none.
    if settings.server is not None:
        apply(settings)
    target = _target(settings)
    target.mkdir(parents=True, exist_ok=True)
    before = target / PARTIAL_PARSE
    known = [f"--partial-parse-file-path={before}"] if before.is_file() else []
    with tempfile.TemporaryDirectory(prefix=".parse-", dir=target) as own:
        outcome = dbtRunner().invoke(["parse", *known, *_common(Path(own))])
        if not outcome.success:
            raise BadConfiguration(
                f"the dbt project cannot be parsed: {str(outcome.exception)[:MAX_ERROR_CHARS]}"
            )
        # Where nothing has changed, dbt leaves out the one of partial parsing.
        for made in map(Path(own).joinpath, (PARTIAL_PARSE, MANIFEST)):
            if made.exists():
                made.replace(target / made.name)
    return outcome.result


def _common(target: Path) -> list[str]:
    return [
        "--quiet",
        "--no-use-colors",
        "--no-version-check",
        "--cache-selected-only",
        "--log-level-file=none",
        f"--log-path={target}",
        f"--project-dir={DBT_DIR}",
        f"--profiles-dir={DBT_DIR}",
        f"--target-path={target}",
    ]


def _target(settings: Settings) -> Path:
    return settings.dbt_dir / _project_hash()


def _project_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted(DBT_DIR.rglob("*")):
        if path.suffix in (".sql", ".yml", ".csv") and "target" not in path.parts:
            digest.update(path.relative_to(DBT_DIR).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]
