-- Orders at a broker: decided with their recommendation, handed over afterwards, followed to their end.

-- A database that is made anew counts from 1 again; its orders must not take the ids of earlier ones.
create table installation (
    only_row boolean primary key default true check (only_row),
    id uuid not null default gen_random_uuid(),
    created_at timestamptz not null default clock_timestamp()
);
insert into installation default values;

alter table dispatch_executions drop constraint dispatch_executions_execution_mode_check;
alter table dispatch_executions add constraint dispatch_executions_execution_mode_check check (
    execution_mode in ('SIMULATED', 'ALPACA_PAPER')
);

create table order_intents (
    recommendation_id bigint primary key references dispatch_recommendations,
    client_order_id text not null unique check (length(client_order_id) between 8 and 48),
    account text not null references accounts,
    ticker text not null,
    intent text not null check (intent in ('open', 'close')),
    side text not null check (side in ('buy', 'sell')),
    qty integer not null check (qty > 0),
    state text not null default 'READY' check (
        state in ('READY', 'SENT', 'UNKNOWN', 'ACKED', 'PARTIAL', 'FILLED', 'CANCELED', 'REJECTED', 'ABSENT')
    ),
    epoch integer not null default 0,
    tries integer not null default 0,
    broker_order_id text unique,
    filled_qty integer not null default 0 check (filled_qty between 0 and qty),
    filled_price double precision check (filled_price > 0 and filled_price < 'Infinity'),
    filled_at timestamptz,
    reason text not null default '',
    expires_at timestamptz not null,
    decided_at timestamptz not null,
    posted_at timestamptz,
    asked_at timestamptz,
    not_found integer not null default 0,
    settled_at timestamptz,
    written_at timestamptz not null default clock_timestamp(),
    check ((filled_qty > 0) = (filled_price is not null)),
    check (state <> 'FILLED' or filled_qty = qty),
    check (state not in ('READY', 'REJECTED', 'ABSENT') or filled_qty = 0),
    check ((state in ('FILLED', 'CANCELED', 'REJECTED', 'ABSENT')) = (settled_at is not null))
);
create index order_intents_open on order_intents (decided_at) where settled_at is null;

create function guard_order() returns trigger language plpgsql as $$
begin
    if new.state <> old.state and (old.state, new.state) not in (
        ('READY', 'SENT'), ('READY', 'ABSENT'),
        ('SENT', 'UNKNOWN'), ('SENT', 'ACKED'), ('SENT', 'PARTIAL'), ('SENT', 'FILLED'), ('SENT', 'CANCELED'),
        ('SENT', 'REJECTED'), ('SENT', 'ABSENT'),
        ('UNKNOWN', 'SENT'), ('UNKNOWN', 'ACKED'), ('UNKNOWN', 'PARTIAL'), ('UNKNOWN', 'FILLED'),
        ('UNKNOWN', 'CANCELED'), ('UNKNOWN', 'REJECTED'), ('UNKNOWN', 'ABSENT'),
        ('ACKED', 'PARTIAL'), ('ACKED', 'FILLED'), ('ACKED', 'CANCELED'), ('ACKED', 'REJECTED'),
        ('PARTIAL', 'FILLED'), ('PARTIAL', 'CANCELED'),
        -- An order that the broker denied, and has after all.
        ('ABSENT', 'ACKED'), ('ABSENT', 'PARTIAL'), ('ABSENT', 'FILLED'), ('ABSENT', 'CANCELED')
    ) then
        raise exception 'order % may not go from % to %', old.client_order_id, old.state, new.state;
    end if;
    if (
        new.recommendation_id, new.client_order_id, new.account, new.ticker, new.intent, new.side, new.qty,
        new.decided_at, new.expires_at
    ) is distinct from (
        old.recommendation_id, old.client_order_id, old.account, old.ticker, old.intent, old.side, old.qty,
        old.decided_at, old.expires_at
    ) then
        raise exception 'order % was decided, and does not change', old.client_order_id;
    end if;
    if new.broker_order_id is distinct from coalesce(old.broker_order_id, new.broker_order_id) then
        raise exception 'order % has its broker''s id', old.client_order_id;
    end if;
    if new.filled_qty < old.filled_qty or new.tries < old.tries or new.epoch < old.epoch then
        raise exception 'order % does not go back', old.client_order_id;
    end if;
    return new;
end $$;
create trigger order_intents_guard before update on order_intents
for each row execute function guard_order();
create trigger order_intents_stay before delete on order_intents
for each row execute function refuse_change();
create trigger order_intents_no_truncate before truncate on order_intents
for each statement execute function refuse_change();

-- SIMULATED is an execution without an order, EXECUTED one with an order; nothing else has either.
create function check_pair(recommendation bigint) returns void language plpgsql as $$
declare
    found record;
begin
    select
        decided.status, decided.claim_epoch, made.claim_epoch as executed_under, made.execution_mode,
        placed.recommendation_id is not null as has_order,
        (placed.ticker, placed.side, placed.qty) is distinct from (made.ticker, made.side, made.qty) as differs
    into strict found
    from dispatch_recommendations as decided
    left join dispatch_executions as made on made.recommendation_id = decided.id
    left join order_intents as placed on placed.recommendation_id = decided.id
    where decided.id = recommendation
    limit 1;
    if (found.executed_under is not null) <> (found.status in ('SIMULATED', 'EXECUTED')) then
        raise exception 'recommendation % is % and % an execution', recommendation, found.status,
            case when found.executed_under is null then 'lacks' else 'has' end
            using errcode = 'integrity_constraint_violation';
    end if;
    if found.executed_under <> found.claim_epoch then
        raise exception 'recommendation % was closed under claim %, and executed under %', recommendation,
            found.claim_epoch, found.executed_under
            using errcode = 'integrity_constraint_violation';
    end if;
    if found.has_order <> (found.status = 'EXECUTED')
    or (found.execution_mode = 'ALPACA_PAPER') <> (found.status = 'EXECUTED') then
        raise exception 'recommendation % is %, executed as %, and % an order', recommendation, found.status,
            found.execution_mode, case when found.has_order then 'has' else 'lacks' end
            using errcode = 'integrity_constraint_violation';
    end if;
    if found.has_order and found.differs then
        raise exception 'the order of recommendation % is not what was executed', recommendation
            using errcode = 'integrity_constraint_violation';
    end if;
end $$;

create function require_pair_of_decision() returns trigger language plpgsql as $$
begin
    perform check_pair(new.id);
    return null;
end $$;

create or replace function require_pair() returns trigger language plpgsql as $$
begin
    perform check_pair(new.recommendation_id);
    return null;
end $$;

-- What is skipped or failed needs no look: an execution looks for itself, and a closed row stays as it is.
drop trigger dispatch_recommendations_pair on dispatch_recommendations;
create constraint trigger dispatch_recommendations_pair after insert or update on dispatch_recommendations
deferrable initially deferred for each row
when (new.status in ('SIMULATED', 'EXECUTED'))
execute function require_pair_of_decision();

create constraint trigger order_intents_pair after insert on order_intents
deferrable initially deferred for each row
execute function require_pair();

-- The ledger as fills: what was simulated, and what a broker has filled or may still fill.
create view ledger_fills as
select
    made.execution_id,
    made.recommendation_id,
    made.account,
    made.ticker,
    made.intent,
    made.side,
    coalesce(placed.filled_qty, made.qty) as qty,
    case
        when placed.settled_at is null then coalesce(placed.qty - placed.filled_qty, 0) else 0
    end as working_qty,
    coalesce(placed.filled_price, made.entry_price) as price,
    made.simulated_ts,
    made.session_date,
    made.stop_loss_price,
    made.take_profit_price,
    made.max_hold_minutes,
    made.written_at
from dispatch_executions as made
left join order_intents as placed on made.recommendation_id = placed.recommendation_id
where placed.recommendation_id is null or placed.filled_qty > 0 or placed.settled_at is null;
