-- name: insert_entry
-- Keep one ticker's place in one decision.
insert into watchlist_entries (
    minute, ticker, session_date, score, rank, in_watchlist, reason, entered_at,
    sentiment_pressure, setup_quality, volatility, trend_alignment, available_at
)
values (
    :minute, :ticker, :session_date, :score, :rank, :in_watchlist, :reason, :entered_at,
    :sentiment_pressure, :setup_quality, :volatility, :trend_alignment, :available_at
);

-- name: entries_between
-- The decisions of a session in [start, end), best first.
select
    minute,
    ticker,
    score,
    rank,
    in_watchlist,
    reason,
    entered_at,
    sentiment_pressure,
    setup_quality,
    volatility,
    trend_alignment
from watchlist_entries
where session_date = :session_date and minute >= :start and minute < :end
order by minute, rank;

-- name: decisions_known
-- For each minute in [start, end), the newest decision before :before that it may know, with its members.
with seen as (
    select
        asked.cutoff,
        (
            select max(decided.minute)
            from watchlist_entries as decided
            where
                decided.session_date = :session_date
                and decided.minute <= asked.minute and decided.minute < :before
                and decided.available_at <= asked.cutoff
        ) as minute
    from minute_cutoffs as asked
    where asked.session_date = :session_date and asked.minute >= :start and asked.minute < :end
),

newest as (
    select
        minute,
        max(cutoff) as cutoff
    from seen
    group by minute
)

select
    newest.minute,
    entry.available_at,
    array_agg(entry.ticker order by entry.rank) filter (where entry.in_watchlist) as tickers,
    array_agg(entry.entered_at order by entry.rank) filter (where entry.in_watchlist) as entered_at
from newest
inner join watchlist_entries as entry
    on newest.minute = entry.minute and newest.cutoff >= entry.available_at
group by newest.minute, entry.available_at
order by newest.minute, entry.available_at;
