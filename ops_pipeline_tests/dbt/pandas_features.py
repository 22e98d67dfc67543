"""The features once more, in pandas, from their definitions and not from the SQL."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

MINUTE = pd.Timedelta(minutes=1)
LOOK_BACK = 180
TREND_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Moment:
    """One minute that is decided, the session that it belongs to, and what it may know."""

    minute: pd.Timestamp
    day: date
    opens_at: pd.Timestamp
    cutoff: pd.Timestamp
    window_starts_at: pd.Timestamp
    oldest_bar_at: pd.Timestamp

    @property
    def ends_at(self) -> pd.Timestamp:
        return self.minute + MINUTE


def features_of(
    bars: pd.DataFrame, scores: pd.DataFrame, moments: list[Moment], tickers: list[str]
) -> pd.DataFrame:
    """One row for each ticker and moment with at least 50 bars, the newest of them current.

    Args:
        bars: ticker, minute, day, high, low, close, volume, available_at.
        scores: ticker, event_at, available_at, score, label, probability; one row for each story.
        moments: the minutes.
        tickers: the universe.
    """
    rows = []
    for ticker in tickers:
        own = bars[bars["ticker"] == ticker].sort_values("minute", ignore_index=True)
        told = scores[scores["ticker"] == ticker] if len(scores) else scores
        for moment in moments:
            is_known = (own["minute"] <= moment.minute) & (own["available_at"] <= moment.cutoff)
            since_open = (moment.ends_at - moment.opens_at) // MINUTE
            is_known &= own["minute"] >= moment.window_starts_at
            seen = own[is_known].tail(max(LOOK_BACK, since_open))
            if len(seen) >= 50 and seen["minute"].iloc[-1] >= moment.oldest_bar_at:
                row = {"ticker": ticker, "minute": moment.minute}
                rows.append(row | _bar_features(seen, moment) | _news_features(told, moment))
    return pd.DataFrame(rows)


def _bar_features(seen: pd.DataFrame, moment: Moment) -> dict[str, object]:
    close, volume = seen["close"], seen["volume"].astype("float64")
    same_day = seen["day"] == seen["day"].shift()
    returns = close.pct_change().where(same_day).dropna()
    recent = returns.tail(29).std(ddof=1) if len(returns) >= 29 else np.nan
    baseline = returns.tail(119).std(ddof=1) if len(returns) >= 49 else np.nan
    sma20, sma50 = close.tail(20).mean(), close.tail(50).mean()
    average = volume.tail(20).mean()
    ratio = volume.iloc[-1] / average if average else 0.0
    today = seen[seen["day"] == moment.day]
    typical = (today["high"] + today["low"] + today["close"]) / 3
    traded = today["volume"].sum()
    return {
        "bar_at": seen["minute"].iloc[-1],
        "close": close.iloc[-1],
        "sma20": sma20,
        "sma50": sma50,
        "recent_vol": recent,
        "baseline_vol": baseline,
        "vol_ratio": recent / baseline if baseline else np.nan,
        "distance_sma20": (close.iloc[-1] - sma20) / sma20,
        "distance_sma50": (close.iloc[-1] - sma50) / sma50,
        "trend_state": _trend(sma20, sma50),
        "volume": int(seen["volume"].iloc[-1]),
        "volume_avg_20": average,
        "volume_ratio": ratio,
        "volume_surge": bool(ratio > 2),
        "session_vwap": (typical * today["volume"]).sum() / traded if traded else np.nan,
    }


def _trend(sma20: float, sma50: float) -> int:
    apart = sma20 - sma50
    return int(np.sign(apart)) if abs(apart) > TREND_TOLERANCE * sma50 else 0


def _news_features(told: pd.DataFrame, moment: Moment) -> dict[str, object]:
    hour = _recent(told, moment, 60)
    half = _recent(hour, moment, 30)
    sure = half[half["probability"] >= 0.65] if len(half) else half
    labels = list(sure["label"]) if len(sure) else []
    return {
        **_window(hour, moment, 60),
        **_window(half, moment, 30),
        "confident_count_30": len(sure),
        "confident_sentiment_30": sure["score"].mean() if len(sure) else np.nan,
        "positive_count_30": labels.count("positive"),
        "negative_count_30": labels.count("negative"),
        "neutral_count_30": labels.count("neutral"),
    }


def _window(recent: pd.DataFrame, moment: Moment, minutes: int) -> dict[str, object]:
    values = {"sentiment": np.nan, "sentiment_strength": np.nan, "news_age_seconds": np.nan}
    if len(recent):
        age = moment.ends_at - recent["event_at"].max()
        values = {
            "sentiment": recent["score"].mean(),
            "sentiment_strength": recent["score"].abs().mean(),
            "news_age_seconds": age / timedelta(seconds=1),
        }
    named = {f"{name}_{minutes}": value for name, value in values.items()}
    return {f"news_count_{minutes}": len(recent), **named}


def _recent(told: pd.DataFrame, moment: Moment, minutes: int) -> pd.DataFrame:
    if not len(told):
        return told
    since = moment.ends_at - pd.Timedelta(minutes=minutes)
    happened = (told["event_at"] >= since) & (told["event_at"] < moment.ends_at)
    return told[happened & (told["available_at"] <= moment.cutoff)]
