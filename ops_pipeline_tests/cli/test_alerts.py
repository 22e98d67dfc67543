"""The verb alerts: what is open, what is said of it, and who is not told."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.settings import Settings
from ops_pipeline.storage import alerts as storage
from ops_pipeline.storage.knowledge import clock
from ops_pipeline_tests.cli.test_verbs import Run, run  # noqa: F401 - a fixture
from ops_pipeline_tests.clients.webhook import opened
from ops_pipeline_tests.operations.scenes import Ward, a_ward

STUCK = Verdict("stuck_processing", Level.HIGH, "3 stuck", {}, "0")
FEW = Verdict("news_volume", Level.LOW, "2 stories", {}, "50-200")


@pytest.fixture
def ward(template: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ward]:
    """A sandbox in which nothing was ever wrong."""
    with a_ward(template, tmp_path) as made:
        for name, value in made.environ.items():
            monkeypatch.setenv(name, value)
        yield made


def find(ward: Ward, *verdicts: Verdict, minutes_ago: int = 5) -> None:
    """Let the watch find these."""
    moment = clock() - timedelta(minutes=minutes_ago)
    with ward.engine.begin() as connection:
        storage.observe(connection, moment, "acceptance", verdicts)


def test_where_nothing_is_wrong_that_is_said(ward: Ward, run: Run) -> None:  # noqa: F811
    assert run("alerts", "list").out == "no alert is open\n"
    assert run("alerts", "list", "--all").out == "no alert of the last week\n"
    assert json.loads(run("alerts", "list", "--json").out) == []


def test_the_worst_comes_first_with_what_to_do_next(ward: Ward, run: Run) -> None:  # noqa: F811
    find(ward, FEW, STUCK)
    told = run("alerts", "list").out.splitlines()
    assert [line.split(maxsplit=1)[1] for line in told if line.strip()[0].isdigit()] == [
        "high      stuck_processing: 3 stuck",
        "low       news_volume: 2 stories",
    ]
    assert "next: ops-pipeline runbook diagnose stuck-processing" in told[2]


def test_what_is_over_is_listed_only_with_the_past(ward: Ward, run: Run) -> None:  # noqa: F811
    find(ward, STUCK)
    well = Verdict(STUCK.name, Level.NORMAL, "0 stuck", {}, "0")
    for minutes_ago in (4, 3):
        find(ward, well, minutes_ago=minutes_ago)
    assert run("alerts", "list").out == "no alert is open\n"
    told = run("alerts", "list", "--all").out
    assert ", over at " in told
    assert "next:" not in told


def test_one_alert_is_shown_with_all_that_is_known(ward: Ward, run: Run) -> None:  # noqa: F811
    find(ward, STUCK)
    number = json.loads(run("alerts", "list", "--json").out)[0]["id"]
    told = run("alerts", "show", str(number)).out
    assert "found: 3 stuck; normal: 0; seen 1 times" in told
    unknown = run("alerts", "show", "99")
    assert (unknown.code, unknown.out) == (2, "")


def test_a_silenced_cause_is_listed_with_who_wanted_it(ward: Ward, run: Run) -> None:  # noqa: F811
    silenced = run("alerts", "silence", "stuck_processing", "--for", "2h", "--reason", "a drill")
    assert silenced.code == 0
    find(ward, STUCK)
    assert ": a drill" in run("alerts", "list").out
    assert run("alerts", "unsilence", "stuck_processing").code == 0
    again = run("alerts", "unsilence", "stuck_processing")
    assert (again.code, "there are: none" in again.err) == (2, True)


def test_a_length_that_reads_otherwise_silences_nobody(ward: Ward, run: Run) -> None:  # noqa: F811
    answer = run("alerts", "silence", "x", "--for", "a while", "--reason", "a drill")
    assert (answer.code, len(answer.error_lines)) == (2, 1)


def test_a_test_needs_a_channel_and_says_what_came_of_it(
    ward: Ward,
    run: Run,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run("alerts", "test").code == 4
    with opened() as hook:
        monkeypatch.setenv("OPS_ALERT_URLS", f"desk={hook.url}")
        sent = run("alerts", "test")
    assert (sent.code, "sent" in sent.out) == (0, True)
    gone = run("alerts", "test")
    assert (gone.code, "FAILED" in gone.out) == (1, True)


def test_a_replay_is_not_watched(run: Run, server: Settings) -> None:  # noqa: F811
    answer = run("alerts", "run", "--mode", "replay")
    assert (answer.code, answer.err.count("\n")) == (4, 1)
