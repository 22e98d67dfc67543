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
# Relative. Two means of up to 50 prices that differ at all differ by more; rounding, by less.
TREND_TOLERANCE = 1e-12
# Sessions that a window may span, the minute's own included. Older bars say nothing of today.
WINDOW_SESSIONS = 5
# Minutes of trading, not of the night. Gate 4 refuses to open on a bar of 120 s, so a longer
# silence costs no trade; a thin name that trades each half hour stays in the watchlist.
MAX_BAR_AGE_MINUTES = 30
