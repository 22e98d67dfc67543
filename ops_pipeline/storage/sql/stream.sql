-- name: take_lease
-- Follow an account, where nobody does; the epoch fences those who did.
insert into stream_leases (account, holder, code_version, expires_at)
values (:account, :holder, :code_version, clock_timestamp() + make_interval(secs => :seconds))
on conflict (account) do update
    set
        holder = excluded.holder,
        epoch = stream_leases.epoch + 1,
        code_version = excluded.code_version,
        expires_at = excluded.expires_at,
        connected_at = null,
        reason = '',
        written_at = clock_timestamp()
    where stream_leases.expires_at <= clock_timestamp()
returning epoch;

-- name: lease_holder
-- Who follows an account, and for how many seconds more.
select
    holder,
    extract(epoch from expires_at - clock_timestamp()) as seconds
from stream_leases
where account = :account;

-- name: keep_lease
-- Follow an account for longer, and say how it goes.
update stream_leases
set
    expires_at = clock_timestamp() + make_interval(secs => :seconds),
    connected_at = :connected_at,
    alive_at = coalesce(:alive_at, alive_at),
    reason = :reason,
    written_at = clock_timestamp()
where account = :account and epoch = :epoch;

-- name: leave_lease
-- Follow no longer.
update stream_leases
set expires_at = clock_timestamp(), connected_at = null, reason = :reason, written_at = clock_timestamp()
where account = :account and epoch = :epoch;

-- name: require_lease
-- Held until the transaction ends: nobody else may begin to follow meanwhile, and what is joined to
-- the orders is joined one after the other.
select epoch
from stream_leases
where account = :account and epoch = :epoch
for no key update;

-- name: keep_pass
-- What a look at the whole account has found.
update stream_leases
set
    passed_at = :passed_at,
    broker_account = :broker_account,
    differences = cast(:differences as jsonb),
    written_at = clock_timestamp()
where account = :account and epoch = :epoch;

-- name: health
-- How the process that follows an account is.
select
    holder,
    code_version,
    expires_at > clock_timestamp() as is_held,
    connected_at,
    alive_at,
    passed_at,
    broker_account,
    reason,
    differences
from stream_leases
where account = :account;

-- name: insert_frames
-- Keep frames as they came.
insert into broker_frames (account, received_at, body, bytes, is_whole)
select
    :account as account,
    made.received_at,
    made.body,
    made.bytes,
    made.is_whole
from
    unnest(
        cast(:received_at as timestamptz[]),
        cast(:body as text[]),
        cast(:bytes as integer[]),
        cast(:is_whole as boolean[])
    ) as made (received_at, body, bytes, is_whole);

-- name: received_frames
-- Frames that nobody has looked at, oldest first.
select
    id,
    body,
    is_whole
from broker_frames
where account = :account and outcome = 'RECEIVED'
order by id
limit :at_most;

-- name: close_frames
-- What became of frames.
update broker_frames as closed
set outcome = made.outcome, reason = made.reason, applied_at = clock_timestamp()
from
    unnest(
        cast(:id as bigint[]), cast(:outcome as text[]), cast(:reason as text[])
    ) as made (id, outcome, reason)
where closed.id = made.id;

-- name: insert_events
-- Events that were not told before; a fill that was told under another key was.
insert into broker_events (
    account, event_key, event, broker_order_id, ticker, side, qty, price, filled_qty, at, frame_id
)
select
    :account as account,
    made.event_key,
    made.event,
    made.broker_order_id,
    made.ticker,
    made.side,
    made.qty,
    made.price,
    made.filled_qty,
    made.at,
    made.frame_id
from jsonb_populate_recordset(cast(null as broker_events), cast(:rows as jsonb)) as made
on conflict do nothing
returning event_key;

-- name: orders_of
-- Orders that are known by these ids, held until the transaction ends.
select
    broker_order_id,
    client_order_id,
    ticker,
    side,
    qty,
    state,
    filled_qty,
    filled_price,
    created_at,
    told_at,
    reason
from broker_orders
where account = :account and broker_order_id = any(cast(:ids as text[]))
order by broker_order_id
for update;

-- name: put_orders
-- What is known of orders now.
insert into broker_orders (
    account, broker_order_id, client_order_id, ticker, side, qty, state, filled_qty, filled_price,
    created_at, told_at, reason, is_external
)
select
    :account as account,
    made.broker_order_id,
    made.client_order_id,
    made.ticker,
    made.side,
    made.qty,
    made.state,
    made.filled_qty,
    made.filled_price,
    made.created_at,
    made.told_at,
    made.reason,
    not exists (
        select 1
        from order_intents as ours
        where ours.client_order_id = made.client_order_id
    ) as is_external
from jsonb_populate_recordset(cast(null as broker_orders), cast(:rows as jsonb)) as made
on conflict (account, broker_order_id) do update
    set
        qty = excluded.qty,
        state = excluded.state,
        filled_qty = excluded.filled_qty,
        filled_price = excluded.filled_price,
        told_at = excluded.told_at,
        reason = excluded.reason,
        is_external = excluded.is_external,
        written_at = clock_timestamp();

-- name: moved_since
-- Tickers of the orders of which something new was told since an instant.
select distinct ticker
from broker_orders
where account = :account and written_at >= :since
order by ticker;

-- name: all_orders
-- Everything that is known of an account's orders.
select
    broker_order_id,
    client_order_id,
    ticker,
    side,
    qty,
    state,
    filled_qty,
    filled_price,
    created_at,
    told_at,
    reason
from broker_orders
where account = :account
order by created_at, broker_order_id;

-- name: sums
-- Shares by ticker that orders and adjustments come to, and those held before the first order.
select
    ticker,
    sum(qty) as qty
from (
    select
        ticker,
        case when side = 'buy' then filled_qty else -filled_qty end as qty
    from broker_orders
    where account = :account
    union all
    select
        ticker,
        before_qty as qty
    from broker_positions
    where account = :account
    union all
    select
        ticker,
        qty
    from account_adjustments
    where account = :account
) as parts
group by ticker
having sum(qty) <> 0
order by ticker;

-- name: insert_adjustment
-- A change of the account that no order made; the difference that it explains stands with it.
insert into account_adjustments (
    account, ticker, kind, qty, ledger_qty, split_ratio, price, stop_loss_price, take_profit_price,
    max_hold_minutes, by_orders, by_broker, activity_ids, broker_order_id, adjusted_by, reason,
    adjusted_at, session_date
)
values (
    :account, :ticker, :kind, :qty, :ledger_qty, :split_ratio, :price, :stop_loss_price,
    :take_profit_price, :max_hold_minutes, :by_orders, :by_broker, :activity_ids, :broker_order_id,
    :adjusted_by, :reason, :adjusted_at, :session_date
);

-- name: first_looked_at
-- When the account was asked for first, as far as that is kept.
select min(looked_at) as looked_at
from stream_looks
where account = :account and outcome = 'SETTLED';

-- name: counted_activities
-- Activities that were counted already.
select unnest(activity_ids) as activity_id
from account_adjustments
where account = :account
order by activity_id;

-- name: busted
-- Shares by which orders were adjusted, by the broker's order id.
select
    broker_order_id,
    sum(qty) as qty
from account_adjustments
where account = :account and broker_order_id is not null
group by broker_order_id
order by broker_order_id;

-- name: last_accepted
-- Who accepted a difference of a ticker last, and when.
select
    adjusted_by,
    adjusted_at
from account_adjustments
where account = :account and ticker = :ticker and kind = 'accepted'
order by id desc
limit 1;

-- name: lock_followed
-- Until the transaction ends nobody joins anything to the account.
select account
from stream_leases
where account = :account
for no key update;

-- name: broker_price
-- What the broker says that a share of a ticker cost.
select price
from broker_positions
where account = :account and ticker = :ticker;

-- name: since
-- From when on orders and fills have to be asked for: the oldest that is open, and the last fill.
select
    (
        select min(created_at)
        from broker_orders
        where account = :account and state in ('ACKED', 'PARTIAL')
    ) as oldest_open,
    (
        select max(created_at)
        from broker_orders
        where account = :account
    ) as newest_order,
    (
        select max(at)
        from broker_events
        where account = :account and event in ('fill', 'partial_fill')
    ) as newest_fill;

-- name: forget_before
-- What the account held before the first look belongs to another account.
update broker_positions
set before_qty = 0
where account = :account;

-- name: put_positions
-- What the account holds; what it held before is that of the first look.
insert into broker_positions (account, ticker, before_qty, qty, price, read_at)
select
    :account as account,
    made.ticker,
    made.before_qty,
    made.qty,
    made.price,
    :read_at as read_at
from jsonb_populate_recordset(cast(null as broker_positions), cast(:rows as jsonb)) as made
on conflict (account, ticker) do update
    set
        before_qty = case
            when cast(:is_first as boolean) then excluded.before_qty else broker_positions.before_qty
        end,
        qty = excluded.qty,
        price = excluded.price,
        read_at = excluded.read_at;

-- name: close_positions
-- What the account holds no longer.
update broker_positions
set qty = 0, read_at = :read_at
where account = :account and not ticker = any(cast(:tickers as text[]));

-- name: external
-- Shares by ticker that this pipeline did not decide on, and their price. What has come in the place
-- of an order of ours counts in the ledger, and what was closed by hand has left it.
select
    parts.ticker,
    sum(parts.qty) as qty,
    max(parts.price) as price
from (
    select
        told.ticker,
        case when told.side = 'buy' then told.filled_qty else -told.filled_qty end as qty,
        told.filled_price as price
    from broker_orders as told
    where
        told.account = :account and told.is_external and told.filled_qty > 0
        and not exists (
            select 1
            from broker_orders as before
            inner join order_intents as ours on before.client_order_id = ours.client_order_id
            where
                before.account = :account
                and before.reason = 'replaced by ' || told.broker_order_id
                and (ours.settled_at is null or ours.filled_qty > 0)
        )
    union all
    select
        ticker,
        case when side = 'buy' then -qty else qty end as qty,
        null as price
    from manual_fills
    where account = :account
    union all
    select
        ticker,
        qty - ledger_qty as qty,
        null as price
    from account_adjustments
    where account = :account
    union all
    select
        ticker,
        before_qty as qty,
        price
    from broker_positions
    where account = :account and before_qty <> 0
) as parts
group by parts.ticker
having sum(parts.qty) <> 0
order by parts.ticker;

-- name: price_by_hand
-- What somebody paid or got last for a ticker since an instant.
select filled_price
from broker_orders
where
    account = :account and ticker = :ticker and is_external and filled_qty > 0
    and told_at >= :since
order by told_at desc, broker_order_id
limit 1;

-- name: counts
-- What came, by what became of it, in [start, end).
select
    outcome,
    count(*) as count,
    coalesce(percentile_cont(0.95) within group (
        order by extract(epoch from applied_at - received_at)
    ), 0) as lag_p95
from broker_frames
where account = :account and received_at >= :start and received_at < :end
group by outcome
order by outcome;

-- name: gaps
-- Fills of which a request told first, in [start, end): their frames were late or did not come.
select count(*) as count
from broker_events
where account = :account and at >= :start and at < :end and frame_id is null;

-- name: forget_looks
-- Looks from before an instant.
delete from stream_looks
where account = :account and looked_at < :before;

-- name: insert_look
-- The whole account was asked for.
insert into stream_looks (
    account, looked_at, why, outcome, took_ms, orders, fills, healed, differences, reason
)
values (
    :account, :looked_at, :why, :outcome, :took_ms, :orders, :fills, :healed, :differences, :reason
);

-- name: looks
-- The looks at the account, newest first.
select
    looked_at,
    why,
    outcome,
    took_ms,
    orders,
    fills,
    healed,
    differences,
    reason
from stream_looks
where account = :account
order by looked_at desc, id desc
limit :limit;

-- name: by_ticker
-- What was held before, what orders of ours and of others came to, and what the broker says.
select
    ticker,
    sum(before_qty) as before_qty,
    sum(ours_qty) as ours_qty,
    sum(others_qty) as others_qty,
    sum(adjusted_qty) as adjusted_qty,
    sum(broker_qty) as broker_qty
from (
    select
        ticker,
        0 as before_qty,
        case when is_external then 0 when side = 'buy' then filled_qty else -filled_qty end as ours_qty,
        case when not is_external then 0 when side = 'buy' then filled_qty else -filled_qty end as others_qty,
        0 as adjusted_qty,
        0 as broker_qty
    from broker_orders
    where account = :account
    union all
    select
        ticker,
        before_qty,
        0 as ours_qty,
        0 as others_qty,
        0 as adjusted_qty,
        qty as broker_qty
    from broker_positions
    where account = :account
    union all
    select
        ticker,
        0 as before_qty,
        0 as ours_qty,
        0 as others_qty,
        qty as adjusted_qty,
        0 as broker_qty
    from account_adjustments
    where account = :account
) as parts
group by ticker
having
    sum(before_qty) <> 0 or sum(ours_qty) <> 0 or sum(others_qty) <> 0
    or sum(adjusted_qty) <> 0 or sum(broker_qty) <> 0
order by ticker;

-- name: open_orders
-- Orders that are open at the broker, as it told, or in our ledger; and what the other side has.
select
    coalesce(told.client_order_id, ours.client_order_id) as client_order_id,
    coalesce(told.ticker, ours.ticker) as ticker,
    coalesce(told.side, ours.side) as side,
    coalesce(told.qty, ours.qty) as qty,
    told.state as broker_state,
    told.filled_qty as broker_filled_qty,
    ours.state as our_state,
    ours.filled_qty as our_filled_qty
from (
    select *
    from broker_orders
    where account = :account
) as told
full outer join order_intents as ours on told.client_order_id = ours.client_order_id
where
    told.state in ('ACKED', 'PARTIAL')
    or (ours.account = :account and ours.settled_at is null)
order by ticker, client_order_id;

-- name: told_by_request
-- Fills of which a request told first, since an instant, and when that was; newest first.
select
    at,
    ticker,
    broker_order_id,
    filled_qty,
    written_at as healed_at
from broker_events
where account = :account and at >= :since and frame_id is null
order by at desc, event_key
limit :limit;
