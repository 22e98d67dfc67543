from collections.abc import Mapping
from datetime import datetime, timedelta
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.thresholds import WatchlistRules
from ops_pipeline.domain.values import FeatureRow, WatchlistEntry
from ops_pipeline.domain.watchlist import Decision, components, fold, is_due, pick, score
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


def test_score_of_a_ticker_without_news_never_reaches_entry() -> None:
    best = a_feature_row(distance_sma20=0.0, vol_ratio=1.5, trend_state=1)
    assert score(components(best, RULES), RULES) == pytest.approx(0.55)
    assert picked(best)["AAPL"].reason == "out: score"


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


def on_time(*numbers: int) -> dict[datetime, datetime]:
    """The cut-offs of these minutes of the session as they are when nothing is late."""
    return {at(number): at(number + 1) for number in numbers}


def a_decision(number: int, **known: Any) -> Decision:
    """By which AAPL entered in this minute of the session; known at the minute's end."""
    known = {"available_at": at(number + 1), "members": {"AAPL": at(number)}} | known
    return Decision(at(number), **known)


def entries_of(
    cutoffs: Mapping[datetime, datetime],
    scores: Mapping[int, float],
    *decisions: Decision,
    rules: WatchlistRules = STRICT,
) -> list[tuple[str, datetime | None]]:
    """What AAPL comes to in each of these minutes: reason and time of entry."""
    rows = {at(number): [scored(value)] for number, value in scores.items()}
    decided = fold(cutoffs, at(0), rows, decisions, rules)
    return [(entry.reason, entry.entered_at) for (entry,) in decided.values()]


def test_fold_decides_due_minutes_only() -> None:
    decided = fold(on_time(*range(11)), at(0), {}, (), RULES)
    assert list(decided) == [at(0), at(5), at(10)]


def test_fold_keeps_the_minute_of_entry() -> None:
    found = entries_of(on_time(0, 5, 10), {0: 0.7, 5: 0.7, 10: 0.7})
    assert [entered_at for _, entered_at in found] == [at(0)] * 3


def test_fold_goes_on_from_the_newest_decision_that_it_is_given() -> None:
    given = a_decision(0, members={"AAPL": at(0), "MSFT": at(0)}), a_decision(5)
    assert entries_of(on_time(10), {10: 0.4}, *given) == [("in: kept", at(5))]


def test_fold_when_a_member_left_then_it_enters_anew() -> None:
    rules = WatchlistRules(min_size=0, retention_minutes=0)
    found = entries_of(on_time(0, 5, 10), {0: 0.7, 5: 0.2, 10: 0.7}, rules=rules)
    assert [entered_at for _, entered_at in found] == [at(0), None, at(10)]


def test_fold_when_nobody_is_in_then_older_members_are_forgotten() -> None:
    given = a_decision(0), a_decision(5, members={})
    assert entries_of(on_time(10), {10: 0.4}, *given) == [("out: score", None)]


def test_fold_when_no_ticker_has_features_then_the_decision_before_stays_in_force() -> None:
    rows = {at(0): [scored(0.7)], at(10): [scored(0.4)]}
    decided = fold(on_time(0, 5, 10), at(0), rows, (), STRICT)
    assert decided[at(5)] == []
    assert (decided[at(10)][0].reason, decided[at(10)][0].entered_at) == ("in: kept", at(0))


@pytest.mark.parametrize(("late", "reason"), [(0, "in: kept"), (1, "out: score")])
def test_fold_believes_what_was_known_at_the_cutoff(late: int, reason: str) -> None:
    known_at = at(6) + late * timedelta(microseconds=1)
    found = entries_of(on_time(5), {5: 0.4}, a_decision(0, available_at=known_at))
    assert found[0][0] == reason


def test_fold_when_the_newest_decision_came_too_late_then_the_one_before_it_counts() -> None:
    given = a_decision(0), a_decision(4, available_at=at(500)), a_decision(5, available_at=at(500))
    assert entries_of(on_time(10), {10: 0.4}, *given) == [("in: kept", at(0))]


def test_fold_when_a_gap_is_filled_late_then_minutes_decided_before_it_do_not_see_it() -> None:
    cutoffs = {at(0): at(500), at(5): at(500)} | on_time(10, 15)
    found = entries_of(cutoffs, dict.fromkeys((0, 5, 10, 15), 0.7))
    assert [entered_at for _, entered_at in found] == [at(0), at(0), at(10), at(10)]


def test_fold_when_a_minute_is_filled_late_then_it_sees_what_was_decided_before_it() -> None:
    cutoffs = on_time(0) | {at(5): at(500)} | on_time(10)
    found = entries_of(cutoffs, {0: 0.7, 5: 0.4, 10: 0.4})
    assert found == [("in: score", at(0)), ("in: kept", at(0)), ("in: kept", at(0))]


@settings(deadline=None, max_examples=40)
@given(
    delays=st.lists(st.integers(1, 40), min_size=8, max_size=8),
    scores=st.lists(st.sampled_from([0.2, 0.4, 0.7, None]), min_size=8, max_size=8),
)
def test_fold_in_one_piece_equals_fold_minute_by_minute(
    delays: list[int], scores: list[float | None]
) -> None:
    cutoffs = {at(5 * n): at(5 * n + delay) for n, delay in enumerate(delays)}
    rules = WatchlistRules(min_size=0, retention_minutes=0)
    rows = {at(5 * n): [scored(value)] for n, value in enumerate(scores) if value is not None}
    known: list[Decision] = []
    pieces: dict[datetime, list[WatchlistEntry]] = {}
    for minute, cutoff in cutoffs.items():
        pieces |= fold({minute: cutoff}, at(0), rows, known, rules)
        inside = {e.ticker: e.entered_at for e in pieces[minute] if e.entered_at is not None}
        if pieces[minute]:
            known.append(Decision(minute, cutoff, inside))
    assert pieces == fold(cutoffs, at(0), rows, (), rules)
