-- The account as its broker tells of it: each frame as it came, and what is known by all of them.

-- Who follows an account, and how well; one process does.
create table stream_leases (
    account text primary key references accounts,
    holder text not null,
    epoch bigint not null default 1,
    code_version text not null,
    expires_at timestamptz not null,
    connected_at timestamptz,
    alive_at timestamptz,
    passed_at timestamptz,
    -- As the broker calls it; an account that was reset is another one.
    broker_account text not null default '',
    reason text not null default '',
    differences jsonb not null default '[]',
    written_at timestamptz not null default clock_timestamp()
);

-- Stored before it is looked at. Of what is too long to be true only the beginning.
create table broker_frames (
    id bigint generated always as identity primary key,
    account text not null references accounts,
    received_at timestamptz not null,
    body text not null,
    bytes integer not null check (bytes >= 0),
    is_whole boolean not null,
    outcome text not null default 'RECEIVED' check (
        outcome in ('RECEIVED', 'APPLIED', 'REPEATED', 'UNREADABLE')
    ),
    reason text not null default '',
    written_at timestamptz not null default clock_timestamp(),
    applied_at timestamptz
);
create index broker_frames_received on broker_frames (id) where outcome = 'RECEIVED';
create index broker_frames_at on broker_frames (received_at);

create table broker_orders (
    account text not null references accounts,
    broker_order_id text not null,
    client_order_id text not null,
    ticker text not null,
    side text not null check (side in ('buy', 'sell')),
    qty numeric not null check (qty >= 0),
    state text not null check (state in ('ACKED', 'PARTIAL', 'FILLED', 'CANCELED', 'REJECTED')),
    filled_qty numeric not null check (filled_qty >= 0),
    filled_price numeric,
    created_at timestamptz not null,
    told_at timestamptz not null,
    reason text not null default '',
    -- What this pipeline did not decide: somebody else's, or its own of a database that is gone.
    is_external boolean not null,
    written_at timestamptz not null default clock_timestamp(),
    primary key (account, broker_order_id)
);
create index broker_orders_open on broker_orders (created_at) where state in ('ACKED', 'PARTIAL');

create function guard_broker_order() returns trigger language plpgsql as $$
begin
    if new.filled_qty < old.filled_qty or (old.state = 'FILLED' and new.state <> 'FILLED')
    or (old.state in ('CANCELED', 'REJECTED') and new.state in ('ACKED', 'PARTIAL')) then
        raise exception 'order % does not go back', old.broker_order_id;
    end if;
    return new;
end $$;
create trigger broker_orders_guard before update on broker_orders
for each row execute function guard_broker_order();

create table broker_events (
    account text not null references accounts,
    event_key text not null,
    event text not null,
    broker_order_id text not null,
    ticker text not null,
    side text not null,
    qty numeric,
    price numeric,
    filled_qty numeric not null,
    at timestamptz not null,
    -- Empty where a request told of it first.
    frame_id bigint references broker_frames on delete set null,
    written_at timestamptz not null default clock_timestamp(),
    primary key (account, event_key)
);
create unique index broker_events_fill on broker_events (account, broker_order_id, filled_qty)
where event in ('fill', 'partial_fill');
create index broker_events_at on broker_events (at);
create index broker_events_frame on broker_events (frame_id) where frame_id is not null;

-- What the account held before the first order that is known here; and what it held last.
create table broker_positions (
    account text not null references accounts,
    ticker text not null,
    before_qty numeric not null default 0,
    qty numeric not null,
    price numeric not null,
    read_at timestamptz not null,
    primary key (account, ticker)
);

-- What the broker paid against what the simulation would have: positive where the broker was worse.
create view execution_slippage as
select
    made.execution_id,
    made.recommendation_id,
    made.ticker,
    made.side,
    placed.filled_qty as qty,
    made.entry_price as simulated_price,
    placed.filled_price,
    (placed.filled_price / made.entry_price - 1) * 10000
    * case when made.side = 'buy' then 1 else -1 end as slippage_bps,
    placed.filled_at
from dispatch_executions as made
inner join order_intents as placed on made.recommendation_id = placed.recommendation_id
where placed.filled_qty > 0;
