"""Faults on order: rules that strike requests, frames and bars by a schedule one can compute."""

import random
import zlib
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.values import Bar
from ops_pipeline.sandbox.live import Now

STREAM = "/stream"
_HALF = 0.5


class Kind(StrEnum):
    """What a rule does to what it strikes."""

    DELAY = "delay"
    DROP = "drop"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    STATUS = "status"
    MALFORMED = "malformed"
    MUTE = "mute"
    HALF_FORMED = "half_formed"
    REVISE = "revise"
    CLOCK_SKEW = "clock_skew"
    BODY = "body"


_OF_REQUESTS = frozenset({Kind.DELAY, Kind.DROP, Kind.STATUS, Kind.MALFORMED, Kind.BODY})
_OF_FRAMES = frozenset({Kind.DELAY, Kind.DROP, Kind.DUPLICATE, Kind.REORDER, Kind.MUTE})


class Rule(BaseModel):
    """One kind of fault, what it strikes, how often, and in which window of time.

    `match` begins the path of what is struck; rules for bars and for the clock need none. `seconds`
    is how long a delay lasts, how far a clock is ahead, or how long after its end a minute stays
    half-formed. `times` ends the rule after so many strikes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    match: str = "/"
    methods: tuple[Literal["GET", "POST", "DELETE"], ...] | None = None
    rate: float = Field(1.0, ge=0, le=1)
    status: Literal[401, 403, 429, 500, 502, 503, 504] | None = None
    seconds: float = Field(0.0, ge=-86_400, le=86_400)
    body: str | None = None
    retry_after: int | None = Field(None, ge=0)
    since: AwareDatetime | None = Field(None, alias="from")
    until: AwareDatetime | None = None
    times: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        needs = {
            Kind.STATUS: ("status", self.status),
            Kind.BODY: ("body", self.body),
            Kind.DELAY: ("seconds", self.seconds > 0),
            Kind.HALF_FORMED: ("seconds", self.seconds > 0),
            Kind.CLOCK_SKEW: ("seconds", self.seconds),
        }
        name, value = needs.get(self.kind, ("", True))
        if value is None or value is False or value == 0.0:
            raise ValueError(f"a rule of kind {self.kind.value} needs {name}")
        return self


class Schedule(BaseModel):
    """Rules, in the order in which they are tried, and the seed that decides what they strike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[Rule, ...] = ()
    seed: int = 7


def is_struck(seed: int, rule_number: int, n: int, rate: float) -> bool:
    """Whether a rule (counted from 0) strikes the n-th request or frame it matches (from 1)."""
    draw = random.Random(f"{seed}/{rule_number}/{n}").random()  # noqa: S311 - a schedule
    return draw < rate


@dataclass
class _Armed:
    """A rule at work."""

    rule: Rule
    number: int
    matched: int = 0
    struck: int = 0
    told: set[int] = field(default_factory=set)


class Faults:
    """The schedule at work; what strikes is counted."""

    def __init__(self, now: Now) -> None:
        self._now = now
        self.order(Schedule())

    def order(self, schedule: Schedule) -> None:
        """Put a schedule in place of the one that is there; all counts begin anew."""
        self._seed = schedule.seed
        self._armed = [_Armed(rule, number) for number, rule in enumerate(schedule.rules)]

    def report(self) -> dict[str, object]:
        """The schedule, and how often each rule matched and struck."""
        rules = [
            armed.rule.model_dump(mode="json", by_alias=True, exclude_none=True)
            | {"matched": armed.matched, "struck": armed.struck}
            for armed in self._armed
        ]
        return {"rules": rules, "seed": self._seed}

    def struck(self) -> int:
        """How often the rules struck, all together."""
        return sum(armed.struck for armed in self._armed)

    def on_request(self, path: str, method: str) -> list[Rule]:
        """The rules that strike this request, in their order."""
        return [
            armed.rule
            for armed in self._active(_OF_REQUESTS)
            if path.startswith(armed.rule.match)
            and (armed.rule.methods is None or method in armed.rule.methods)
            and self._strikes_next(armed)
        ]

    def on_frame(self, connection: int) -> list[Rule]:
        """The rules that strike the next frame of a connection; one that is muted stays so."""
        return [
            armed.rule
            for armed in self._active(_OF_FRAMES)
            if STREAM.startswith(armed.rule.match)
            and (
                self._strikes(armed, connection)
                if armed.rule.kind is Kind.MUTE
                else self._strikes_next(armed)
            )
        ]

    def skew(self) -> timedelta:
        """How far the clock is ahead in this answer."""
        armed = self._active(frozenset({Kind.CLOCK_SKEW}))
        struck = (rule.rule.seconds for rule in armed if self._strikes_next(rule))
        return timedelta(seconds=sum(struck))

    def changed(self, bar: Bar) -> Bar:
        """The bar as it is told now: not yet whole, or other than it was told before."""
        for armed in self._active(frozenset({Kind.HALF_FORMED, Kind.REVISE})):
            key = zlib.crc32(f"{bar.ticker}/{bar.minute.isoformat()}".encode())
            if armed.rule.kind is Kind.REVISE:
                bar = self._revised(armed, key, bar)
            elif self._is_young(armed.rule, bar) and self._strikes(armed, key):
                bar = half_formed(bar, _HALF)
        return bar

    def _is_young(self, rule: Rule, bar: Bar) -> bool:
        age = self._now() - bar.minute - MINUTE
        return timedelta(0) <= age < min(MINUTE, timedelta(seconds=rule.seconds))

    def _revised(self, armed: _Armed, key: int, bar: Bar) -> Bar:
        if key in armed.told:
            return _revision(bar)
        if self._now() >= bar.minute + MINUTE and self._strikes(armed, key):
            armed.told.add(key)
        return bar

    def _active(self, kinds: frozenset[Kind]) -> list[_Armed]:
        now = self._now()
        return [
            armed
            for armed in self._armed
            if armed.rule.kind in kinds
            and (armed.rule.since is None or armed.rule.since <= now)
            and (armed.rule.until is None or now < armed.rule.until)
        ]

    def _strikes_next(self, armed: _Armed) -> bool:
        return self._strikes(armed, armed.matched + 1)

    def _strikes(self, armed: _Armed, n: int) -> bool:
        rule = armed.rule
        armed.matched += 1
        is_spent = rule.times is not None and armed.struck >= rule.times
        strikes = not is_spent and is_struck(self._seed, armed.number, n, rule.rate)
        armed.struck += strikes
        return strikes


def half_formed(bar: Bar, share: float) -> Bar:
    """What is known of a bar when this share of its minute is over."""
    close = round(bar.open + share * (bar.close - bar.open), 2)
    return replace(
        bar,
        high=max(bar.open, close),
        low=min(bar.open, close),
        close=close,
        volume=int(share * bar.volume),
    )


def _revision(bar: Bar) -> Bar:
    close = round(bar.close + 0.01, 2)
    volume = bar.volume + max(1, bar.volume // 20)
    return replace(bar, close=close, high=max(bar.high, close), volume=volume)
