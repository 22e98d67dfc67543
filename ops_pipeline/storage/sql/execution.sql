-- name: insert_executions
-- Add to the ledger what was closed just now; what is known of the decision comes from its row.
-- One statement: after several in a pipeline the server does not end the transaction of a frozen process.
insert into dispatch_executions (
    execution_id, recommendation_id, dispatcher_run_id, claim_epoch, account, ticker, action, intent,
    decision_ts, simulated_ts, session_date, side, qty, entry_price, notional, stop_loss_price,
    take_profit_price, max_hold_minutes, fill_model, slippage_bps, execution_mode,
    config_version, config_hash, explain_json, risk_json, sim_json
)
select
    made.execution_id,
    made.recommendation_id,
    made.dispatcher_run_id,
    made.claim_epoch,
    made.account,
    decided.ticker,
    decided.action || '_' || decided.instrument_type as action,
    decided.intent,
    decided.ts as decision_ts,
    made.simulated_ts,
    made.session_date,
    made.side,
    made.qty,
    made.entry_price,
    made.notional,
    made.stop_loss_price,
    made.take_profit_price,
    made.max_hold_minutes,
    made.fill_model,
    made.slippage_bps,
    made.execution_mode,
    run.config_version,
    run.config_hash,
    decided.reason as explain_json,
    jsonb_build_object('gates', decided.risk_gate_json, 'all_gates_passed', true) as risk_json,
    made.sim_json
    || jsonb_build_object('features_used', coalesce(decided.features_snapshot, '{}')) as sim_json
from
    jsonb_populate_recordset(cast(null as dispatch_executions), cast(:rows as jsonb))
    with ordinality as made
inner join dispatch_recommendations as decided on made.recommendation_id = decided.id
inner join dispatcher_runs as run on made.dispatcher_run_id = run.run_id
-- A join keeps no order, and the fills of an instant count in the order in which they were decided.
order by made.ordinality;

-- name: insert_manual_fills
-- What was closed by hand leaves the ledger.
insert into manual_fills (account, ticker, side, qty, price, filled_at, session_date)
select
    :account as account,
    made.ticker,
    made.side,
    made.qty,
    made.price,
    made.filled_at,
    made.session_date
from jsonb_populate_recordset(cast(null as manual_fills), cast(:rows as jsonb)) as made;

-- name: live_fills
-- The fills of tickers that are held, traded in this session or asked for, in time order.
select
    fill.ticker,
    fill.simulated_ts,
    fill.session_date,
    fill.side,
    fill.qty,
    fill.working_qty,
    fill.price,
    fill.intent,
    fill.stop_loss_price,
    fill.take_profit_price,
    fill.max_hold_minutes,
    fill.split_ratio
from ledger_fills as fill
where
    fill.account = :account and fill.session_date <= :session_date
    and fill.ticker in (
        select seen.ticker
        from ledger_fills as seen
        where seen.account = :account and seen.session_date <= :session_date
        group by seen.ticker
        having
            sum(case when seen.side = 'buy' then seen.qty else -seen.qty end) <> 0
            or sum(seen.working_qty) > 0
            or max(seen.session_date) = :session_date
    )
order by fill.simulated_ts, fill.written_at, fill.ticker, fill.execution_id;

-- name: fills_until
-- All fills up to the end of a session, in time order.
select
    fill.ticker,
    fill.simulated_ts,
    fill.session_date,
    fill.side,
    fill.qty,
    fill.working_qty,
    fill.price,
    fill.intent,
    fill.stop_loss_price,
    fill.take_profit_price,
    fill.max_hold_minutes,
    fill.split_ratio
from ledger_fills as fill
where fill.account = :account and fill.session_date <= :session_date
order by fill.simulated_ts, fill.written_at, fill.ticker, fill.execution_id;
