-- What the checks ask, each of the pipeline's present: :now, and from the calendar :today (midnight at the
-- exchange), :day, :opens_at and :closes_at of the session that is open or was last, :before (the open of the
-- session before that). At the end of the file stand the runbook's own, word for word.

-- name: installed
-- What is tracked, and since when this database is there.
select
    (select count(*) from universe) as tickers,
    (select created_at from installation) as installed_at;

-- name: services_off
-- Services that are switched off, or that came back less than five minutes ago.
select service
from services
where
    (not is_enabled and (disabled_until is null or disabled_until > :now))
    or (changed_at > cast(:now as timestamptz) - interval '5 minutes' and changed_at <= :now)
    or (disabled_until > cast(:now as timestamptz) - interval '5 minutes' and disabled_until <= :now);

-- name: executions_since
-- How many executions there are since the session before; whether the pipeline is as old as that.
select
    (
        select count(*) from dispatch_executions
        where simulated_ts >= :before and simulated_ts <= :now
    ) as count,
    coalesce((select min(started_at) from dispatcher_runs) <= :before, false) as is_old_enough;

-- name: skip_reasons
-- What became of this session's recommendations to open, in the last hour and at all; a halt does not count.
select
    count(*) filter (where executed) as executed,
    count(*) filter (where skipped_lately) as skipped,
    mode() within group (order by failure_reason) filter (where skipped_lately) as reason
from (
    select
        failure_reason,
        status in ('SIMULATED', 'EXECUTED') as executed,
        status = 'SKIPPED'
        and ts >= cast(:now as timestamptz) - interval '60 minutes'
        and failure_reason not like 'trading_state:%' as skipped_lately
    from dispatch_recommendations
    where session_date = :day and intent = 'open' and ts <= :now
) as decided;

-- name: cost_per_day
-- What the newest day up to this one that was measured would cost on AWS.
select
    day,
    sum(usd) as usd
from cost_lines
where
    day = (
        select max(measured.day) from cost_lines as measured
        where measured.day <= :day
    )
group by day;

-- name: services_are_running
-- Seconds since the end of the newest minute that each service has finished; 0 when all of the session is.
select
    known.service,
    case
        when newest.ended_at >= :closes_at then 0
        else coalesce(extract(epoch from cast(:now as timestamptz) - newest.ended_at), 'infinity')
    end as seconds
from (
    values
    ('rss-ingest', 'news'),
    ('classifier-worker', 'sentiment'),
    ('telemetry-1m', 'bars'),
    ('feature-computer-1m', 'features'),
    ('watchlist-engine-5m', 'watchlist'),
    ('signal-engine-1m', 'signals')
) as known (service, stage)
left join lateral (
    select done.minute + interval '1 minute' as ended_at
    from stage_minutes as done
    where done.stage = known.stage and done.minute <= :now
    order by done.minute desc
    limit 1
) as newest on true
union all
select
    'dispatcher' as service,
    case
        when max(started_at) >= :closes_at then 0
        else coalesce(extract(epoch from cast(:now as timestamptz) - max(started_at)), 'infinity')
    end as seconds
from dispatcher_runs
where started_at <= :now;

-- name: config_drift
-- What is wrong with the settings, which version runs and which is the newest, and what is overdue.
with newest as (
    select
        made.version,
        made.written_at,
        made.temporary
    from config_versions as made
    where made.refusal is null
    order by made.version desc
    limit 1
),

ends as (
    select min(cast(each.value ->> 'until' as timestamptz)) as at
    from newest
    cross join lateral jsonb_each(newest.temporary) as each
),

ran as (
    select
        run.config_version,
        run.written_at
    from dispatcher_runs as run
    order by run.started_at desc
    limit 1
)

select
    state.invalid,
    state.unread,
    newest.version,
    ran.config_version as ran,
    ran.written_at > newest.written_at + interval '2 minutes' as has_had_time,
    extract(epoch from cast(:clock as timestamptz) - ends.at) as overdue_seconds
from config_state as state
cross join ends
left join newest on true
left join ran on true;

-- The runbook's own. NOW() and CURRENT_DATE in them are the pipeline's.
-- noqa: disable=all

-- name: backlog_state
SELECT status, COUNT(*) 
FROM dispatch_recommendations
GROUP BY status
ORDER BY status;

-- name: stuck_processing
SELECT COUNT(*) 
FROM dispatch_recommendations
WHERE status = 'PROCESSING' 
  AND ts < NOW() - INTERVAL '10 minutes';

-- name: duplicate_executions
SELECT recommendation_id, COUNT(*) 
FROM dispatch_executions
GROUP BY recommendation_id
HAVING COUNT(*) > 1;

-- name: recent_dispatcher_runs
SELECT 
  started_at,
  finished_at,
  pulled_count,
  simulated_count,
  skipped_count,
  failed_count
FROM dispatcher_runs
ORDER BY started_at DESC
LIMIT 10;

-- name: execution_volume
SELECT COUNT(*) 
FROM dispatch_executions
WHERE simulated_ts >= CURRENT_DATE;

-- name: execution_freshness
SELECT 
  ticker,
  simulated_ts,
  sim_json->'bar_used'->>'timestamp' as bar_ts,
  EXTRACT(EPOCH FROM (simulated_ts - (sim_json->'bar_used'->>'timestamp')::timestamptz)) as age_sec
FROM dispatch_executions
WHERE simulated_ts >= NOW() - INTERVAL '1 hour'
ORDER BY age_sec DESC
LIMIT 10;
