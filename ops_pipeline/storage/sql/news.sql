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
-- Keep that a feed told it, and its text where it is a later one.
insert into news_provenance (
    feed, entry_key, news_id, entry_id, text_hash, tickers, event_at, available_at,
    revised_title, revised_summary
)
values (
    :feed, :entry_key, :news_id, :entry_id, :text_hash, :tickers, :event_at, :available_at,
    :revised_title, :revised_summary
)
on conflict (feed, entry_key) do nothing;

-- name: stories
-- The stories that entries may belong to: by key, id or text in their feeds, or by identity.
with

wanted as (
    select * from unnest(
        cast(:feed as text[]),
        cast(:entry_key as text[]),
        cast(:entry_id as text[]),
        cast(:text_hash as text[])
    ) as entry (feed, entry_key, entry_id, text_hash)
),

found as (
    select known.news_id
    from news_provenance as known
    inner join wanted on known.feed = wanted.feed and known.entry_key = wanted.entry_key
    union
    select known.news_id
    from news_provenance as known
    inner join wanted on known.feed = wanted.feed and known.entry_id = wanted.entry_id
    where known.entry_id <> ''
    union
    select known.news_id
    from news_provenance as known
    inner join wanted on known.feed = wanted.feed and known.text_hash = wanted.text_hash
    union
    select unnest(cast(:news_id as text[]))
)

select
    item.news_id,
    item.available_at
from news_items as item
inner join found on item.news_id = found.news_id
order by item.news_id;

-- name: provenance_of
-- What feeds gave of these stories.
select
    feed,
    entry_key,
    news_id,
    entry_id,
    text_hash,
    tickers,
    event_at,
    available_at
from news_provenance
where news_id = any(:news_id)
order by feed, entry_key;

-- name: count_revisions
-- How many later texts of known stories became known in [start, end).
select count(*)
from news_provenance
where revised_title is not null and available_at >= :start and available_at < :end;

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
