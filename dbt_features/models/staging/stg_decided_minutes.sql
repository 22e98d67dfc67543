with

decided as (

    select * from {{ source('pipeline', 'minute_cutoffs') }}

),

tracked as (

    select * from {{ source('pipeline', 'universe') }}

),

-- The window stands in the body: what a config() reads is fixed when the project is parsed.
spine as (

    select
        tracked.ticker,
        decided.minute,
        decided.session_date,
        decided.session_opens_at,
        coalesce(decided.window_starts_at, '-infinity') as window_starts_at,
        coalesce(decided.oldest_bar_at, '-infinity') as oldest_bar_at,
        decided.minute + interval '60 seconds' as minute_ends_at,
        decided.cutoff as available_at

    from decided
    cross join tracked

    where
        decided.minute >= cast('{{ var("first_minute") }}' as timestamptz)
        and decided.minute < cast('{{ var("end_minute") }}' as timestamptz)

)

select * from spine
