-- name: skip_reasons
-- Why recommendations since :since were skipped, the most frequent reason first.
select
    failure_reason,
    count(*) as count
from dispatch_recommendations
where status = 'SKIPPED' and ts >= :since and ts <= :now
group by failure_reason
order by count(*) desc, failure_reason;

-- name: closed_since
-- What became of the recommendations to open since :since, with what a gate can be asked again by.
select
    status,
    failure_reason,
    action,
    instrument_type,
    confidence
from dispatch_recommendations
where
    ts >= :since and ts <= :now and intent = 'open'
    and status in ('SIMULATED', 'EXECUTED', 'SKIPPED', 'FAILED')
order by ts desc, id desc
limit 1000;

-- name: waiting
-- How many wait, how old the oldest is, and how many of them are too old to trade.
select
    count(*) as count,
    min(ts) as oldest,
    count(*) filter (where expires_at <= :now) as expired
from dispatch_recommendations
where status = 'PENDING';

-- name: held
-- Rows in PROCESSING: how many, since when, and of how many the lease has run out.
select
    count(*) as count,
    min(claimed_at) as oldest,
    count(*) filter (where lease_until <= clock_timestamp()) as overdue
from dispatch_recommendations
where status = 'PROCESSING';

-- name: newest_pulls
-- What the newest runs claimed and made, under which limits.
select
    started_at,
    finished_at,
    pulled_count,
    simulated_count,
    skipped_count,
    cast(run_config_json ->> 'max_signals_per_run' as integer) as run_limit
from dispatcher_runs
order by started_at desc, run_id
limit 10;

-- name: duplicates
-- The executions of recommendations that have more than one: from which runs, under which claims.
select
    recommendation_id,
    count(*) as count,
    count(distinct dispatcher_run_id) as runs,
    count(distinct claim_epoch) as claims,
    max(simulated_ts) as newest
from dispatch_executions
group by recommendation_id
having count(*) > 1
order by recommendation_id
limit 20;

-- name: has_unique
-- Whether one column alone is unique in a table, by a valid index.
select exists(
    select 1
    from pg_catalog.pg_index as idx
    inner join pg_catalog.pg_attribute as att
        on idx.indrelid = att.attrelid and att.attnum = idx.indkey[0]
    where
        idx.indrelid = to_regclass(:table) and idx.indisunique and idx.indisvalid
        and idx.indnkeyatts = 1 and idx.indpred is null and att.attname = :column
) as has_unique;

-- name: triggers
-- The triggers of the ledger's tables, and whether they fire.
select
    tgname as name,
    tgenabled in ('O', 'A') as is_on
from pg_catalog.pg_trigger
where
    not tgisinternal
    and tgrelid in (to_regclass('dispatch_executions'), to_regclass('dispatch_recommendations'))
order by tgname;

-- name: add_unique_execution
-- One execution for each recommendation; refused by the server while a row stands in its way.
alter table dispatch_executions
add constraint dispatch_executions_recommendation_id_key unique (recommendation_id);

-- name: guard_executions
-- Let every trigger of the ledger fire again.
alter table dispatch_executions enable trigger user;

-- name: guard_recommendations
-- Let every trigger of the queue fire again.
alter table dispatch_recommendations enable trigger user;

-- name: tables
-- The tables of the pipeline.
select schemaname || '.' || tablename as name
from pg_catalog.pg_tables
where schemaname in ('public', 'features')
order by schemaname, tablename;

-- name: connections
-- How many sessions there are, how many there may be, and how many idle ones nobody has used lately.
select
    count(*) as count,
    cast(current_setting('max_connections') as integer) as max_count,
    count(*) filter (
        where pid <> pg_backend_pid() and usename = current_user and state = 'idle'
        and state_change < clock_timestamp() - make_interval(secs => :idle_seconds)
    ) as idle
from pg_catalog.pg_stat_activity
where backend_type = 'client backend';

-- name: end_idle
-- End this user's sessions that have been idle for long; a pool opens another when it needs one.
select pg_terminate_backend(pid)
from pg_catalog.pg_stat_activity
where
    backend_type = 'client backend' and pid <> pg_backend_pid() and usename = current_user
    and state = 'idle' and state_change < clock_timestamp() - make_interval(secs => :idle_seconds)
order by pid;
