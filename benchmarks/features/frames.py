"""The features in pandas: whole columns at a time, no row by itself."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
from pyarrow import csv

from benchmarks.features.exchange import COLUMNS, TYPES
from ops_pipeline.domain.features import TREND_TOLERANCE, VOLUME_SURGE_RATIO, WINDOWS

Series = pd.Series
Frame = pd.DataFrame
Frames = Mapping[str, pd.DataFrame]

MINUTE = pd.Timedelta(minutes=1)
HOUR_MINUTES = 60
_PLAIN = {"DOUBLE": "float64", "BIGINT": "int64", "BOOLEAN": "str"}
_BY_SESSION = ["ticker", "session_date"]
_COUNTS = (
    "news_count_30",
    "news_count_60",
    "confident_count_30",
    "positive_count_30",
    "negative_count_30",
    "neutral_count_30",
)
_MEANS = (
    "sentiment_30",
    "sentiment_60",
    "sentiment_strength_30",
    "sentiment_strength_60",
    "confident_sentiment_30",
)
_AGES = ("news_age_seconds_30", "news_age_seconds_60")


def load(paths: Mapping[str, Path]) -> dict[str, Frame]:
    """The files of `exchange.read` as frames."""
    return {name: _loaded(path, TYPES[name]) for name, path in paths.items()}


def _loaded(path: Path, types: Mapping[str, str]) -> Frame:
    dtypes: dict[Hashable, Any] = {name: _PLAIN.get(kind, "str") for name, kind in types.items()}
    frame = pd.read_csv(path, dtype=dtypes)
    for name, kind in types.items():
        if kind == "TIMESTAMP":
            frame[name] = pd.to_datetime(frame[name], format="ISO8601")
        if kind == "BOOLEAN":
            frame[name] = frame[name] == "t"
    return frame


def compute(frames: Frames) -> Frame:
    """One row for each ticker and minute with enough bars, in the columns of COLUMNS.

    It looks back in the order of minutes: right as long as no bar came after its own minute's
    cut-off, which the dbt models do not assume.
    """
    bars = _windowed(frames["bars"].sort_values(["ticker", "minute"], ignore_index=True))
    spine = frames["minutes"].merge(frames["tickers"], how="cross").sort_values("minute")
    bars = bars.assign(bar_at=bars["minute"]).rename(columns={"session_date": "bar_date"})
    found = pd.merge_asof(spine, bars.sort_values("minute"), on="minute", by="ticker")
    is_current = found["bar_at"] >= found["oldest_bar_at"]
    found = found[(found["bars_count"] >= WINDOWS["min_bars"]) & is_current]
    scores = _scored(frames["scores"], frames["minutes"])
    return _finished(found.merge(scores, how="left", on=["ticker", "minute"]))


def save(found: Frame, path: Path) -> None:
    """Write rows as `exchange.write` reads them."""
    # pandas' own writer takes several times as long.
    csv.write_csv(pyarrow.Table.from_pandas(found[list(COLUMNS)], preserve_index=False), path)


def _windowed(bars: Frame) -> Frame:
    """What each bar looks back at, itself included; ordered by ticker and minute."""
    ticker = bars["ticker"]
    close, volume = bars["close"], bars["volume"].astype("float64")
    returns = close / bars.groupby(_BY_SESSION, sort=False)["close"].shift() - 1
    told = returns.dropna()
    recent = _rolling(told, ticker, WINDOWS["recent_returns"]).std()
    least = WINDOWS["baseline_min_returns"]
    baseline = _rolling(told, ticker, WINDOWS["baseline_returns"], least).std()
    typical = (bars["high"] + bars["low"] + close) / 3
    session = [bars[name] for name in _BY_SESSION]
    turnover = (typical * volume).groupby(session, sort=False).cumsum()
    traded = volume.groupby(session, sort=False).cumsum()
    bars = bars.assign(
        bars_count=bars.groupby("ticker", sort=False).cumcount() + 1,
        sma20=_flat(_rolling(close, ticker, WINDOWS["sma_short"]).mean()),
        sma50=_flat(_rolling(close, ticker, WINDOWS["sma_long"]).mean()),
        volume_avg_20=_flat(_rolling(volume, ticker, WINDOWS["volume_bars"]).mean()),
        recent_vol=_flat(recent),
        baseline_vol=_flat(baseline),
        session_vwap=turnover / traded.where(traded > 0),
    )
    # The first bar of a session has no return, and the same last ones as the bar before it.
    both = ["recent_vol", "baseline_vol"]
    bars[both] = bars.groupby("ticker", sort=False)[both].ffill()
    return bars


def _rolling(
    values: "Series[Any]", ticker: "Series[Any]", size: int, least: int | None = None
) -> Any:
    return values.groupby(ticker, sort=False).rolling(size, min_periods=least)


def _flat(grouped: Any) -> Any:
    """Values that stand by ticker and row, by row again."""
    return grouped.droplevel(0)


def _scored(scores: Frame, minutes: Frame) -> Frame:
    """One row for each ticker and minute with scored news of the last hour."""
    times = HOUR_MINUTES + 1
    told = scores.loc[scores.index.repeat(times)].reset_index(drop=True)
    # A story is younger than an hour at the ends of the 60 minutes that begin with its own.
    later = pd.to_timedelta(np.tile(np.arange(times), len(scores)), unit="min")
    told["minute"] = told["event_at"].dt.floor("min") + later
    told = told.merge(minutes[["minute", "cutoff"]], on="minute")
    age = (told["minute"] + MINUTE - told["event_at"]).dt.total_seconds()
    is_known = (age <= HOUR_MINUTES * 60) & (told["available_at"] <= told["cutoff"])
    told = told.assign(age=age)[is_known].sort_values(["event_at", "news_id"], ignore_index=True)
    return _aggregated(told)


def _aggregated(told: Frame) -> Frame:
    half, label, score = told["age"] <= HOUR_MINUTES * 30, told["label"], told["score"]
    sure = half & told["is_confident"]
    told = told.assign(
        news_count_60=1,
        news_count_30=half,
        sentiment_60=score,
        sentiment_30=score.where(half),
        sentiment_strength_60=score.abs(),
        sentiment_strength_30=score.abs().where(half),
        news_age_seconds_60=told["age"],
        news_age_seconds_30=told["age"].where(half),
        confident_count_30=sure,
        confident_sentiment_30=score.where(sure),
        positive_count_30=sure & (label == "positive"),
        negative_count_30=sure & (label == "negative"),
        neutral_count_30=sure & (label == "neutral"),
    )
    how: dict[str, Any] = {
        **dict.fromkeys(_COUNTS, "sum"),
        **dict.fromkeys(_MEANS, "mean"),
        **dict.fromkeys(_AGES, "min"),
        "news_id": ",".join,
    }
    return told.groupby(["ticker", "minute"], as_index=False).agg(how)


def _finished(found: Frame) -> Frame:
    close, average = found["close"], found["volume_avg_20"]
    ratio = (found["volume"] / average.where(average != 0)).fillna(0)
    counts = found[list(_COUNTS)].fillna(0).astype("int64")
    baseline = found["baseline_vol"]
    apart = found["sma20"] - found["sma50"]
    return found.assign(
        **{name: counts[name] for name in _COUNTS},
        vol_ratio=found["recent_vol"] / baseline.where(baseline != 0),
        distance_sma20=close / found["sma20"] - 1,
        distance_sma50=close / found["sma50"] - 1,
        trend_state=np.sign(apart.where(apart.abs() > TREND_TOLERANCE * found["sma50"], 0)).astype(
            "int64"
        ),
        volume=found["volume"].astype("int64"),
        volume_ratio=ratio,
        volume_surge=ratio > VOLUME_SURGE_RATIO,
        session_vwap=found["session_vwap"].where(found["bar_date"] == found["session_date"]),
        available_at=found["cutoff"],
        news_ids="{" + found["news_id"].fillna("") + "}",
    )
