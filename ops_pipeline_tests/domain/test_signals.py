from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.signals import (
    Actionable,
    cool_down,
    decide,
    features_snapshot,
    fold,
    sentiment_snapshot,
    volume_multiplier,
)
from ops_pipeline.domain.thresholds import DispatcherConfig, SignalRules
from ops_pipeline.domain.values import FeatureRow, Signal
from ops_pipeline.domain.watchlist import Decision
from ops_pipeline_tests.builders import NOON, a_feature_row

RULES = SignalRules()
BULL, BEAR = "BULL_ENTRY", "BEAR_ENTRY"
LOW, DEAD, NONE = "CONFIDENCE_TOO_LOW", "VOLUME_TOO_LOW", "NO_SETUP"
BOUGHT = Signal("AAPL", NOON, "BUY", BULL, 0.8, {"rule": BULL})
HELD = Signal("AAPL", NOON, "HOLD", NONE, 0.0, {"rule": NONE})

# Distance to the 20-bar mean, trend, ratio of volatility, ratio of volume, sentiment with its
# count, and the decision: action, confidence, rule.
PARITY = [
    (0.002, 1, 1.0, 1.6, (None, 0), "BUY", 0.4875, BULL),
    (0.002, 1, 1.0, 2.5, (None, 0), "BUY", 0.5606, BULL),
    (0.002, 1, 1.0, 2.5, (0.8, 5), "BUY", 0.6727, BULL),
    (0.002, 1, 1.0, 2.5, (-0.8, 5), "BUY", 0.4709, BULL),
    (0.012, 1, 1.0, 1.6, (None, 0), "BUY", 0.8500, BULL),
    (0.012, 1, 1.0, 2.5, (None, 0), "BUY", 0.9775, BULL),
    (0.012, 1, 1.6, 2.5, (None, 0), "BUY", 0.8625, BULL),
    (-0.012, -1, 1.0, 3.2, (-0.9, 3), "SELL", 1.0000, BEAR),
    (0.002, -1, 1.0, 3.0, (None, 0), "SELL", 0.6094, BEAR),
    (-0.002, -1, 1.5, 2.5, (None, 0), "SELL", 0.5031, BEAR),
    (0.002, 0, 1.0, 2.5, (None, 0), "BUY", 0.4600, BULL),
    (0.012, 1, 1.5, 6.0, (0.95, 6), "BUY", 1.0000, BULL),
    (0.002, 1, 1.0, 1.0, (None, 0), "HOLD", 0.1462, LOW),
    (0.002, 1, 0.7, 1.3, (None, 0), "HOLD", 0.2745, LOW),
    (0.002, 1, 1.0, None, (None, 0), "HOLD", 0.2437, LOW),
    (0.002, 1, 1.0, 0.4, (None, 0), "HOLD", 0.0, DEAD),
    (0.025, 1, 1.0, 3.0, (None, 0), "HOLD", 0.0, NONE),
    (-0.007, 1, 1.0, 3.0, (None, 0), "HOLD", 0.0, NONE),
]
NEEDED = ["close", "sma20", "sma50", "distance_sma20", "trend_state", "vol_ratio"]


def a_row(minute: int = 0, **changes: Any) -> FeatureRow:
    """A feature row so many minutes after noon."""
    at = NOON + minute * MINUTE
    return a_feature_row(minute=at, bar_at=at, **changes)


LATER = NOON + timedelta(days=3)


def on_time(*minutes: datetime) -> dict[datetime, datetime]:
    """The cut-offs of these minutes as they are when nothing is late."""
    return {minute: minute + MINUTE for minute in minutes}


def watching(
    *tickers: str, minute: datetime = NOON, available_at: datetime | None = None
) -> Decision:
    """By which these tickers are watched from a minute on; known at the minute's end."""
    return Decision(minute, available_at or minute + MINUTE, dict.fromkeys(tickers, minute))


def recommended(
    *minutes_ago: int, available_at: datetime | None = None
) -> dict[str, list[Actionable]]:
    """AAPL so many minutes before noon; known at the end of each of these minutes."""
    minutes = [NOON - number * MINUTE for number in minutes_ago]
    return {"AAPL": [Actionable(m, available_at or m + MINUTE) for m in minutes]}


def rules_of(
    cutoffs: dict[datetime, datetime],
    decisions: Sequence[Decision],
    actionable: dict[str, list[Actionable]] | None = None,
) -> list[str]:
    """What the rules say of AAPL in each of these minutes, whose rows are all clear setups."""
    rows = {minute: [a_feature_row(minute=minute)] for minute in cutoffs}
    decided = fold(cutoffs, rows, decisions, actionable or {}, RULES)
    return [decided[minute][0].rule if decided[minute] else "" for minute in cutoffs]


@pytest.mark.parametrize(
    ("distance", "trend", "vol_ratio", "volume", "sentiment", "action", "confidence", "rule"),
    PARITY,
)
def test_decide_agrees_with_the_parity_vector(
    distance: float,
    trend: int,
    vol_ratio: float,
    volume: float | None,
    sentiment: tuple[float | None, int],
    action: str,
    confidence: float,
    rule: str,
) -> None:
    row = a_feature_row(
        distance_sma20=distance,
        trend_state=trend,
        vol_ratio=vol_ratio,
        volume_ratio=volume,
        confident_sentiment_30=sentiment[0],
        confident_count_30=sentiment[1],
    )
    signal = decide(row, RULES)
    assert (signal.action, signal.rule) == (action, rule)
    # The vectors are rounded to 4 decimals; a half may have gone either way.
    assert signal.confidence == pytest.approx(confidence, abs=5.001e-5)


@pytest.mark.parametrize(
    ("volume", "sentiment", "confidence"),
    [(500.0, None, 0.675), (1.99, 1.0, 0.625), (2.0, 1.0, 0.71875)],
)
def test_decide_when_nothing_breaks_out_then_only_volume_and_news_together_reach_the_gate(
    volume: float, sentiment: float | None, confidence: float
) -> None:
    row = a_feature_row(
        distance_sma20=0.0,
        volume_ratio=volume,
        confident_sentiment_30=sentiment,
        confident_count_30=5,
    )
    found = decide(row, RULES).confidence
    assert found == pytest.approx(confidence)
    assert (found >= DispatcherConfig().confidence_min) is (volume >= 2 and sentiment is not None)


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("value", [None, nan, inf, -inf])
def test_decide_when_a_needed_feature_is_unknown_then_holds(name: str, value: float | None) -> None:
    signal = decide(a_feature_row(**{name: value}), RULES)
    assert (signal.action, signal.rule, signal.confidence) == ("HOLD", "NO_FEATURES", 0.0)


@pytest.mark.parametrize("volume_ratio", [nan, inf, None])
def test_volume_multiplier_when_volume_is_unknown_then_half(volume_ratio: float | None) -> None:
    assert volume_multiplier(volume_ratio, RULES) == 0.5


@pytest.mark.parametrize(
    ("volume_ratio", "multiplier"),
    [
        (0.0, 0.0),
        (0.49, 0.0),
        (0.5, 0.3),
        (1.19, 0.3),
        (1.2, 0.6),
        (1.49, 0.6),
        (1.5, 1.0),
        (1.99, 1.0),
        (2.0, 1.15),
        (2.99, 1.15),
        (3.0, 1.25),
        (4.99, 1.25),
        (5.0, 1.35),
        (500.0, 1.35),
    ],
)
def test_volume_multiplier_changes_at_its_steps(volume_ratio: float, multiplier: float) -> None:
    assert volume_multiplier(volume_ratio, RULES) == multiplier


@pytest.mark.parametrize("sentiment", [nan, inf, -inf, None, 0.0])
def test_decide_when_sentiment_is_unknown_or_flat_then_does_not_scale(
    sentiment: float | None,
) -> None:
    row = a_feature_row(confident_sentiment_30=sentiment, confident_count_30=5)
    assert decide(row, RULES).confidence == decide(a_feature_row(), RULES).confidence


def test_decide_when_no_news_is_confident_then_sentiment_does_not_scale() -> None:
    row = a_feature_row(confident_sentiment_30=0.9, confident_count_30=0)
    assert decide(row, RULES).confidence == decide(a_feature_row(), RULES).confidence


@pytest.mark.parametrize(
    ("distance", "trend", "rule"),
    [
        (-0.005, 1, BULL),
        (-0.0051, 1, NONE),
        (-0.005, 0, BULL),
        (-0.0051, 0, BEAR),
        (0.005, -1, BEAR),
        (0.0051, -1, NONE),
        (0.0199, 1, BULL),
        (0.02, 1, NONE),
        (-0.02, -1, NONE),
    ],
)
def test_decide_finds_the_setup_up_to_its_bounds(distance: float, trend: int, rule: str) -> None:
    row = a_feature_row(distance_sma20=distance, trend_state=trend, volume_ratio=6.0)
    assert decide(row, RULES).rule == rule


def test_decide_when_confidence_is_low_then_still_explains_itself() -> None:
    signal = decide(a_feature_row(volume_ratio=1.0), RULES)
    assert signal.reason["rule"] == BULL
    assert signal.reason["confidence_breakdown"]["final"] == signal.confidence


@pytest.mark.parametrize(("trend", "direction"), [(1, "LONG"), (-1, "SHORT")])
def test_decide_names_the_direction(trend: int, direction: str) -> None:
    assert decide(a_feature_row(trend_state=trend), RULES).reason["direction"] == direction


def test_decide_breaks_confidence_into_its_factors() -> None:
    signal = decide(
        a_feature_row(confident_sentiment_30=0.8, confident_count_30=5, vol_ratio=0.5), RULES
    )
    found = signal.reason["confidence_breakdown"]
    product = found["base"]
    for multiplier in found["multipliers"].values():
        product *= multiplier
    assert product == pytest.approx(found["final"])


numbers = st.sampled_from([None, nan, inf, -inf]) | st.floats(0.5, 6)


@settings(deadline=None, max_examples=40)
@given(
    distance=st.floats(-0.03, 0.03),
    trend=st.sampled_from([-1, 0, 1]),
    vol_ratio=st.floats(0, 3),
    volume=numbers,
    sentiment=st.sampled_from([None, nan, inf, -inf]) | st.floats(-1, 1),
    count=st.integers(0, 50),
)
def test_decide_never_leaves_the_unit_interval(
    distance: float,
    trend: int,
    vol_ratio: float,
    volume: float | None,
    sentiment: float | None,
    count: int,
) -> None:
    row = a_feature_row(
        distance_sma20=distance,
        trend_state=trend,
        vol_ratio=vol_ratio,
        volume_ratio=volume,
        confident_sentiment_30=sentiment,
        confident_count_30=count,
    )
    assert 0.0 <= decide(row, RULES).confidence <= 1.0


@pytest.mark.parametrize(
    ("since", "action", "rule"),
    [
        (None, "BUY", BULL),
        (0.0, "HOLD", "COOLDOWN"),
        (14.0, "HOLD", "COOLDOWN"),
        (15.0, "BUY", BULL),
    ],
)
def test_cool_down_holds_for_fifteen_minutes(since: float | None, action: str, rule: str) -> None:
    signal = cool_down(BOUGHT, since, RULES)
    assert (signal.action, signal.rule) == (action, rule)


def test_cool_down_keeps_confidence_and_reason() -> None:
    signal = cool_down(BOUGHT, 1.0, RULES)
    assert (signal.confidence, signal.reason) == (BOUGHT.confidence, BOUGHT.reason)


def test_cool_down_when_holding_then_changes_nothing() -> None:
    assert cool_down(HELD, 0.0, RULES) is HELD


def test_fold_when_state_is_empty_then_the_first_minute_trades() -> None:
    assert rules_of(on_time(NOON), [watching("AAPL")]) == [BULL]


def test_fold_cools_down_by_its_own_earlier_minutes() -> None:
    minutes = [NOON + number * MINUTE for number in range(31)]
    found = rules_of(on_time(*minutes), [watching("AAPL")])
    assert [n for n, rule in enumerate(found) if rule == BULL] == [0, 15, 30]


@pytest.mark.parametrize(("minutes_ago", "rule"), [(14, "COOLDOWN"), (15, BULL)])
def test_fold_cools_down_from_what_came_before(minutes_ago: int, rule: str) -> None:
    assert rules_of(on_time(NOON), [watching("AAPL")], recommended(60, minutes_ago)) == [rule]


@pytest.mark.parametrize(("late", "rule"), [(0, "COOLDOWN"), (1, BULL)])
def test_fold_cools_down_by_what_was_known_at_the_cutoff(late: int, rule: str) -> None:
    known_at = NOON + MINUTE + late * timedelta(microseconds=1)
    last = recommended(1, available_at=known_at)
    assert rules_of(on_time(NOON), [watching("AAPL")], last) == [rule]


@pytest.mark.parametrize(("minutes_ago", "rule"), [(14, "COOLDOWN"), (15, BULL)])
def test_fold_when_the_last_recommendation_came_too_late_then_the_one_before_it_cools(
    minutes_ago: int, rule: str
) -> None:
    known, unknown = recommended(minutes_ago), recommended(1, available_at=LATER)
    last = {"AAPL": known["AAPL"] + unknown["AAPL"]}
    assert rules_of(on_time(NOON), [watching("AAPL")], last) == [rule]


def test_fold_when_a_gap_is_filled_late_then_it_cools_no_minute_decided_before_it() -> None:
    minutes = [NOON + number * MINUTE for number in range(4)]
    cutoffs = dict.fromkeys(minutes[:2], LATER) | on_time(*minutes[2:])
    assert rules_of(cutoffs, [watching("AAPL")]) == [BULL, "COOLDOWN", BULL, "COOLDOWN"]


def test_fold_when_a_minute_is_filled_late_then_what_was_decided_before_it_cools_it() -> None:
    cutoffs = on_time(NOON) | {NOON + MINUTE: LATER}
    assert rules_of(cutoffs, [watching("AAPL")]) == [BULL, "COOLDOWN"]


def test_fold_does_not_change_what_it_was_given() -> None:
    last = recommended(20)
    rules_of(on_time(NOON), [watching("AAPL")], last)
    assert last == recommended(20)


def test_fold_when_a_minute_holds_then_it_does_not_cool_the_next() -> None:
    minutes = [NOON, NOON + MINUTE]
    rows = {minutes[0]: [a_row(0, volume_ratio=1.0)], minutes[1]: [a_row(1)]}
    decisions = fold(on_time(*minutes), rows, [watching("AAPL")], {}, RULES)
    assert [decisions[minute][0].rule for minute in minutes] == [LOW, BULL]


def test_fold_cools_each_ticker_alone() -> None:
    rows = {NOON: [a_row(), a_row(ticker="MSFT")]}
    decisions = fold(on_time(NOON), rows, [watching("AAPL", "MSFT")], recommended(1), RULES)
    assert [signal.rule for signal in decisions[NOON]] == ["COOLDOWN", BULL]


def test_fold_orders_by_ticker() -> None:
    rows = {NOON: [a_row(ticker=ticker) for ticker in ("TSLA", "AAPL", "MSFT")]}
    decisions = fold(on_time(NOON), rows, [watching("TSLA", "MSFT", "AAPL")], {}, RULES)
    assert [signal.ticker for signal in decisions[NOON]] == ["AAPL", "MSFT", "TSLA"]


def test_fold_does_not_depend_on_the_order_of_rows() -> None:
    rows = [a_row(ticker=ticker) for ticker in ("TSLA", "AAPL", "MSFT")]
    watched = [watching("TSLA", "AAPL", "MSFT")]
    assert fold(on_time(NOON), {NOON: rows}, watched, {}, RULES) == fold(
        on_time(NOON), {NOON: rows[::-1]}, watched, {}, RULES
    )


def test_fold_decides_watched_tickers_only() -> None:
    rows = {NOON: [a_row(), a_row(ticker="MSFT")]}
    decisions = fold(on_time(NOON), rows, [watching("MSFT")], {}, RULES)
    assert [signal.ticker for signal in decisions[NOON]] == ["MSFT"]


def test_fold_watches_by_the_newest_decision_until_the_next() -> None:
    minutes = [NOON + number * MINUTE for number in (-1, 0, 4, 5, 6)]
    decisions = [watching("AAPL"), watching("MSFT", minute=NOON + 5 * MINUTE)]
    decided = fold(on_time(*minutes), {}, decisions, {}, RULES)
    watched = [[signal.ticker for signal in decided[minute]] for minute in minutes]
    assert watched == [[], ["AAPL"], ["AAPL"], ["MSFT"], ["MSFT"]]


def test_fold_when_a_later_decision_was_known_early_then_an_earlier_minute_does_not_see_it() -> (
    None
):
    decisions = [watching("AAPL"), watching("MSFT", minute=NOON + 5 * MINUTE)]
    decided = fold({NOON: LATER}, {}, decisions, {}, RULES)
    assert [signal.ticker for signal in decided[NOON]] == ["AAPL"]


def test_fold_when_a_decision_came_too_late_then_the_one_before_it_is_watched() -> None:
    minutes = [NOON + number * MINUTE for number in (5, 6)]
    decisions = [watching("AAPL"), watching("MSFT", minute=minutes[0], available_at=LATER)]
    decided = fold({minutes[0]: LATER} | on_time(minutes[1]), {}, decisions, {}, RULES)
    watched = [[signal.ticker for signal in decided[minute]] for minute in minutes]
    assert watched == [["MSFT"], ["AAPL"]]


def test_fold_when_nobody_is_watched_then_the_minute_is_empty() -> None:
    assert fold(on_time(NOON), {NOON: [a_row()]}, [watching()], {}, RULES) == {NOON: []}


def test_fold_when_nothing_was_decided_then_nobody_is_watched() -> None:
    assert fold(on_time(NOON), {NOON: [a_row()]}, (), {}, RULES) == {NOON: []}


def test_fold_when_a_watched_ticker_has_no_features_then_holds() -> None:
    decisions = fold(on_time(NOON), {}, [watching("AAPL")], {}, RULES)
    signal = decisions[NOON][0]
    assert (signal.action, signal.rule, signal.minute) == ("HOLD", "NO_FEATURES", NOON)


@settings(deadline=None, max_examples=40)
@given(delays=st.lists(st.integers(1, 40), min_size=40, max_size=40))
def test_fold_in_one_piece_equals_fold_minute_by_minute(delays: list[int]) -> None:
    cutoffs = {NOON + n * MINUTE: NOON + (n + delay) * MINUTE for n, delay in enumerate(delays)}
    rows = {minute: [a_feature_row(minute=minute)] for minute in cutoffs}
    watched, last = [watching("AAPL")], recommended()
    pieces: dict[datetime, list[Signal]] = {}
    for minute, cutoff in cutoffs.items():
        pieces |= fold({minute: cutoff}, rows, watched, last, RULES)
        if any(signal.action != "HOLD" for signal in pieces[minute]):
            last["AAPL"].append(Actionable(minute, cutoff))
    assert pieces == fold(cutoffs, rows, watched, {}, RULES)


def test_features_snapshot_takes_its_time_from_the_bar() -> None:
    row = replace(a_feature_row(), bar_at=NOON - MINUTE)
    assert features_snapshot(row)["ts"] == (NOON - MINUTE).isoformat()


def test_features_snapshot_holds_every_technical_feature() -> None:
    row = a_feature_row()
    found = features_snapshot(row)
    names = set(found) - {"v", "ts"}
    assert {name: found[name] for name in names} == {name: getattr(row, name) for name in names}
    assert names >= {"ticker", "recent_vol", "volume_surge", "sma50", *NEEDED}


@pytest.mark.parametrize(("sentiment", "direction"), [(0.4, 1), (-0.4, -1), (0.0, 0), (None, 0)])
def test_sentiment_snapshot_names_the_direction(sentiment: float | None, direction: int) -> None:
    row = a_feature_row(confident_sentiment_30=sentiment)
    assert sentiment_snapshot(row)["direction"] == direction


def test_sentiment_snapshot_counts_by_label() -> None:
    row = a_feature_row(
        confident_count_30=6, positive_count_30=3, negative_count_30=2, neutral_count_30=1
    )
    found = sentiment_snapshot(row)
    counts = [found[f"{name}_count"] for name in ("news", "positive", "negative", "neutral")]
    assert counts == [6, 3, 2, 1]


def test_expires_after_is_the_configured_number_of_seconds() -> None:
    assert SignalRules(expires_after_seconds=90).expires_after == timedelta(seconds=90)
