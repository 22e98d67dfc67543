"""Runs benchmarks in this process, on the session's server."""

import pytest

from benchmarks.__main__ import main
from ops_pipeline import cli
from ops_pipeline.settings import Settings
from ops_pipeline_tests.cli.test_verbs import Run, runner


@pytest.fixture
def run(
    server: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run a benchmark."""
    return runner(main, server, monkeypatch, capsys)


@pytest.fixture
def ready(
    run: Run, server: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """The same, after init."""
    assert runner(cli.main, server, monkeypatch, capsys)("init").code == 0
    return run
