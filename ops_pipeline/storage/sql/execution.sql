-- name: insert_execution
-- Add to the ledger.
insert into dispatch_executions (
    execution_id, recommendation_id, dispatcher_run_id, claim_epoch, account, ticker, action, intent,
    decision_ts, simulated_ts, session_date, side, qty, entry_price, notional, stop_loss_price,
    take_profit_price, max_hold_minutes, fill_model, slippage_bps, execution_mode,
    explain_json, risk_json, sim_json
)
values (
    :execution_id, :recommendation_id, :dispatcher_run_id, :claim_epoch, :account, :ticker, :action, :intent,
    :decision_ts, :simulated_ts, :session_date, :side, :qty, :entry_price, :notional, :stop_loss_price,
    :take_profit_price, :max_hold_minutes, :fill_model, :slippage_bps, 'SIMULATED',
    cast(:explain_json as jsonb), cast(:risk_json as jsonb), cast(:sim_json as jsonb)
);

-- name: live_fills
-- The fills of tickers that are held or traded in this session, in time order.
select
    fill.ticker,
    fill.simulated_ts,
    fill.session_date,
    fill.side,
    fill.qty,
    fill.entry_price,
    fill.intent,
    fill.stop_loss_price,
    fill.take_profit_price,
    fill.max_hold_minutes
from dispatch_executions as fill
where
    fill.account = :account and fill.session_date <= :session_date
    and fill.ticker in (
        select seen.ticker
        from dispatch_executions as seen
        where seen.account = :account and seen.session_date <= :session_date
        group by seen.ticker
        having
            sum(case when seen.side = 'buy' then seen.qty else -seen.qty end) <> 0
            or max(seen.session_date) = :session_date
    )
order by fill.simulated_ts, fill.written_at, fill.ticker;

-- name: fills_until
-- All fills up to the end of a session, in time order.
select
    fill.ticker,
    fill.simulated_ts,
    fill.session_date,
    fill.side,
    fill.qty,
    fill.entry_price,
    fill.intent,
    fill.stop_loss_price,
    fill.take_profit_price,
    fill.max_hold_minutes
from dispatch_executions as fill
where fill.account = :account and fill.session_date <= :session_date
order by fill.simulated_ts, fill.written_at, fill.ticker;
