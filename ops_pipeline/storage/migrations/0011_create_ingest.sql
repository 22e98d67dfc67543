-- What is remembered of feeds and of the vendor's answers, and what keeps a ticker from being traded.

-- How the last fetch of each feed went, and what makes the next one conditional.
create table feed_state (
    feed text primary key,
    etag text not null default '',
    last_modified text not null default '',
    failures integer not null default 0 check (failures >= 0),
    retry_at timestamptz,
    last_status text not null check (last_status in ('ok', 'not_modified', 'backing_off', 'failed')),
    last_reason text not null default '',
    last_ok_at timestamptz,
    written_at timestamptz not null default clock_timestamp()
);

-- Up to when the vendor has answered for a ticker in a session, with or without bars.
create table bar_coverage (
    ticker text not null,
    session_date date not null,
    answered_until timestamptz not null,
    written_at timestamptz not null default clock_timestamp(),
    primary key (ticker, session_date)
);

-- A ticker whose price has jumped overnight, or whose stock was split, until a person has looked.
create table quarantines (
    ticker text not null,
    session_date date not null,
    cause text not null check (cause in ('overnight_gap', 'split')),
    observed double precision not null,
    available_at timestamptz not null,
    released_at timestamptz,
    released_because text not null default '',
    written_at timestamptz not null default clock_timestamp(),
    primary key (ticker, session_date, cause),
    check (released_at is null or released_at >= available_at)
);

-- Each ticker that was added to or removed from the universe, and why.
create table universe_changes (
    id bigint generated always as identity primary key,
    ticker text not null,
    change text not null check (change in ('added', 'removed')),
    reason text not null,
    written_at timestamptz not null default clock_timestamp()
);
