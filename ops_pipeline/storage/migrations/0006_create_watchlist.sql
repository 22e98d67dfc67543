-- Every decision of the watchlist, for the tickers that are in and for those that are out.

create table watchlist_entries (
    minute timestamptz not null,
    ticker text not null,
    session_date date not null,
    score double precision not null,
    rank integer not null,
    in_watchlist boolean not null,
    reason text not null,
    entered_at timestamptz,
    sentiment_pressure double precision not null,
    setup_quality double precision not null,
    volatility double precision not null,
    trend_alignment double precision not null,
    available_at timestamptz not null,
    written_at timestamptz not null default clock_timestamp(),
    primary key (minute, ticker),
    check (in_watchlist = (entered_at is not null))
);
create index watchlist_entries_session on watchlist_entries (session_date, minute);
