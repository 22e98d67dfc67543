"""The SQL of the features agrees with pandas, on generated and on recorded days."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ops_pipeline.clients.replay import read_bars, read_news
from ops_pipeline.domain.session import Session
from ops_pipeline.settings import Settings
from ops_pipeline_tests.dbt.pandas_features import Moment, features_of
from ops_pipeline_tests.defs.markets import generated
from ops_pipeline_tests.defs.world import World, open_world

HALF_DAY = date(2025, 11, 28)
TOLERANCE = 1e-9
EXACT = ["bar_at", "trend_state", "volume", "volume_surge", "news_count_30", "news_count_60"]
EXACT += ["confident_count_30", "positive_count_30", "negative_count_30", "neutral_count_30"]
CLOSE = ["close", "sma20", "sma50", "recent_vol", "baseline_vol", "vol_ratio", "distance_sma20"]
CLOSE += ["distance_sma50", "volume_avg_20", "volume_ratio", "session_vwap"]
CLOSE += ["sentiment_30", "sentiment_60", "sentiment_strength_30", "sentiment_strength_60"]
CLOSE += ["news_age_seconds_30", "news_age_seconds_60", "confident_sentiment_30"]
INPUTS = ["news", "bars", "sentiment", "features"]
RECORDED = Path(__file__).resolve().parents[3] / "shared" / "data"
# A third of the minutes is computed again: pandas takes longer for a minute than dbt for all.
EVERY = 3
US7, US9 = "bars_us7_2025_02", "bars_us9_2026_03"


def recorded_data(test: Callable[..., None]) -> Callable[..., None]:
    """Marks of a test of recorded days."""
    return pytest.mark.slow(pytest.mark.recorded(test))


@dataclass(frozen=True)
class Compared:
    """One played day: what dbt stored and what pandas finds, row by row."""

    session: Session
    everything: pd.DataFrame
    stored: pd.DataFrame
    expected: pd.DataFrame


def compare(world: World, session: Session, *, every: int = 1) -> Compared:
    """Play the inputs and the features of one session, and compute each so many minutes again."""
    first, *_, last = session.minutes()
    world.stages(first, last, INPUTS)
    bars = world.table("select *, session_date as day from bars_1m")
    scores = world.table(
        """
        select ticker, event_at, label, probability, score,
            greatest(item.available_at, link.available_at, scored.available_at) as available_at
        from news_items as item
        join news_tickers as link using (news_id)
        join news_sentiments as scored using (text_hash)"""
    )
    moments = [
        _moment(world, session, number) for number in range(0, len(session.minutes()), every)
    ]
    tickers = [row["ticker"] for row in world.rows("select ticker from universe order by 1")]
    expected = features_of(bars, scores, moments, tickers)
    everything = world.table("select * from features.features_1m")
    stored = everything[everything["minute"].isin([moment.minute for moment in moments])]
    tables = everything, stored, expected
    return Compared(session, *(t.set_index(["ticker", "minute"]).sort_index() for t in tables))


def _moment(world: World, session: Session, number: int) -> Moment:
    """The minute of a session with this number; its bounds are counted and not calculated."""
    earlier = world.calendar.between(session.day - timedelta(days=14), session.day)[-5:]
    trading = [minute for each in earlier for minute in each.minutes()]
    position = trading.index(session.opens_at) + number
    minute = trading[position]
    times = (
        session.opens_at,
        world.pipeline.timing.as_of(minute),
        earlier[0].opens_at,
        trading[position - 30],
    )
    return Moment(pd.Timestamp(minute), session.day, *map(pd.Timestamp, times))


@pytest.fixture(scope="module")
def half_day(template: Settings) -> Compared:
    with open_world(template) as world:
        world.open_market(*generated(HALF_DAY))
        return compare(world, world.session(HALF_DAY), every=EVERY)


@pytest.fixture(
    scope="module",
    params=[(US7, date(2025, 2, 12)), (US7, date(2025, 2, 27)), (US9, date(2026, 3, 20))],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def recorded_day(template: Settings, request: pytest.FixtureRequest) -> tuple[str, Compared]:
    if not RECORDED.is_dir():
        pytest.skip("no recorded data")
    name, day = request.param
    news = RECORDED / "news_yahoo_2026_03" / "headlines.jsonl"
    with open_world(template) as world:
        table = read_bars(RECORDED / name / "bars_1m.csv.gz")
        world.open_market(table, read_news(news) if name == US9 else [])
        return name, compare(world, world.session(day), every=EVERY)


def differences(compared: Compared) -> pd.Series:
    """The largest difference of each number, relative to its size."""
    found = {}
    for name in CLOSE:
        stored = compared.stored[name].to_numpy("float64", na_value=np.nan)
        expected = compared.expected[name].to_numpy("float64", na_value=np.nan)
        assert (np.isnan(stored) == np.isnan(expected)).all(), name
        size = np.maximum(np.abs(expected), 1.0)
        # Ratios and volatilities are far below 1: theirs is measured against themselves.
        if name in ("recent_vol", "baseline_vol"):
            size = np.abs(expected)
        found[name] = np.nanmax(np.append(np.abs(stored - expected) / size, 0.0))
    return pd.Series(found)


def unequal(compared: Compared) -> list[str]:
    """The whole numbers, flags and times that are not the same in every row."""
    return [n for n in EXACT if (compared.stored[n] != compared.expected[n]).any()]


def test_a_generated_half_day_has_the_rows_that_pandas_finds(half_day: Compared) -> None:
    assert half_day.stored.index.equals(half_day.expected.index)
    assert len(half_day.everything) == 7 * 210


def test_numbers_of_a_generated_half_day_agree_with_pandas(half_day: Compared) -> None:
    found = differences(half_day)
    assert found.max() <= TOLERANCE, found[found > TOLERANCE]


def test_counts_flags_and_times_of_a_generated_half_day_equal_those_of_pandas(
    half_day: Compared,
) -> None:
    assert unequal(half_day) == []
    assert half_day.stored["news_count_60"].sum() > 0
    assert half_day.stored["volume_surge"].any()
    assert set(half_day.stored["trend_state"]) == {-1, 1}


@recorded_data
def test_a_recorded_day_has_the_rows_that_pandas_finds(recorded_day: tuple[str, Compared]) -> None:
    _, compared = recorded_day
    assert compared.stored.index.equals(compared.expected.index)
    assert len(compared.everything) == compared.expected.index.levels[0].size * 390


@recorded_data
def test_numbers_of_a_recorded_day_agree_with_pandas(recorded_day: tuple[str, Compared]) -> None:
    found = differences(recorded_day[1])
    assert found.max() <= TOLERANCE, found[found > TOLERANCE]


@recorded_data
def test_counts_flags_and_times_of_a_recorded_day_equal_those_of_pandas(
    recorded_day: tuple[str, Compared],
) -> None:
    assert unequal(recorded_day[1]) == []
    if recorded_day[0] == US9:
        assert recorded_day[1].stored["news_count_60"].sum() > 0


@recorded_data
def test_last_minute_has_the_known_close_and_session_vwap(
    recorded_day: tuple[str, Compared],
) -> None:
    name, compared = recorded_day
    facts = pd.read_csv(RECORDED / name / "facts_sessions.csv", parse_dates=["last"])
    facts = facts[facts["day"] == str(compared.session.day)].set_index("ticker").sort_index()
    last = compared.everything.xs(compared.session.minutes()[-1], level="minute")
    assert list(last.index) == list(facts.index)
    assert (last["close"] == facts["close"]).all()
    assert (last["session_vwap"].astype("float64").round(6) - facts["vwap_hlc3"]).abs().max() < 2e-6


@recorded_data
def test_recorded_month_has_every_regular_minute_but_the_known_missing_one(
    world: World, recorded: Path
) -> None:
    world.open_market(read_bars(recorded / US7 / "bars_1m.csv.gz"))
    days = pd.read_csv(recorded / US7 / "sessions.csv")
    sessions = world.calendar.between(date(2025, 2, 3), date(2025, 2, 28))
    world.stages(sessions[0].minutes()[0], sessions[-1].minutes()[-1], ["bars"])
    found = world.table(
        "select ticker, session_date::text as day, count(*) from bars_1m group by 1, 2"
    ).set_index(["ticker", "day"])["count"]
    expected = days.set_index(["ticker", "day"])["regular"]
    assert found.sort_index().to_dict() == expected.sort_index().to_dict()
    assert found[found != 390].to_dict() == {("META", "2025-02-18"): 389}
