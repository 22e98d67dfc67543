-- name: insert_run
-- Open a run of the dispatcher, with its settings and what it found the world to be like.
insert into dispatcher_runs (
    run_id, started_at, mode, code_version, config_version, config_hash, run_config_json,
    run_summary_json, orchestrator_run_id
)
values (
    :run_id, :started_at, :mode, :code_version, :config_version, :config_hash,
    cast(:config as jsonb), cast(:summary as jsonb), :orchestrator_run_id
);

-- name: finish_run
-- Close a run; its counts come from the rows that it closed.
update dispatcher_runs as run
set
    finished_at = :finished_at, outcome = 'FINISHED', pulled_count = counted.pulled,
    processed_count = counted.simulated + counted.executed + counted.skipped + counted.failed,
    simulated_count = counted.simulated + counted.executed, executed_count = counted.executed,
    skipped_count = counted.skipped, failed_count = counted.failed,
    released_count = :released, expired_count = :expired
from (
    select
        count(*) as pulled,
        count(*) filter (where attempt.outcome = 'SIMULATED') as simulated,
        count(*) filter (where attempt.outcome = 'EXECUTED') as executed,
        count(*) filter (where attempt.outcome = 'SKIPPED') as skipped,
        count(*) filter (where attempt.outcome = 'FAILED') as failed
    from dispatch_attempts as attempt
    where attempt.dispatcher_run_id = :run_id
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

-- name: pending_closes
-- Closing orders that are proposed and not claimed.
select
    id,
    ticker,
    ts
from dispatch_recommendations
where status = 'PENDING' and intent = 'close'
order by id;

-- name: closings
-- The attempts to close each of these positions since it was opened; a flatten ends with its state.
select
    held.ticker,
    (
        array_agg(asked.reason ->> 'exit' order by asked.ts, asked.id)
        filter (where asked.reason ->> 'exit' <> 'flatten')
    )[1] as exit,
    count(*) filter (where placed.state in ('CANCELED', 'REJECTED', 'ABSENT')) as failures,
    max(asked.ts) as last_at
from unnest(cast(:tickers as text[]), cast(:opened as timestamptz[])) as held (ticker, opened_at)
inner join dispatch_recommendations as asked
    on
        held.ticker = asked.ticker and asked.intent = 'close'
        and date_trunc('minute', held.opened_at) <= asked.minute and held.opened_at < asked.ts
left join order_intents as placed on asked.id = placed.recommendation_id
group by held.ticker
order by held.ticker;

-- name: newest_closes
-- The newest closing order of each of these tickers since an instant, and what became of it.
select distinct on (asked.ticker)
    asked.ticker,
    asked.ts,
    asked.status,
    asked.failure_reason,
    placed.state as order_state,
    placed.reason as order_reason,
    coalesce(placed.filled_price, made.entry_price) as price
from dispatch_recommendations as asked
left join dispatch_executions as made on asked.id = made.recommendation_id
left join order_intents as placed on asked.id = placed.recommendation_id
where asked.ticker = any(:tickers) and asked.intent = 'close' and asked.minute >= :since
order by asked.ticker, asked.ts desc, asked.id desc;

-- name: expire
-- Close what is too old to trade, the oldest first, as a set.
update dispatch_recommendations
set status = 'SKIPPED', failure_reason = 'expired', processed_at = :now
where ctid = any(array(
    select old.ctid
    from dispatch_recommendations as old
    where old.status = 'PENDING' and old.expires_at <= :now and old.ts < :now
    order by old.ts
    limit :limit
    for update skip locked
));

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
    where
        waiting.status = 'PENDING' and waiting.ts <= :now and waiting.expires_at > :now
        -- Nothing lives longer; without it a claim would pass by the whole backlog first.
        and waiting.ts > cast(:now as timestamptz) - interval '1 hour'
        and (waiting.intent = 'close' or not cast(:closing_only as boolean))
        and waiting.id <> all(cast(:passed_over as bigint[]))
    order by waiting.ts, (waiting.intent = 'close') desc, waiting.confidence desc, waiting.ticker, waiting.id
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
-- Whoever decides orders holds this row, so that limits hold; rows that only name it do not wait.
select account from accounts
where account = :account
for no key update;

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
order by held.ts, (held.intent = 'close') desc, held.confidence desc, held.ticker, held.id
for update of held;

-- name: finish
-- Close claimed rows under the claims that hold them, each with what it was decided on.
update dispatch_recommendations as held
set
    status = decided.status, failure_reason = decided.failure_reason,
    risk_gate_json = decided.gates, snapshot_json = decided.snapshot,
    processed_at = :now, lease_until = null
from
    jsonb_to_recordset(cast(:rows as jsonb)) as decided (
        id bigint, epoch integer, status text, failure_reason text, gates jsonb, snapshot jsonb
    )
-- A row has a lease while it is PROCESSING; asked by that word, the planner reads all of them for each.
where held.id = decided.id and held.lease_until is not null and held.claim_epoch = decided.epoch;

-- name: read_trading_state
-- ACTIVE, REDUCING or HALTED.
select state from trading_state;

-- name: set_trading_state
-- Change the trading state; the database keeps each change.
update trading_state
set
    state = :state, changed_by = :changed_by, reason = :reason, changed_at = clock_timestamp(),
    must_be_flat = :state <> 'ACTIVE' and (must_be_flat or cast(:must_be_flat as boolean));

-- name: must_be_flat
-- True while an operator wants all positions closed.
select must_be_flat from trading_state;

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

-- name: is_waiting
-- True if there is work: a row that waits, or, where orders can move, one that is not settled.
-- A closing order that the newest run passed over waits for a bar; the run of each minute looks again.
select
    exists (
        select 1 from dispatch_recommendations
        where
            status = 'PENDING'
            and (
                intent = 'open'
                or created_at > coalesce(
                    (
                        select run.written_at
                        from dispatcher_runs as run
                        order by run.started_at desc
                        limit 1
                    ),
                    '-infinity'
                )
            )
    )
    or cast(:orders_move as boolean) and exists (
        select 1 from order_intents
        where settled_at is null
    ) as is_waiting;

-- name: executed_already
-- Which of these rows the ledger holds already, though they are not closed.
select made.recommendation_id
from dispatch_executions as made
where made.recommendation_id = any(cast(:ids as bigint[]))
order by made.recommendation_id;

-- name: take_lease
-- Be the only holder for so long: a new holder, the same one again, or the one after a dead one.
insert into leases (name, holder, held_until)
values (:name, :holder, clock_timestamp() + make_interval(secs => :seconds))
on conflict (name) do update
    set holder = excluded.holder, held_until = excluded.held_until, taken_at = clock_timestamp()
    where leases.holder = excluded.holder or leases.held_until < clock_timestamp();

-- name: end_lease
-- Let the next one in.
delete from leases
where name = :name and holder = :holder;

-- name: newest_runs
-- The runs that the dispatcher started last, newest first.
select
    started_at,
    finished_at,
    outcome,
    pulled_count,
    simulated_count,
    skipped_count,
    failed_count
from dispatcher_runs
order by started_at desc, run_id
limit :limit;
