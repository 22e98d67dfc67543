{% test as_known(model) %}

    -- What a row says is computed again from what was known at its minute's cut-off: a row that has seen more
    -- says something else, whatever it says of itself. The last day whole, of the days before one row in twenty.
    with

    made as (

        select rows.*
        from {{ model }} as rows
        where
            rows.minute >= cast('{{ var("first_minute") }}' as timestamptz)
            and rows.minute < cast('{{ var("end_minute") }}' as timestamptz)
            and (
                rows.minute >= cast('{{ var("end_minute") }}' as timestamptz) - interval '1 day'
                or hashtext(rows.ticker || rows.minute) % 20 = 0
            )

    ),

    compared as (

        select
            made.ticker,
            made.minute,
            made.bar_at = known.bar_at
            and made.close = known.close
            and abs(made.sma20 / known.sma20 - 1) < 1e-9
            and abs(made.sma50 / known.sma50 - 1) < 1e-9
            and abs(made.volume_avg_20 - known.volume_avg_20) < 1e-6 * (1 + known.volume_avg_20)
            and made.available_at >= decided.cutoff
            and made.minute + interval '60 seconds' <= decided.cutoff
            and not exists (
                select 1
                from {{ source('pipeline', 'news_items') }} as story
                where
                    story.news_id = any(made.news_ids)
                    and (
                        story.available_at > decided.cutoff
                        or story.event_at >= made.minute + interval '60 seconds'
                    )
            ) as is_known

        from made
        inner join {{ source('pipeline', 'minute_cutoffs') }} as decided
            on made.minute = decided.minute
        cross join lateral (

            select
                max(newest.minute) as bar_at,
                max(newest.close) filter (where newest.place = 1) as close,
                avg(newest.close) filter (where newest.place <= {{ var('sma_short') }}) as sma20,
                avg(newest.close) filter (where newest.place <= {{ var('sma_long') }}) as sma50,
                avg(newest.volume) filter (where newest.place <= {{ var('volume_bars') }})
                    as volume_avg_20

            from (

                select
                    bar.minute,
                    bar.close,
                    cast(bar.volume as double precision) as volume,
                    row_number() over (order by bar.minute desc) as place
                from {{ source('pipeline', 'bars_1m') }} as bar
                where
                    bar.ticker = made.ticker
                    and bar.minute <= made.minute
                    and bar.available_at <= decided.cutoff
                order by bar.minute desc
                limit {{ var('sma_long') }}

            ) as newest

        ) as known

    )

    select
        ticker,
        minute
    from compared
    where is_known is not true

{% endtest %}
