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

-- name: late_decisions
-- The minutes of a session in [start, end) that were decided too late, and from when on that could be known.
select
    decided.minute,
    max(made.available_at) as available_at
from watchlist_entries as made
inner join minute_cutoffs as decided on made.minute = decided.minute
where
    made.session_date = :session_date and made.minute >= :start and made.minute < :end
    and made.available_at > decided.cutoff
group by decided.minute
order by decided.minute;
