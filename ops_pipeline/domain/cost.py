"""What a day would cost on AWS, as the runbook has it: each service a container task of its own.

Nothing here is a bill. On a laptop it says what the same work would cost there; on AWS it leaves
out what this pipeline does not see, such as data transfer and other people's tasks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from ops_pipeline.domain.acceptance import Level
from ops_pipeline.domain.stages import SENTIMENT, SERVICES, Stage

# Linux on x86, on demand, no discount and no free tier, in us-west-2.
PRICED_ON = date(2026, 1, 30)


@dataclass(frozen=True)
class Price:
    """What AWS asks for one unit of something, in USD, and the page that says so."""

    name: str
    usd: float
    unit: str
    source: str


_FARGATE = "aws.amazon.com/fargate/pricing"
_RDS = "aws.amazon.com/rds/postgresql/pricing"
PRICES = {
    price.name: price
    for price in (
        Price("vcpu", 0.04048, "vCPU-hour", _FARGATE),
        Price("memory", 0.004445, "GB-hour", _FARGATE),
        Price("address", 0.005, "hour", "aws.amazon.com/vpc/pricing"),
        Price("database", 0.016, "hour of db.t4g.micro", _RDS),
        Price("storage", 0.115, "GB-month", _RDS),
        Price("logs", 0.50, "GB", "aws.amazon.com/cloudwatch/pricing"),
        Price("secret", 0.40, "month", "aws.amazon.com/secrets-manager/pricing"),
        Price("schedule", 1.00, "million starts", "aws.amazon.com/eventbridge/pricing"),
        Price("parameter", 0.0, "month, standard", "aws.amazon.com/systems-manager/pricing"),
    )
}
# A task is billed by the second, and for a minute at least; its start is in that minute.
LEAST_SECONDS = 60.0
HOURS, DAYS_IN_MONTH, TRADING_DAYS_IN_MONTH = 24.0, 30.4, 21.0
STORAGE_GB, SECRETS = 20.0, 2
# The runbook's 1.50, and what it does not know: each task's address is billed since 2024, and the
# trade stream runs all day.
NORMAL_USD, CRITICAL_USD = 2.00, 5.00


@dataclass(frozen=True)
class Size:
    """What one container has."""

    vcpu: float
    gigabytes: float


SMALL = Size(0.25, 0.5)
# FinBERT needs its room.
SIZES: Mapping[str, Size] = {SENTIMENT.service: Size(0.5, 1.0)}


@dataclass(frozen=True)
class Usage:
    """What one service did on a day: how often it ran, how long, and what is billed of that."""

    stage: Stage
    runs: int
    seconds: float
    billed_seconds: float


@dataclass(frozen=True)
class CostLine:
    """One line of a day's cost; what stands costs the same on a day without trading."""

    item: str
    quantity: float
    unit: str
    usd: float
    is_standing: bool

    def month_usd(self, trading_days: float) -> float:
        """The same in a month of days like this one."""
        return self.usd * (DAYS_IN_MONTH if self.is_standing else trading_days)


def prices(changes: Mapping[str, Any]) -> dict[str, float]:
    """The price of each thing, with an operator's own in place of some.

    Raises:
        ValueError: a name or a value is refused; the message says which.
    """
    found = {name: price.usd for name, price in PRICES.items()}
    for name, usd in changes.items():
        if name not in found:
            raise ValueError(f"{name}: no such price; there are {', '.join(found)}")
        if isinstance(usd, bool) or not isinstance(usd, int | float) or not 0 <= usd <= 1_000:
            raise ValueError(f"{name}: must be a number of USD between 0 and 1000")
        found[name] = float(usd)
    return found


def day_cost(
    used: Iterable[Usage], log_bytes: int, usd: Mapping[str, float], *, is_followed: bool
) -> list[CostLine]:
    """What a day costs, line by line.

    Args:
        used: what the services did.
        log_bytes: how much the logs grew.
        usd: the price of each thing.
        is_followed: whether the trade stream runs, all day long.
    """
    by_stage = {one.stage: one for one in used}
    found = [_tasks(by_stage[stage], usd) for stage in SERVICES if stage in by_stage]
    starts = sum(one.runs for one in by_stage.values())
    found += [
        CostLine("starts of tasks", starts, "starts", starts / 1e6 * usd["schedule"], False),  # noqa: FBT003
        CostLine("logs", log_bytes / 1e9, "GB", log_bytes / 1e9 * usd["logs"], False),  # noqa: FBT003
    ]
    return found + _standing(usd, is_followed=is_followed)


def _tasks(used: Usage, usd: Mapping[str, float]) -> CostLine:
    hours = used.billed_seconds / 3_600
    cost = hours * _hour(SIZES.get(used.stage.service, SMALL), usd)
    return CostLine(used.stage.service, hours, "task-hours", cost, is_standing=False)


def _standing(usd: Mapping[str, float], *, is_followed: bool) -> list[CostLine]:
    stored = STORAGE_GB * usd["storage"] / DAYS_IN_MONTH
    kept = SECRETS * usd["secret"] / DAYS_IN_MONTH + usd["parameter"] / DAYS_IN_MONTH
    lines = [
        CostLine("database", HOURS, "hours", HOURS * usd["database"], is_standing=True),
        CostLine("database storage", STORAGE_GB, "GB", stored, is_standing=True),
        CostLine("secrets and parameters", SECRETS, "secrets", kept, is_standing=True),
    ]
    if is_followed:
        cost = HOURS * _hour(SMALL, usd)
        lines.append(CostLine("trade-stream", HOURS, "task-hours", cost, is_standing=True))
    return lines


def _hour(size: Size, usd: Mapping[str, float]) -> float:
    return size.vcpu * usd["vcpu"] + size.gigabytes * usd["memory"] + usd["address"]


def limits(minutes: int, whole_minutes: int) -> tuple[float, float]:
    """Up to what a day's USD are normal, and beyond what critical; a longer session takes more."""
    longer = max(1.0, minutes / whole_minutes)
    return NORMAL_USD * longer, CRITICAL_USD * longer


def level_of(usd: float, normal: float, critical: float) -> Level:
    """How bad a day's cost is."""
    if usd > critical:
        return Level.CRITICAL
    return Level.LOW if usd > normal else Level.NORMAL
