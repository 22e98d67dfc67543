-- name: runs
-- The runs of the dispatcher in [start, end), when each decided what it had claimed, and what it found.
select
    run.started_at,
    coalesce(max(decided.processed_at), run.started_at) as decided_at,
    run.config_hash,
    run.pulled_count,
    run.run_summary_json
from dispatcher_runs as run
left join dispatch_attempts as attempt
    on run.run_id = attempt.dispatcher_run_id and attempt.outcome <> 'RELEASED'
left join dispatch_recommendations as decided on attempt.recommendation_id = decided.id
where run.started_at >= :start and run.started_at < :end
group by run.run_id
order by run.started_at, run.written_at, run.run_id;

-- name: settings
-- The settings that the runs in [start, end) had in force.
select distinct on (config_hash)
    config_hash,
    run_config_json
from dispatcher_runs
where started_at >= :start and started_at < :end
order by config_hash, started_at, run_id;

-- name: openings
-- What asked to open a position by :end and was not closed before :start, as a first claim has it.
select
    id,
    ts,
    ticker,
    minute,
    session_date,
    action,
    instrument_type,
    intent,
    confidence,
    expires_at,
    1 as claim_epoch,
    reason,
    features_snapshot,
    created_at
from dispatch_recommendations
where intent = 'open' and ts <= :end and (processed_at is null or processed_at >= :start)
order by id;

-- name: decisions
-- How recommendations ended from :start to :end, with what was filled.
select
    decided.ticker,
    decided.minute,
    decided.intent,
    decided.action,
    decided.processed_at,
    decided.status,
    decided.failure_reason,
    fill.side,
    fill.qty,
    fill.price,
    fill.stop_loss_price,
    fill.take_profit_price,
    fill.max_hold_minutes
from dispatch_recommendations as decided
left join ledger_fills as fill on decided.id = fill.recommendation_id
where decided.processed_at between :start and :end
order by decided.id;

-- name: bars
-- The bars of these tickers that a present from :start to :end may know, in the order they came.
select
    ticker,
    minute,
    open,
    high,
    low,
    close,
    volume,
    available_at
from bars_1m
where
    ticker = any(:tickers) and available_at <= :end
    and minute <= :end and minute > cast(:start as timestamptz) - interval '7 days'
order by available_at, minute, ticker;

-- name: feature_bars
-- The bars that features stand on, of these tickers, in the order in which they came.
select
    ticker,
    minute,
    bar_at,
    available_at
from features.features_1m
where
    ticker = any(:tickers) and available_at <= :end
    and minute <= :end and minute > cast(:start as timestamptz) - interval '7 days'
order by available_at, minute, ticker;
