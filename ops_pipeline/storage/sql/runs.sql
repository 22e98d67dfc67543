-- Asked of Dagster's own database: what its runs did and said. It is read without Dagster, which
-- takes seconds to import.

-- name: newest_starts
-- When each of these steps last began, by the newest 5,000 that did.
select
    step_key,
    max(timestamp) as started_at
from (
    select
        step_key,
        timestamp
    from event_logs
    where dagster_event_type = 'STEP_START'
    order by id desc
    limit 5000
) as newest
where step_key = any(:steps)
group by step_key;

-- name: told
-- What runs with one of these steps have told within [since, until], of the steps and of the whole
-- run, the newest first. A check's step is named after what it checks.
select
    event_logs.run_id,
    event_logs.timestamp,
    event_logs.event
from runs
inner join event_logs on runs.run_id = event_logs.run_id
where
    (
        runs.update_timestamp >= :since
        or runs.status not in ('SUCCESS', 'FAILURE', 'CANCELED')
    )
    and event_logs.timestamp between :since and :until
    and exists (
        select 1
        from event_logs as steps
        where steps.run_id = runs.run_id and steps.step_key = any(:steps)
    )
    and (
        event_logs.step_key is null
        or event_logs.step_key = any(:steps)
        or event_logs.step_key like any(:checks)
    )
order by event_logs.id desc
limit :at_most;

-- name: task_seconds
-- How often each of these steps ran within [start, end), and how long in all. What is billed of a
-- task has a least length. A step that has not ended counts until the end that was asked for.
select
    step_key,
    count(*) as runs,
    sum(seconds) as seconds,
    sum(greatest(seconds, :least)) as billed_seconds
from (
    select
        step_key,
        extract(epoch from coalesce(
            max(timestamp) filter (where dagster_event_type != 'STEP_START'),
            :end
        ) - min(timestamp)) as seconds
    from event_logs
    where
        dagster_event_type in ('STEP_START', 'STEP_SUCCESS', 'STEP_FAILURE')
        and step_key = any(:steps)
        and timestamp >= :start and timestamp < :end
    group by run_id, step_key
) as tasks
group by step_key;

-- name: newest_ticks
-- When each of these schedules and sensors last ticked, by the newest 2,000 ticks; those that
-- somebody has stopped are left out.
with newest as (
    select
        cast(tick_body as jsonb) ->> 'job_name' as name,
        timestamp
    from job_ticks
    order by id desc
    limit 2000
)

select
    wanted.name,
    max(newest.timestamp) as ticked_at
from unnest(cast(:names as text[])) as wanted (name)
left join newest on wanted.name = newest.name
where
    not exists (
        select 1
        from instigators
        where
            instigators.status = 'STOPPED'
            and instigators.instigator_body like '%"job_name": "' || wanted.name || '"%'
    )
group by wanted.name
order by wanted.name;
