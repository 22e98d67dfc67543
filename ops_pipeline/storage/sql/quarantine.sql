-- name: insert_quarantine
-- Keep a ticker from being traded.
insert into quarantines (ticker, session_date, cause, observed, available_at)
values (:ticker, :session_date, :cause, :observed, :available_at)
on conflict (ticker, session_date, cause) do nothing;

-- name: quarantined
-- The tickers that must not be traded at an instant.
select distinct ticker
from quarantines
where available_at <= :now and (released_at is null or released_at > :now)
order by ticker;

-- name: open_quarantines
-- What is quarantined and was not released, oldest first.
select
    ticker,
    session_date,
    cause,
    observed,
    available_at
from quarantines
where released_at is null
order by available_at, ticker, cause;

-- name: release
-- A person has looked at it.
update quarantines set released_at = greatest(:now, available_at), released_because = :because
where ticker = :ticker and released_at is null;
