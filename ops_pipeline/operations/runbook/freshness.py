"""The data: how old the newest bar is, and the bars that were traded on."""

from collections.abc import Iterator

from ops_pipeline.clients.alpaca_account import MAX_SKEW_SECONDS, clock_skew_seconds
from ops_pipeline.clients.live import access_of, live_bars
from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.bars import FRESH_SECONDS, age_seconds
from ops_pipeline.domain.checks import BAR_AGE
from ops_pipeline.domain.errors import OperatorError
from ops_pipeline.domain.session import both_zones
from ops_pipeline.domain.stages import BARS
from ops_pipeline.domain.thresholds import DispatcherConfig
from ops_pipeline.operations.runbook.causes import (
    CONFIG_INVALID,
    SERVICE_OFF,
    catalogue,
    config_invalid,
    config_of,
    switched_off,
)
from ops_pipeline.operations.runbook.changes import by_hand, set_config
from ops_pipeline.operations.runbook.section import Cause, Found, OwnCheck, Scene, Section
from ops_pipeline.storage.bars import newest_minute

FRESH = OwnCheck("bars_are_fresh", f"within {FRESH_SECONDS} s while the market is open")
# The runbook's limit, and the default.
LIMIT_SECONDS: int = DispatcherConfig.model_fields["max_bar_age_seconds"].default

BARS_SERVICE_OFF = Cause(
    "BARS_SERVICE_OFF",
    "telemetry-1m is switched off, so that no bar comes.",
    Level.HIGH,
    "switches it on; the next tick fetches what is missing",
)
VENDOR_SILENT = Cause(
    "VENDOR_SILENT",
    "The bars are old, and Alpaca does not answer, or refuses.",
    Level.HIGH,
    "a person looks at Alpaca's own page; the next tick fetches what is missing",
)
CLOCK_SKEW = Cause(
    "CLOCK_SKEW",
    "This machine's clock is not the broker's: every age is wrong by that much.",
    Level.HIGH,
    "a person sets the clock by NTP",
)
BARS_LATE = Cause(
    "BARS_LATE",
    "The bars are old, though telemetry-1m is on and Alpaca answers.",
    Level.HIGH,
    "a person follows service-wont-start",
)
LIMIT_RELAXED = Cause(
    "LIMIT_RELAXED",
    f"max_bar_age_seconds is above {LIMIT_SECONDS}: older bars may be traded on.",
    Level.MEDIUM,
    f"sets it back to {LIMIT_SECONDS}",
)
TRADED_ON_OLD_BARS = Cause(
    "TRADED_ON_OLD_BARS",
    f"Executions of the last hour used bars that were more than {LIMIT_SECONDS} s old.",
    Level.HIGH,
    "a person looks at the executions; none is ever changed",
)


def _look(scene: Scene) -> Iterator[Found]:
    """Is telemetry on, does the vendor answer, do the clocks agree, was the limit moved."""
    (fresh,) = _bars(scene)
    if not fresh.is_normal:
        yield _why_old(scene, fresh)
    if scene.settings.mode.is_live:
        yield from _skew(scene)
    yield from config_invalid(scene)
    limit = LIMIT_SECONDS if list(config_invalid(scene)) else config_of(scene).max_bar_age_seconds
    if limit > LIMIT_SECONDS:
        values = {"max_bar_age_seconds": LIMIT_SECONDS}
        back = set_config(scene, values, "bars were traded on that were too old")
        yield Found(LIMIT_RELAXED, {"max_bar_age_seconds": limit}, [back])
    (traded,) = catalogue(scene, BAR_AGE)
    if not traded.is_normal:
        look = by_hand("look at the executions", "ops-pipeline explain ID")
        yield Found(TRADED_ON_OLD_BARS, {"found": traded.finding, **traded.observed}, [look])


def _why_old(scene: Scene, fresh: Verdict) -> Found:
    off = [one for one in switched_off(scene, [BARS]) if one.cause is SERVICE_OFF]
    if off:
        return Found(BARS_SERVICE_OFF, {**off[0].evidence, **fresh.observed}, off[0].changes)
    if scene.settings.mode.is_live:
        try:
            live_bars(scene.settings, lambda: scene.now).probe()
        except OperatorError as error:
            look = by_hand(error.hint or "look at Alpaca's own page", "ops-pipeline doctor")
            return Found(VENDOR_SILENT, {"said": str(error), **fresh.observed}, [look])
    further = by_hand("look further", "ops-pipeline runbook diagnose service-wont-start")
    return Found(BARS_LATE, fresh.observed, [further])


def _skew(scene: Scene) -> Iterator[Found]:
    """A clock that cannot be asked says nothing: why it cannot is told by the bars."""
    try:
        skew = clock_skew_seconds(access_of(scene.settings), lambda: scene.now)
    except OperatorError:
        return
    if abs(skew) > MAX_SKEW_SECONDS:
        by_ntp = by_hand("set this machine's clock", "timedatectl set-ntp true")
        yield Found(CLOCK_SKEW, {"seconds": round(skew, 1)}, [by_ntp])


def _bars(scene: Scene) -> list[Verdict]:
    now = scene.now
    session = scene.settings.mode.calendar.at(now)
    if session is None:
        return [Verdict(FRESH.name, Level.NORMAL, "the market is closed", {}, FRESH.normal)]
    with scene.engine.connect() as connection:
        newest = newest_minute(connection, now)
    age = age_seconds(newest, session, now)
    level = Level.NORMAL if age <= FRESH_SECONDS else Level.HIGH
    observed = {"age_seconds": round(age), "newest": both_zones(newest) if newest else None}
    told = f"the newest bar ended {age:.0f} s ago"
    return [Verdict(FRESH.name, level, told, observed, FRESH.normal)]


def _verify(scene: Scene) -> list[Verdict]:
    return [*catalogue(scene, BAR_AGE), *_bars(scene)]


SECTIONS = (
    Section(
        name="data-freshness-violations",
        heading="Issue: Data Freshness Violations",
        symptom="Executions used bars that were more than 120 s old, or no bar comes.",
        checks=(BAR_AGE,),
        own=(FRESH,),
        causes=(
            BARS_SERVICE_OFF,
            VENDOR_SILENT,
            BARS_LATE,
            CLOCK_SKEW,
            CONFIG_INVALID,
            LIMIT_RELAXED,
            TRADED_ON_OLD_BARS,
        ),
        look=_look,
        verify=_verify,
    ),
)
