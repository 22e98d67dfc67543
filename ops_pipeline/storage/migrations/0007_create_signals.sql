-- Every decision of the rules; HOLD carries its code in rule.

create table signals (
    minute timestamptz not null,
    ticker text not null,
    session_date date not null,
    action text not null check (action in ('BUY', 'SELL', 'HOLD')),
    rule text not null,
    confidence double precision not null check (confidence between 0 and 1),
    reason jsonb not null,
    available_at timestamptz not null,
    written_at timestamptz not null default clock_timestamp(),
    primary key (minute, ticker)
);
create index signals_session on signals (session_date, minute);
