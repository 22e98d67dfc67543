import json
import re
from math import inf, nan
from typing import Any

import pytest
from pydantic import ValidationError

from ops_pipeline.domain.thresholds import (
    MAX_OVERRIDES_BYTES,
    PROFILES,
    TIERS,
    DispatcherConfig,
    SignalRules,
    WatchlistRules,
    read_overrides,
    strict_config,
    visible,
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
    "max_clock_skew_seconds": 6,
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
    ("max_clock_skew_seconds", 61),
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


def test_a_signal_lives_for_a_second_to_an_hour() -> None:
    for seconds in (1, 3_600):
        assert SignalRules(expires_after_seconds=seconds).expires_after_seconds == seconds
    for seconds in (0, -1, 3_601):
        with pytest.raises(ValidationError, match="expires_after_seconds"):
            SignalRules(expires_after_seconds=seconds)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"confidence_min": 0.60}', {"confidence_min": 0.6}),
        ("{}", {}),
        ("", {}),
        (" \n\t", {}),
        (' \n{"tier": "tiny",\r\n\t"max_attempts": 2} ', {"tier": "tiny", "max_attempts": 2}),
        ('{"confidence_min": 1, "equity_usd": 5000}', {"confidence_min": 1, "equity_usd": 5_000}),
        ('{"allowed_actions": []}', {"allowed_actions": ()}),
        ('{"allow_shorting": true}', {"allow_shorting": True}),
    ],
)
def test_a_document_changes_its_own_keys_and_no_other(text: str, values: dict[str, Any]) -> None:
    assert strict_config(read_overrides(text)) == DispatcherConfig(**values)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_can_be_set_by_a_document(key: str) -> None:
    text = json.dumps({key: OTHER[key]})
    assert strict_config(read_overrides(text)) == with_(key, OTHER[key])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("confidence_min: 0.6", "is no JSON: expecting value, line 1, column 1"),
        ("---\nconfidence_min: 0.6\n", "is no JSON: expecting value, line 1, column 1"),
        ("{confidence_min: 0.6}", "is no JSON: expecting property name enclosed in double quotes"),
        ("{'confidence_min': 0.6}", "is no JSON: expecting property name enclosed in double"),
        ('{"confidence_min": }', "is no JSON: expecting value"),
        ('{"confidence_min": 0.6', "is no JSON: expecting ',' delimiter, line 1, column 23"),
        ('{"confidence_min": 0.6} {}', "is no JSON: extra data, line 1, column 25"),
        ('{"confidence_min": .6}', "is no JSON: expecting value, line 1, column 20"),
        ('{"confidence_min": 0x1}', "is no JSON: expecting ',' delimiter"),
        ('{"confidence_min": True}', "is no JSON: expecting value"),
        ('{"tier": "ti\nny"}', "is no JSON: invalid control character, line 1, column 13"),
        ("// why\n{}", "is no JSON: expecting value, line 1, column 1"),
        ("\ufeff{}", "is no JSON: unexpected utf-8 bom"),
        ('{"tier": \udcff}', "is no JSON: expecting value"),
        ("[]", "must be one JSON object, not a list"),
        ('[{"confidence_min": 0.6}]', "must be one JSON object, not a list"),
        ("null", "must be one JSON object, not null"),
        ("0.6", "must be one JSON object, not 0.6"),
        ("NaN", "must be one JSON object, not NaN"),
        ('"{}"', 'must be one JSON object, not "{}"'),
        ('{"tier": "tiny", "tier": "tiny"}', "has the key tier twice"),
        ('{"a": {"b": 1, "b": 2}}', "has the key b twice"),
        ('{"t\\u0069er": 1, "tier": 1}', "has the key tier twice"),
        ("[" * 60_000, "is nested too deeply"),
        ('{"a":' * 10_000, "is nested too deeply"),
        ('{"tier": "' + "x" * 65_536 + '"}', "is longer than 64 kB"),
        ('{"tier": "' + "\u20ac" * 22_000 + '"}', "is longer than 64 kB"),
    ],
)
def test_what_is_no_document_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}") as refused:
        read_overrides(text)
    assert len(str(refused.value)) <= 150


def test_a_document_of_64_kb_is_read() -> None:
    text = '{"confidence_min": 0.6}'
    assert read_overrides(text.ljust(MAX_OVERRIDES_BYTES)) == {"confidence_min": 0.6}
    with pytest.raises(ValueError, match="is longer than 64 kB"):
        read_overrides(text.ljust(MAX_OVERRIDES_BYTES + 1))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"confidence_min": 7}', "confidence_min: must be between 0 and 1, not 7"),
        ('{"confidence_min": -0.1}', "confidence_min: must be between 0 and 1, not -0.1"),
        ('{"confidence_min": NaN}', "confidence_min: must be between 0 and 1, not NaN"),
        ('{"confidence_min": Infinity}', "confidence_min: must be between 0 and 1, not Infinity"),
        ('{"confidence_min": -Infinity}', "confidence_min: must be between 0 and 1, not -Infinity"),
        ('{"confidence_min": 1e400}', "confidence_min: must be between 0 and 1, not Infinity"),
        (
            '{"confidence_min": "0.6"}',
            'confidence_min: must be a number between 0 and 1, not "0.6"',
        ),
        ('{"confidence_min": true}', "confidence_min: must be a number between 0 and 1, not true"),
        ('{"confidence_min": null}', "confidence_min: must be a number between 0 and 1, not null"),
        (
            '{"confidence_min": {}}',
            "confidence_min: must be a number between 0 and 1, not an object",
        ),
        (
            '{"confidence_min": ' + "[" * 900 + "]" * 900 + "}",
            "confidence_min: must be a number between 0 and 1, not a list",
        ),
        ('{"equity_usd": 0}', "equity_usd: must be above 0 and at most 1e+12, not 0"),
        (
            '{"equity_usd": 1' + "0" * 400 + "}",
            "equity_usd: must be above 0 and at most 1e+12, not Infinity",
        ),
        (
            '{"min_stop_distance": 0}',
            "min_stop_distance: must be above 0 and at most 1, not 0",
        ),
        (
            '{"max_attempts": 2.5}',
            "max_attempts: must be a whole number between 1 and 20, not 2.5",
        ),
        (
            '{"max_attempts": 2.0}',
            "max_attempts: must be a whole number between 1 and 20, not 2.0",
        ),
        ('{"max_attempts": "3"}', 'max_attempts: must be a whole number between 1 and 20, not "3"'),
        (
            '{"max_attempts": true}',
            "max_attempts: must be a whole number between 1 and 20, not true",
        ),
        (
            '{"max_attempts": ' + "9" * 9_000 + "}",
            "max_attempts: must be a whole number between 1 and 20, not Infinity",
        ),
        (
            '{"max_attempts": -99999999999999999999}',
            "max_attempts: must be a whole number between 1 and 20, not -1e+20",
        ),
        (
            '{"max_bar_age_seconds": 86401}',
            "max_bar_age_seconds: must be a whole number between 1 and 86400, not 86401",
        ),
        ('{"allow_shorting": 1}', "allow_shorting: must be true or false, not 1"),
        ('{"allow_shorting": "true"}', 'allow_shorting: must be true or false, not "true"'),
        (
            '{"tier": "huge"}',
            'tier: must be one of tiny, small, medium, large, not "huge"',
        ),
        (
            '{"tier": "Tiny\\u0000\\u202e\\ud800"}',
            'tier: must be one of tiny, small, medium, large, not "Tiny\\u0000\\u202e\\ud800"',
        ),
        (
            '{"allowed_actions": "BUY_STOCK"}',
            'allowed_actions: must be a list of BUY_STOCK, SELL_STOCK, not "BUY_STOCK"',
        ),
        (
            '{"allowed_actions": ["BUY_STOCK", 1]}',
            "allowed_actions: must be a list of BUY_STOCK, SELL_STOCK, not 1",
        ),
        (
            '{"allowed_actions": ["BUY_CALL"]}',
            "allowed_actions: unknown action BUY_CALL; known are BUY_STOCK, SELL_STOCK",
        ),
        (
            '{"allowed_actions": ["BUY\\nCALL"]}',
            "allowed_actions: unknown action BUY\\nCALL; known are BUY_STOCK, SELL_STOCK",
        ),
        (
            '{"max_recommendation_age_seconds": 30}',
            (
                "processing_ttl_minutes (1) must not be longer than"
                " max_recommendation_age_seconds (30)"
            ),
        ),
        ('{"confidence": 0.6}', "confidence: no such key; did you mean confidence_min?"),
        ('{"CONFIDENCE_MIN": 0.6}', "CONFIDENCE_MIN: no such key; did you mean confidence_min?"),
        ('{" tier": "tiny"}', " tier: no such key; did you mean tier?"),
        ('{"zzz": 0.6}', "zzz: no such key"),
        ('{"": 0.6}', "(empty): no such key"),
        ('{"__class__": 1}', "__class__: no such key"),
        ('{"limits": 1}', "limits: no such key"),
        ('{"a\\nb\\u001b[31m": 1}', "a\\nb\\x1b[31m: no such key"),
        ('{"\udcff": 1}', "\\udcff: no such key"),
    ],
)
def test_a_refused_key_or_value_is_named_with_what_is_allowed(text: str, sentence: str) -> None:
    overrides = read_overrides(text)
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$") as refused:
        strict_config(overrides)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


# The whole JSON zoo, for each key: none of these values suits any of them.
@pytest.mark.parametrize("key", KEYS)
def test_every_key_refuses_what_is_of_no_use_to_it_in_one_short_line(key: str) -> None:
    wrong = ["NaN", "Infinity", "-Infinity", "1e999", "-1", "null", '"0.6"', '""', "{}", '{"a": 1}']
    wrong += ["[[]]", "[null]", "[NaN]", "9" * 5_000, '"' + "x" * 60_000 + '"', '"\\n\\u0000"']
    wrong += ["1"] if key in TEXTS | {"allow_shorting"} else ["true", "false", "[]", '"1"']
    for value in wrong:
        overrides = read_overrides(f'{{"{key}": {value}}}')
        with pytest.raises(ValueError, match=rf"^{key}: ") as refused:
            strict_config(overrides)
        told = str(refused.value)
        assert len(told) <= 160
        assert told.isprintable()


@pytest.mark.parametrize(("key", "value"), OUT_OF_RANGE)
def test_a_document_out_of_range_is_told_the_range(key: str, value: float) -> None:
    with pytest.raises(
        ValueError, match=rf"^{key}: must be .*(between|above) .* not {value}"
    ) as no:
        strict_config({key: value})
    bounds = re.findall(r"(?:and at most|and|above|between) ([\d.e+]+)", str(no.value))
    assert len(bounds) == 2
    assert not float(bounds[0]) < value <= float(bounds[1])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\tb", "a\\tb"),
        ("\u202e\u200b", "\\u202e\\u200b"),
        ("x" * 40, "x" * 40),
        ("x" * 41, "x" * 40 + "..."),
        ("\x00" * 40, ("\\x00" * 10) + "..."),
        ("Z\u00fcrich", "Z\u00fcrich"),
    ],
)
def test_a_text_that_may_hold_anything_is_shown_on_one_short_line(text: str, shown: str) -> None:
    assert visible(text) == shown
