"""What is hurt, where, and how: every point meets every fault that makes sense there."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What befalls a dispatcher at a point.

    KILL: kill -9. CUT: the server ends its sessions. RESTART: the server itself is killed and
    started again. REPLY_LOST: the server commits, and its word of it never arrives. ZOMBIE: it
    stands still until another one has done its work, then goes on. DOUBLE: two more start beside
    it. FORWARD, BACKWARD: the clock jumps ten minutes. ANSWER_LOST: the broker takes the next
    order, and its answer is lost. CROWD: another one decides beside it, under tight limits.
    """

    KILL = "kill"
    CUT = "cut"
    RESTART = "restart"
    REPLY_LOST = "reply_lost"
    ZOMBIE = "zombie"
    DOUBLE = "double"
    FORWARD = "forward"
    BACKWARD = "backward"
    ANSWER_LOST = "answer_lost"
    CROWD = "crowd"


class Moment(StrEnum):
    """Where a point lies: around a statement or a request, or around the commit after it."""

    BEFORE = "before"
    AFTER = "after"
    COMMITTING = "committing"
    COMMITTED = "committed"


@dataclass(frozen=True)
class Point:
    """A boundary: a named query or a request to the broker, and the moment."""

    name: str
    moment: Moment

    def __str__(self) -> str:
        return f"{self.name} {self.moment.value}"

    @property
    def needs_broker(self) -> bool:
        """Whether it exists only where orders go to a broker."""
        return self.name.startswith(("orders.", "broker."))


SUBMIT, FIND = "broker.submit", "broker.find"
_BEFORE, _AFTER = Moment.BEFORE, Moment.AFTER
_COMMITTING, _COMMITTED = Moment.COMMITTING, Moment.COMMITTED
POINTS = (
    Point("dispatch.insert_run", _AFTER),
    Point("dispatch.insert_exit", _AFTER),
    Point("dispatch.expire", _AFTER),
    Point("dispatch.claim", _BEFORE),
    Point("dispatch.claim", _AFTER),
    Point("dispatch.claim", _COMMITTING),
    Point("dispatch.claim", _COMMITTED),
    Point("dispatch.owned", _AFTER),
    Point("dispatch.finish", _BEFORE),
    Point("dispatch.finish", _AFTER),
    Point("execution.insert_executions", _AFTER),
    Point("dispatch.finish_run", _COMMITTING),
    Point("dispatch.finish_run", _COMMITTED),
    Point("orders.insert_orders", _AFTER),
    Point("orders.take_ready", _COMMITTING),
    Point("orders.take_ready", _COMMITTED),
    Point(SUBMIT, _BEFORE),
    Point(SUBMIT, _AFTER),
    Point("orders.record", _AFTER),
    Point("orders.record", _COMMITTED),
    Point("orders.take_open", _COMMITTED),
    Point(FIND, _AFTER),
)

# A decision stands before its commit; a pass over the orders has begun, the second one of a turn,
# which hands over what the turn has decided.
CROWDED, UNSENT = Point("dispatch.finish", _AFTER), Point("orders.server_clock", _COMMITTED)
UNSENT_OCCURRENCE = 2
# Trials of limits and of lateness for each seed.
PROMISES = 2
# What the limits of a crowd are, by the seed.
LIMITS = ("positions", "exposure")

# One position is held, and one closing order proposed.
ONCE = ("dispatch.insert_exit",)


@dataclass(frozen=True)
class Injection:
    """One trial: which fault strikes at which point, the n-th time that it is reached."""

    point: Point
    seed: int
    fault: Fault
    occurrence: int
    with_broker: bool

    @property
    def limit(self) -> str:
        """Which limit is tight in this trial; empty for none."""
        return LIMITS[self.seed % len(LIMITS)] if self.fault is Fault.CROWD else ""


def faults_at(point: Point) -> tuple[Fault, ...]:
    """The faults that make sense at a point."""
    anywhere = [Fault.KILL, Fault.CUT, Fault.RESTART, Fault.ZOMBIE, Fault.DOUBLE]
    anywhere += [Fault.FORWARD, Fault.BACKWARD]
    if point.moment is Moment.COMMITTING:
        anywhere.append(Fault.REPLY_LOST)
    if point.needs_broker:
        anywhere.append(Fault.ANSWER_LOST)
    return tuple(anywhere)


def injections(points: Sequence[Point], seeds: int, first_seed: int = 0) -> Iterator[Injection]:
    """All trials: at each point, the seeds go through its faults in turn."""
    for place, point in enumerate(points):
        faults = faults_at(point)
        for seed in range(first_seed, first_seed + seeds):
            dice = random.Random(f"{point}/{seed}")  # noqa: S311 - a plan that can be repeated
            yield Injection(
                point=point,
                seed=seed,
                fault=faults[(place + seed) % len(faults)],
                occurrence=1 if point.name in ONCE else dice.choice((1, 1, 2)),
                with_broker=point.needs_broker or dice.random() < 0.5,
            )


def promises(seeds: int, first_seed: int = 0) -> Iterator[Injection]:
    """Trials of limits and of lateness: each seed tries both, with and without a broker in turn."""
    for seed in range(first_seed, first_seed + seeds):
        yield Injection(CROWDED, seed, Fault.CROWD, 1, with_broker=seed // len(LIMITS) % 2 == 1)
        yield Injection(UNSENT, seed, Fault.FORWARD, UNSENT_OCCURRENCE, with_broker=True)
