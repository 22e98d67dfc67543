with

minutes as (

    select * from {{ ref('stg_decided_minutes') }}

),

scores as (

    select * from {{ ref('stg_ticker_scores') }}

),

known as (

    select
        minutes.ticker,
        minutes.minute,
        scores.news_id,
        scores.event_at,
        scores.label,
        scores.score,
        scores.is_confident,
        extract(epoch from minutes.minute_ends_at - scores.event_at) as age_seconds

    from minutes
    inner join scores
        on
            minutes.ticker = scores.ticker
            and minutes.minute_ends_at > scores.event_at
            and scores.event_at >= minutes.minute_ends_at - interval '60 minutes'
            and minutes.available_at >= scores.available_at

),

windowed as (

    select
        ticker,
        minute,
        count(*) as news_count_60,
        array_agg(news_id order by event_at, news_id) as news_ids,
        avg(score order by event_at, news_id) as sentiment_60,
        avg(abs(score) order by event_at, news_id) as sentiment_strength_60,
        min(age_seconds) as news_age_seconds_60,

        count(*) filter (where age_seconds <= 1800) as news_count_30,
        avg(score order by event_at, news_id) filter (where age_seconds <= 1800) as sentiment_30,
        avg(abs(score) order by event_at, news_id)
        filter (where age_seconds <= 1800) as sentiment_strength_30,
        min(age_seconds) filter (where age_seconds <= 1800) as news_age_seconds_30,

        count(*) filter (where age_seconds <= 1800 and is_confident) as confident_count_30,
        avg(score order by event_at, news_id)
        filter (where age_seconds <= 1800 and is_confident) as confident_sentiment_30,
        count(*)
        filter (where age_seconds <= 1800 and is_confident and label = 'positive') as positive_count_30,
        count(*)
        filter (where age_seconds <= 1800 and is_confident and label = 'negative') as negative_count_30,
        count(*)
        filter (where age_seconds <= 1800 and is_confident and label = 'neutral') as neutral_count_30

    from known

    group by ticker, minute

)

select * from windowed
