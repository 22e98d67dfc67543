-- The trading state is one row that is only ever changed, and what was changed stays.

create function guard_trading_state() returns trigger language plpgsql as $$
begin
    if new.only_row is distinct from old.only_row or new.changed_by !~ '\S' then
        raise exception 'a change of the trading state names who made it';
    end if;
    new.changed_at := clock_timestamp();
    return new;
end $$;
create trigger trading_state_guard before update on trading_state
for each row execute function guard_trading_state();

create function refuse_removal() returns trigger language plpgsql as $$
begin
    raise exception '% has one row, which stays', tg_table_name;
end $$;
create trigger trading_state_stays before delete on trading_state
for each row execute function refuse_removal();
create trigger trading_state_no_truncate before truncate on trading_state
for each statement execute function refuse_removal();

create trigger trading_state_changes_append_only before update or delete on trading_state_changes
for each row execute function refuse_change();
create trigger trading_state_changes_no_truncate before truncate on trading_state_changes
for each statement execute function refuse_change();
create trigger service_changes_append_only before update or delete on service_changes
for each row execute function refuse_change();
create trigger service_changes_no_truncate before truncate on service_changes
for each statement execute function refuse_change();
