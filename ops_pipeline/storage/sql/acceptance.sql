-- What the checks ask, each of the pipeline's present: :now, and from the calendar :today (midnight at the
-- exchange), :day, :opens_at and :closes_at of the session that is open or was last, :before (the open of the
-- session before that). Live, minutes that were filled in later (a backfill) are no basis of a volume.
-- At the end of the file stand the runbook's own, word for word.

-- name: installed
-- What is tracked, since when this database is there, and when an operator last brought it up again.
select
    (select count(*) from universe) as tickers,
    (select created_at from installation) as installed_at,
    (select max(ended_at) from downtimes) as resumed_at;

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
        -- Bars of minutes that nobody finished were imported: they stand against nothing.
        inner join stage_minutes as done on bar.minute = done.minute and done.stage = 'bars'
    ) as bars;

-- name: feature_completeness
-- The rows of the last quarter of an hour that are due: its ticker had 50 bars before, and has a current one.
with finished as (
    select
        cutoffs.minute,
        cutoffs.cutoff,
        coalesce(cutoffs.window_starts_at, '-infinity') as window_starts_at,
        coalesce(cutoffs.oldest_bar_at, '-infinity') as oldest_bar_at
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
        min(cutoff) as cutoff,
        min(window_starts_at) as window_starts_at
    from finished
),

ready as (
    select universe.ticker
    from universe
    cross join begun
    inner join lateral (
        select bar.available_at
        from bars_1m as bar
        where
            bar.ticker = universe.ticker
            and bar.minute <= begun.minute and bar.minute >= begun.window_starts_at
        order by bar.minute desc
        limit 50
    ) as newest on true
    group by universe.ticker, begun.cutoff
    having count(*) = 50 and max(newest.available_at) <= begun.cutoff
),

due as (
    select
        ready.ticker,
        finished.minute
    from ready
    cross join finished
    where
        exists (
            select 1
            from bars_1m as bar
            where
                bar.ticker = ready.ticker
                and bar.minute <= finished.minute and bar.minute >= finished.oldest_bar_at
                and bar.available_at <= finished.cutoff
        )
)

select
    count(*) as expected,
    count(made.ticker) as found,
    array_agg(distinct due.ticker order by due.ticker) filter (where made.ticker is null) as incomplete
from due
left join features.features_1m as made on due.ticker = made.ticker and due.minute = made.minute;

-- name: tickers_have_bars
-- The newest known bar of each tracked ticker in the session; null where there is none.
select
    universe.ticker,
    newest.minute as newest_at
from universe
left join lateral (
    select bar.minute
    from bars_1m as bar
    where
        bar.ticker = universe.ticker and bar.minute >= :opens_at and bar.minute < :closes_at
        and bar.minute <= :now and bar.available_at <= :now
    order by bar.minute desc
    limit 1
) as newest on true
order by universe.ticker;

-- name: watchlist_cadence
-- Each fifth minute since the stage first finished one in its turn, in the last hour, and those that were
-- decided. A minute that was filled in later, as by a backfill, says nothing of when the loop began.
with begun as (
    select min(minute) as minute
    from stage_minutes
    where
        stage = 'watchlist' and minute >= :opens_at and minute < :closes_at
        and (cast(:is_live as boolean) is false or first_written_at < minute + interval '10 minutes')
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
    where
        series.minute >= begun.minute and series.minute >= cast(:now as timestamptz) - interval '64 minutes'
        and not exists (
            select 1
            from downtimes
            where
                series.minute + interval '4 minutes' > downtimes.began_at
                and series.minute < downtimes.ended_at + interval '2 minutes'
        )
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
        where
            stage = 'news' and minute >= :opens_at and minute < :closes_at and minute < :now
            and (cast(:is_live as boolean) is false or first_written_at < minute + interval '10 minutes')
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
        where
            stage = 'sentiment' and minute >= :opens_at and minute < :closes_at and minute < :now
            and (cast(:is_live as boolean) is false or first_written_at < minute + interval '10 minutes')
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
        where
            stage = 'signals' and minute >= :opens_at and minute < :closes_at and minute < :now
            and (cast(:is_live as boolean) is false or first_written_at < minute + interval '10 minutes')
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
        where
            stage = 'signals' and minute >= :opens_at and minute < :closes_at and minute < :now
            and (cast(:is_live as boolean) is false or first_written_at < minute + interval '10 minutes')
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
-- How many seconds the server's clock is ahead of ours, and of a dispatcher that opens nothing for it.
select
    extract(epoch from clock_timestamp() - cast(:clock as timestamptz)) as seconds,
    (
        select cast(run.run_summary_json ->> 'clock_skew_seconds' as double precision)
        from dispatcher_runs as run
        where
            run.started_at <= :now and run.started_at > cast(:now as timestamptz) - interval '5 minutes'
            and abs(cast(run.run_summary_json ->> 'clock_skew_seconds' as double precision))
            > cast(run.run_config_json ->> 'max_clock_skew_seconds' as double precision)
        order by run.started_at desc
        limit 1
    ) as refused_seconds;

-- name: unclosed_positions
-- Positions that had to be closed and are held: since when, and how the newest failed order ended.
with asked as (
    select
        id,
        ticker,
        ts
    from dispatch_recommendations
    where
        intent = 'close' and session_date >= cast(:day as date) - 7 and ts <= :now
        and (reason ->> 'exit' <> 'flatten' or (select must_be_flat from trading_state))
),

running as (
    select
        ticker,
        simulated_ts,
        sum(case when side = 'buy' then qty else -qty end) over in_order as held,
        lead(ticker) over in_order is null as is_newest
    from ledger_fills
    where ticker in (select asked.ticker from asked) and simulated_ts <= :now
    window in_order as (partition by ticker order by simulated_ts, written_at)
),

positions as (
    select
        ticker,
        max(held) filter (where is_newest) as held,
        coalesce(max(simulated_ts) filter (where held = 0), '-infinity') as flat_at
    from running
    group by ticker
)

select
    positions.ticker,
    cast(positions.held as integer) as held,
    min(asked.ts) as due_at,
    count(failed.recommendation_id) as failures,
    (
        array_agg(lower(failed.state) || ': ' || failed.reason order by asked.ts desc)
        filter (where failed.recommendation_id is not null)
    )[1] as failure
from positions
inner join asked on positions.ticker = asked.ticker and positions.flat_at < asked.ts
left join order_intents as failed
    on asked.id = failed.recommendation_id and failed.state in ('CANCELED', 'REJECTED', 'ABSENT')
where positions.held <> 0
group by positions.ticker, positions.held
order by positions.ticker;

-- name: opening_freshness
-- As execution_freshness, for orders that open.
select
    ticker,
    simulated_ts,
    sim_json -> 'bar_used' ->> 'timestamp' as bar_ts,
    extract(
        epoch from simulated_ts - cast(sim_json -> 'bar_used' ->> 'timestamp' as timestamptz)
    ) as age_sec
from dispatch_executions
where simulated_ts >= cast(:now as timestamptz) - interval '1 hour' and intent = 'open'
order by age_sec desc
limit 10;

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
