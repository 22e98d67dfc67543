-- One-minute bars of the regular session; minute is the bar's start.

create table bars_1m (
    ticker text not null,
    minute timestamptz not null,
    session_date date not null,
    open double precision not null,
    high double precision not null,
    low double precision not null,
    close double precision not null,
    volume bigint not null check (volume >= 0),
    feed text not null,
    origin text not null check (origin in ('live', 'recorded')),
    available_at timestamptz not null,
    written_at timestamptz not null default clock_timestamp(),
    primary key (ticker, minute),
    -- 'NaN' is greater than every number here, so the upper bound is what refuses it.
    check (low > 0 and high < 'Infinity' and low <= least(open, close) and high >= greatest(open, close)),
    check (available_at >= minute + interval '60 seconds')
);
create index bars_1m_minute on bars_1m (minute);

-- Later versions of a bar: kept and counted, never decided on.
create table bar_revisions (
    ticker text not null,
    minute timestamptz not null,
    open double precision not null,
    high double precision not null,
    low double precision not null,
    close double precision not null,
    volume bigint not null,
    available_at timestamptz not null,
    written_at timestamptz not null default clock_timestamp(),
    primary key (ticker, minute, open, high, low, close, volume)
);
