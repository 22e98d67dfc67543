-- name: scored_otherwise
-- Minutes at whose cut-off the newest score that was known was another model's.
select decided.minute
from minute_cutoffs as decided
inner join lateral (
    select
        known.model,
        known.revision
    from news_sentiments as known
    where known.available_at <= decided.cutoff
    order by known.available_at desc, known.written_at desc
    limit 1
) as newest on true
where
    decided.minute = any(:minutes)
    and (newest.model, newest.revision) <> (:model, :revision)
order by decided.minute;

-- name: forget_bars
-- Remove what was not known yet, and later minutes: a late cut-off could know those.
delete from bars_1m
where available_at > :cutoff or minute > :minute;

-- name: forget_revisions
-- Remove what was not known yet, and later minutes: a late cut-off could know those.
delete from bar_revisions
where available_at > :cutoff or minute > :minute;

-- name: forget_links
-- Remove what was not known yet, and what hangs on it.
delete from news_tickers
where
    available_at > :cutoff
    or news_id in (
        select item.news_id
        from news_items as item
        where item.available_at > :cutoff
    );

-- name: forget_provenance
-- Remove what was not known yet, and what hangs on it.
delete from news_provenance
where
    available_at > :cutoff
    or news_id in (
        select item.news_id
        from news_items as item
        where item.available_at > :cutoff
    );

-- name: forget_items
-- Remove what was not known yet at the cut-off of a minute.
delete from news_items
where available_at > :cutoff;

-- name: forget_scores
-- Remove what was not known yet at the cut-off of a minute.
delete from news_sentiments
where available_at > :cutoff;

-- name: forget_cutoffs
-- Remove the minutes that come later.
delete from minute_cutoffs
where minute > :minute;

-- name: forget_stage_minutes
-- Remove that the decisions were made.
delete from stage_minutes
where minute >= :minute and stage in ('features', 'watchlist', 'signals');

-- name: forget_features
-- Remove what is to be computed again, what comes later, and what was not known yet.
delete from features.features_1m
where minute >= :minute or available_at > :cutoff;

-- name: forget_watchlist
-- Remove what is to be decided again, what comes later, and what was not known yet.
delete from watchlist_entries
where minute >= :minute or available_at > :cutoff;

-- name: forget_signals
-- Remove what is to be decided again, what comes later, and what was not known yet.
delete from signals
where minute >= :minute or available_at > :cutoff;

-- name: unguard_recommendations
-- No row of the queue is ever removed, but in a copy that is thrown away.
alter table dispatch_recommendations disable trigger dispatch_recommendations_stay;

-- name: forget_recommendations
-- Remove what is to be recommended again.
delete from dispatch_recommendations
where minute >= :minute;

-- name: poison_bars
-- Bars that no market has: later ones, and one of this minute that comes in too late.
insert into bars_1m (
    ticker, minute, session_date, open, high, low, close, volume, feed, origin, available_at
)
select
    tracked.ticker,
    cast(:minute as timestamptz) + make_interval(secs => later.seconds),
    :session_date,
    987654,
    999999,
    0.0001,
    123456,
    1000000000000,
    'poison',
    'recorded',
    greatest(
        cast(:cutoff as timestamptz) + interval '1 second',
        cast(:minute as timestamptz) + make_interval(secs => later.seconds + 60)
    )
from universe as tracked
cross join (values (-30), (60), (120), (300)) as later (seconds);

-- name: poison_revisions
-- Later versions of this minute's bars.
insert into bar_revisions (ticker, minute, open, high, low, close, volume, available_at)
select
    tracked.ticker,
    :minute,
    987654,
    999999,
    0.0001,
    123456,
    1000000000000,
    cast(:cutoff as timestamptz) + interval '1 second'
from universe as tracked;

-- name: poison_items
-- Three stories just before this minute's end: one that comes in too late, and two in time whose
-- score and whose ticker come in too late.
insert into news_items (
    news_id, title, summary, link, text_hash, published_at, event_at, origin, available_at
)
select
    'poison ' || late.what,
    'poison',
    'poison',
    '',
    'poison ' || late.what,
    cast(:minute as timestamptz) + interval '30 seconds',
    cast(:minute as timestamptz) + interval '30 seconds',
    'recorded',
    case when late.what = 'item' then cast(:cutoff as timestamptz) + interval '1 second' else :cutoff end
from (values ('item'), ('score'), ('link')) as late (what);

-- name: poison_scores
-- Their scores: as good as can be, one of them too late.
insert into news_sentiments (
    text_hash, model, revision, backend, precision, label, probability,
    p_positive, p_negative, p_neutral, score, origin, available_at
)
select
    'poison ' || late.what,
    :model,
    :revision,
    'poison',
    'poison',
    'positive',
    1,
    1,
    0,
    0,
    1,
    'recorded',
    case when late.what = 'score' then cast(:cutoff as timestamptz) + interval '1 second' else :cutoff end
from (values ('item'), ('score'), ('link')) as late (what);

-- name: poison_links
-- Their tickers: every one, one of the stories too late.
insert into news_tickers (news_id, ticker, match_source, span, available_at)
select
    'poison ' || late.what,
    tracked.ticker,
    'feed',
    'poison',
    case when late.what = 'link' then cast(:cutoff as timestamptz) + interval '1 second' else :cutoff end
from universe as tracked
cross join (values ('item'), ('score'), ('link')) as late (what);

-- name: poison_features
-- Features of the next minute.
insert into features.features_1m
select (jsonb_populate_record(
    made, jsonb_build_object(
        'minute', cast(:minute as timestamptz) + interval '1 minute', 'close', 123456, 'sma20', 1,
        'distance_sma20', 0.015, 'trend_state', 1, 'volume_ratio', 99, 'available_at',
        cast(:cutoff as timestamptz) + interval '1 minute'
    )
)).*
from features.features_1m as made
where made.minute = cast(:minute as timestamptz) - interval '1 minute';

-- name: poison_watchlist
-- A decision just before this minute and one after it, that nobody is worth watching, both too late.
insert into watchlist_entries (
    minute, ticker, session_date, score, rank, in_watchlist, reason, entered_at,
    sentiment_pressure, setup_quality, volatility, trend_alignment, available_at
)
select
    cast(:minute as timestamptz) + make_interval(secs => later.seconds),
    tracked.ticker,
    :session_date,
    0,
    1,
    false,
    'poison',
    null,
    0,
    0,
    0,
    0,
    cast(:cutoff as timestamptz) + interval '1 second'
from universe as tracked
cross join (values (-30), (300)) as later (seconds);

-- name: poison_signals
-- A recommendation just before this minute, too late: it would cool every ticker down.
insert into signals (minute, ticker, session_date, action, rule, confidence, reason, available_at)
select
    cast(:minute as timestamptz) - interval '30 seconds',
    tracked.ticker,
    :session_date,
    'BUY',
    'poison',
    1,
    '{}',
    cast(:cutoff as timestamptz) + interval '1 second'
from universe as tracked;

-- name: early_bars
-- Bars that count as known before their minute was over.
select ticker || ' ' || minute as name
from bars_1m
where available_at < minute + interval '60 seconds'
order by name;

-- name: early_items
-- Stories that count as known before they were published.
select news_id as name
from news_items
where available_at < event_at or (origin = 'recorded' and available_at < published_at)
order by name;

-- name: early_scores
-- Scores that count as known before any story with their text.
select scored.text_hash as name
from news_sentiments as scored
where
    scored.available_at < (
        select min(item.available_at)
        from news_items as item
        where item.text_hash = scored.text_hash
    )
order by name;

-- name: early_links
-- Tickers of a story that count as known before the story.
select link.news_id || ' ' || link.ticker as name
from news_tickers as link
inner join news_items as item on link.news_id = item.news_id
where link.available_at < item.available_at
order by name;

-- name: early_decisions
-- Features and decisions that count as known before their minute's cut-off.
select 'features ' || made.ticker || ' ' || made.minute as name
from features.features_1m as made
inner join minute_cutoffs as decided on made.minute = decided.minute
where made.available_at < decided.cutoff
union all
select 'watchlist ' || entry.ticker || ' ' || entry.minute
from watchlist_entries as entry
inner join minute_cutoffs as decided on entry.minute = decided.minute
where entry.available_at < decided.cutoff
union all
select 'signal ' || signal.ticker || ' ' || signal.minute
from signals as signal
inner join minute_cutoffs as decided on signal.minute = decided.minute
where signal.available_at < decided.cutoff
order by name;
