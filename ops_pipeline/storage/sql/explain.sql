-- name: executions_that_begin
-- Executions whose id begins alike: it lies between the lowest and the highest such id.
select execution_id
from dispatch_executions
where execution_id between :lowest and :highest
order by execution_id
limit 2;

-- name: execution
-- One row of the ledger, by its own id or by its recommendation's.
select
    execution_id,
    recommendation_id,
    dispatcher_run_id as run_id,
    simulated_ts as at,
    session_date,
    ticker,
    intent,
    side,
    qty as quantity,
    entry_price as price,
    stop_loss_price as stop_price,
    take_profit_price as target_price,
    max_hold_minutes,
    fill_model,
    slippage_bps,
    sim_json -> 'bar_used' as bar_used
from dispatch_executions
where execution_id = cast(:execution_id as uuid) or recommendation_id = cast(:recommendation_id as bigint);

-- name: executions_of
-- The newest executions that one run of the orchestrator made.
select fill.execution_id
from dispatch_executions as fill
inner join dispatcher_runs as run on fill.dispatcher_run_id = run.run_id
where run.orchestrator_run_id = :orchestrator_run_id
order by fill.simulated_ts desc, fill.written_at desc, fill.execution_id
limit :limit;

-- name: recommendation
-- One row of the queue, by its id or by the minute that it opens a position for.
select
    id,
    ts,
    ticker,
    minute,
    session_date,
    action,
    intent,
    confidence,
    status,
    failure_reason,
    expires_at,
    processed_at,
    reason,
    risk_gate_json as gates,
    dispatcher_run_id as run_id
from dispatch_recommendations
where
    id = cast(:id as bigint)
    or (ticker = cast(:ticker as text) and minute = cast(:minute as timestamptz) and intent = 'open');

-- name: run
-- One run of the dispatcher, with every setting in force.
select
    run_id,
    started_at,
    mode,
    code_version,
    config_version,
    config_hash,
    run_config_json as config,
    orchestrator_run_id
from dispatcher_runs
where run_id = :run_id;

-- name: cutoff
-- Up to when a minute may know, and which run of the orchestrator said so.
select
    minute,
    session_date,
    session_opens_at,
    window_starts_at,
    oldest_bar_at,
    cutoff,
    run_id
from minute_cutoffs
where minute = :minute;

-- name: decided_at
-- The decision of the watchlist that is in force in a minute: the newest that it could know.
select finished.minute
from stage_minutes as finished
left join minute_cutoffs as known on finished.minute = known.minute
left join minute_cutoffs as asked on asked.minute = :minute
where
    finished.stage = 'watchlist' and finished.minute <= :minute
    and (coalesce(
        (
            select max(entry.available_at)
            from watchlist_entries as entry
            where entry.minute = finished.minute
        ),
        known.cutoff
    ) <= asked.cutoff) is not false
    and finished.session_date = :session_date and finished.rows_count > 0
order by finished.minute desc
limit 1;

-- name: stage_runs
-- Which run of the orchestrator made each data stage of a minute; the watchlist's is that of its decision.
select
    stage,
    run_id
from stage_minutes
where
    (stage not in ('watchlist', 'dispatch') and minute = :minute)
    or (stage = 'watchlist' and minute = cast(:decided_at as timestamptz))
order by stage;

-- name: features
-- All columns of one feature row.
select
    ticker,
    minute,
    session_date,
    bar_at,
    close,
    sma20,
    sma50,
    recent_vol,
    baseline_vol,
    vol_ratio,
    distance_sma20,
    distance_sma50,
    trend_state,
    volume,
    volume_avg_20,
    volume_ratio,
    volume_surge,
    session_vwap,
    news_count_30,
    news_count_60,
    sentiment_30,
    sentiment_60,
    sentiment_strength_30,
    sentiment_strength_60,
    news_age_seconds_30,
    news_age_seconds_60,
    confident_count_30,
    confident_sentiment_30,
    positive_count_30,
    negative_count_30,
    neutral_count_30,
    news_ids,
    available_at,
    written_at
from features.features_1m
where ticker = :ticker and minute = :minute;

-- name: visible_bars
-- The newest bars that a minute could see, and over how many it looked back.
select
    ticker,
    minute,
    open,
    high,
    low,
    close,
    volume,
    count(*) over () as visible_count,
    min(minute) over () as first_minute
from (
    select
        ticker,
        minute,
        open,
        high,
        low,
        close,
        volume
    from bars_1m
    where
        ticker = :ticker and minute <= :minute and available_at <= :cutoff
        and minute >= coalesce(cast(:window_starts_at as timestamptz), '-infinity')
    order by minute desc
    limit :look_back
) as seen
order by minute desc
limit :shown;

-- name: stories
-- Stories by their ids, with what the newest model that was known at the cut-off says of each.
select
    item.news_id,
    item.title,
    item.link,
    item.published_at,
    item.available_at,
    told.feeds,
    link.match_source,
    link.span,
    scored.label,
    scored.score,
    scored.probability,
    scored.model,
    scored.revision
from news_items as item
inner join unnest(cast(:news_ids as text[])) with ordinality as named (news_id, place)
    on item.news_id = named.news_id
left join news_tickers as link on item.news_id = link.news_id and link.ticker = :ticker
cross join
    lateral (
        select array_agg(distinct telling.feed order by telling.feed) as feeds
        from news_provenance as telling
        where telling.news_id = item.news_id
    ) as told
left join lateral (
    select
        known.label,
        known.score,
        known.probability,
        known.model,
        known.revision
    from news_sentiments as known
    where known.text_hash = item.text_hash and known.available_at <= :cutoff
    order by known.available_at desc, known.written_at desc
    limit 1
) as scored on true
order by named.place;

-- name: fills_of_position
-- The fills of one ticker from the opening of a position to an execution, in time order.
select
    fill.execution_id,
    fill.ticker,
    fill.simulated_ts as at,
    fill.session_date,
    case fill.side when 'buy' then fill.qty else -fill.qty end as quantity,
    fill.price,
    fill.intent,
    fill.split_ratio
from ledger_fills as fill
inner join dispatch_executions as last on fill.account = last.account and fill.ticker = last.ticker
where
    last.execution_id = :execution_id and fill.simulated_ts >= :opened_at
    and (fill.simulated_ts, fill.written_at) <= (last.simulated_ts, last.written_at)
order by fill.simulated_ts, fill.written_at, fill.execution_id;

-- name: count_executions
-- How many executions the sessions from :first to :last have.
select count(*) as executions
from dispatch_executions
where session_date between :first and :last;

-- name: unresolved_links
-- What the executions of the sessions from :first to :last stand on and is not there; of all, or of one.
with executed as (
    select
        fill.execution_id,
        fill.account,
        fill.ticker,
        fill.session_date,
        fill.simulated_ts,
        fill.intent,
        asked.minute,
        asked.action,
        fill.ticker || ' ' || (to_json(asked.minute) #>> '{}') as place,
        fill.sim_json -> 'bar_used' as bar_used,
        cast(fill.explain_json ->> 'position_opened_at' as timestamptz) as opened_at
    from dispatch_executions as fill
    inner join dispatch_recommendations as asked on fill.recommendation_id = asked.id
    where
        fill.session_date between :first and :last
        and fill.execution_id = coalesce(cast(:execution_id as uuid), fill.execution_id)
),

opened as (
    select
        executed.execution_id,
        executed.ticker,
        executed.minute,
        executed.action,
        executed.place,
        decided.minute as decided_at,
        made.bar_at,
        made.close,
        made.news_ids
    from executed
    left join features.features_1m as made
        on executed.ticker = made.ticker and executed.minute = made.minute
    left join minute_cutoffs as asked on executed.minute = asked.minute
    left join lateral (
        select finished.minute
        from stage_minutes as finished
        left join minute_cutoffs as known on finished.minute = known.minute
        where
            finished.stage = 'watchlist' and finished.minute <= executed.minute
            and (coalesce(
                (
                    select max(entry.available_at)
                    from watchlist_entries as entry
                    where entry.minute = finished.minute
                ),
                known.cutoff
            ) <= asked.cutoff) is not false
            and finished.session_date = executed.session_date and finished.rows_count > 0
        order by finished.minute desc
        limit 1
    ) as decided on true
    where executed.intent = 'open'
),

told as (
    select
        opened.execution_id,
        opened.ticker,
        named.news_id,
        item.text_hash
    from opened
    cross join lateral unnest(opened.news_ids) as named (news_id)
    left join news_items as item on named.news_id = item.news_id
)

select
    execution_id,
    ticker,
    'signal' as link,
    place as missing
from opened
where
    not exists (
        select 1
        from signals as decided
        where
            decided.minute = opened.minute and decided.ticker = opened.ticker
            and decided.action = opened.action
    )
union all
select
    execution_id,
    ticker,
    'watchlist',
    ticker || ' ' || (to_json(coalesce(decided_at, minute)) #>> '{}')
from opened
where
    not exists (
        select 1
        from watchlist_entries as watched
        where watched.minute = opened.decided_at and watched.ticker = opened.ticker and watched.in_watchlist
    )
union all
select
    execution_id,
    ticker,
    'features',
    place
from opened
where bar_at is null
union all
select
    execution_id,
    ticker,
    'bar',
    ticker || ' ' || (to_json(bar_at) #>> '{}')
from opened
where
    bar_at is not null
    and not exists (
        select 1
        from bars_1m as bar
        where bar.ticker = opened.ticker and bar.minute = opened.bar_at and bar.close = opened.close
    )
union all
select
    execution_id,
    ticker,
    'cut-off',
    to_json(minute) #>> '{}'
from opened
where
    not exists (
        select 1 from minute_cutoffs as decided
        where decided.minute = opened.minute
    )
union all
select
    execution_id,
    ticker,
    'news',
    news_id
from told
where text_hash is null
union all
select
    execution_id,
    ticker,
    'feed of news',
    news_id
from told
where
    text_hash is not null
    and not exists (
        select 1 from news_provenance as telling
        where telling.news_id = told.news_id
    )
union all
select
    execution_id,
    ticker,
    'ticker of news',
    news_id
from told
where
    text_hash is not null
    and not exists (
        select 1
        from news_tickers as link
        where link.news_id = told.news_id and link.ticker = told.ticker
    )
union all
select
    execution_id,
    ticker,
    'score of news',
    news_id
from told
where
    text_hash is not null
    and not exists (
        select 1 from news_sentiments as scored
        where scored.text_hash = told.text_hash
    )
union all
select
    execution_id,
    ticker,
    'bar of the fill',
    ticker || ' ' || coalesce(bar_used ->> 'minute', bar_used ->> 'timestamp')
from executed
where
    jsonb_typeof(executed.bar_used) = 'object'
    and not exists (
        select 1
        from bars_1m as bar
        where
            bar.ticker = executed.ticker
            and bar.minute = cast(executed.bar_used ->> 'minute' as timestamptz)
            and bar.open = cast(executed.bar_used ->> 'open' as double precision)
            and bar.high = cast(executed.bar_used ->> 'high' as double precision)
            and bar.low = cast(executed.bar_used ->> 'low' as double precision)
            and bar.close = cast(executed.bar_used ->> 'close' as double precision)
            and bar.volume = cast(executed.bar_used ->> 'volume' as bigint)
    )
union all
select
    execution_id,
    ticker,
    'opening execution',
    ticker || ' ' || coalesce(to_json(opened_at) #>> '{}', 'at an unknown time')
from executed
where
    intent = 'close'
    and not exists (
        select 1
        from dispatch_executions as opening
        where
            opening.account = executed.account and opening.ticker = executed.ticker
            and opening.intent = 'open' and opening.simulated_ts = executed.opened_at
            and opening.execution_id <> executed.execution_id
            and opening.simulated_ts <= executed.simulated_ts
    )
order by execution_id, link, missing;
