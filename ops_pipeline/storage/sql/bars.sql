-- name: insert_bars
-- Keep the first complete version of each bar; of two in one batch, too.
insert into bars_1m (
    ticker, minute, session_date, open, high, low, close, volume, available_at, feed, origin
)
select
    made.ticker,
    made.minute,
    made.session_date,
    made.open,
    made.high,
    made.low,
    made.close,
    made.volume,
    made.available_at,
    :feed as feed,
    :origin as origin
from
    unnest(
        cast(:ticker as text[]),
        cast(:minute as timestamptz[]),
        cast(:session_date as date[]),
        cast(:open as double precision[]),
        cast(:high as double precision[]),
        cast(:low as double precision[]),
        cast(:close as double precision[]),
        cast(:volume as bigint[]),
        cast(:available_at as timestamptz[])
    ) as made (ticker, minute, session_date, open, high, low, close, volume, available_at)
on conflict (ticker, minute) do nothing;

-- name: insert_revisions
-- Keep later versions of bars beside the first one, where they say something else.
insert into bar_revisions (ticker, minute, open, high, low, close, volume, available_at)
select
    made.ticker,
    made.minute,
    made.open,
    made.high,
    made.low,
    made.close,
    made.volume,
    made.available_at
from
    unnest(
        cast(:ticker as text[]),
        cast(:minute as timestamptz[]),
        cast(:open as double precision[]),
        cast(:high as double precision[]),
        cast(:low as double precision[]),
        cast(:close as double precision[]),
        cast(:volume as bigint[]),
        cast(:available_at as timestamptz[])
    ) as made (ticker, minute, open, high, low, close, volume, available_at)
inner join bars_1m as kept on made.ticker = kept.ticker and made.minute = kept.minute
where
    (kept.open, kept.high, kept.low, kept.close, kept.volume)
    is distinct from (made.open, made.high, made.low, made.close, made.volume)
on conflict do nothing;

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
group by minute
order by minute;

-- name: coverage
-- Up to when the vendor has answered for each ticker in each session from the first day on.
select
    ticker,
    session_date,
    answered_until
from bar_coverage
where session_date between :first and :last
order by ticker, session_date;

-- name: mark_answered
-- The vendor has answered for a ticker in a session up to an instant; it never goes back.
insert into bar_coverage (ticker, session_date, answered_until)
values (:ticker, :session_date, :answered_until)
on conflict (ticker, session_date) do update
    set
        answered_until = greatest(bar_coverage.answered_until, excluded.answered_until),
        written_at = clock_timestamp();

-- name: opening_gaps
-- How far these tickers opened a session from their last close before it.
with wanted as (
    select unnest(cast(:tickers as text[])) as ticker
)

select
    wanted.ticker,
    opening.open / earlier.close - 1 as gap,
    opening.available_at
from wanted
inner join lateral (
    select bar.*
    from bars_1m as bar
    where bar.ticker = wanted.ticker and bar.minute >= :opens and bar.minute < :closes
    order by bar.minute
    limit 1
) as opening on true
inner join lateral (
    select bar.*
    from bars_1m as bar
    where bar.ticker = wanted.ticker and bar.minute < :opens
    order by bar.minute desc
    limit 1
) as earlier on true
order by wanted.ticker;

-- name: newest_minute
-- The newest minute of which a bar was known at :now.
select minute
from bars_1m
where available_at <= :now and minute <= :now
order by minute desc
limit 1;
