-- name: is_unmeasured
-- Whether a session had minutes, and was not measured since its close.
select
    exists (
        select 1 from stage_minutes
        where stage = 'signals' and minute >= :opens_at and minute < :closes_at
    )
    and not exists (
        select 1 from pipeline_slo_counters
        where session_date = :session_date and measured_at >= :closes_at
    ) as is_unmeasured;

-- name: measure
-- The phases of a session's minutes in [opens_at, until), and what the session counts as a whole.
-- A minute is taken in its own turn by a run that goes no further, and that has begun when the next
-- minute settles; every other one is skipped, caught up later or not. Seconds are of the former alone.
with begun as (
    -- From here on the loop is expected: the first minute that was ever decided in time.
    select
        coalesce(
            (
                select min(minute) from stage_minutes
                where
                    stage = 'signals'
                    and first_written_at <= minute + interval '2 minutes' + make_interval(secs => :settle)
            ),
            (
                select min(minute) from stage_minutes
                where stage = 'signals' and minute >= :opens_at and minute < :until
            )
        ) as minute
),

due as (
    select
        series.minute,
        series.minute + interval '1 minute' as closes_at,
        series.minute + interval '1 minute' + make_interval(secs => :settle) as settles_at,
        series.minute + interval '2 minutes' + make_interval(secs => :settle) as next_settles_at
    from begun
    cross join
        generate_series(
            greatest(begun.minute, :opens_at), :until - interval '1 minute', interval '1 minute'
        ) as series (minute)
    where begun.minute is not null
),

stopped as (
    -- Brought up by other means, it has ended with the first minute that was finished after it.
    select
        down.began_at,
        coalesce(down.ended_at, resumed.at, 'infinity') as ended_at,
        down.stopped_by
    from downtimes as down
    cross join
        lateral (
            select min(done.first_written_at) as at
            from stage_minutes as done
            where done.minute > down.began_at and done.stage = 'signals'
        ) as resumed
    where
        down.began_at < :until and coalesce(down.ended_at, resumed.at, 'infinity') > :opens_at
),

said as (
    select
        coalesce(string_agg(
            format(
                'down from %s to %s in New York by %s',
                to_char(began_at at time zone 'America/New_York', 'HH24:MI'),
                case
                    when ended_at = 'infinity' then 'now'
                    else to_char(ended_at at time zone 'America/New_York', 'HH24:MI')
                end,
                stopped_by
            ), ', ' order by began_at
        ), '') as operator_down
    from stopped
),

stages as (
    select
        minute,
        stage,
        run_id,
        first_written_at,
        -- The run that decided the minute; what an earlier one has begun is not its work.
        max(run_id) filter (where stage = 'signals') over (partition by minute) as deciding_run_id
    from stage_minutes
    where stage = any(:stages) and minute >= :opens_at and minute < :until
),

runs as (
    select
        run_id,
        max(minute) as newest_minute
    from stage_minutes
    where stage = 'signals' and minute >= :opens_at
    group by run_id
),

decided as (
    select
        minute,
        max(deciding_run_id) as run_id,
        min(first_written_at) filter (where run_id = deciding_run_id) as begun_at,
        min(first_written_at) filter (where stage = 'bars') as bars_at,
        min(first_written_at) filter (where stage = 'features') as features_at,
        min(first_written_at) filter (where stage = 'signals') as signals_at
    from stages
    group by minute
),

closed as (
    -- What the signals recommended; exits are the dispatcher's own, and belong to no minute's decision.
    select
        minute,
        max(processed_at) as terminal_at
    from dispatch_recommendations
    where session_date = :session_date and intent = 'open'
    group by minute
    having bool_and(processed_at is not null)
),

turns as (
    select
        due.minute,
        due.closes_at,
        due.settles_at,
        decided.run_id,
        decided.bars_at,
        decided.features_at,
        decided.signals_at,
        closed.terminal_at,
        coalesce(
            runs.newest_minute = due.minute and decided.begun_at <= due.next_settles_at, false
        ) as is_own,
        coalesce(decided.signals_at > due.next_settles_at, false) as is_over
    from due
    left join decided on due.minute = decided.minute
    left join runs on decided.run_id = runs.run_id
    left join closed on due.minute = closed.minute
    -- What an operator had down when the minute's turn was is no minute that was missed; to start takes
    -- two minutes.
    where
        not exists (
            select 1
            from stopped
            where
                due.next_settles_at > stopped.began_at
                and due.closes_at <= stopped.ended_at + interval '2 minutes'
                and not coalesce(runs.newest_minute = due.minute, false)
        )
),

counted as (
    select
        count(*) as minutes,
        count(*) filter (where not is_own) as skipped,
        count(*) filter (where is_own and is_over) as late,
        min(minute) filter (where not is_own) as first_skipped,
        min(minute) filter (where is_own and is_over) as first_late,
        coalesce(array_agg(run_id) filter (where is_own), '{}') as run_ids
    from turns
),

taken as (
    select
        phases.phase,
        extract(epoch from phases.took) as seconds
    from turns
    cross join
        lateral (
            values
            ('close_to_bars', turns.bars_at - turns.closes_at),
            ('bars_to_features', turns.features_at - turns.bars_at),
            ('features_to_signals', turns.signals_at - turns.features_at),
            ('signals_to_terminal', turns.terminal_at - turns.signals_at),
            ('settle_to_signals', turns.signals_at - turns.settles_at)
        ) as phases (phase, took)
    where turns.is_own
),

measured as (
    select
        phase,
        count(seconds) as count,
        percentile_cont(0.50) within group (order by seconds) as p50_seconds,
        percentile_cont(0.95) within group (order by seconds) as p95_seconds,
        percentile_cont(0.99) within group (order by seconds) as p99_seconds,
        cast(max(seconds) as double precision) as max_seconds
    from taken
    group by phase
)

select
    counted.minutes,
    counted.skipped,
    counted.late,
    counted.first_skipped,
    counted.first_late,
    counted.run_ids,
    said.operator_down,
    asked.phase,
    coalesce(measured.count, 0) as count,
    measured.p50_seconds,
    measured.p95_seconds,
    measured.p99_seconds,
    measured.max_seconds
from counted
cross join said
cross join unnest(cast(:phases as text[])) with ordinality as asked (phase, number)
left join measured on asked.phase = measured.phase
order by asked.number;

-- name: launches
-- Asked of Dagster's database: from a run's creation to its first step. Both are UTC without saying so.
with steps as (
    select
        run_id,
        min(timestamp) as started_at
    from event_logs
    where run_id = any(:run_ids) and dagster_event_type = 'STEP_START'
    group by run_id
),

launched as (
    select extract(epoch from steps.started_at - runs.create_timestamp) as seconds
    from steps
    inner join runs on steps.run_id = runs.run_id
)

select
    count(seconds) as count,
    percentile_cont(0.50) within group (order by seconds) as p50_seconds,
    percentile_cont(0.95) within group (order by seconds) as p95_seconds,
    percentile_cont(0.99) within group (order by seconds) as p99_seconds,
    cast(max(seconds) as double precision) as max_seconds
from launched;

-- name: event_log_bytes
-- Asked of Dagster's database: what the event log takes on disk, with its indexes.
select pg_total_relation_size('event_logs') as bytes;

-- name: database_bytes
-- What the pipeline's database takes on disk.
select pg_database_size(current_database()) as bytes;

-- name: is_newest
-- Whether no later session was measured: sizes are those of the present.
select coalesce(max(session_date) <= :session_date, true) as is_newest from pipeline_slo_counters;

-- name: sizes_since
-- What the growth of a session is counted from: kept with it, or else the sizes of the session before.
select
    since,
    event_log_bytes,
    database_bytes
from (
    select
        session_date,
        since,
        event_log_bytes_since as event_log_bytes,
        database_bytes_since as database_bytes
    from pipeline_slo_counters
    where session_date = :session_date and since is not null
    union all
    select
        session_date,
        measured_at,
        event_log_bytes,
        database_bytes
    from pipeline_slo_counters
    where session_date < :session_date and event_log_bytes is not null
) as known
order by session_date desc
limit 1;

-- name: upsert_counters
-- Keep what a session counts; sizes that are not told again stay.
insert into pipeline_slo_counters as kept (
    session_date, minutes, skipped, late, first_skipped, first_late, operator_down,
    since, event_log_bytes_since, database_bytes_since,
    event_log_bytes, database_bytes, event_log_growth_bytes, database_growth_bytes, measured_at
)
values (
    :session_date, :minutes, :skipped, :late, :first_skipped, :first_late, :operator_down,
    :since, :event_log_bytes_since, :database_bytes_since,
    :event_log_bytes, :database_bytes, :event_log_growth_bytes, :database_growth_bytes, :measured_at
)
on conflict (session_date) do update
    set
        minutes = excluded.minutes,
        skipped = excluded.skipped,
        late = excluded.late,
        first_skipped = excluded.first_skipped,
        first_late = excluded.first_late,
        operator_down = excluded.operator_down,
        since = coalesce(excluded.since, kept.since),
        event_log_bytes_since = coalesce(excluded.event_log_bytes_since, kept.event_log_bytes_since),
        database_bytes_since = coalesce(excluded.database_bytes_since, kept.database_bytes_since),
        event_log_bytes = coalesce(excluded.event_log_bytes, kept.event_log_bytes),
        database_bytes = coalesce(excluded.database_bytes, kept.database_bytes),
        event_log_growth_bytes = coalesce(excluded.event_log_growth_bytes, kept.event_log_growth_bytes),
        database_growth_bytes = coalesce(excluded.database_growth_bytes, kept.database_growth_bytes),
        measured_at = excluded.measured_at;

-- name: upsert_phase
-- Keep a phase of a session; launches that Dagster has forgotten meanwhile stay.
insert into pipeline_slo as kept (
    session_date, phase, count, p50_seconds, p95_seconds, p99_seconds, max_seconds
)
values (:session_date, :phase, :count, :p50_seconds, :p95_seconds, :p99_seconds, :max_seconds)
on conflict (session_date, phase) do update
    set
        count = excluded.count,
        p50_seconds = excluded.p50_seconds,
        p95_seconds = excluded.p95_seconds,
        p99_seconds = excluded.p99_seconds,
        max_seconds = excluded.max_seconds
    where excluded.phase <> 'run_launch' or excluded.count >= kept.count;

-- name: counters
-- What one session counts, or without a day the one that was measured last.
select
    session_date,
    minutes,
    skipped,
    late,
    first_skipped,
    first_late,
    operator_down,
    event_log_bytes,
    database_bytes,
    event_log_growth_bytes,
    database_growth_bytes,
    measured_at
from pipeline_slo_counters
where cast(:day as date) is null or session_date = :day
order by measured_at desc, session_date desc
limit 1;

-- name: phases
-- The phases of one session.
select
    phase,
    count,
    p50_seconds,
    p95_seconds,
    p99_seconds,
    max_seconds
from pipeline_slo
where session_date = :session_date
order by array_position(cast(:phases as text[]), phase);
