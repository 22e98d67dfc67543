-- One plain select: with a chain of CTEs here PostgreSQL would not see that the index has the order,
-- and read every earlier bar of the ticker for each minute instead of the newest few.
select
    ticker,
    minute,
    session_date,
    available_at,

    close,
    (high + low + close) / 3 as typical_price,
    volume

from {{ source('pipeline', 'bars_1m') }}
