-- The queue of recommendations, the runs that work on it, and the ledger of executions.

create table trading_state (
    only_row boolean primary key default true check (only_row),
    state text not null check (state in ('ACTIVE', 'REDUCING', 'HALTED')),
    changed_by text not null,
    reason text not null default '',
    changed_at timestamptz not null default clock_timestamp()
);
insert into trading_state (state, changed_by) values ('ACTIVE', 'init');

-- One paper account; its row is locked while orders are decided, so that limits hold.
create table accounts (
    account text primary key,
    created_at timestamptz not null default clock_timestamp()
);
insert into accounts (account) values ('paper');

create table dispatcher_runs (
    run_id uuid primary key,
    started_at timestamptz not null,
    finished_at timestamptz,
    outcome text check (outcome in ('FINISHED', 'ABANDONED')),
    pulled_count integer not null default 0,
    processed_count integer not null default 0,
    simulated_count integer not null default 0,
    executed_count integer not null default 0,
    skipped_count integer not null default 0,
    failed_count integer not null default 0,
    released_count integer not null default 0,
    expired_count integer not null default 0,
    mode text not null,
    code_version text not null,
    config_hash text not null,
    run_config_json jsonb not null,
    run_summary_json jsonb not null default '{}',
    orchestrator_run_id text not null,
    written_at timestamptz not null default clock_timestamp(),
    check ((finished_at is null) = (outcome is null))
);
create index dispatcher_runs_started_at on dispatcher_runs (started_at);
create index dispatcher_runs_unfinished on dispatcher_runs (written_at) where finished_at is null;

create table dispatch_recommendations (
    id bigint generated always as identity primary key,
    ts timestamptz not null,
    ticker text not null check (ticker ~ '^[A-Z][A-Z0-9]{0,5}([.-][A-Z0-9]{1,3})?$'),
    minute timestamptz not null,
    session_date date not null,
    action text not null check (action in ('BUY', 'SELL')),
    instrument_type text not null check (instrument_type = 'STOCK'),
    intent text not null check (intent in ('open', 'close')),
    confidence double precision not null check (confidence between 0 and 1),
    reason jsonb not null,
    features_snapshot jsonb,
    sentiment_snapshot jsonb,
    status text not null default 'PENDING' check (
        status in ('PENDING', 'PROCESSING', 'SIMULATED', 'EXECUTED', 'SKIPPED', 'FAILED')
    ),
    expires_at timestamptz not null,
    claim_epoch integer not null default 0,
    claimed_at timestamptz,
    lease_until timestamptz,
    dispatcher_run_id uuid references dispatcher_runs,
    processed_at timestamptz,
    failure_reason text,
    risk_gate_json jsonb,
    available_at timestamptz not null,
    created_at timestamptz not null default clock_timestamp(),
    unique (ticker, minute, intent),
    check (expires_at > ts),
    check ((status = 'PROCESSING') = (lease_until is not null)),
    check ((status in ('PENDING', 'PROCESSING')) = (processed_at is null)),
    check (status not in ('SKIPPED', 'FAILED') or failure_reason is not null)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01);
create index dispatch_recommendations_pending on dispatch_recommendations (ts, id) where status = 'PENDING';
create index dispatch_recommendations_leases on dispatch_recommendations (lease_until)
where status = 'PROCESSING';
create index dispatch_recommendations_run on dispatch_recommendations (dispatcher_run_id);
create index dispatch_recommendations_session on dispatch_recommendations (session_date);
create index dispatch_recommendations_status on dispatch_recommendations (status, ts desc);

create table dispatch_executions (
    execution_id uuid primary key,
    recommendation_id bigint not null unique references dispatch_recommendations,
    dispatcher_run_id uuid not null references dispatcher_runs,
    claim_epoch integer not null,
    account text not null references accounts,
    ticker text not null,
    action text not null,
    intent text not null check (intent in ('open', 'close')),
    decision_ts timestamptz not null,
    simulated_ts timestamptz not null,
    session_date date not null,
    side text not null check (side in ('buy', 'sell')),
    qty integer not null check (qty > 0),
    entry_price double precision not null check (entry_price > 0 and entry_price < 'Infinity'),
    notional double precision not null check (notional > 0 and notional < 'Infinity'),
    stop_loss_price double precision,
    take_profit_price double precision,
    max_hold_minutes integer,
    fill_model text not null,
    slippage_bps double precision not null,
    execution_mode text not null check (execution_mode = 'SIMULATED'),
    explain_json jsonb not null,
    risk_json jsonb not null,
    sim_json jsonb not null check (sim_json -> 'bar_used' ->> 'timestamp' is not null),
    written_at timestamptz not null default clock_timestamp()
);
create index dispatch_executions_simulated_ts on dispatch_executions (simulated_ts);
create index dispatch_executions_ticker on dispatch_executions (ticker, simulated_ts);

-- The only moves that exist; a terminal row never changes again.
create function guard_recommendation() returns trigger language plpgsql as $$
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
    return new;
end $$;
create trigger dispatch_recommendations_guard before update on dispatch_recommendations
for each row execute function guard_recommendation();

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is a ledger: rows are only added', tg_table_name;
end $$;
create trigger dispatch_executions_append_only before update or delete on dispatch_executions
for each row execute function refuse_change();
create trigger dispatch_executions_no_truncate before truncate on dispatch_executions
for each statement execute function refuse_change();
