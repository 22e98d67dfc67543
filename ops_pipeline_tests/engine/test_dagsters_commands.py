"""Dagster's own commands, in the project folder, without anything set for them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dagster import DagsterInstance

from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.settings import PROJECT_DIR

UNSET = ("OPS_DAGSTER_", "DAGSTER_HOME", "OPS_MODE")


def dagster(var_dir: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(UNSET)}
    return subprocess.run(
        [str(Path(sys.executable).with_name("dagster")), *words],
        env={**kept, "OPS_VAR_DIR": str(var_dir), **variables},
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_code_location_is_valid_in_a_folder_where_nothing_was_set_up(tmp_path: Path) -> None:
    hostile = {"PGSSLMODE": "require", "DBT_TARGET": "prod", "HTTP_PROXY": "http://127.0.0.1:9"}
    try:
        done = dagster(tmp_path, "definitions", "validate", "-w", "workspace.yaml", **hostile)
        assert done.returncode == 0, done.stderr
        assert "PostgreSQL runs; stop it with: ops-pipeline down" in done.stderr
    finally:
        EmbeddedServer.in_folder(tmp_path).remove()


def test_a_database_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    url = "postgresql://ops:s3cret@127.0.0.1:1/ops"
    words = ("definitions", "validate", "-w", "workspace.yaml")
    done = dagster(tmp_path, *words, DATABASE_URL=url)
    assert done.returncode == 1
    assert "error: PostgreSQL at 127.0.0.1:1 does not answer" in done.stderr
    assert "Traceback" not in done.stderr
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.usefixtures("environment")
def test_what_is_set_already_is_taken_as_it_is(instance: DagsterInstance) -> None:
    assert instance.get_runs_count() == 0
