-- Each claim of a recommendation is kept with its end, and each decision with what it was made on.

-- What the gates knew; a closed row is frozen and is never deleted, so the queue is the ledger of decisions.
alter table dispatch_recommendations add column snapshot_json jsonb;

-- A bounded life lets a claim begin at the newest hour, however long the backlog behind it is.
alter table dispatch_recommendations
add constraint dispatch_recommendations_lifetime check (expires_at <= ts + interval '1 hour'),
add constraint dispatch_recommendations_claim check (
    status <> 'PROCESSING' or (dispatcher_run_id is not null and claimed_at is not null)
);
drop index dispatch_recommendations_pending;
-- The order in which rows are claimed.
create index dispatch_recommendations_pending
on dispatch_recommendations (ts, (intent = 'close') desc, confidence desc, ticker)
where status = 'PENDING';

-- What waits is found by the index above alone; one that holds it too would be taken for it.
drop index dispatch_recommendations_status;
create index dispatch_recommendations_status on dispatch_recommendations (status, ts desc)
where status <> 'PENDING';

-- A run's rows are found by their attempts.
drop index dispatch_recommendations_run;

-- A closed row has some 4 kB of decisions; to compress them took longer than all else of its update.
alter table dispatch_recommendations set (toast_tuple_target = 8160);
alter table dispatch_executions set (toast_tuple_target = 8160);

create trigger dispatch_recommendations_stay before delete on dispatch_recommendations
for each row execute function refuse_change();
create trigger dispatch_recommendations_no_truncate before truncate on dispatch_recommendations
for each statement execute function refuse_change();
create trigger dispatcher_runs_stay before delete on dispatcher_runs
for each row execute function refuse_change();
create trigger dispatcher_runs_no_truncate before truncate on dispatcher_runs
for each statement execute function refuse_change();

create or replace function guard_recommendation() returns trigger language plpgsql as $$
begin
    if (old.status, new.status) not in (
        ('PENDING', 'PROCESSING'), ('PENDING', 'SKIPPED'), ('PROCESSING', 'PENDING'),
        ('PROCESSING', 'SIMULATED'), ('PROCESSING', 'EXECUTED'), ('PROCESSING', 'SKIPPED'), ('PROCESSING', 'FAILED')
    ) then
        raise exception 'recommendation % may not go from % to %', old.id, old.status, new.status;
    end if;
    if new.claim_epoch - old.claim_epoch <> (new.status = 'PROCESSING')::integer then
        raise exception 'recommendation % may not go from epoch % to %', old.id, old.claim_epoch, new.claim_epoch;
    end if;
    if (
        new.id, new.ts, new.ticker, new.minute, new.session_date, new.action, new.instrument_type, new.intent,
        new.confidence, new.expires_at, new.reason, new.features_snapshot, new.sentiment_snapshot
    ) is distinct from (
        old.id, old.ts, old.ticker, old.minute, old.session_date, old.action, old.instrument_type, old.intent,
        old.confidence, old.expires_at, old.reason, old.features_snapshot, old.sentiment_snapshot
    ) then
        raise exception 'recommendation % was made, and does not change', old.id;
    end if;
    return new;
end $$;

-- One row for each claim, written when it ends: by a decision, or because it was given back.
create table dispatch_attempts (
    recommendation_id bigint not null references dispatch_recommendations,
    claim_epoch integer not null,
    dispatcher_run_id uuid not null,
    claimed_at timestamptz not null,
    outcome text not null check (outcome in ('RELEASED', 'SIMULATED', 'EXECUTED', 'SKIPPED', 'FAILED')),
    written_at timestamptz not null default clock_timestamp(),
    primary key (recommendation_id, claim_epoch)
);
create index dispatch_attempts_run on dispatch_attempts (dispatcher_run_id);
create trigger dispatch_attempts_append_only before update or delete on dispatch_attempts
for each row execute function refuse_change();
create trigger dispatch_attempts_no_truncate before truncate on dispatch_attempts
for each statement execute function refuse_change();

create function keep_attempt() returns trigger language plpgsql as $$
begin
    insert into dispatch_attempts (recommendation_id, claim_epoch, dispatcher_run_id, claimed_at, outcome)
    values (
        old.id, old.claim_epoch, old.dispatcher_run_id, old.claimed_at,
        case new.status when 'PENDING' then 'RELEASED' else new.status end
    );
    return null;
end $$;
create trigger dispatch_recommendations_attempts after update on dispatch_recommendations
for each row when (old.status = 'PROCESSING')
execute function keep_attempt();

-- Who alone may do a thing at a time; time says when another may take over, never who may write.
create table leases (
    name text primary key,
    holder uuid not null,
    held_until timestamptz not null,
    taken_at timestamptz not null default clock_timestamp()
);
