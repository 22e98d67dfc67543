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

-- name: count_alerts
-- Alerts that were over before an instant, and what was said without one; and their bytes.
select
    count(*) as rows_count,
    coalesce(sum(old.bytes), 0) as bytes
from (
    select pg_column_size(ended.*) as bytes
    from alerts as ended
    where ended.resolved_at < :before
    union all
    select pg_column_size(said.*)
    from alert_messages as said
    where said.alert_id is null and said.made_at < :before
) as old;

-- name: remove_alerts
-- The first of those alerts; what was said of them goes along.
delete from alerts as gone
where
    gone.id in (
        select old.id
        from alerts as old
        where old.resolved_at < :before
        order by old.resolved_at
        limit :batch
    )
returning pg_column_size(gone.*) as bytes;

-- name: remove_messages
-- The first of what was said without an alert.
delete from alert_messages as gone
where
    gone.id in (
        select old.id
        from alert_messages as old
        where old.alert_id is null and old.made_at < :before
        order by old.id
        limit :batch
    )
returning pg_column_size(gone.*) as bytes;

-- name: size_of_table
-- Bytes with indexes, and whether this role may vacuum it; no row where there is no such table.
select
    pg_total_relation_size(known.oid) as bytes,
    pg_has_role(current_user, known.relowner, 'USAGE')
    or case
        when cast(current_setting('server_version_num') as integer) >= 170000
            then has_table_privilege(known.oid, 'MAINTAIN')
        else false
    end as is_owned
from pg_class as known
where known.oid = to_regclass(:table);
