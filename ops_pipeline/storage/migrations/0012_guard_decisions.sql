-- A decision and its execution agree at each commit, whoever wrote them; changes of the trading state stay.

create function require_pair() returns trigger language plpgsql as $$
declare
    decided dispatch_recommendations;
    recommendation bigint := case tg_table_name
        when 'dispatch_executions' then (to_jsonb(new) ->> 'recommendation_id')::bigint
        else (to_jsonb(new) ->> 'id')::bigint
    end;
    executed_under integer;
begin
    select * into strict decided from dispatch_recommendations where id = recommendation;
    select claim_epoch into executed_under from dispatch_executions where recommendation_id = recommendation;
    if (executed_under is not null) <> (decided.status in ('SIMULATED', 'EXECUTED')) then
        raise exception 'recommendation % is % and % an execution', recommendation, decided.status,
            case when executed_under is null then 'lacks' else 'has' end
            using errcode = 'integrity_constraint_violation';
    end if;
    if executed_under <> decided.claim_epoch then
        raise exception 'recommendation % was closed under claim %, and executed under %', recommendation,
            decided.claim_epoch, executed_under
            using errcode = 'integrity_constraint_violation';
    end if;
    return null;
end $$;

create constraint trigger dispatch_recommendations_pair after insert or update on dispatch_recommendations
deferrable initially deferred for each row
when (new.status in ('SIMULATED', 'EXECUTED', 'SKIPPED', 'FAILED'))
execute function require_pair();

create constraint trigger dispatch_executions_pair after insert on dispatch_executions
deferrable initially deferred for each row
execute function require_pair();

-- Each change of the trading state: by whom, and why.
create table trading_state_changes (
    id bigint generated always as identity primary key,
    state text not null,
    changed_by text not null,
    reason text not null,
    written_at timestamptz not null default clock_timestamp()
);

create function keep_trading_state() returns trigger language plpgsql as $$
begin
    insert into trading_state_changes (state, changed_by, reason)
    values (new.state, new.changed_by, new.reason);
    return null;
end $$;
create trigger trading_state_kept after update on trading_state
for each row execute function keep_trading_state();
