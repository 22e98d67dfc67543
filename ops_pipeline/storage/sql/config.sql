-- name: newest_version
-- The version in force.
select
    version,
    source,
    base,
    overrides,
    temporary,
    effective,
    config_hash,
    changes,
    refusal,
    changed_by,
    reason,
    changed_at
from config_versions
where refusal is null
order by version desc
limit 1;

-- name: versions
-- Versions with what was refused among them, newest first.
select
    version,
    source,
    base,
    overrides,
    temporary,
    effective,
    config_hash,
    changes,
    refusal,
    changed_by,
    reason,
    changed_at
from config_versions
where cast(:version as integer) is null or version = :version
order by version desc
limit :limit;

-- name: insert_version
-- Add the next version.
insert into config_versions (
    version, source, base, overrides, temporary, effective, config_hash, changes, refusal,
    changed_by, reason, changed_at
)
select
    coalesce(max(known.version), 0) + 1,
    :source,
    cast(:base as jsonb),
    cast(:overrides as jsonb),
    cast(:temporary as jsonb),
    cast(:effective as jsonb),
    :config_hash,
    cast(:changes as jsonb),
    :refusal,
    :changed_by,
    :reason,
    :changed_at
from config_versions as known
returning version;

-- name: read_state
-- How the last look at the settings went.
select
    seen,
    invalid,
    unread
from config_state;

-- name: update_state
-- Keep how a look went; what was wrong before is wrong since then.
update config_state
set
    seen = :seen,
    invalid = :invalid,
    invalid_since = case when :invalid <> '' then coalesce(invalid_since, cast(:now as timestamptz)) end,
    unread = :unread,
    unread_since = case when :unread <> '' then coalesce(unread_since, cast(:now as timestamptz)) end;
