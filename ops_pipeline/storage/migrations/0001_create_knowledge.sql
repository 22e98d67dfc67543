-- Time first: what the present is in a replay, what was known when, and how far each stage has come.

-- The present of a replay; the driver moves it, every process of that mode reads it.
create table replay_clock (
    only_row boolean primary key default true check (only_row),
    present timestamptz not null,
    written_at timestamptz not null default clock_timestamp()
);

-- Which market each replayed session was played on; two markets in one session would be neither.
create table replay_sessions (
    session_date date primary key,
    market text not null,
    written_at timestamptz not null default clock_timestamp()
);

-- The instant up to which a minute's decision may know anything; the first write wins.
create table minute_cutoffs (
    minute timestamptz primary key,
    session_date date not null,
    session_opens_at timestamptz not null,
    cutoff timestamptz not null,
    run_id text not null,
    written_at timestamptz not null default clock_timestamp(),
    check (cutoff >= minute + interval '60 seconds')
);

-- That a stage has finished with a minute, with or without rows.
create table stage_minutes (
    stage text not null,
    minute timestamptz not null,
    session_date date not null,
    rows_count integer not null check (rows_count >= 0),
    run_id text not null,
    written_at timestamptz not null default clock_timestamp(),
    primary key (stage, minute)
);

-- Switches of the seven services; a service that is off is left out of the tick.
create table services (
    service text primary key,
    is_enabled boolean not null default true,
    disabled_until timestamptz,
    reason text not null default '',
    changed_at timestamptz not null default clock_timestamp()
);

-- The one list of tracked tickers.
create table universe (
    ticker text primary key check (ticker ~ '^[A-Z][A-Z0-9]{0,5}([.-][A-Z0-9]{1,3})?$'),
    aliases text[] not null default '{}',
    written_at timestamptz not null default clock_timestamp()
);
