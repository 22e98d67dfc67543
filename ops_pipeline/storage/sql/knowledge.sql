-- name: read_present
-- The present of a replay.
select present from replay_clock;

-- name: set_present
-- Move the present of a replay.
insert into replay_clock (present) values (:present)
on conflict (only_row) do update set present = excluded.present, written_at = clock_timestamp();

-- name: insert_cutoffs
-- Keep the cut-off of each minute; one that stands already stays.
insert into minute_cutoffs (
    minute, session_date, session_opens_at, window_starts_at, oldest_bar_at, cutoff, run_id
)
values (
    :minute, :session_date, :session_opens_at, :window_starts_at, :oldest_bar_at, :cutoff, :run_id
)
on conflict (minute) do nothing;

-- name: cutoffs_between
-- The cut-offs in [start, end), in order.
select
    minute,
    session_date,
    cutoff
from minute_cutoffs
where minute >= :start and minute < :end
order by minute;

-- name: insert_stage_minutes
-- A stage has finished with these minutes; the run that did so first keeps its name on them.
insert into stage_minutes (stage, minute, session_date, rows_count, run_id)
values (:stage, :minute, :session_date, :rows_count, :run_id)
on conflict (stage, minute) do update
    set rows_count = excluded.rows_count, written_at = clock_timestamp();

-- name: newest_stage_minutes
-- How far each stage has come, and when it last wrote.
select
    stage,
    max(minute) as minute,
    max(written_at) as written_at
from stage_minutes
group by stage
order by stage;

-- name: finished_minutes
-- The minutes in [start, end) that every one of these stages has finished.
select minute
from stage_minutes
where minute >= :start and minute < :end and stage = any(:stages)
group by minute
having count(*) = cardinality(:stages)
order by minute;

-- name: finished_since
-- The minutes in [start, end) that a stage has finished, and when it did last.
select
    minute,
    written_at
from stage_minutes
where minute >= :start and minute < :end and stage = :stage
order by minute;

-- name: finished_counts
-- How many rows a stage has made for each minute in [start, end) that it has finished.
select
    minute,
    rows_count
from stage_minutes
where minute >= :start and minute < :end and stage = :stage
order by minute;

-- name: passed_minutes
-- The minutes of a session in [start, end) that others have gone past, there or later, knowing as much.
with seen as (
    select
        asked.minute,
        asked.cutoff,
        max(
            case
                when
                    exists (
                        select 1
                        from stage_minutes as done
                        where done.minute = asked.minute and done.stage = any(:stages)
                    )
                    then asked.cutoff
            end
        ) over (order by asked.minute desc) as passed_with
    from minute_cutoffs as asked
    where asked.session_date = :session_date and asked.minute >= :start
)

select minute
from seen
where minute < :end and passed_with >= cutoff
order by minute;

-- name: finished_rows
-- How many rows all stages have made for the minutes in [start, end).
select coalesce(sum(rows_count), 0) as rows_count
from stage_minutes
where minute >= :start and minute < :end;

-- name: insert_replay_session
-- A session is played on a market.
insert into replay_sessions (session_date, market) values (:session_date, :market)
on conflict (session_date) do nothing;

-- name: replay_sessions
-- Which market each session was played on.
select
    session_date,
    market
from replay_sessions
order by session_date;
