-- name: insert_run
-- Open a run of the dispatcher.
insert into dispatcher_runs (
    run_id, started_at, mode, code_version, config_hash, run_config_json, orchestrator_run_id
)
values (
    :run_id, :started_at, :mode, :code_version, :config_hash, cast(:config as jsonb), :orchestrator_run_id
);

-- name: finish_run
-- Close a run; its counts come from the rows that it closed.
update dispatcher_runs as run
set
    finished_at = :finished_at, outcome = 'FINISHED', pulled_count = :pulled,
    processed_count = counted.simulated + counted.executed + counted.skipped + counted.failed,
    simulated_count = counted.simulated + counted.executed, executed_count = counted.executed,
    skipped_count = counted.skipped, failed_count = counted.failed,
    released_count = :released, expired_count = :expired
from (
    select
        count(*) filter (where closed.status = 'SIMULATED') as simulated,
        count(*) filter (where closed.status = 'EXECUTED') as executed,
        count(*) filter (where closed.status = 'SKIPPED') as skipped,
        count(*) filter (where closed.status = 'FAILED') as failed
    from dispatch_recommendations as closed
    where closed.dispatcher_run_id = :run_id
) as counted
where run.run_id = :run_id and run.finished_at is null;

-- name: abandon_runs
-- Close runs whose process is gone, at the instant at which that was seen.
update dispatcher_runs
set finished_at = :now, outcome = 'ABANDONED'
where finished_at is null and written_at < clock_timestamp() - make_interval(mins => :older_than_minutes);

-- name: insert_exit
-- Propose to close a position; once a minute for each ticker.
insert into dispatch_recommendations (
    ts, ticker, minute, session_date, action, instrument_type, intent, confidence, reason,
    features_snapshot, sentiment_snapshot, expires_at, available_at
)
select
    :ts,
    :ticker,
    :minute,
    :session_date,
    :action,
    'STOCK',
    'close',
    1,
    cast(:reason as jsonb),
    cast(:features_snapshot as jsonb),
    null,
    :expires_at,
    :ts
where
    not exists (
        select 1
        from dispatch_recommendations as open_exit
        where
            open_exit.ticker = :ticker and open_exit.intent = 'close'
            and (open_exit.status in ('PENDING', 'PROCESSING') or open_exit.minute = :minute)
    )
on conflict (ticker, minute, intent) do nothing;

-- name: expire
-- Close what is too old to trade, as a set.
update dispatch_recommendations
set status = 'SKIPPED', failure_reason = 'expired', processed_at = :now
where id in (
    select old.id
    from dispatch_recommendations as old
    where old.status = 'PENDING' and old.expires_at <= :now
    limit 20000
    for update skip locked
);

-- name: release_stuck
-- Give back what a dead run holds; the lease decides, not the age of the signal.
update dispatch_recommendations
set status = 'PENDING', lease_until = null, claimed_at = null, dispatcher_run_id = null
where id in (
    select stuck.id
    from dispatch_recommendations as stuck
    where stuck.status = 'PROCESSING' and stuck.lease_until < clock_timestamp()
    limit 500
    for update skip locked
);

-- name: release_all
-- Give back what is held, whatever the leases say: nobody is at work.
update dispatch_recommendations
set status = 'PENDING', lease_until = null, claimed_at = null, dispatcher_run_id = null
where status = 'PROCESSING';

-- name: claim
-- Take pending rows for one run, oldest minute first; each claim has the next epoch.
with picked as (
    select waiting.id
    from dispatch_recommendations as waiting
    where waiting.status = 'PENDING' and waiting.ts <= :now and waiting.expires_at > :now
    order by waiting.ts, (waiting.intent = 'close') desc, waiting.confidence desc, waiting.ticker
    limit :limit
    for update skip locked
)

update dispatch_recommendations as claimed
set
    status = 'PROCESSING', claim_epoch = claimed.claim_epoch + 1, dispatcher_run_id = :run_id,
    claimed_at = :now, lease_until = clock_timestamp() + make_interval(secs => :lease_seconds)
from picked
where claimed.id = picked.id
returning claimed.id, claimed.claim_epoch;

-- name: lock_account
-- Whoever decides orders holds this row, so that limits hold.
select account from accounts
where account = :account
for update;

-- name: owned
-- The claimed rows that still are this run's, locked until the transaction ends.
select
    held.id,
    held.ts,
    held.ticker,
    held.minute,
    held.session_date,
    held.action,
    held.instrument_type,
    held.intent,
    held.confidence,
    held.expires_at,
    held.claim_epoch,
    held.reason,
    held.features_snapshot
from dispatch_recommendations as held
inner join unnest(cast(:ids as bigint[]), cast(:epochs as integer[])) as claim (id, epoch)
    on held.id = claim.id and held.claim_epoch = claim.epoch
where held.status = 'PROCESSING'
order by held.ts, (held.intent = 'close') desc, held.confidence desc, held.ticker
for update of held;

-- name: finish
-- Close a claimed row under the claim that holds it.
update dispatch_recommendations
set
    status = :status, failure_reason = :failure_reason, risk_gate_json = cast(:gates as jsonb),
    processed_at = :now, lease_until = null
where id = :id and status = 'PROCESSING' and claim_epoch = :claim_epoch;

-- name: read_trading_state
-- ACTIVE, REDUCING or HALTED.
select state from trading_state;

-- name: set_trading_state
-- Change the trading state; the database keeps each change.
update trading_state
set state = :state, changed_by = :changed_by, reason = :reason, changed_at = clock_timestamp();

-- name: trading_state_changes
-- Who changed the trading state, newest first.
select
    state,
    changed_by,
    reason,
    written_at
from trading_state_changes
order by id desc
limit :limit;

-- name: status_counts
-- How many recommendations stand where.
select
    status,
    count(*) as count
from dispatch_recommendations
group by status
order by status;

-- name: newest_pending
-- The newest row that waits, and how many wait.
select
    max(id) as id,
    count(*) as count
from dispatch_recommendations
where status = 'PENDING';

-- name: newest_run
-- When the dispatcher last started.
select max(started_at) as started_at from dispatcher_runs;
