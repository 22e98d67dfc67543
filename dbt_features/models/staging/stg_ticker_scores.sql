with

items as (

    select * from {{ source('pipeline', 'news_items') }}

),

links as (

    select * from {{ source('pipeline', 'news_tickers') }}

),

scores as (

    select * from {{ source('pipeline', 'news_sentiments') }}

),

-- The hour before the window reaches into it.
recent as (

    select
        links.ticker,
        items.news_id,
        items.event_at,
        greatest(items.available_at, links.available_at, scores.available_at) as available_at,

        scores.label,
        scores.score,
        scores.probability >= {{ var('confident_probability') }} as is_confident

    from items
    inner join links on items.news_id = links.news_id
    inner join scores on items.text_hash = scores.text_hash

    where
        scores.model = '{{ var("sentiment_model") }}'
        and scores.revision = '{{ var("sentiment_revision") }}'
        and items.event_at >= cast('{{ var("first_minute") }}' as timestamptz) - interval '1 hour'
        and items.event_at < cast('{{ var("end_minute") }}' as timestamptz)

)

select * from recent
