-- name: delete_lines
-- A day that is measured again begins anew.
delete from cost_lines
where day = :day;

-- name: insert_line
-- One line of a day's cost.
insert into cost_lines (day, item, quantity, unit, usd, is_standing, measured_at)
values (:day, :item, :quantity, :unit, :usd, :is_standing, :measured_at);

-- name: lines
-- A day's cost, the dearest first.
select
    item,
    quantity,
    unit,
    usd,
    is_standing
from cost_lines
where day = :day
order by usd desc, item;

-- name: logged_bytes
-- How much the logs grew in a session, where that was measured.
select event_log_growth_bytes
from pipeline_slo_counters
where session_date = :day;
