"""From a feature row to a decision: direction, confidence and its breakdown (stock only)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ops_pipeline.domain.thresholds import SignalRules
from ops_pipeline.domain.values import FeatureRow, Signal
from ops_pipeline.domain.watchlist import NONE_LATE, Decision, members_known

BULL, BEAR = "BULL_ENTRY", "BEAR_ENTRY"
HOLD = "HOLD"
ACTIONS = {BULL: "BUY", BEAR: "SELL"}
DIRECTIONS = {BULL: 1, BEAR: -1}


@dataclass(frozen=True)
class Confidence:
    """A confidence and the factors that it is the product of."""

    final: float
    base: float
    components: dict[str, float]
    multipliers: dict[str, float]


@dataclass(frozen=True)
class Actionable:
    """A minute in which a ticker was recommended, and from when on that could be known."""

    minute: datetime
    available_at: datetime


def decide(row: FeatureRow, rules: SignalRules) -> Signal:
    """The decision for one ticker and minute; HOLD names its code in `rule`."""
    needed = (row.close, row.sma20, row.sma50, row.distance_sma20, row.trend_state, row.vol_ratio)
    if not all(value is not None and math.isfinite(value) for value in needed):
        return _hold(row, "NO_FEATURES")
    rule = _setup(row, rules)
    if rule is None:
        return _hold(row, "NO_SETUP")
    if row.volume_ratio is not None and row.volume_ratio < rules.dead_volume_ratio:
        return _hold(row, "VOLUME_TOO_LOW")
    confidence = _confidence(row, rule, rules)
    reason = _reason(row, rule, confidence)
    if confidence.final < rules.confidence_floor:
        code = "CONFIDENCE_TOO_LOW"
        return Signal(row.ticker, row.minute, HOLD, code, confidence.final, reason)
    return Signal(row.ticker, row.minute, ACTIONS[rule], rule, confidence.final, reason)


def cool_down(signal: Signal, minutes_since_last: float | None, rules: SignalRules) -> Signal:
    """The same signal, or a HOLD where the ticker's last recommendation is too recent."""
    if signal.action == HOLD or minutes_since_last is None:
        return signal
    if minutes_since_last >= rules.cooldown_minutes:
        return signal
    return Signal(signal.ticker, signal.minute, HOLD, "COOLDOWN", signal.confidence, signal.reason)


def fold(
    cutoffs: Mapping[datetime, datetime],
    rows: Mapping[datetime, Sequence[FeatureRow]],
    decisions: Sequence[Decision],
    actionable: Mapping[str, Sequence[Actionable]],
    rules: SignalRules,
    late: Mapping[datetime, datetime] = NONE_LATE,
) -> dict[datetime, list[Signal]]:
    """Decide minute after minute of one session.

    Args:
        cutoffs: session minutes in order, each with the instant up to which it may know.
        rows: feature rows by minute.
        decisions: the session's decisions of the watchlist, in order.
        actionable: when each ticker was recommended before the first of these minutes, in order.
        rules: rules, formula and cooldown.
        late: from when on a decision could be known that came after its cut-off.

    Returns:
        For each minute one decision for each watched ticker, ordered by ticker.
    """
    earlier = {ticker: list(found) for ticker, found in actionable.items()}
    decided: dict[datetime, list[Signal]] = {}
    for minute, cutoff in cutoffs.items():
        by_ticker = {row.ticker: row for row in rows.get(minute, ())}
        decided[minute] = []
        for ticker in sorted(members_known(decisions, minute, cutoff)):
            own = earlier.setdefault(ticker, [])
            signal = _decide_or_hold(ticker, minute, by_ticker.get(ticker), rules)
            signal = cool_down(signal, _minutes_since_last(own, minute, cutoff), rules)
            if signal.action != HOLD:
                own.append(Actionable(minute, late.get(minute, cutoff)))
            decided[minute].append(signal)
    return decided


def _minutes_since_last(
    earlier: Sequence[Actionable], minute: datetime, cutoff: datetime
) -> float | None:
    for found in reversed(earlier):
        if found.available_at <= cutoff:
            return (minute - found.minute).total_seconds() / 60
    return None


def _decide_or_hold(
    ticker: str, minute: datetime, row: FeatureRow | None, rules: SignalRules
) -> Signal:
    if row is None:
        return Signal(ticker, minute, HOLD, "NO_FEATURES", 0.0, {"rule": "NO_FEATURES"})
    return decide(row, rules)


def _hold(row: FeatureRow, code: str) -> Signal:
    return Signal(row.ticker, row.minute, HOLD, code, 0.0, {"rule": code})


def _setup(row: FeatureRow, rules: SignalRules) -> str | None:
    assert row.distance_sma20 is not None  # noqa: S101 - decide() has checked
    assert row.trend_state is not None  # noqa: S101 - decide() has checked
    if abs(row.distance_sma20) >= rules.stretched_distance:
        return None
    if row.distance_sma20 >= -rules.sma_tolerance and row.trend_state >= 0:
        return BULL
    if row.distance_sma20 <= rules.sma_tolerance and row.trend_state <= 0:
        return BEAR
    return None


def _confidence(row: FeatureRow, rule: str, rules: SignalRules) -> Confidence:
    components = _components(row, rules)
    base = (
        rules.trend_weight * components["trend_alignment"]
        + rules.setup_weight * components["setup_quality"]
        + rules.volatility_weight * components["volatility"]
        + rules.constant_weight
    )
    multipliers = {
        "sentiment": _sentiment_multiplier(row, rule, rules),
        "volume": volume_multiplier(row.volume_ratio, rules),
        "move": _move_multiplier(row, rule, rules),
    }
    product = base * multipliers["sentiment"] * multipliers["volume"] * multipliers["move"]
    return Confidence(min(max(product, 0.0), 1.0), base, components, multipliers)


def _components(row: FeatureRow, rules: SignalRules) -> dict[str, float]:
    distance = abs(row.distance_sma20 or 0.0)
    return {
        "trend_alignment": 1.0 if row.trend_state else rules.flat_trend,
        "setup_quality": 1 - min(distance / rules.stretched_distance, 1.0),
        "volatility": _volatility_score(row.vol_ratio or 0.0, rules),
    }


def _volatility_score(vol_ratio: float, rules: SignalRules) -> float:
    if vol_ratio < rules.calm_vol_ratio:
        return rules.calm_vol_score
    return rules.wild_vol_score if vol_ratio > rules.wild_vol_ratio else 1.0


def volume_multiplier(volume_ratio: float | None, rules: SignalRules) -> float:
    """How much a bar's volume counts; unknown volume is half, dead volume nothing."""
    if volume_ratio is None or not math.isfinite(volume_ratio):
        return rules.unknown_volume_multiplier
    if volume_ratio < rules.dead_volume_ratio:
        return 0.0
    for limit, multiplier in rules.volume_steps:
        if volume_ratio < limit:
            return multiplier
    return rules.full_volume_multiplier


def _sentiment_multiplier(row: FeatureRow, rule: str, rules: SignalRules) -> float:
    sentiment = row.confident_sentiment_30
    if not sentiment or not math.isfinite(sentiment) or not row.confident_count_30:
        return 1.0
    strength = abs(sentiment) * min(row.confident_count_30 / rules.full_news_count, 1.0)
    if sentiment * DIRECTIONS[rule] > 0:
        return 1 + rules.aligned_sentiment_gain * strength
    return 1 - rules.opposed_sentiment_loss * strength


def _move_multiplier(row: FeatureRow, rule: str, rules: SignalRules) -> float:
    move = (row.distance_sma20 or 0.0) * DIRECTIONS[rule]
    return 1.0 if move > rules.breakout_distance else rules.no_breakout_multiplier


def _reason(row: FeatureRow, rule: str, confidence: Confidence) -> dict[str, Any]:
    return {
        "rule": rule,
        "direction": "LONG" if rule == BULL else "SHORT",
        "confidence_breakdown": {
            "base": confidence.base,
            "components": confidence.components,
            "multipliers": confidence.multipliers,
            "final": confidence.final,
        },
    }


def features_snapshot(row: FeatureRow) -> dict[str, Any]:
    """What was known of the ticker, as it is stored beside a recommendation."""
    return {
        "v": 1,
        "ts": row.bar_at.isoformat(),
        "ticker": row.ticker,
        "close": row.close,
        "sma20": row.sma20,
        "sma50": row.sma50,
        "distance_sma20": row.distance_sma20,
        "distance_sma50": row.distance_sma50,
        "trend_state": row.trend_state,
        "recent_vol": row.recent_vol,
        "vol_ratio": row.vol_ratio,
        "volume_ratio": row.volume_ratio,
        "volume_surge": row.volume_surge,
    }


def sentiment_snapshot(row: FeatureRow) -> dict[str, Any]:
    """What the news said, as it is stored beside a recommendation."""
    sentiment = row.confident_sentiment_30 or 0.0
    return {
        "v": 1,
        "window_minutes": 30,
        "avg_score": row.confident_sentiment_30,
        "news_count": row.confident_count_30,
        "direction": (sentiment > 0) - (sentiment < 0),
        "positive_count": row.positive_count_30,
        "negative_count": row.negative_count_30,
        "neutral_count": row.neutral_count_30,
    }
