-- name: insert_ticker
-- Add a ticker, or give it other names.
insert into universe (ticker, aliases) values (:ticker, :aliases)
on conflict (ticker) do update set aliases = excluded.aliases;

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
