-- What changed the account at the broker without an order: a corporate action, a fee in shares, a
-- busted trade, or a difference that an operator accepted. Each is a row of its own.
create table account_adjustments (
    id bigint generated always as identity primary key,
    account text not null references accounts,
    ticker text not null,
    kind text not null check (kind in ('activity', 'bust', 'accepted')),
    -- Shares by which the account changed, and those of them that belong to the ledger's own lot.
    qty numeric not null,
    ledger_qty integer not null default 0,
    -- Shares that one share became; the lot keeps its cost.
    split_ratio double precision check (split_ratio > 0 and split_ratio < 'Infinity'),
    -- Of a lot that moves to another symbol.
    price double precision check (price > 0 and price < 'Infinity'),
    stop_loss_price double precision,
    take_profit_price double precision,
    max_hold_minutes integer,
    -- The difference that this explains.
    by_orders numeric not null,
    by_broker numeric not null,
    activity_ids text[] not null default '{}',
    broker_order_id text,
    adjusted_by text not null,
    reason text not null check (reason <> ''),
    adjusted_at timestamptz not null,
    session_date date not null,
    written_at timestamptz not null default clock_timestamp(),
    check (ledger_qty = 0 or price is not null)
);
create index account_adjustments_ticker on account_adjustments (account, ticker);
create trigger account_adjustments_stay before update or delete on account_adjustments
for each row execute function refuse_change();
create trigger account_adjustments_no_truncate before truncate on account_adjustments
for each statement execute function refuse_change();

-- An order writes BTC/USD where its position writes BTCUSD: from here on both are the latter.
insert into broker_positions (account, ticker, before_qty, qty, price, read_at)
select
    account,
    replace(ticker, '/', '') as ticker,
    before_qty,
    qty,
    price,
    read_at
from broker_positions
where ticker like '%/%'
on conflict (account, ticker) do update
    set before_qty = broker_positions.before_qty + excluded.before_qty;
delete from broker_positions
where ticker like '%/%';
update broker_orders
set ticker = replace(ticker, '/', '')
where ticker like '%/%';
update broker_events
set ticker = replace(ticker, '/', '')
where ticker like '%/%';

create or replace view ledger_fills as
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
    made.written_at,
    cast(null as double precision) as split_ratio
from dispatch_executions as made
left join order_intents as placed on made.recommendation_id = placed.recommendation_id
where placed.recommendation_id is null or placed.filled_qty > 0 or placed.settled_at is null
union all
select
    null as execution_id,
    null as recommendation_id,
    by_hand.account,
    by_hand.ticker,
    'close' as intent,
    by_hand.side,
    by_hand.qty,
    0 as working_qty,
    by_hand.price,
    by_hand.filled_at as simulated_ts,
    by_hand.session_date,
    null as stop_loss_price,
    null as take_profit_price,
    null as max_hold_minutes,
    by_hand.written_at,
    null as split_ratio
from manual_fills as by_hand
union all
select
    null as execution_id,
    null as recommendation_id,
    adjusted.account,
    adjusted.ticker,
    'adjust' as intent,
    case when adjusted.ledger_qty > 0 then 'buy' else 'sell' end as side,
    abs(adjusted.ledger_qty) as qty,
    0 as working_qty,
    adjusted.price,
    adjusted.adjusted_at as simulated_ts,
    adjusted.session_date,
    adjusted.stop_loss_price,
    adjusted.take_profit_price,
    adjusted.max_hold_minutes,
    adjusted.written_at,
    adjusted.split_ratio
from account_adjustments as adjusted
where adjusted.ledger_qty <> 0;

-- One outage is one incident, told by the alert that opened it. Those that joined it name it; its
-- end is told once, when nothing of it is open that had to be acted on.
alter table alerts add column incident_id bigint references alerts on delete cascade;
alter table alerts add column over_at timestamptz;
update alerts set over_at = resolved_at
where resolved_at is not null;
create index alerts_incident on alerts (incident_id) where incident_id is not null;

-- When an operator had all of it down: minutes of that time were not missed.
create table downtimes (
    id bigint generated always as identity primary key,
    began_at timestamptz not null,
    ended_at timestamptz,
    stopped_by text not null,
    check (ended_at >= began_at)
);
create unique index downtimes_open on downtimes ((true)) where ended_at is null;
alter table pipeline_slo_counters add column operator_down text not null default '';
