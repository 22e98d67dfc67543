"""The features agree with published numbers, on the quotes that these were published for.

The sheets of Stock.Indicators were worked out by others, in a spreadsheet. Where they speak of
days, each day is a minute here: the formulas count bars.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ops_pipeline.domain.features import WINDOWS
from ops_pipeline_tests.defs.world import World

pytestmark = pytest.mark.recorded

DAY = date(2020, 12, 15)
INPUTS = ["news", "bars", "sentiment", "features"]
PRICES = ["open", "high", "low", "close"]
DAILY = 502
WARM = WINDOWS["min_bars"] - 1
# Sums may differ by their order of adding: 1e-15 is what is seen.
TOLERANCE = 1e-12
# A return is a difference from 1, known to 1e-16; of a deviation of 2e-6 that may be 1e-10.
RETURN_TOLERANCE = 1e-9
SCALE = 1e-5


def sheet(recorded: Path, name: str) -> pd.DataFrame:
    """A published sheet."""
    return pd.read_csv(recorded / "ta_stock_indicators" / f"{name}.csv")


def two_sessions(world: World) -> list[datetime]:
    """The minutes of DAY and of the session before."""
    return world.calendar.before(DAY).minutes() + world.session(DAY).minutes()


def bars(quotes: pd.DataFrame, minutes: Sequence[datetime]) -> pd.DataFrame:
    """Quotes as the bars of SPY in these minutes."""
    table = quotes[[*PRICES, "volume"]].assign(ticker="SPY", minute=pd.DatetimeIndex(minutes))
    return table[["ticker", "minute", *PRICES, "volume"]]


def features(world: World, market: pd.DataFrame, minutes: Sequence[datetime]) -> pd.DataFrame:
    """What the pipeline makes of the market in these minutes, by minute."""
    world.open_market(market)
    world.stages(minutes[0], minutes[-1], INPUTS)
    return world.table("select * from features.features_1m").set_index("minute").sort_index()


def difference(found: pd.Series, published: pd.Series, rows: int) -> float:
    """The largest relative difference; an error unless there are so many rows with numbers."""
    ours, theirs = (side.to_numpy("float64") for side in (found, published))
    assert len(ours) == len(theirs) == rows
    assert np.isfinite(ours).all()
    assert np.isfinite(theirs).all()
    return float(np.abs(ours / theirs - 1).max())


def test_means_of_20_closes_and_volumes_are_the_published_ones(
    world: World, recorded: Path
) -> None:
    prices, volumes = sheet(recorded, "sma20_daily"), sheet(recorded, "sma20_volume_daily")
    assert prices[[*PRICES, "volume"]].equals(volumes[[*PRICES, "volume"]])
    minutes = two_sessions(world)[:DAILY]
    found = features(world, bars(prices, minutes), minutes)
    # Nineteen of the windows reach across the night.
    assert list(found.index) == minutes[WARM:]
    assert (found["close"].to_numpy() == prices["close"][WARM:].to_numpy()).all()
    assert difference(found["sma20"], prices["SMA"][WARM:], 453) <= TOLERANCE
    assert difference(found["volume_avg_20"], volumes["sma"][WARM:], 453) <= TOLERANCE


def test_session_vwap_is_the_published_one(world: World, recorded: Path) -> None:
    quotes = sheet(recorded, "vwap_session_1min_spy_2020-12-15")
    session = world.session(DAY)
    clock = [f"{m.astimezone(world.calendar.zone):%F %T}" for m in session.minutes()]
    # The last of the 391 rows stands at 16:00, where our session is over.
    assert list(quotes["date"]) == [*clock, f"{DAY} 16:00:00"]
    evening = world.calendar.before(DAY).minutes()[-WARM:]
    warm = bars(quotes.tail(WARM), evening)
    market = pd.concat([warm, bars(quotes, [*session.minutes(), session.closes_at])])
    found = features(world, market, session.minutes())
    assert list(found.index) == session.minutes()
    assert difference(found["session_vwap"], quotes["VWAP"][:390], 390) <= TOLERANCE


def path_of(returns: Iterable[float], minutes: Sequence[datetime]) -> pd.DataFrame:
    """Bars whose one-minute returns are these, with a leap of a tenth at each later open."""
    steps, price, closes = iter(returns), 100.0, []
    for number, minute in enumerate(minutes):
        follows = number and minutes[number - 1].date() == minute.date()
        price *= 1 + next(steps) if follows else 1.1
        closes.append(price)
    assert next(steps, None) is None
    return pd.DataFrame({**dict.fromkeys(PRICES, closes), "volume": 1_000})


def test_deviation_of_10_returns_is_the_published_one_of_10_closes(
    world: World, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = 10
    monkeypatch.setitem(WINDOWS, "recent_returns", window)
    published = sheet(recorded, "stddev10_daily")
    # The first bar of each session has no return.
    minutes = two_sessions(world)[: DAILY + 2]
    market = bars(path_of(published["close"] * SCALE, minutes), minutes)
    found = features(world, market, minutes)
    assert list(found.index) == minutes[WARM:]
    found = found.drop(world.session(DAY).opens_at)
    # Ours is that of a sample, theirs that of a population.
    ours = found["recent_vol"] * np.sqrt((window - 1) / window) / SCALE
    assert difference(ours, published["stddev"][WARM - 1 :], 454) <= RETURN_TOLERANCE
