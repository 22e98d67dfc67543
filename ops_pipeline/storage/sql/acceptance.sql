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
    or (disabled_until > cast(:now as timestamptz) - interval '5 minutes' and disabled_until <= :now)
order by service;

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
    min(ts) as begun_at,
    mode() within group (order by failure_reason) filter (where skipped_lately) as reason
from (
    select
        ts,
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
where started_at <= :now
order by service;

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

-- name: bars_are_fresh
-- Seconds since the newest bar of the session ended, by what is known.
select
    coalesce(
        extract(epoch from cast(:now as timestamptz) - (max(newest.minute) + interval '1 minute')), 'infinity'
    ) as seconds
from universe
cross join lateral (
    select bar.minute
    from bars_1m as bar
    where
        bar.ticker = universe.ticker
        and bar.minute >= :opens_at and bar.minute <= :now and bar.available_at <= :now
    order by bar.minute desc
    limit 1
) as newest;

-- name: bar_volume
-- The minutes that the stage has finished in the session, and the bars of tracked tickers until then.
select
    (
        select count(*)
        from stage_minutes
        where
            stage = 'bars' and minute >= :opens_at and minute < :closes_at
            and minute < cast(:now as timestamptz) - interval '2 minutes'
    ) as minutes,
    (
        select count(bar.minute)
        from universe
        inner join bars_1m as bar
            on
                universe.ticker = bar.ticker
                and bar.minute >= :opens_at and bar.minute < :closes_at
                and bar.minute < cast(:now as timestamptz) - interval '2 minutes'
    ) as bars;

-- name: feature_completeness
-- The minutes of the last quarter of an hour that are finished, for each ticker that had its 50 bars before.
with finished as (
    select
        cutoffs.minute,
        cutoffs.cutoff
    from minute_cutoffs as cutoffs
    inner join stage_minutes as done on cutoffs.minute = done.minute and done.stage = 'features'
    where
        cutoffs.minute >= :opens_at
        and cutoffs.minute >= cast(:now as timestamptz) - interval '17 minutes'
        and cutoffs.minute < cast(:now as timestamptz) - interval '2 minutes'
),

begun as (
    select
        min(minute) as minute,
        min(cutoff) as cutoff
    from finished
),

ready as (
    select universe.ticker
    from universe
    cross join begun
    inner join lateral (
        select bar.available_at
        from bars_1m as bar
        where bar.ticker = universe.ticker and bar.minute <= begun.minute
        order by bar.minute desc
        limit 50
    ) as newest on true
    group by universe.ticker, begun.cutoff
    having count(*) = 50 and max(newest.available_at) <= begun.cutoff
)

select
    (select count(*) from ready) * (select count(*) from finished) as expected,
    (
        select count(*)
        from features.features_1m as made
        inner join finished on made.minute = finished.minute
        inner join ready on made.ticker = ready.ticker
    ) as found;

-- name: watchlist_cadence
-- Each fifth minute since the stage first finished one, in the last hour, and those that were decided.
with begun as (
    select min(minute) as minute
    from stage_minutes
    where stage = 'watchlist' and minute >= :opens_at and minute < :closes_at
),

due as (
    select series.minute
    from begun
    cross join
        generate_series(
            cast(:opens_at as timestamptz),
            least(:closes_at, cast(:now as timestamptz) - interval '4 minutes') - interval '1 second',
            interval '5 minutes'
        ) as series (minute)
    where series.minute >= begun.minute and series.minute >= cast(:now as timestamptz) - interval '64 minutes'
)

select
    count(*) as due,
    count(*) filter (
        where exists (
            select 1
            from watchlist_entries as entry
            where entry.minute = due.minute
        )
        -- Without features there is nothing to be decided on.
        or (
            exists (
                select 1
                from stage_minutes as done
                where done.stage = 'watchlist' and done.minute = due.minute
            )
            and not exists (
                select 1
                from features.features_1m as made
                where made.minute = due.minute
            )
        )
    ) as decided
from due;

-- name: news_volume
-- The minutes that the stage has finished in the session, and the stories that became known since its open.
select
    (
        select count(*)
        from stage_minutes
        where stage = 'news' and minute >= :opens_at and minute < :closes_at and minute < :now
    ) as minutes,
    (
        select count(*)
        from news_items
        where
            event_at >= cast(:opens_at as timestamptz) - interval '30 days'
            and available_at >= :opens_at and available_at <= :now
    ) as stories;

-- name: sentiment_volume
-- The minutes that the stage has finished in the session, and the session's stories that have a score.
select
    (
        select count(*)
        from stage_minutes
        where stage = 'sentiment' and minute >= :opens_at and minute < :closes_at and minute < :now
    ) as minutes,
    (
        select count(*)
        from news_items as item
        where
            item.event_at >= cast(:opens_at as timestamptz) - interval '30 days'
            and item.available_at >= :opens_at and item.available_at <= :now
            and exists (
                select 1
                from news_sentiments as scored
                where scored.text_hash = item.text_hash
            )
    ) as scored;

-- name: news_are_scored
-- The stories of the last day, but for the newest: scored by the model that scored last, or given up.
with stories as (
    select
        news_id,
        text_hash
    from news_items
    where
        event_at >= cast(:now as timestamptz) - interval '30 days'
        and available_at >= cast(:now as timestamptz) - interval '1 day'
        and available_at < cast(:now as timestamptz) - interval '3 minutes'
),

used as (
    select
        scored.model,
        scored.revision
    from stories
    inner join news_sentiments as scored on stories.text_hash = scored.text_hash
    order by scored.available_at desc
    limit 1
)

select
    count(*) as stories,
    count(*) filter (where scored.text_hash is not null) as scored,
    count(*) filter (where scored.text_hash is null and tried.is_given_up) as given_up
from stories
left join lateral (
    select each.text_hash
    from news_sentiments as each
    inner join used on each.model = used.model and each.revision = used.revision
    where each.text_hash = stories.text_hash
) as scored on true
left join lateral (
    select bool_or(attempt.attempts >= 3) as is_given_up
    from news_scoring_attempts as attempt
    where attempt.text_hash = stories.text_hash
) as tried on true;

-- name: news_name_tickers
-- The stories of the last day, but for the newest, and those of them that name a ticker.
select
    count(*) as stories,
    count(*) filter (
        where exists (
            select 1
            from news_tickers as link
            where link.news_id = item.news_id
        )
    ) as linked
from news_items as item
where
    item.event_at >= cast(:now as timestamptz) - interval '30 days'
    and item.available_at >= cast(:now as timestamptz) - interval '1 day'
    and item.available_at < cast(:now as timestamptz) - interval '3 minutes';

-- name: signal_volume
-- The minutes that the stage has finished in the session, and its signals to buy or to sell.
select
    (
        select count(*)
        from stage_minutes
        where stage = 'signals' and minute >= :opens_at and minute < :closes_at and minute < :now
    ) as minutes,
    (
        select count(*)
        from signals
        where minute >= :opens_at and minute < :closes_at and minute < :now and action <> 'HOLD'
    ) as signals;

-- name: decision_volume
-- The minutes that were decided in the session, and what became of its recommendations.
select
    (
        select count(*)
        from stage_minutes
        where stage = 'signals' and minute >= :opens_at and minute < :closes_at and minute < :now
    ) as minutes,
    count(*) filter (where status in ('SIMULATED', 'EXECUTED')) as executed,
    count(*) filter (where status = 'SKIPPED') as skipped,
    count(*) filter (where status = 'FAILED') as failed
from dispatch_recommendations
where session_date = :day and ts <= :now;

-- name: backlog_growth
-- What waited now, an hour ago and two hours ago, by when each row came and when it was closed.
select
    hours.ago as hours_ago,
    count(waiting.id) as pending
from generate_series(0, 2) as hours (ago)
left join dispatch_recommendations as waiting
    on
        waiting.session_date = :day
        and waiting.ts <= cast(:now as timestamptz) - make_interval(hours => hours.ago)
        and (
            waiting.processed_at is null
            or waiting.processed_at > cast(:now as timestamptz) - make_interval(hours => hours.ago)
        )
group by hours.ago
order by hours_ago;

-- name: abandoned_runs
-- Runs that were given up for dead in the last day, and those that nobody closes.
select
    (
        select count(*)
        from dispatcher_runs
        where
            outcome = 'ABANDONED' and finished_at <= :now
            and started_at >= cast(:now as timestamptz) - interval '1 day'
    ) as abandoned,
    (
        select count(*)
        from dispatcher_runs
        where finished_at is null and started_at < cast(:now as timestamptz) - interval '15 minutes'
    ) as unfinished;

-- name: run_durations
-- The median seconds of each service in the last hour, by minutes that were taken in their own turn.
with taken as (
    select
        done.stage,
        done.minute,
        done.first_written_at,
        cutoffs.cutoff,
        lag(done.first_written_at) over in_order as before_at,
        min(done.first_written_at) over (partition by done.run_id) as begun_at,
        max(done.minute) over (partition by done.run_id) as newest_minute
    from stage_minutes as done
    left join minute_cutoffs as cutoffs
        on
            done.minute = cutoffs.minute
            and cutoffs.minute >= cast(:now as timestamptz) - interval '60 minutes'
    where
        done.minute >= :opens_at and done.minute <= :now
        and done.minute >= cast(:now as timestamptz) - interval '60 minutes'
    window in_order as (partition by done.run_id, done.minute order by done.first_written_at)
),

took as (
    select
        known.service,
        extract(
            epoch from taken.first_written_at - greatest(
                taken.before_at,
                taken.minute + interval '1 minute',
                case when taken.stage = 'features' then taken.cutoff end
            )
        ) as seconds
    from taken
    inner join (
        values
        ('rss-ingest', 'news'),
        ('classifier-worker', 'sentiment'),
        ('telemetry-1m', 'bars'),
        ('feature-computer-1m', 'features'),
        ('watchlist-engine-5m', 'watchlist'),
        ('signal-engine-1m', 'signals')
    ) as known (service, stage) on taken.stage = known.stage
    where
        taken.minute = taken.newest_minute
        and taken.begun_at <= taken.minute + interval '140 seconds'
    union all
    select
        'dispatcher' as service,
        extract(epoch from finished_at - started_at) as seconds
    from dispatcher_runs
    where
        started_at >= cast(:now as timestamptz) - interval '60 minutes' and started_at <= :now
        and outcome = 'FINISHED'
)

select
    service,
    count(*) as count,
    percentile_cont(0.5) within group (order by seconds) as p50_seconds
from took
group by service
order by service;

-- name: duplicate_orders
-- Ids of ours that more than one order at the broker carries; what others number is their own.
select client_order_id
from broker_orders
where client_order_id <> ''
group by account, client_order_id
having count(*) > 1 and not bool_and(is_external)
order by client_order_id;

-- name: clock_skew
-- How many seconds the database server's clock is ahead of ours.
select extract(epoch from clock_timestamp() - cast(:clock as timestamptz)) as seconds;

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
