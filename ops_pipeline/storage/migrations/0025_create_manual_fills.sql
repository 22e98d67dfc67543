-- What somebody closed by hand at the broker of what this pipeline held: it has left the ledger.
create table manual_fills (
    id bigint generated always as identity primary key,
    account text not null references accounts,
    ticker text not null,
    side text not null check (side in ('buy', 'sell')),
    qty integer not null check (qty > 0),
    price double precision not null check (price > 0 and price < 'Infinity'),
    filled_at timestamptz not null,
    session_date date not null,
    written_at timestamptz not null default clock_timestamp()
);
create trigger manual_fills_stay before update or delete on manual_fills
for each row execute function refuse_change();
create trigger manual_fills_no_truncate before truncate on manual_fills
for each statement execute function refuse_change();

-- The ledger as fills: what was simulated, what a broker has filled or may still fill, and what was
-- closed by hand.
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
    made.written_at
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
    by_hand.written_at
from manual_fills as by_hand;
