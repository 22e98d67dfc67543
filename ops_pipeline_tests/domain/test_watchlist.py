from collections.abc import Mapping
from datetime import datetime
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.thresholds import WatchlistRules
from ops_pipeline.domain.values import FeatureRow, WatchlistEntry
from ops_pipeline.domain.watchlist import components, fold, is_due, pick, score
from ops_pipeline_tests.builders import NOON, a_feature_row, at

RULES = WatchlistRules()
STRICT = WatchlistRules(min_size=0)
SINCE = NOON - 29 * MINUTE
LONG_SINCE = NOON - 30 * MINUTE

# distance, vol_ratio, trend, news count, sentiment, age in seconds, score
PARITY = [
    (0.002, 1.0, 1, 0, None, None, 0.3750),
    (0.002, 1.0, 1, 3, 0.8, 600.0, 0.7363),
    (0.012, 1.6, -1, 5, 0.9, 0.0, 0.4625),
    (0.0, 1.5, 1, 5, 1.0, 0.0, 0.9300),
]


def scored(wanted: float, ticker: str = "AAPL", **changes: Any) -> FeatureRow:
    """A row of an exact score between 0.1 and 0.95, by its setup, its volatility and its news."""
    rest = wanted - 0.1
    setup = min(rest, 0.25)
    vol = min(rest - setup, 0.2)
    strength = (rest - setup - vol) / 0.35 / 0.5
    row = a_feature_row(
        ticker=ticker,
        distance_sma20=0.01 * (1 - setup / 0.25),
        vol_ratio=0.7 + 0.8 * vol / 0.2,
        trend_state=0,
        sentiment_60=min(strength, 1.0),
        news_count_60=0,
        **changes,
    )
    if strength > 1:
        row = a_feature_row(
            **{**row.__dict__, "news_count_60": round((strength - 1) * 0.5 / 0.3 * 5)}
        )
    assert score(components(row, RULES), RULES) == pytest.approx(wanted, abs=0.011)
    return row


def picked(
    *rows: FeatureRow,
    members: Mapping[str, datetime] | None = None,
    rules: WatchlistRules = STRICT,
) -> dict[str, WatchlistEntry]:
    return {entry.ticker: entry for entry in pick(rows, members or {}, NOON, rules)}


@pytest.mark.parametrize(
    ("distance", "vol_ratio", "trend", "count", "sentiment", "age", "expected"), PARITY
)
def test_score_agrees_with_the_parity_vector(
    distance: float,
    vol_ratio: float,
    trend: int,
    count: int,
    sentiment: float | None,
    age: float | None,
    expected: float,
) -> None:
    row = a_feature_row(
        distance_sma20=distance,
        vol_ratio=vol_ratio,
        trend_state=trend,
        news_count_60=count,
        sentiment_60=sentiment,
        news_age_seconds_60=age,
    )
    assert round(score(components(row, RULES), RULES), 4) == expected


@pytest.mark.parametrize(
    ("trend", "sentiment", "alignment"),
    [
        (1, 0.06, 1.0),
        (1, -0.06, 0.0),
        (-1, -0.06, 1.0),
        (-1, 0.06, 0.0),
        (1, 0.05, 0.5),
        (-1, -0.05, 0.5),
        (0, 0.9, 0.5),
        (None, 0.9, 0.5),
        (1, None, 0.5),
    ],
)
def test_trend_alignment_compares_trend_with_signed_sentiment(
    trend: int | None, sentiment: float | None, alignment: float
) -> None:
    row = a_feature_row(trend_state=trend, sentiment_60=sentiment)
    assert components(row, RULES)["trend_alignment"] == alignment


def test_sentiment_pressure_when_news_are_bad_then_counts_as_much_as_good() -> None:
    good = components(a_feature_row(sentiment_60=0.8, news_count_60=3), RULES)
    bad = components(a_feature_row(sentiment_60=-0.8, news_count_60=3), RULES)
    assert good["sentiment_pressure"] == bad["sentiment_pressure"]


@pytest.mark.parametrize("distance", [None, nan])
def test_setup_quality_when_distance_is_unknown_then_nothing(distance: float | None) -> None:
    assert components(a_feature_row(distance_sma20=distance), RULES)["setup_quality"] == 0.0


numbers = st.sampled_from([None, nan, inf, -inf]) | st.floats(-2, 2)


@settings(deadline=None, max_examples=40)
@given(distance=numbers, vol_ratio=numbers, sentiment=numbers, age=numbers)
def test_components_never_leave_the_unit_interval(
    distance: float | None, vol_ratio: float | None, sentiment: float | None, age: float | None
) -> None:
    row = a_feature_row(
        distance_sma20=distance,
        vol_ratio=vol_ratio,
        sentiment_60=sentiment,
        news_age_seconds_60=age,
        news_count_60=3,
    )
    assert all(0.0 <= part <= 1.0 for part in components(row, RULES).values())


@pytest.mark.parametrize(
    ("wanted", "entered_at", "reason"),
    [
        (0.61, None, "in: score"),
        (0.59, None, "out: score"),
        (0.59, LONG_SINCE, "in: kept"),
        (0.31, LONG_SINCE, "in: kept"),
        (0.29, SINCE, "in: retained"),
        (0.29, LONG_SINCE, "out: score"),
    ],
)
def test_pick_has_hysteresis(wanted: float, entered_at: datetime | None, reason: str) -> None:
    members = {"AAPL": entered_at} if entered_at else {}
    assert picked(scored(wanted), members=members)["AAPL"].reason == reason


def exactly(total: float) -> WatchlistRules:
    """Rules by which a calm row without news has exactly this score."""
    weights = {"sentiment_weight": 0, "setup_weight": total, "volatility_weight": 0}
    return WatchlistRules(min_size=0, trend_weight=0, **weights)


@pytest.mark.parametrize(
    ("total", "entered_at", "reason"),
    [(0.6, None, "in: score"), (0.3, LONG_SINCE, "in: kept")],
)
def test_pick_when_the_score_is_on_the_bound_then_in(
    total: float, entered_at: datetime | None, reason: str
) -> None:
    members = {"AAPL": entered_at} if entered_at else {}
    row = a_feature_row(distance_sma20=0.0)
    assert picked(row, members=members, rules=exactly(total))["AAPL"].reason == reason


@pytest.mark.parametrize(
    ("wanted", "entered_at"), [(0.7, LONG_SINCE), (0.4, LONG_SINCE), (0.2, SINCE)]
)
def test_pick_when_a_member_stays_then_keeps_entered_at(
    wanted: float, entered_at: datetime
) -> None:
    entry = picked(scored(wanted), members={"AAPL": entered_at})["AAPL"]
    assert entry.entered_at == entered_at


def test_pick_when_a_ticker_enters_then_it_entered_now() -> None:
    assert picked(scored(0.7))["AAPL"].entered_at == NOON


def test_pick_when_a_ticker_is_out_then_it_has_not_entered() -> None:
    entry = picked(scored(0.2), members={"AAPL": LONG_SINCE})["AAPL"]
    assert (entry.in_watchlist, entry.entered_at) == (False, None)


def test_pick_when_a_members_features_vanish_then_it_is_out() -> None:
    found = picked(scored(0.7, "MSFT"), members={"AAPL": NOON})
    assert set(found) == {"MSFT"}


def test_pick_ranks_best_first_and_ties_by_ticker() -> None:
    rows = [scored(0.3, "MSFT"), scored(0.7, "TSLA"), scored(0.3, "AAPL")]
    found = pick(rows, {}, NOON, STRICT)
    assert [(e.ticker, e.rank) for e in found] == [("TSLA", 1), ("AAPL", 2), ("MSFT", 3)]


def test_pick_does_not_depend_on_the_order_of_rows() -> None:
    rows = [scored(0.3, "MSFT"), scored(0.7, "TSLA"), scored(0.3, "AAPL")]
    assert pick(rows, {}, NOON, RULES) == pick(rows[::-1], {}, NOON, RULES)


def test_pick_when_fewer_than_min_size_are_in_then_fills_up_with_the_next_best() -> None:
    rows = [scored(0.5, "MSFT"), scored(0.7, "TSLA"), scored(0.4, "AAPL"), scored(0.2, "AMZN")]
    found = picked(*rows, rules=WatchlistRules(min_size=3))
    assert {ticker: entry.reason for ticker, entry in found.items()} == {
        "TSLA": "in: score",
        "MSFT": "in: filled up",
        "AAPL": "in: filled up",
        "AMZN": "out: score",
    }


def test_pick_when_there_are_fewer_rows_than_min_size_then_all_are_in() -> None:
    found = picked(scored(0.2, "MSFT"), scored(0.3, "TSLA"), rules=RULES)
    assert all(entry.in_watchlist for entry in found.values())


def test_pick_when_more_than_max_size_qualify_then_the_best_are_in() -> None:
    rows = [scored(0.7, "MSFT"), scored(0.8, "TSLA"), scored(0.75, "AAPL")]
    found = picked(*rows, rules=WatchlistRules(min_size=0, max_size=2))
    assert {ticker: entry.reason for ticker, entry in found.items()} == {
        "TSLA": "in: score",
        "AAPL": "in: score",
        "MSFT": "out: full",
    }


def test_pick_when_min_size_is_above_max_size_then_max_size_holds() -> None:
    rows = [scored(0.2, ticker) for ticker in ("AAPL", "AMZN", "MSFT")]
    found = picked(*rows, rules=WatchlistRules(min_size=7, max_size=2))
    assert sum(entry.in_watchlist for entry in found.values()) == 2


def test_pick_when_there_are_no_rows_then_decides_nothing() -> None:
    assert pick([], {"AAPL": NOON}, NOON, RULES) == []


@pytest.mark.parametrize(
    ("minute", "due"), [(0, True), (1, False), (4, False), (5, True), (385, True), (389, False)]
)
def test_is_due_in_the_first_minute_and_each_fifth(minute: int, due: bool) -> None:  # noqa: FBT001
    assert is_due(at(minute), at(0)) is due


def test_fold_decides_due_minutes_only() -> None:
    minutes = [at(number) for number in range(11)]
    decisions = fold(minutes, at(0), {}, {}, RULES)
    assert list(decisions) == [at(0), at(5), at(10)]


def test_fold_keeps_the_minute_of_entry() -> None:
    minutes = [at(number) for number in range(11)]
    rows = {minute: [scored(0.7)] for minute in minutes}
    decisions = fold(minutes, at(0), rows, {}, STRICT)
    assert [decisions[at(n)][0].entered_at for n in (0, 5, 10)] == [at(0)] * 3


def test_fold_goes_on_from_the_members_it_is_given() -> None:
    decisions = fold([at(5)], at(0), {at(5): [scored(0.4)]}, {"AAPL": at(0)}, STRICT)
    assert decisions[at(5)][0].reason == "in: kept"


def test_fold_when_a_member_left_then_it_enters_anew() -> None:
    scores = {0: 0.7, 5: 0.2, 10: 0.7}
    rows = {at(n): [scored(value)] for n, value in scores.items()}
    rules = WatchlistRules(min_size=0, retention_minutes=0)
    decisions = fold([at(n) for n in scores], at(0), rows, {}, rules)
    assert [decisions[at(n)][0].entered_at for n in scores] == [at(0), None, at(10)]


def test_fold_when_features_vanish_for_one_decision_then_it_enters_anew() -> None:
    rows = {at(0): [scored(0.7)], at(10): [scored(0.7)]}
    decisions = fold([at(0), at(5), at(10)], at(0), rows, {}, STRICT)
    assert decisions[at(5)] == []
    assert decisions[at(10)][0].entered_at == at(10)
