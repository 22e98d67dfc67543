-- A position that has to be closed is proposed again until it is flat; a broker's close needs no bar.

-- Set by flatten, until trading is resumed: whatever is held has to be closed.
alter table trading_state add column must_be_flat boolean not null default false;

-- Each run looks for closing orders that wait for a bar, whatever else waits.
create index dispatch_recommendations_closing on dispatch_recommendations (ticker)
where status = 'PENDING' and intent = 'close';

-- A broker's closing order is not priced by our bars; a ticker that is no longer traded has none.
alter table dispatch_executions drop constraint dispatch_executions_sim_json_check;
alter table dispatch_executions add constraint dispatch_executions_sim_json_check check (
    sim_json -> 'bar_used' ->> 'timestamp' is not null
    or (execution_mode = 'ALPACA_PAPER' and intent = 'close')
);

-- Never two closing orders of a ticker at work at once: together they could sell more than is held.
create function refuse_second_close() returns trigger language plpgsql as $$
begin
    if exists (
        select 1 from order_intents as placed
        where placed.account = new.account and placed.ticker = new.ticker and placed.intent = 'close'
        and placed.settled_at is null
    ) then
        raise exception 'a closing order of % is at work', new.ticker using errcode = 'integrity_constraint_violation';
    end if;
    return new;
end $$;
create trigger order_intents_one_close before insert on order_intents
for each row when (new.intent = 'close')
execute function refuse_second_close();
