-- name: features_between
-- The feature rows in [start, end), by minute and ticker.
select
    ticker,
    minute,
    bar_at,
    close,
    sma20,
    sma50,
    distance_sma20,
    distance_sma50,
    trend_state,
    recent_vol,
    vol_ratio,
    volume_ratio,
    volume_surge,
    news_count_30,
    news_count_60,
    sentiment_60,
    news_age_seconds_60,
    confident_count_30,
    confident_sentiment_30,
    positive_count_30,
    negative_count_30,
    neutral_count_30
from features.features_1m
where minute >= :start and minute < :end
order by minute, ticker;

-- name: count_by_minute
-- How many tickers have features in each minute of [start, end).
select
    minute,
    count(*) as rows_count
from features.features_1m
where minute >= :start and minute < :end
group by minute;

-- name: missing_between
-- Why tickers have no features in [start, end): how often each reason held.
select
    case when windowed.bars = 0 then 'no_bar' else 'fewer_than_50_bars' end as reason,
    count(*) as rows_count
from (
    select (
        select count(*)
        from (
            select 1
            from bars_1m as bar
            where
                bar.ticker = tracked.ticker and bar.minute <= decided.minute
                and bar.available_at <= decided.cutoff
            limit 50
        ) as visible
    ) as bars
    from minute_cutoffs as decided
    cross join universe as tracked
    where
        decided.minute >= :start and decided.minute < :end
        and not exists (
            select 1
            from features.features_1m as made
            where made.ticker = tracked.ticker and made.minute = decided.minute
        )
) as windowed
group by reason
order by reason;

-- name: newest_feature_bars
-- The bar that the newest features of each ticker stand on, as known at :now.
select distinct on (ticker)
    ticker,
    bar_at
from features.features_1m
where ticker = any(:tickers) and available_at <= :now and minute > :now - interval '7 days'
order by ticker asc, minute desc;
