"""All trials, and what they add up to: nothing twice, nothing lost, each planted defect seen."""

import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from queue import SimpleQueue

from ops_pipeline import __version__
from ops_pipeline.proofs.chaos.defects import DEFECTS, NOT_TESTED
from ops_pipeline.proofs.chaos.history import Counts
from ops_pipeline.proofs.chaos.lane import Lane, Trial, lane
from ops_pipeline.proofs.chaos.plan import POINTS, Injection, injections, promises
from ops_pipeline.settings import PROJECT_DIR

OnTrial = Callable[[Trial], None]
# So many injections a planted defect may escape before it counts as unseen.
TRIES = 4


@dataclass(frozen=True)
class Code:
    """Which code was proved: the commit, and whether the tree was that of the commit."""

    version: str
    commit: str
    is_clean: bool


@dataclass(frozen=True)
class Caught:
    """A planted defect, how many injections it took, and what was seen; nothing if unseen."""

    defect: str
    tries: int
    seen: str


@dataclass
class Certificate:
    """What was done to the dispatcher, and what came of it."""

    code: Code
    started_at: datetime
    seeds: int
    points: list[str]
    machine: str
    trials: int = 0
    reached: int = 0
    effective: int = 0
    by_fault: dict[str, int] = field(default_factory=dict)
    by_point: dict[str, int] = field(default_factory=dict)
    with_broker: int = 0
    claims: int = 0
    recoveries: int = 0
    counts: Counts = field(default_factory=Counts)
    caught: list[Caught] = field(default_factory=list)
    not_tested: dict[str, str] = field(default_factory=lambda: dict(NOT_TESTED))
    seconds: float = 0.0

    @property
    def is_proven(self) -> bool:
        """Whether nothing went wrong, something was really hurt, and every defect was seen."""
        return (
            self.counts.is_clean
            and self.effective > 0
            and len(self.caught) == len(DEFECTS)
            and all(caught.seen for caught in self.caught)
        )

    def add(self, trial: Trial) -> None:
        """Count a trial in."""
        self.trials += 1
        self.reached += trial.is_reached
        self.claims += trial.attempts
        self.recoveries += trial.recoveries
        self.with_broker += trial.injection.with_broker
        self.counts.add(_named(trial))
        if trial.is_effective:
            fault, point = trial.injection.fault.value, str(trial.injection.point)
            self.effective += 1
            self.by_fault[fault] = self.by_fault.get(fault, 0) + 1
            self.by_point[point] = self.by_point.get(point, 0) + 1


def certify(
    folder: Path,
    started_at: datetime,
    *,
    seeds: int,
    first_seed: int,
    lanes: int,
    on_trial: OnTrial,
) -> Certificate:
    """Run every injection, then plant each defect.

    Args:
        folder: where the lanes keep their servers while they run.
        started_at: the present.
        seeds: how many injections each point meets.
        first_seed: the first of them.
        lanes: how many trials run at a time.
        on_trial: told of each trial of the sound dispatcher.
    """
    begun = time.monotonic()
    made = Certificate(
        code=code(),
        started_at=started_at,
        seeds=seeds,
        points=[str(point) for point in POINTS],
        machine=f"{platform.machine()}, Python {platform.python_version()}",
    )
    with ExitStack() as stack, ThreadPoolExecutor(lanes) as pool:
        found = [stack.enter_context(lane(folder / f"lane-{n}")) for n in range(lanes)]
        wanted = [*injections(POINTS, seeds, first_seed), *promises(seeds, first_seed)]
        for trial in _run(pool, found, wanted):
            made.add(trial)
            on_trial(trial)
        made.caught = list(_plant(pool, found))
    made.seconds = round(time.monotonic() - begun, 1)
    return made


def code() -> Code:
    """The code that runs here; without a repository there is no commit, and nothing is clean."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain")
    return Code(__version__, commit or "", is_clean=bool(commit) and changes == "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=PROJECT_DIR,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _run(
    pool: ThreadPoolExecutor, lanes: Sequence[Lane], wanted: Sequence[Injection]
) -> Iterator[Trial]:
    free: SimpleQueue[Lane] = SimpleQueue()
    for each in lanes:
        free.put(each)

    def run(injection: Injection) -> Trial:
        mine = free.get()
        try:
            return mine.run(injection)
        finally:
            free.put(mine)

    yield from pool.map(run, wanted)


def _plant(pool: ThreadPoolExecutor, lanes: Sequence[Lane]) -> Iterator[Caught]:
    names = list(DEFECTS)
    shares = [names[place :: len(lanes)] for place in range(len(lanes))]
    for caught in pool.map(
        lambda pair: [_catch(pair[0], name) for name in pair[1]], zip(lanes, shares, strict=True)
    ):
        yield from caught


def _catch(mine: Lane, name: str) -> Caught:
    defect = DEFECTS[name]
    for tries in range(1, TRIES + 1):
        injection = Injection(
            defect.point, tries, defect.fault, defect.occurrence, with_broker=True
        )
        counts = mine.run(injection, name).counts
        if any(getattr(counts, problem) for problem in defect.shows):
            return Caught(name, tries, counts.details[0])
    return Caught(name, TRIES, "")


def _named(trial: Trial) -> Counts:
    where = f"{trial.injection.fault.value} at {trial.injection.point}, seed {trial.injection.seed}"
    trial.counts.details[:] = [f"{where}: {detail}" for detail in trial.counts.details]
    return trial.counts
