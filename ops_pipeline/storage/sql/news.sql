-- name: insert_item
-- Keep a story the first time that it is told.
insert into news_items (
    news_id, title, summary, link, text_hash, published_at, event_at, origin, available_at
)
values (
    :news_id, :title, :summary, :link, :text_hash, :published_at, :event_at, :origin, :available_at
)
on conflict (news_id) do nothing;

-- name: insert_provenance
-- Keep that a feed told it.
insert into news_provenance (feed, entry_key, news_id, entry_id, tickers, available_at)
values (:feed, :entry_key, :news_id, :entry_id, :tickers, :available_at)
on conflict (feed, entry_key) do nothing;

-- name: unlinked
-- What was told and not yet searched for tickers.
select
    told.feed,
    told.entry_key,
    told.news_id,
    told.tickers,
    told.available_at,
    item.title,
    item.summary
from news_provenance as told
inner join news_items as item on told.news_id = item.news_id
where not told.is_linked
order by told.available_at, told.feed, told.entry_key;

-- name: mark_linked
-- A telling was searched for tickers.
update news_provenance set is_linked = true
where feed = :feed and entry_key = :entry_key;

-- name: insert_link
-- A story speaks of a ticker.
insert into news_tickers (news_id, ticker, match_source, span, available_at)
values (:news_id, :ticker, :match_source, :span, :available_at)
on conflict (news_id, ticker) do nothing;

-- name: count_by_minute
-- How many stories became known in each minute of [start, end).
select
    date_trunc('minute', available_at) as minute,
    count(*) as rows_count
from news_items
where available_at >= :start and available_at < :end
group by minute
order by minute;

-- name: count_items
-- How many stories are kept.
select count(*) from news_items;

-- name: feed_states
-- How the last fetch of each feed went.
select
    feed,
    etag,
    last_modified,
    failures,
    retry_at,
    last_status,
    last_reason,
    last_ok_at
from feed_state
order by feed;

-- name: save_feed_state
-- Keep how a fetch of a feed went.
insert into feed_state (
    feed, etag, last_modified, failures, retry_at, last_status, last_reason, last_ok_at
)
values (
    :feed, :etag, :last_modified, :failures, :retry_at, :last_status, :last_reason, :last_ok_at
)
on conflict (feed) do update
    set
        etag = excluded.etag,
        last_modified = excluded.last_modified,
        failures = excluded.failures,
        retry_at = excluded.retry_at,
        last_status = excluded.last_status,
        last_reason = excluded.last_reason,
        last_ok_at = coalesce(excluded.last_ok_at, feed_state.last_ok_at),
        written_at = clock_timestamp();
