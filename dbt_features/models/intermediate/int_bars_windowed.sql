with

minutes as (

    select * from {{ ref('stg_decided_minutes') }}

),

bars as (

    select * from {{ ref('stg_bars_1m') }}

),

-- Each minute looks back by itself at what was known at its cut-off: a late bar changes no earlier minute.
windowed as (

    select
        minutes.ticker,
        minutes.minute,
        minutes.session_date,
        minutes.available_at,
        minutes.oldest_bar_at,
        looked_back.*

    from minutes
    cross join lateral (

        select
            count(*) as bars_count,
            max(returned.minute) as bar_at,
            max(returned.close) filter (where returned.bar_rank = 1) as close,
            max(returned.volume) filter (where returned.bar_rank = 1) as volume,

            avg(returned.close order by returned.minute desc)
            filter (where returned.bar_rank <= {{ var('sma_short') }}) as sma20,
            avg(returned.close order by returned.minute desc)
            filter (where returned.bar_rank <= {{ var('sma_long') }}) as sma50,
            avg(cast(returned.volume as double precision) order by returned.minute desc)
            filter (where returned.bar_rank <= {{ var('volume_bars') }}) as volume_avg_20,

            count(returned.bar_return)
            filter (where returned.return_rank <= {{ var('recent_returns') }}) as recent_count,
            stddev_samp(returned.bar_return order by returned.minute desc)
            filter (where returned.return_rank <= {{ var('recent_returns') }}) as recent_stddev,
            count(returned.bar_return)
            filter (where returned.return_rank <= {{ var('baseline_returns') }}) as baseline_count,
            stddev_samp(returned.bar_return order by returned.minute desc)
            filter (where returned.return_rank <= {{ var('baseline_returns') }}) as baseline_stddev,

            sum(returned.typical_price * returned.volume order by returned.minute desc)
            filter (where returned.session_date = minutes.session_date) as session_turnover,
            sum(cast(returned.volume as double precision) order by returned.minute desc)
            filter (where returned.session_date = minutes.session_date) as session_volume

        from (

            select
                numbered.*,
                count(numbered.bar_return) over (order by numbered.minute desc) as return_rank

            from (

                select
                    visible.*,
                    row_number() over newest_first as bar_rank,
                    case
                        when lead(visible.session_date) over newest_first = visible.session_date
                            then visible.close / lead(visible.close) over newest_first - 1
                    end as bar_return

                from (

                    select bars.*
                    from bars
                    where
                        bars.ticker = minutes.ticker
                        and bars.minute <= minutes.minute
                        and bars.minute >= minutes.window_starts_at
                        and bars.available_at <= minutes.available_at
                    order by bars.minute desc
                    limit greatest(
                        {{ var('lookback_bars') }},
                        cast(
                            extract(epoch from minutes.minute_ends_at - minutes.session_opens_at)
                            / 60 as integer
                        )
                    )

                ) as visible

                window newest_first as (order by visible.minute desc)

            ) as numbered

        ) as returned

    ) as looked_back

),

enough as (

    select
        ticker,
        minute,
        session_date,
        available_at,
        bar_at,
        close,
        volume,
        sma20,
        sma50,
        case
            when abs(sma20 - sma50) > {{ var('trend_tolerance') }} * sma50
                then cast(sign(sma20 - sma50) as integer)
            else 0
        end as trend_state,
        volume_avg_20,
        case when recent_count >= {{ var('recent_returns') }} then recent_stddev end as recent_vol,
        case
            when baseline_count >= {{ var('baseline_min_returns') }} then baseline_stddev
        end as baseline_vol,
        case when session_volume > 0 then session_turnover / session_volume end as session_vwap

    from windowed

    where bars_count >= {{ var('min_bars') }} and bar_at >= oldest_bar_at

)

select * from enough
