-- name: insert_event
-- Keep what happened to the machine.
insert into machine_events (what, seconds, at)
values (:what, :seconds, :at);

-- name: newest_event
-- What happened last.
select
    what,
    seconds,
    at
from machine_events
order by at desc, id desc
limit 1;
