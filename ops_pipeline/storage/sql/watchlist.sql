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

-- name: members_before
-- Who was in at the last decision of a session before a minute.
select
    ticker,
    entered_at
from watchlist_entries
where
    session_date = :session_date and in_watchlist
    and minute = (
        select max(decided.minute)
        from watchlist_entries as decided
        where decided.session_date = :session_date and decided.minute < :minute
    )
order by rank;
