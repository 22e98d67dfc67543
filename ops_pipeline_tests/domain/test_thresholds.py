from math import inf, nan
from typing import Any

import pytest
from pydantic import ValidationError

from ops_pipeline.domain.thresholds import (
    PROFILES,
    TIERS,
    DispatcherConfig,
    SignalRules,
    WatchlistRules,
)

KEYS = sorted(DispatcherConfig.model_fields)
TEXTS = {"tier", "allowed_actions"}
NUMBERS = sorted(set(KEYS) - TEXTS - {"allow_shorting"})
# A legal value that is not the default, for every key.
OTHER: dict[str, Any] = {
    "confidence_min": 0.6,
    "tier": "tiny",
    "equity_usd": 50_000.0,
    "max_daily_loss_usd": 400.0,
    "max_bar_age_seconds": 119,
    "max_feature_age_seconds": 299,
    "max_recommendation_age_seconds": 299,
    "max_open_positions": 4,
    "max_notional_exposure": 0.9,
    "max_notional_per_trade": 0.05,
    "max_trades_per_ticker_per_day": 3,
    "ticker_cooldown_minutes": 14,
    "allow_shorting": True,
    "allowed_actions": ("BUY_STOCK", "SELL_STOCK"),
    "opening_block_minutes": 4,
    "closing_block_minutes": 14,
    "flat_before_close_minutes": 4,
    "slippage_bps": 4.0,
    "stop_loss_vol_mult": 1.9,
    "stop_horizon_minutes": 29,
    "min_stop_distance": 0.004,
    "take_profit_risk_reward": 1.9,
    "max_hold_minutes": 239,
    "max_signals_per_run": 9,
    "processing_ttl_minutes": 0.9,
    "max_attempts": 2,
}
OUT_OF_RANGE: list[tuple[str, float]] = [
    ("confidence_min", 1.01),
    ("equity_usd", 0),
    ("equity_usd", 1e13),
    ("max_daily_loss_usd", 0),
    ("max_bar_age_seconds", 0),
    ("max_bar_age_seconds", 86_401),
    ("max_feature_age_seconds", 0),
    ("max_recommendation_age_seconds", 0),
    ("max_open_positions", 0),
    ("max_open_positions", 1_001),
    ("max_notional_exposure", 1.01),
    ("max_notional_per_trade", 1.01),
    ("max_trades_per_ticker_per_day", 0),
    ("max_trades_per_ticker_per_day", 101),
    ("ticker_cooldown_minutes", 391),
    ("opening_block_minutes", 121),
    ("closing_block_minutes", 121),
    ("flat_before_close_minutes", 0),
    ("slippage_bps", 1_001),
    ("stop_loss_vol_mult", 0),
    ("stop_loss_vol_mult", 101),
    ("stop_horizon_minutes", 0),
    ("min_stop_distance", 0),
    ("min_stop_distance", 1.01),
    ("take_profit_risk_reward", 0),
    ("take_profit_risk_reward", 101),
    ("max_hold_minutes", 0),
    ("max_signals_per_run", 0),
    ("max_signals_per_run", 1_001),
    ("processing_ttl_minutes", 0.49),
    ("processing_ttl_minutes", 5.01),
    ("max_attempts", 0),
    ("max_attempts", 21),
]


def with_(key: str, value: Any) -> DispatcherConfig:
    return DispatcherConfig(**{key: value})


def test_the_defaults_are_those_of_the_design() -> None:
    config = DispatcherConfig()
    assert config.confidence_min == 0.70
    assert config.max_daily_loss_usd == 500
    assert (config.max_bar_age_seconds, config.max_feature_age_seconds) == (120, 300)
    assert config.max_recommendation_age_seconds == 300
    assert (config.max_open_positions, config.max_trades_per_ticker_per_day) == (5, 2)
    assert (config.equity_usd, config.max_notional_per_trade) == (100_000, 0.10)
    assert (config.allow_shorting, config.allowed_actions) == (False, ("BUY_STOCK",))


@pytest.mark.parametrize("key", ["confidence", "CONFIDENCE_MIN", "", "min_confidence"])
def test_an_unknown_key_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        with_(key, 0.5)


@pytest.mark.parametrize("model", [SignalRules, WatchlistRules])
def test_rules_refuse_unknown_keys(model: type[SignalRules] | type[WatchlistRules]) -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        model(nonsense=1)


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_that_is_none_is_refused(key: str) -> None:
    for value in (nan, inf, -inf, -1, "abc", "", None, [], {}):
        with pytest.raises(ValidationError, match=key):
            with_(key, value)


@pytest.mark.parametrize(("key", "value"), OUT_OF_RANGE)
def test_a_number_out_of_range_is_refused(key: str, value: float) -> None:
    with pytest.raises(ValidationError, match=key):
        with_(key, value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tier", "huge"),
        ("tier", 1),
        ("allowed_actions", ("BUY_CALL",)),
        ("allowed_actions", "BUY_STOCK"),
        ("allow_shorting", "perhaps"),
    ],
)
def test_a_word_that_is_not_known_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        with_(key, value)


def test_an_unknown_action_is_named_with_those_known() -> None:
    with pytest.raises(ValidationError, match="unknown action BUY_CALL; known are BUY_STOCK"):
        with_("allowed_actions", ("BUY_STOCK", "BUY_CALL"))


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        DispatcherConfig().confidence_min = 0.1  # type: ignore[misc]


@pytest.mark.parametrize(("ttl", "limit"), [(1.0, 59), (5.0, 299), (0.5, 29)])
def test_a_lease_longer_than_freshness_is_refused(ttl: float, limit: int) -> None:
    with pytest.raises(ValidationError, match="must not be longer"):
        DispatcherConfig(processing_ttl_minutes=ttl, max_recommendation_age_seconds=limit)


def test_a_lease_as_long_as_freshness_is_taken() -> None:
    config = DispatcherConfig(processing_ttl_minutes=1, max_recommendation_age_seconds=60)
    assert config.processing_ttl_minutes == 1


@pytest.mark.parametrize(
    ("tier", "floor"), [("tiny", 0.60), ("small", 0.65), ("medium", 0.55), ("large", 0.45)]
)
def test_the_tiers_floor_holds_below_confidence_min(tier: str, floor: float) -> None:
    assert DispatcherConfig(tier=tier, confidence_min=0.0).confidence_threshold == floor


@pytest.mark.parametrize("tier", sorted(TIERS))
def test_confidence_min_holds_above_the_tiers_floor(tier: str) -> None:
    assert DispatcherConfig(tier=tier, confidence_min=0.9).confidence_threshold == 0.9


def test_permission_to_short_implies_to_sell() -> None:
    assert DispatcherConfig(allow_shorting=True).actions == ("BUY_STOCK", "SELL_STOCK")


def test_without_permission_to_short_only_what_is_allowed_may_trade() -> None:
    assert DispatcherConfig().actions == ("BUY_STOCK",)


def test_an_action_that_is_allowed_twice_counts_once() -> None:
    config = DispatcherConfig(allow_shorting=True, allowed_actions=("SELL_STOCK", "SELL_STOCK"))
    assert config.actions == ("SELL_STOCK",)


def test_every_key_has_another_value_to_be_tried_with() -> None:
    assert sorted(OTHER) == KEYS


@pytest.mark.parametrize("key", KEYS)
def test_the_fingerprint_changes_with_any_key(key: str) -> None:
    assert with_(key, OTHER[key]).fingerprint() != DispatcherConfig().fingerprint()


def test_the_fingerprint_is_the_same_for_the_same_values() -> None:
    assert DispatcherConfig(**OTHER).fingerprint() == DispatcherConfig(**OTHER).fingerprint()


def test_the_document_makes_the_same_config_again() -> None:
    config = DispatcherConfig(**OTHER)
    assert DispatcherConfig(**config.document()) == config


def test_every_key_says_what_it_is() -> None:
    silent = [key for key, field in DispatcherConfig.model_fields.items() if not field.description]
    assert silent == []


@pytest.mark.parametrize("mode", sorted(PROFILES))
def test_a_profile_is_a_legal_config(mode: str) -> None:
    assert DispatcherConfig(**PROFILES[mode]).confidence_threshold == 0.55


@pytest.mark.parametrize("rules", [SignalRules(), WatchlistRules()])
def test_the_weights_of_a_score_add_up_to_one(rules: SignalRules | WatchlistRules) -> None:
    names = ("trend_weight", "setup_weight", "volatility_weight")
    rest = "constant_weight" if isinstance(rules, SignalRules) else "sentiment_weight"
    assert sum(getattr(rules, name) for name in (*names, rest)) == pytest.approx(1.0)
