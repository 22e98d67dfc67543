-- name: installation
-- What makes the order ids of this database its own.
select id from installation;

-- name: insert_orders
-- Decide orders; they are handed over once this is on disk.
insert into order_intents (
    recommendation_id, client_order_id, account, ticker, intent, side, qty, expires_at, decided_at
)
select
    decided.recommendation_id,
    decided.client_order_id,
    decided.account,
    decided.ticker,
    decided.intent,
    decided.side,
    decided.qty,
    decided.expires_at,
    decided.decided_at
from jsonb_populate_recordset(cast(null as order_intents), cast(:rows as jsonb)) as decided;

-- name: server_clock
-- When a pass over the orders begins.
select clock_timestamp();

-- name: take_ready
-- Take the next order to hand over: from here on the broker may have it.
with next as (
    select ready.recommendation_id
    from order_intents as ready
    cross join trading_state
    where
        ready.state = 'READY' and ready.expires_at > :now
        and (trading_state.state = 'ACTIVE' or (trading_state.state = 'REDUCING' and ready.intent = 'close'))
        and (ready.intent = 'close' or not cast(:closing_only as boolean))
    order by ready.decided_at, ready.recommendation_id
    limit 1
    for update of ready skip locked
)

update order_intents as taken
set
    state = 'SENT', epoch = taken.epoch + 1, tries = taken.tries + 1,
    posted_at = clock_timestamp(), asked_at = clock_timestamp()
from next
where taken.recommendation_id = next.recommendation_id
returning taken.*;

-- name: take_again
-- Take an order whose sending had no outcome to hand it over once more, under the same id.
update order_intents as taken
set
    state = 'SENT', epoch = taken.epoch + 1, tries = taken.tries + 1, not_found = 0,
    posted_at = clock_timestamp(), asked_at = clock_timestamp()
from trading_state
where
    taken.recommendation_id = :recommendation_id and taken.epoch = :epoch and taken.state = 'UNKNOWN'
    and taken.expires_at > :now
    and (trading_state.state = 'ACTIVE' or (trading_state.state = 'REDUCING' and taken.intent = 'close'))
    and (taken.intent = 'close' or not cast(:closing_only as boolean))
returning taken.*;

-- name: take_open
-- Take an order that the broker has, or may have, to ask about it; the oldest question first.
with next as (
    select placed.recommendation_id
    from order_intents as placed
    where
        placed.state in ('SENT', 'UNKNOWN', 'ACKED', 'PARTIAL')
        and placed.asked_at < :pass_began
        and placed.asked_at < clock_timestamp() - make_interval(
            secs => case when placed.state = 'SENT' then :sending_seconds else :asking_seconds end
        )
    order by placed.asked_at, placed.recommendation_id
    limit 1
    for update of placed skip locked
)

update order_intents as taken
set
    state = case when taken.state = 'SENT' then 'UNKNOWN' else taken.state end,
    epoch = taken.epoch + 1, asked_at = clock_timestamp()
from next
where taken.recommendation_id = next.recommendation_id
returning taken.*;

-- name: take_denied
-- Take an order that the broker has denied to ask once more: it would be adopted, never ignored.
with next as (
    select denied.recommendation_id
    from order_intents as denied
    where
        denied.state = 'ABSENT' and denied.tries > 0
        and denied.asked_at < clock_timestamp() - make_interval(secs => :asking_seconds)
        and denied.settled_at > clock_timestamp() - make_interval(secs => :watched_seconds)
    order by denied.asked_at, denied.recommendation_id
    limit 1
    for update of denied skip locked
)

update order_intents as taken
set epoch = taken.epoch + 1, asked_at = clock_timestamp()
from next
where taken.recommendation_id = next.recommendation_id
returning taken.*;

-- name: take_told
-- Take an order of which the broker has told by itself; who asks about it just now has asked in vain.
update order_intents as taken
set epoch = taken.epoch + 1, asked_at = clock_timestamp()
where taken.client_order_id = :client_order_id and taken.posted_at is not null
returning taken.*;

-- name: record
-- Keep what was learnt of an order, under the claim by which it was asked about. One that somebody
-- has replaced at the broker is told by another id there; ours keeps its first one.
update order_intents
set
    state = :state, broker_order_id = coalesce(broker_order_id, :broker_order_id),
    filled_qty = :filled_qty, filled_price = :filled_price, filled_at = :filled_at,
    reason = :reason, not_found = :not_found,
    settled_at = case when cast(:is_final as boolean) then coalesce(settled_at, clock_timestamp()) end
where recommendation_id = :recommendation_id and epoch = :epoch;

-- name: give_up_unsent
-- Orders that were never handed over, and are too old for it now.
update order_intents
set state = 'ABSENT', reason = 'not handed over in time', settled_at = clock_timestamp()
where state = 'READY' and expires_at <= :now;

-- name: state_counts
-- How many orders stand where.
select
    state,
    count(*) as count
from order_intents
group by state
order by state;

-- name: order_of
-- The order of a recommendation, and what is known of it.
select
    client_order_id,
    broker_order_id,
    state,
    side,
    qty as quantity,
    filled_qty as filled_quantity,
    filled_price,
    filled_at,
    tries,
    reason
from order_intents
where recommendation_id = :recommendation_id;
