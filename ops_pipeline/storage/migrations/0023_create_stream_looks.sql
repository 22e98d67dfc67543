-- Each time the whole account was asked for: why, what came of it, and how long it took.

create table stream_looks (
    id bigint generated always as identity primary key,
    account text not null references accounts,
    looked_at timestamptz not null,
    why text not null,
    -- FAILED says why; UNSETTLED is looked at once more.
    outcome text not null check (outcome in ('SETTLED', 'UNSETTLED', 'FAILED')),
    took_ms integer not null check (took_ms >= 0),
    orders integer not null default 0,
    fills integer not null default 0,
    -- Orders of which no frame had told so well.
    healed integer not null default 0,
    differences integer not null default 0,
    reason text not null default ''
);
create index stream_looks_at on stream_looks (account, looked_at);
