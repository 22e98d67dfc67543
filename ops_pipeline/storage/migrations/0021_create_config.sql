-- The dispatcher's settings as versions, who changed what and why; and who moved a service's switch.

-- Version by version: what the layers below gave, what the operator's store overrode, what came of it.
-- A refused one never was in force: something was found that cannot be used, and what it was before holds.
create table config_versions (
    version integer primary key check (version > 0),
    source text not null check (source in ('init', 'cli', 'ssm', 'rollback', 'expiry', 'env', 'code')),
    base jsonb not null,
    overrides jsonb not null,
    temporary jsonb not null default '{}',
    effective jsonb not null,
    config_hash text not null,
    changes jsonb not null,
    refusal text check (refusal <> ''),
    changed_by text not null,
    reason text not null,
    changed_at timestamptz not null,
    written_at timestamptz not null default clock_timestamp(),
    check (refusal is null or changes = '{}')
);
create trigger config_versions_append_only before update or delete on config_versions
for each row execute function refuse_change();
create trigger config_versions_no_truncate before truncate on config_versions
for each statement execute function refuse_change();

-- How the last look at the settings went: the parameter as it was seen, and what was wrong, since when.
create table config_state (
    only_row boolean primary key default true check (only_row),
    seen text not null default '',
    invalid text not null default '',
    invalid_since timestamptz,
    unread text not null default '',
    unread_since timestamptz,
    check ((invalid = '') = (invalid_since is null)),
    check ((unread = '') = (unread_since is null))
);
insert into config_state (only_row) values (true);

-- Older rows have none: nobody counted.
alter table dispatcher_runs add column config_version integer;
alter table dispatch_executions add column config_version integer, add column config_hash text;

alter table services add column changed_by text not null default '';
create table service_changes (
    id bigint generated always as identity primary key,
    service text not null,
    is_enabled boolean not null,
    disabled_until timestamptz,
    changed_by text not null,
    reason text not null,
    written_at timestamptz not null default clock_timestamp()
);

create function keep_service_change() returns trigger language plpgsql as $$
begin
    insert into service_changes (service, is_enabled, disabled_until, changed_by, reason)
    values (new.service, new.is_enabled, new.disabled_until, new.changed_by, new.reason);
    return null;
end $$;
create trigger services_kept after insert or update on services
for each row execute function keep_service_change();
