"""Dispatchers are hurt at every boundary, and nothing is executed twice, lost or left open."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ops_pipeline.proofs.chaos import certificate
from ops_pipeline.proofs.chaos.certificate import Caught, Certificate, Code, certify
from ops_pipeline.proofs.chaos.defects import DEFECTS
from ops_pipeline.proofs.chaos.history import Counts
from ops_pipeline.proofs.chaos.lane import Lane, Trial, lane
from ops_pipeline.proofs.chaos.plan import (
    POINTS,
    Fault,
    Injection,
    Moment,
    Point,
    faults_at,
    injections,
    promises,
)

STARTED = datetime(2026, 11, 24, tzinfo=UTC)
SEEDS = 2
TRIES = 20


@pytest.fixture(scope="module")
def one_lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    with lane(tmp_path_factory.mktemp("lane")) as made:
        yield made


def strike(one_lane: Lane, injection: Injection) -> Trial:
    """A trial that struck; on a busy machine a process may be too late for its fault."""
    trial = one_lane.run(injection)
    for _ in range(TRIES):
        if trial.is_effective:
            break
        assert trial.counts == Counts()
        trial = one_lane.run(replace(injection, occurrence=1))
    return trial


@pytest.mark.parametrize("point", POINTS, ids=str)
@pytest.mark.timeout(240)
def test_a_dispatcher_hurt_there_is_made_good_exactly_once(one_lane: Lane, point: Point) -> None:
    place = POINTS.index(point)
    planned = [each for each in injections(POINTS, SEEDS, first_seed=place) if each.point == point]
    assert len(planned) == SEEDS
    for injection in planned:
        trial = strike(one_lane, injection)
        assert trial.counts == Counts()
        assert trial.is_effective


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.timeout(240)
def test_a_planted_defect_is_caught_by_what_it_must_show(one_lane: Lane, defect: str) -> None:
    planted = DEFECTS[defect]
    injection = Injection(planted.point, 1, planted.fault, planted.occurrence, with_broker=True)
    # It shows where two processes meet, which on a busy machine they do not each time.
    trials = (one_lane.run(injection, defect).counts for _ in range(TRIES))
    assert any(getattr(counts, problem) for counts in trials for problem in planted.shows)


@pytest.mark.parametrize("injection", [*promises(4)], ids=str)
@pytest.mark.timeout(240)
def test_limits_hold_and_nothing_is_late_beside_another_dispatcher_and_after_a_jump(
    one_lane: Lane, injection: Injection
) -> None:
    trial = one_lane.run(injection)
    assert trial.counts == Counts()
    assert trial.is_effective


def test_the_plan_is_the_same_each_time_and_holds_every_fault_of_every_point() -> None:
    assert list(injections(POINTS, 20)) == list(injections(POINTS, 20))
    planned = {(each.point, each.fault) for each in injections(POINTS, 20)}
    assert planned == {(point, fault) for point in POINTS for fault in faults_at(point)}
    assert len(POINTS) >= 12


def test_a_commits_lost_answer_is_planned_at_commits_alone() -> None:
    struck = {
        each.point.moment for each in injections(POINTS, 20) if each.fault is Fault.REPLY_LOST
    }
    assert struck == {Moment.COMMITTING}


CLEAN = Certificate(
    code=Code("0", "abc", is_clean=True),
    started_at=STARTED,
    seeds=1,
    points=[],
    machine="",
    trials=1,
    effective=1,
    caught=[Caught(name, 1, "seen") for name in DEFECTS],
)


def test_a_clean_run_that_hurt_something_and_saw_every_defect_is_proven() -> None:
    assert CLEAN.is_proven


@pytest.mark.parametrize(
    "changes",
    [
        {"effective": 0},
        {"counts": Counts(duplicates=1)},
        {"counts": Counts(lost=1)},
        {"counts": Counts(unfinished=1)},
        {"counts": Counts(mismatched=1)},
        {"counts": Counts(orphans=1)},
        {"caught": CLEAN.caught[1:]},
        {"caught": [*CLEAN.caught[1:], Caught("no fence", 4, "")]},
    ],
)
def test_anything_that_went_wrong_or_was_not_tried_is_no_proof(changes: dict[str, object]) -> None:
    assert not replace(CLEAN, **changes).is_proven  # type: ignore[arg-type]


def test_a_trial_that_missed_its_point_counts_as_a_trial_that_struck_nothing() -> None:
    found = replace(CLEAN, effective=0, trials=0, by_fault={}, by_point={})
    (injection,) = list(injections(POINTS[:1], 1))
    missed = {"is_reached": False, "is_effective": False}
    found.add(Trial(injection, **missed, attempts=8, recoveries=0, seconds=1.0, counts=Counts()))
    assert (found.trials, found.effective, found.by_fault, found.is_proven) == (1, 0, {}, False)


def test_without_a_repository_no_code_is_clean(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(certificate, "PROJECT_DIR", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert certificate.code().is_clean is False


def test_a_certificate_tells_what_was_done_and_to_what(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(certificate, "POINTS", POINTS[-2:])
    monkeypatch.setattr(certificate, "DEFECTS", {})
    told = list[Trial]()
    found = certify(tmp_path, STARTED, seeds=1, first_seed=0, lanes=1, on_trial=told.append)
    assert (found.trials, found.effective, len(told)) == (4, 4, 4)
    assert found.points == [str(point) for point in POINTS[-2:]]
    assert sum(found.by_fault.values()) == sum(found.by_point.values()) == 4
    assert found.not_tested
    assert found.claims >= 16
