"""Every number that can pick, refuse or size a trade: default, unit, range and effect."""

import hashlib
import json
from collections.abc import Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

Seconds = Annotated[int, Field(ge=1, le=86_400)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Usd = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]
ACTIONS = ("BUY_STOCK", "SELL_STOCK")
MAX_OVERRIDES_BYTES = 64 * 1024
OVERRIDES_EXAMPLE = '{"confidence_min": 0.60}'


def visible(text: str, most: int = 40) -> str:
    """A text that may hold anything, on one line and not longer than this."""
    shown = "".join(
        letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text[: most + 1]
    )
    return shown if len(shown) <= most else f"{shown[:most]}..."


def _known_actions(actions: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := set(actions) - set(ACTIONS):
        raise ValueError(f"unknown action {visible(min(unknown))}; known are {', '.join(ACTIONS)}")
    return actions


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Tier(_Frozen):
    """A block of limits for accounts up to a size."""

    max_equity_usd: Usd
    risk_per_trade: Ratio
    confidence_floor: Ratio


TIERS = {
    "tiny": Tier(max_equity_usd=2_000, risk_per_trade=0.01, confidence_floor=0.60),
    "small": Tier(max_equity_usd=5_000, risk_per_trade=0.01, confidence_floor=0.65),
    "medium": Tier(max_equity_usd=25_000, risk_per_trade=0.01, confidence_floor=0.55),
    "large": Tier(max_equity_usd=1e12, risk_per_trade=0.01, confidence_floor=0.45),
}


def tier_of(equity_usd: float) -> str:
    """The tier that an account of this size belongs to."""
    return next(
        (name for name, tier in TIERS.items() if equity_usd <= tier.max_equity_usd), "large"
    )


class BarRules(_Frozen):
    """What the market may do before a person has to look."""

    max_overnight_gap: Ratio = 0.30


class WatchlistRules(_Frozen):
    """How the watchlist picks; windows and shapes are those of the score's formula."""

    enter_score: Ratio = 0.6
    leave_score: Ratio = 0.3
    retention_minutes: int = Field(30, ge=0, le=390)
    max_size: int = Field(30, ge=1, le=1_000)
    min_size: int = Field(7, ge=0, le=1_000)
    sentiment_weight: Ratio = 0.35
    setup_weight: Ratio = 0.25
    volatility_weight: Ratio = 0.20
    trend_weight: Ratio = 0.20
    pressure_strength_weight: Ratio = 0.50
    pressure_count_weight: Ratio = 0.30
    pressure_recency_weight: Ratio = 0.20
    full_news_count: int = 5
    news_window_seconds: int = 3_600
    setup_distance: float = 0.01
    quiet_vol_ratio: float = 0.7
    vol_ratio_span: float = 0.8
    neutral_sentiment: float = 0.05


class SignalRules(_Frozen):
    """The rule set and the confidence formula."""

    sma_tolerance: Ratio = 0.005
    stretched_distance: Ratio = 0.02
    breakout_distance: Ratio = 0.01
    no_breakout_multiplier: Ratio = 0.5
    dead_volume_ratio: float = 0.5
    unknown_volume_multiplier: Ratio = 0.5
    # (volume_ratio below this, multiplier): the first match wins
    volume_steps: tuple[tuple[float, float], ...] = (
        (1.2, 0.3),
        (1.5, 0.6),
        (2.0, 1.0),
        (3.0, 1.15),
        (5.0, 1.25),
    )
    full_volume_multiplier: float = 1.35
    trend_weight: Ratio = 0.35
    setup_weight: Ratio = 0.25
    volatility_weight: Ratio = 0.20
    constant_weight: Ratio = 0.20
    flat_trend: Ratio = 0.5
    calm_vol_ratio: float = 0.8
    wild_vol_ratio: float = 1.3
    calm_vol_score: Ratio = 0.7
    wild_vol_score: Ratio = 0.5
    aligned_sentiment_gain: Ratio = 0.25
    opposed_sentiment_loss: Ratio = 0.20
    full_news_count: int = 5
    confidence_floor: Ratio = 0.35
    cooldown_minutes: int = Field(15, ge=0, le=390)
    # The database refuses a longer life.
    expires_after_seconds: int = Field(300, ge=1, le=3_600)

    @property
    def expires_after(self) -> timedelta:
        """How long after its decision instant a recommendation may trade."""
        return timedelta(seconds=self.expires_after_seconds)


class DispatcherConfig(_Frozen):
    """What the operator may set; the document in the settings store is an override of these."""

    confidence_min: Ratio = Field(0.70, description="Lowest confidence that trades.")
    tier: Literal["tiny", "small", "medium", "large"] = Field("large", description="Limits block.")
    equity_usd: Usd = Field(100_000.0, description="Equity of the paper account.")
    max_daily_loss_usd: Usd = Field(500.0, description="Session loss that stops opening orders.")
    max_bar_age_seconds: Seconds = Field(120, description="Oldest bar that trades, from its end.")
    max_feature_age_seconds: Seconds = Field(300, description="Oldest features that trade.")
    max_recommendation_age_seconds: Seconds = Field(300, description="Oldest signal that trades.")
    max_clock_skew_seconds: int = Field(
        5,
        ge=1,
        le=60,
        description="Largest difference between the process and database clocks that still opens.",
    )
    max_open_positions: int = Field(5, ge=1, le=1_000, description="Positions held at once.")
    max_notional_exposure: Ratio = Field(1.0, description="Exposure, as a share of equity.")
    max_notional_per_trade: Ratio = Field(0.10, description="One order, as a share of equity.")
    max_trades_per_ticker_per_day: int = Field(2, ge=1, le=100, description="Per session.")
    ticker_cooldown_minutes: int = Field(15, ge=0, le=390, description="Between executions.")
    allow_shorting: bool = Field(default=False, description="Whether SELL may open a short.")
    allowed_actions: Annotated[tuple[str, ...], AfterValidator(_known_actions)] = Field(
        ("BUY_STOCK",), description="ACTION_INSTRUMENT pairs that may trade."
    )
    opening_block_minutes: int = Field(5, ge=0, le=120, description="No opening orders before.")
    closing_block_minutes: int = Field(15, ge=0, le=120, description="No opening orders after.")
    flat_before_close_minutes: int = Field(5, ge=1, le=120, description="Positions close then.")
    slippage_bps: float = Field(5.0, ge=0, le=1_000, allow_inf_nan=False, description="Per fill.")
    stop_loss_vol_mult: float = Field(2.0, gt=0, le=100, allow_inf_nan=False, description="Stop.")
    stop_horizon_minutes: int = Field(30, ge=1, le=390, description="Horizon of the stop.")
    min_stop_distance: Ratio = Field(0.005, gt=0, description="Nearest stop, share of the price.")
    take_profit_risk_reward: float = Field(2.0, gt=0, le=100, description="Target over stop.")
    max_hold_minutes: int = Field(240, ge=1, le=390, description="Longest time in a position.")
    max_signals_per_run: int = Field(10, ge=1, le=1_000, description="Claimed by one run.")
    processing_ttl_minutes: float = Field(1.0, ge=0.5, le=5, description="Lease of a claim.")
    max_attempts: int = Field(3, ge=1, le=20, description="Claims before a row is FAILED.")

    @model_validator(mode="after")
    def _lease_is_shorter_than_freshness(self) -> "DispatcherConfig":
        # A row that is released after it went stale could only be skipped.
        if self.processing_ttl_minutes * 60 > self.max_recommendation_age_seconds:
            raise ValueError(
                f"processing_ttl_minutes ({self.processing_ttl_minutes:g}) must not be longer than"
                f" max_recommendation_age_seconds ({self.max_recommendation_age_seconds})"
            )
        return self

    @property
    def limits(self) -> Tier:
        """The limits block of the account's tier."""
        return TIERS[self.tier]

    @property
    def confidence_threshold(self) -> float:
        """The confidence that is really asked for."""
        return max(self.confidence_min, self.limits.confidence_floor)

    @property
    def actions(self) -> tuple[str, ...]:
        """The actions that may trade; permission to short implies SELL_STOCK."""
        extra = ("SELL_STOCK",) if self.allow_shorting else ()
        return tuple(dict.fromkeys((*self.allowed_actions, *extra)))

    def document(self) -> dict[str, Any]:
        """Every value in force, as it is stored beside each run."""
        return self.model_dump(mode="json")

    def fingerprint(self) -> str:
        """A hash of every value in force."""
        text = json.dumps(self.document(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class SloRules(_Frozen):
    """From where on the minute loop is told to an operator; OPS_SLO overrides these key by key."""

    signals_warn_seconds: float = Field(
        10.0,
        gt=0,
        le=3_600,
        allow_inf_nan=False,
        description="p95 from settling to signals that is a warning: five times the goal of 2 s,"
        " and a thirtieth of a recommendation's life.",
    )
    signals_error_seconds: float = Field(
        45.0,
        gt=0,
        le=3_600,
        allow_inf_nan=False,
        description="p95 that is an error: 15 s later the next minute settles, and the dispatcher"
        " needs those.",
    )
    max_skipped_minutes: int = Field(
        0,
        ge=0,
        le=1_440,
        description="More are an error: what is caught up later trades late or not at all.",
    )
    max_late_minutes: int = Field(
        0,
        ge=0,
        le=1_440,
        description="More are a warning: such a minute was decided, and delayed the next one.",
    )
    max_event_log_mb_per_day: float = Field(
        500.0,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="More is a warning: twice what a day round the clock takes, at a data run and"
        " a dispatcher run a minute.",
    )

    @model_validator(mode="after")
    def _warning_comes_first(self) -> "SloRules":
        if self.signals_warn_seconds > self.signals_error_seconds:
            raise ValueError(
                f"signals_warn_seconds ({self.signals_warn_seconds:g}) must not be more than"
                f" signals_error_seconds ({self.signals_error_seconds:g})"
            )
        return self


# At the production default a day without news rarely trades; these modes exist to be watched.
PROFILES: dict[str, dict[str, Any]] = {
    "replay": {"confidence_min": 0.55},
    "sandbox": {"confidence_min": 0.55},
}


def read_overrides(text: str) -> dict[str, Any]:
    """The one JSON object of an operator's document; its keys and values are not judged yet.

    An empty document changes nothing.

    Raises:
        ValueError: it is no such document; the message is the end of a sentence about it.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_OVERRIDES_BYTES:
        raise ValueError("is longer than 64 kB")
    if not text.strip():
        return {}
    try:
        document = json.loads(text, object_pairs_hook=_once_each, parse_int=_whole)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        what = error.msg.lower().removesuffix(" at")
        raise ValueError(f"is no JSON: {what}, {where}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if isinstance(document, dict):
        return document
    raise ValueError(f"must be one JSON object, not {_shown(document)}")


def strict_config(values: Mapping[str, Any]) -> DispatcherConfig:
    """Defaults and these values, as JSON gives them; none is turned into another type.

    Raises:
        ValueError: a key or a value is refused; the message is one line that names it.
    """
    for key in values:
        if key not in DispatcherConfig.model_fields:
            raise ValueError(f"{visible(key) or '(empty)'}: no such key{_nearest(key)}")
    given = {k: tuple(value) if isinstance(value, list) else value for k, value in values.items()}
    try:
        return DispatcherConfig.model_validate(given, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(_sentence(first)) from None


def slo_rules(values: Mapping[str, Any]) -> SloRules:
    """Defaults and these values, as JSON gives them; none is turned into another type.

    Raises:
        ValueError: a key or a value is refused; the message is one line that names it.
    """
    try:
        return SloRules.model_validate(values, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = f"{visible(str(first['loc'][0]))}: " if first["loc"] else ""
        raise ValueError(f"{where}{first['msg'].lower()}") from None


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"has the key {visible(key)} twice")
        found[key] = value
    return found


def _whole(digits: str) -> float:
    # Python refuses to read very long ones; as a float it is refused with its key.
    return int(digits) if len(digits) < 20 else float(digits)


def _sentence(error: ErrorDetails) -> str:
    """What is wrong, without the document that it stands in."""
    reason = error.get("ctx", {}).get("error")
    if not error["loc"]:
        return str(reason or error["msg"])
    key = str(error["loc"][0])
    if reason:
        return f"{key}: {reason}"
    return f"{key}: must be {_allowed(key, error['input'])}, not {_shown(error['input'])}"


def _nearest(key: str) -> str:
    near = get_close_matches(key[:64].strip().lower(), DispatcherConfig.model_fields, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _allowed(key: str, value: object) -> str:
    entry = DispatcherConfig.model_json_schema()["properties"][key]
    if "enum" in entry:
        return f"one of {', '.join(entry['enum'])}"
    if entry["type"] == "boolean":
        return "true or false"
    if entry["type"] == "array":
        return f"a list of {', '.join(ACTIONS)}"
    kind = "" if isinstance(value, int | float) and not isinstance(value, bool) else "a number "
    if entry["type"] == "integer":
        kind = "a whole number "
    high = f"{entry['maximum']:g}"
    if "exclusiveMinimum" in entry:
        return f"{kind}above {entry['exclusiveMinimum']:g} and at most {high}"
    return f"{kind}between {entry['minimum']:g} and {high}"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    # JSON's own notation tells the text "0.6" from the number.
    return visible(json.dumps(value))
