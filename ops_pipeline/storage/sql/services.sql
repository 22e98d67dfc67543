-- name: upsert_service
-- Switch a service; disabled_until is when it comes back by itself.
insert into services (service, is_enabled, disabled_until, reason)
values (:service, :is_enabled, :disabled_until, :reason)
on conflict (service) do update
    set
        is_enabled = excluded.is_enabled, disabled_until = excluded.disabled_until,
        reason = excluded.reason, changed_at = clock_timestamp();

-- name: all_services
-- Every switch that was ever moved.
select
    service,
    is_enabled,
    disabled_until,
    reason,
    changed_at
from services
order by service;
