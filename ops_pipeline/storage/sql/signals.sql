-- name: insert_signal
-- Keep one decision of the rules.
insert into signals (minute, ticker, session_date, action, rule, confidence, reason, available_at)
values (
    :minute, :ticker, :session_date, :action, :rule, :confidence, cast(:reason as jsonb), :available_at
);

-- name: signals_between
-- The decisions of a session in [start, end).
select
    minute,
    ticker,
    action,
    rule,
    confidence,
    reason
from signals
where session_date = :session_date and minute >= :start and minute < :end
order by minute, ticker;

-- name: actionable_known
-- What a session recommended before :start, as far as any minute in [start, end) may know.
select
    ticker,
    minute,
    available_at
from signals
where
    session_date = :session_date and minute < :start and action <> 'HOLD'
    and available_at <= (
        select max(asked.cutoff)
        from minute_cutoffs as asked
        where asked.session_date = :session_date and asked.minute >= :start and asked.minute < :end
    )
order by minute, ticker;

-- name: insert_recommendation
-- Hand an actionable signal to the dispatcher.
insert into dispatch_recommendations (
    ts, ticker, minute, session_date, action, instrument_type, intent, confidence, reason,
    features_snapshot, sentiment_snapshot, expires_at, available_at
)
values (
    :ts, :ticker, :minute, :session_date, :action, 'STOCK', 'open', :confidence, cast(:reason as jsonb),
    cast(:features_snapshot as jsonb), cast(:sentiment_snapshot as jsonb), :expires_at, :available_at
);

-- name: late_decisions
-- The minutes of a session in [start, end) that were decided too late, and from when on that could be known.
select
    decided.minute,
    max(made.available_at) as available_at
from signals as made
inner join minute_cutoffs as decided on made.minute = decided.minute
where
    made.session_date = :session_date and made.minute >= :start and made.minute < :end
    and made.available_at > decided.cutoff
group by decided.minute
order by decided.minute;
