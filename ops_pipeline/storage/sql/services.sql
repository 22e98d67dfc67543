-- name: upsert_service
-- Switch a service; disabled_until is when it comes back by itself.
insert into services (service, is_enabled, disabled_until, reason, changed_by)
values (:service, :is_enabled, :disabled_until, :reason, :changed_by)
on conflict (service) do update
    set
        is_enabled = excluded.is_enabled, disabled_until = excluded.disabled_until,
        reason = excluded.reason, changed_by = excluded.changed_by, changed_at = clock_timestamp();

-- name: all_services
-- Every switch that was ever moved.
select
    service,
    is_enabled,
    disabled_until,
    reason,
    changed_by,
    changed_at
from services
order by service;

-- name: service_changes
-- Each time that a switch was moved, newest first.
select
    service,
    is_enabled,
    disabled_until,
    changed_by,
    reason,
    written_at
from service_changes
order by id desc
limit :limit;
