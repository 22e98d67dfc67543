-- name: count_signals
-- Signals from before an instant that recommended nothing, and their bytes.
select
    count(*) as rows_count,
    coalesce(sum(pg_column_size(old.*)), 0) as bytes
from signals as old
where
    old.minute < :before and old.written_at < :before
    and not exists (
        select 1
        from dispatch_recommendations as made
        where made.ticker = old.ticker and made.minute = old.minute
    );

-- name: remove_signals
-- The first of them from a minute on.
delete from signals as gone
where (gone.minute, gone.ticker) in (
    select
        old.minute,
        old.ticker
    from signals as old
    where
        old.minute >= :since and old.minute < :before and old.written_at < :before
        and not exists (
            select 1
            from dispatch_recommendations as made
            where made.ticker = old.ticker and made.minute = old.minute
        )
    order by old.minute
    limit :batch
)
returning gone.minute, pg_column_size(gone.*) as bytes;

-- name: count_frames
-- Frames from before an instant that were looked at, and their bytes.
select
    count(*) as rows_count,
    coalesce(sum(pg_column_size(old.*)), 0) as bytes
from broker_frames as old
where old.received_at < :before and old.outcome <> 'RECEIVED';

-- name: remove_frames
-- The first of them.
delete from broker_frames as gone
where
    gone.id in (
        select old.id
        from broker_frames as old
        where old.received_at < :before and old.outcome <> 'RECEIVED'
        order by old.received_at
        limit :batch
    )
returning pg_column_size(gone.*) as bytes;

-- name: size_of_table
-- Bytes with indexes, and whether this role may vacuum it; no row where there is no such table.
select
    pg_total_relation_size(known.oid) as bytes,
    pg_has_role(current_user, known.relowner, 'USAGE') as is_owned
from pg_class as known
where known.oid = to_regclass(:table);
