-- name: insert_bars
-- Keep the first complete version of each bar.
insert into bars_1m (
    ticker, minute, session_date, open, high, low, close, volume, feed, origin, available_at
)
values (
    :ticker, :minute, :session_date, :open, :high, :low, :close, :volume, :feed, :origin, :available_at
)
on conflict (ticker, minute) do nothing;

-- name: insert_revision
-- Keep a later version of a bar beside the first one, where it says something else.
insert into bar_revisions (ticker, minute, open, high, low, close, volume, available_at)
select
    :ticker,
    :minute,
    :open,
    :high,
    :low,
    :close,
    :volume,
    :available_at
where
    exists (
        select 1
        from bars_1m as kept
        where
            kept.ticker = :ticker and kept.minute = :minute
            and (kept.open, kept.high, kept.low, kept.close, kept.volume)
            is distinct from (
                cast(:open as double precision), cast(:high as double precision),
                cast(:low as double precision), cast(:close as double precision), cast(:volume as bigint)
            )
    )
on conflict do nothing;

-- name: known_minutes
-- The bars that are stored already, from the first minute to the last one.
select
    ticker,
    minute
from bars_1m
where minute between :first and :last;

-- name: newest_minute
-- The newest stored minute in [start, end).
select max(minute) as minute
from bars_1m
where minute >= :start and minute < :end;

-- name: newest_bars
-- The newest bar of each of these tickers that was known at :now.
with wanted as (
    select unnest(cast(:tickers as text[])) as ticker
)

select
    newest.ticker,
    newest.minute,
    newest.open,
    newest.high,
    newest.low,
    newest.close,
    newest.volume
from wanted
inner join lateral (
    select bar.*
    from bars_1m as bar
    where
        bar.ticker = wanted.ticker and bar.available_at <= :now
        and bar.minute <= :now and bar.minute > :now - interval '7 days'
    order by bar.minute desc
    limit 1
) as newest on true
order by newest.ticker;

-- name: count_by_minute
-- How many bars each minute in [start, end) has.
select
    minute,
    count(*) as rows_count
from bars_1m
where minute >= :start and minute < :end
group by minute;
