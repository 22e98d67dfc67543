-- name: insert_ticker
-- Add a ticker, or give it other names.
insert into universe (ticker, aliases) values (:ticker, :aliases)
on conflict (ticker) do update set aliases = excluded.aliases;

-- name: delete_ticker
-- Drop one ticker.
delete from universe
where ticker = :ticker;

-- name: delete_other_tickers
-- Drop the tickers that are no longer tracked.
delete from universe
where not (ticker = any(:tickers));

-- name: all_tickers
-- The tracked tickers.
select
    ticker,
    aliases
from universe
order by ticker;

-- name: insert_change
-- Keep that a ticker was added or removed, and why.
insert into universe_changes (ticker, change, reason) values (:ticker, :change, :reason);

-- name: changes
-- What was added and removed, newest first.
select
    ticker,
    change,
    reason,
    written_at
from universe_changes
order by id desc
limit :limit;
