"""The windows of the feature formulas; dbt is handed these numbers and has none of its own."""

# Counted in regular-session bars, across sessions.
WINDOWS = {
    "min_bars": 50,
    "sma_short": 20,
    "sma_long": 50,
    "recent_returns": 29,
    "baseline_returns": 119,
    "baseline_min_returns": 49,
    "volume_bars": 20,
    # The newest bars that a minute looks at; holds 119 returns and a good many session opens.
    "lookback_bars": 180,
}
VOLUME_SURGE_RATIO = 2.0
