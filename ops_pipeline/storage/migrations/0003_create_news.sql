-- One row for each story; the feeds that told it stand in news_provenance.

create table news_items (
    news_id text primary key,
    title text not null,
    summary text not null,
    link text not null,
    text_hash text not null,
    published_at timestamptz,
    event_at timestamptz not null,
    origin text not null check (origin in ('live', 'recorded')),
    available_at timestamptz not null,
    written_at timestamptz not null default clock_timestamp(),
    check (event_at <= available_at)
);
create index news_items_event_at on news_items (event_at);
create index news_items_text_hash on news_items (text_hash);

create table news_provenance (
    feed text not null,
    entry_key text not null,
    news_id text not null references news_items,
    entry_id text not null,
    tickers text[] not null,
    is_linked boolean not null default false,
    available_at timestamptz not null,
    written_at timestamptz not null default clock_timestamp(),
    primary key (feed, entry_key)
);
create index news_provenance_unlinked on news_provenance (available_at) where not is_linked;

-- Which stories speak of which tickers, and how that was seen.
create table news_tickers (
    news_id text not null references news_items,
    ticker text not null,
    match_source text not null check (match_source in ('feed', 'cashtag', 'symbol', 'alias')),
    span text not null,
    available_at timestamptz not null,
    written_at timestamptz not null default clock_timestamp(),
    primary key (news_id, ticker)
);
create index news_tickers_ticker on news_tickers (ticker);
