with

bars as (

    select * from {{ ref('int_bars_windowed') }}

),

scores as (

    select * from {{ ref('int_scores_windowed') }}

),

final as (

    select
        bars.ticker,
        bars.minute,
        bars.session_date,
        bars.bar_at,

        bars.close,
        bars.sma20,
        bars.sma50,
        bars.recent_vol,
        bars.baseline_vol,
        bars.recent_vol / nullif(bars.baseline_vol, 0) as vol_ratio,
        bars.close / bars.sma20 - 1 as distance_sma20,
        bars.close / bars.sma50 - 1 as distance_sma50,
        bars.trend_state,

        bars.volume,
        bars.volume_avg_20,
        coalesce(bars.volume / nullif(bars.volume_avg_20, 0), 0) as volume_ratio,
        coalesce(bars.volume / nullif(bars.volume_avg_20, 0), 0)
        > {{ var('volume_surge_ratio') }} as volume_surge,
        bars.session_vwap,

        cast(coalesce(scores.news_count_30, 0) as integer) as news_count_30,
        cast(coalesce(scores.news_count_60, 0) as integer) as news_count_60,
        scores.sentiment_30,
        scores.sentiment_60,
        scores.sentiment_strength_30,
        scores.sentiment_strength_60,
        cast(scores.news_age_seconds_30 as double precision) as news_age_seconds_30,
        cast(scores.news_age_seconds_60 as double precision) as news_age_seconds_60,
        cast(coalesce(scores.confident_count_30, 0) as integer) as confident_count_30,
        scores.confident_sentiment_30,
        cast(coalesce(scores.positive_count_30, 0) as integer) as positive_count_30,
        cast(coalesce(scores.negative_count_30, 0) as integer) as negative_count_30,
        cast(coalesce(scores.neutral_count_30, 0) as integer) as neutral_count_30,

        bars.available_at,
        clock_timestamp() as written_at,
        coalesce(scores.news_ids, cast(array[] as text[])) as news_ids

    from bars
    left join scores
        on bars.ticker = scores.ticker and bars.minute = scores.minute

)

select * from final
