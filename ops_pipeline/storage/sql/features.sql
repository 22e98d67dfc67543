-- name: features_between
-- The feature rows in [start, end) that their minutes may know, by minute and ticker.
select
    made.ticker,
    made.minute,
    made.bar_at,
    made.close,
    made.sma20,
    made.sma50,
    made.distance_sma20,
    made.distance_sma50,
    made.trend_state,
    made.recent_vol,
    made.vol_ratio,
    made.volume_ratio,
    made.volume_surge,
    made.news_count_30,
    made.news_count_60,
    made.sentiment_60,
    made.news_age_seconds_60,
    made.confident_count_30,
    made.confident_sentiment_30,
    made.positive_count_30,
    made.negative_count_30,
    made.neutral_count_30
from features.features_1m as made
inner join minute_cutoffs as decided on made.minute = decided.minute
where made.minute >= :start and made.minute < :end and made.available_at <= decided.cutoff
order by made.minute, made.ticker;

-- name: count_by_minute
-- How many tickers have features in each minute of [start, end).
select
    minute,
    count(*) as rows_count
from features.features_1m
where minute >= :start and minute < :end
group by minute
order by minute;

-- name: missing_between
-- Why tickers have no features in [start, end): how often each reason held.
with missing as (
    select
        tracked.ticker,
        decided.minute,
        decided.cutoff,
        decided.oldest_bar_at,
        coalesce(decided.window_starts_at, '-infinity') as window_starts_at
    from minute_cutoffs as decided
    cross join universe as tracked
    where
        decided.minute >= :start and decided.minute < :end
        and not exists (
            select 1
            from features.features_1m as made
            where made.ticker = tracked.ticker and made.minute = decided.minute
        )
),

windowed as (
    select
        missing.ticker,
        missing.minute,
        case
            when count(visible.minute) = 0 then 'no_bar'
            when max(visible.minute) < min(missing.oldest_bar_at) then 'bar_too_old'
            else 'fewer_than_50_bars'
        end as reason
    from missing
    left join lateral (
        select bar.minute
        from bars_1m as bar
        where
            bar.ticker = missing.ticker and bar.minute <= missing.minute
            and bar.minute >= missing.window_starts_at and bar.available_at <= missing.cutoff
        order by bar.minute desc
        limit 50
    ) as visible on true
    group by missing.ticker, missing.minute
)

select
    reason,
    count(*) as rows_count
from windowed
group by reason
order by reason;

-- name: newest_feature_bars
-- The bar that the newest features of each ticker stand on, as known at :now.
with wanted as (
    select unnest(cast(:tickers as text[])) as ticker
)

select
    newest.ticker,
    newest.bar_at
from wanted
inner join lateral (
    select
        made.ticker,
        made.bar_at
    from features.features_1m as made
    where
        made.ticker = wanted.ticker and made.available_at <= :now
        and made.minute <= :now and made.minute > :now - interval '7 days'
    order by made.minute desc
    limit 1
) as newest on true
order by newest.ticker;
