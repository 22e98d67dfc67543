-- name: rows_of_session
-- How many rows each stage has for one session.
select
    'bars' as stage,
    count(*) as rows_count
from bars_1m
where session_date = :session_date
union all
select
    'news',
    count(*)
from news_items
where available_at > :since and available_at <= :until
union all
select
    'sentiment',
    count(*)
from news_sentiments
where available_at > :since and available_at <= :until
union all
select
    'features',
    count(*)
from features.features_1m
where session_date = :session_date
union all
select
    'watchlist',
    count(*)
from watchlist_entries
where session_date = :session_date
union all
select
    'signals',
    count(*)
from signals
where session_date = :session_date
order by stage;

-- name: outcomes_of_session
-- What became of one session's recommendations.
select
    intent,
    action,
    status,
    failure_reason,
    count(*) as rows_count
from dispatch_recommendations
where session_date = :session_date
group by intent, action, status, failure_reason
order by rows_count desc, failure_reason, intent, action, status;

-- name: closes_of_session
-- The last close of each ticker in one session.
select distinct on (ticker)
    ticker,
    close
from bars_1m
where session_date = :session_date
order by ticker asc, minute desc;
