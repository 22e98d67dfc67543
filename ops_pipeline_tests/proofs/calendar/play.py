"""Plays days of the calendar through every check: silent where all is well, prompt where not."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Engine, text

from ops_pipeline.domain import ranges
from ops_pipeline.domain.acceptance import Row, Verdict
from ops_pipeline.domain.checks import CHECKS, FRESH, SERVICES_RUN
from ops_pipeline.domain.ranges import Present, present_at
from ops_pipeline.domain.session import MINUTE, Calendar, Session
from ops_pipeline.domain.stages import SERVICES, Stage
from ops_pipeline_tests.proofs.calendar import world

QUARTER = timedelta(minutes=15)
KEPT_SESSIONS = 3
VACUUM_EVERY = 20
SHORTEST, LONGEST = 3, 30


@dataclass(frozen=True)
class OffNormal:
    """A verdict that is not normal, and the instant at which it was found."""

    now: datetime
    verdict: Verdict


@dataclass
class Played:
    """What was asked, and what was found."""

    sessions: int = 0
    session_minutes: int = 0
    other_instants: int = 0
    verdicts: int = 0
    off_normal: list[OffNormal] = field(default_factory=list)


@dataclass(frozen=True)
class Outage:
    """A service that does nothing for the minutes in [start, end); who looks does so once a minute.

    `second` is that of each look.
    """

    stage: Stage
    session: Session
    start: datetime
    end: datetime
    second: int = 0


@dataclass(frozen=True)
class Found:
    """When an outage was found, by which check, and what was off before it and after."""

    outage: Outage
    at: datetime | None
    by: str
    elsewhere: tuple[OffNormal, ...]

    @property
    def seconds(self) -> float | None:
        """How long after its begin it was found."""
        return (self.at - self.outage.start).total_seconds() if self.at else None

    @property
    def is_prompt(self) -> bool:
        """Whether it was found within the limit and a tick."""
        limit = ranges.SERVICE_SECONDS + MINUTE.total_seconds()
        return self.seconds is not None and self.seconds <= limit


def play(engine: Engine, calendar: Calendar, first: date, last: date) -> Played:
    """Every session minute from the first day to the last one, and each quarter of an hour between.

    Sessions before the first day are there, so that it begins as any other. The database must be
    one that `world.build` has made.
    """
    played = Played()
    known = [calendar.back(first, number) for number in (3, 2, 1)]
    with engine.begin() as connection:
        for before in known:
            world.fill(connection, before)
    day = first
    while day <= last:
        session = calendar.on(day)
        with engine.begin() as connection:
            if session:
                known = [*known[-KEPT_SESSIONS:], session]
                world.fill(connection, session)
                world.forget(connection, known[0].opens_at - timedelta(hours=2))
        if session and (played.sessions % VACUUM_EVERY == 0):
            _vacuum(engine)
        _play_day(engine, calendar, day, session, played)
        day += timedelta(days=1)
    return played


def _play_day(
    engine: Engine, calendar: Calendar, day: date, session: Session | None, played: Played
) -> None:
    inside = [_within(minute, n) for n, minute in enumerate(session.minutes())] if session else []
    starts = calendar.day_starts_at(day)
    ends = calendar.day_starts_at(day + timedelta(days=1))
    quarters = [starts + n * QUARTER for n in range((ends - starts) // QUARTER)]
    outside = [at for at in quarters if session is None or not session.is_open(at)]
    played.sessions += session is not None
    played.session_minutes += len(inside)
    played.other_instants += len(outside)
    for found in asked(engine, calendar, sorted([*inside, *outside])):
        played.verdicts += len(found)
        played.off_normal += [each for each in found if not each.verdict.is_normal]


def _within(minute: datetime, number: int) -> datetime:
    """An instant of this minute: from minute to minute another second, so that all come about."""
    return minute + timedelta(seconds=number * 7 % 60)


def asked(
    engine: Engine, calendar: Calendar, instants: Sequence[datetime]
) -> Iterator[list[OffNormal]]:
    """Every verdict at each of these instants."""
    presents = [present_at(calendar, at) for at in instants]
    with engine.begin() as connection:
        answers = world.ask(connection, presents)
    for present, rows in zip(presents, answers, strict=True):
        found = [_verdict_of(present, rows, number) for number in range(len(CHECKS))]
        yield [OffNormal(present.now, verdict) for verdict in found]


def _verdict_of(present: Present, rows: dict[str, list[Row]], number: int) -> Verdict:
    check = CHECKS[number]
    off = frozenset(str(row["service"]) for row in rows["services_off"])
    known = Present(**{**present.__dict__, "off": off})
    reason = check.silence(known)
    if reason is not None:
        return check.silent(reason)
    return check.verdict(known, *(rows[name] for name in check.asked))


def outages(calendar: Calendar, first: date, last: date, count: int, seed: int) -> list[Outage]:
    """So many outages of 3 to 30 minutes inside sessions, each service in its turn."""
    draw = random.Random(seed)  # noqa: S311 - a choice that can be repeated, no secret
    sessions = calendar.between(first, last)
    made = []
    for number in range(count):
        session = draw.choice(sessions)
        minutes = session.minutes()
        length = draw.randint(SHORTEST, LONGEST)
        start = minutes[draw.randint(5, len(minutes) - length)]
        stage = SERVICES[number % len(SERVICES)]
        second = draw.randint(0, 59)
        made.append(Outage(stage, session, start, start + length * MINUTE, second))
    return made


def find(engine: Engine, calendar: Calendar, outage: Outage) -> Found:
    """Play the session of an outage, minute by minute until an hour after its close."""
    session = outage.session
    with engine.begin() as connection:
        world.forget(connection, datetime.max.replace(tzinfo=UTC))
        for number in (3, 2, 1):
            world.fill(connection, calendar.back(session.day, number))
        world.fill(connection, session)
        world.stop(connection, outage.stage, outage.start, outage.end)
    _vacuum(engine)
    minutes = len(session.minutes()) + 60
    first_look = session.opens_at + timedelta(seconds=outage.second)
    instants = [first_look + n * MINUTE for n in range(minutes)]
    every = [
        each
        for found in asked(engine, calendar, instants)
        for each in found
        if not each.verdict.is_normal
    ]
    first = next((each for each in every if _tells(each.verdict, outage.stage)), None)
    over = outage.end + 3 * MINUTE
    elsewhere = tuple(each for each in every if not outage.start <= each.now < over)
    return Found(
        outage, first.now if first else None, first.verdict.name if first else "", elsewhere
    )


def _tells(verdict: Verdict, stage: Stage) -> bool:
    named = verdict.name == SERVICES_RUN and stage.service in verdict.finding
    return named or (verdict.name == FRESH and stage.name == "bars")


def _vacuum(engine: Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in world.FORGET:
            connection.execute(text(f"vacuum analyze world.{table}"))
