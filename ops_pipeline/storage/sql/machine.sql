-- name: insert_event
-- Keep what happened to the machine.
insert into machine_events (what, seconds, at)
values (:what, :seconds, :at);

-- name: begin_downtime
-- An operator takes all of it down; of one that is down already the first time counts.
insert into downtimes (began_at, stopped_by)
values (:at, :stopped_by)
on conflict do nothing;

-- name: end_downtime
-- An operator brings it up again.
update downtimes
set ended_at = greatest(began_at, :at)
where ended_at is null;

-- name: newest_event
-- What happened last.
select
    what,
    seconds,
    at
from machine_events
order by at desc, id desc
limit 1;
