"""A database in which whole sessions stand, and that shows of them what is known at an instant.

The tables move into a schema of their own, and views take their names: the checks' queries are
asked word for word, and see the rows that are there by the instant which is set as the world's.
"""

import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from ops_pipeline.domain.acceptance import Row
from ops_pipeline.domain.checks import CHECKS
from ops_pipeline.domain.ranges import Present
from ops_pipeline.domain.session import Session
from ops_pipeline.domain.stages import DISPATCH, Stage
from ops_pipeline.storage.acceptance import parameters, statement

TICKERS = ("AAPL", "AMZN", "GOOGL", "META", "MSFT", "NVDA", "TSLA")
TYPES = {
    "now": "timestamptz",
    "today": "timestamptz",
    "day": "date",
    "opens_at": "timestamptz",
    "closes_at": "timestamptz",
    "before": "timestamptz",
    "clock": "timestamptz",
    "is_live": "boolean",
}
# By which column a row is there; of a queue and of its runs, what has ended by then has.
KNOWN_BY = {
    "stage_minutes": "first_written_at",
    "minute_cutoffs": "written_at",
    "bars_1m": "available_at",
    "news_items": "available_at",
    "news_tickers": "available_at",
    "news_sentiments": "available_at",
    "watchlist_entries": "written_at",
    "signals": "written_at",
    "dispatch_executions": "simulated_ts",
    "broker_orders": "created_at",
    "features_1m": "written_at",
}
QUEUE = """
    select
        id, ts, ticker, session_date, intent, reason, failure_reason,
        case when processed_at > (select world_now()) then 'PENDING' else status end as status,
        case when processed_at <= (select world_now()) then processed_at end as processed_at
    from world.dispatch_recommendations where ts <= (select world_now())"""
RUNS = """
    select
        started_at, pulled_count, simulated_count, skipped_count, failed_count, config_version,
        written_at, run_summary_json, run_config_json,
        case when finished_at <= (select world_now()) then finished_at end as finished_at,
        case when finished_at <= (select world_now()) then outcome end as outcome
    from world.dispatcher_runs where started_at <= (select world_now())"""
CLOCKS = """
    create function world_now() returns timestamptz stable language sql
    return cast(current_setting('world.now') as timestamptz);
    create schema clock;
    create function clock.clock_timestamp() returns timestamptz stable language sql
    return world_now();"""
# Found before PostgreSQL's own, so that the world's clock is the server's.
SEARCHED = "set search_path = clock, pg_catalog, public"
QUERIES = ("installed", "services_off", *(name for check in CHECKS for name in check.asked))
QUIET = "set local session_replication_role = replica"


def build(connection: Connection) -> None:
    """Turn a migrated database into such a world; it is good for nothing else afterwards."""
    connection.execute(text(CLOCKS))
    connection.execute(text("create schema world"))
    for table in (*KNOWN_BY, "dispatch_recommendations", "dispatcher_runs"):
        own = "features" if table == "features_1m" else "public"
        connection.execute(text(f"alter table {own}.{table} set schema world"))
        shown = {"dispatch_recommendations": QUEUE, "dispatcher_runs": RUNS}.get(
            table,
            f"select * from world.{table} where {KNOWN_BY.get(table)} <= (select world_now())",
        )
        connection.execute(text(f"create view {own}.{table} as {shown}"))
    connection.execute(text("update installation set created_at = '2020-01-01'"))
    connection.execute(text("delete from universe"))
    connection.execute(
        text("insert into universe (ticker) select unnest(cast(:tickers as text[]))"),
        {"tickers": list(TICKERS)},
    )
    connection.execute(text(SEARCHED))
    for name in QUERIES:
        connection.exec_driver_sql(_function(name))
    connection.exec_driver_sql(_asker())


def _function(name: str) -> str:
    """A query as a function of what it may name; its text is the one that is asked in life."""
    asked = re.sub(r"(?<![:\w]):(\w+)(?!:)", r"p_\1", statement(name))
    named = ", ".join(f"p_{key} {kind}" for key, kind in TYPES.items())
    return f"""
        create function ask_{name}({named}) returns jsonb language plpgsql as $ask$
        #variable_conflict use_column
        begin
            return (
                select coalesce(jsonb_agg(to_jsonb(answer)), '[]') from (\n{asked}\n) as answer
            );
        end $ask$""".replace("%", "%%")


def _asker() -> str:
    """All queries at each of these instants, in order."""
    arrays = ", ".join(f"p_{key} {kind}[]" for key, kind in TYPES.items())
    each = ", ".join(f"p_{key}[n]" for key in TYPES)
    answers = ", ".join(f"'{name}', ask_{name}({each})" for name in QUERIES)
    return f"""
        create function ask_all({arrays}) returns setof jsonb language plpgsql as $ask$
        begin
            for n in 1 .. cardinality(p_now) loop
                perform set_config('world.now', cast(p_now[n] as text), true);
                return next jsonb_build_object({answers});
            end loop;
        end $ask$"""


def ask(connection: Connection, presents: Sequence[Present]) -> list[dict[str, list[Row]]]:
    """The rows of every query at each of these presents, by the query's name."""
    connection.execute(text(SEARCHED))
    known = [parameters(present) | {"clock": present.now} for present in presents]
    arrays = {key: [each[key] for each in known] for key in TYPES}
    named = ", ".join(f"cast(:{key} as {kind}[])" for key, kind in TYPES.items())
    found = connection.execute(text(f"select cast(ask_all({named}) as text)"), arrays)
    return [json.loads(row[0], object_hook=_instants) for row in found]


def _instants(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no instants; those of a row are named so."""
    return {
        key: datetime.fromisoformat(value) if key.endswith("_at") and value else value
        for key, value in row.items()
    }


# When each stage was done with a minute, by seconds that differ from minute to minute but not from
# run to run; one minute of 97 is late, as far as the deadline lets it be.
TIMES = """
    create temporary table times on commit drop as
    with drawn as (
        select
            minute,
            number,
            (hashint8(number * 7919 + extract(epoch from minute)::bigint) & 1023) / 1023.0 as a,
            (hashint8(number * 104729 + extract(epoch from minute)::bigint) & 1023) / 1023.0 as b
        from (
            select
                cast(:opens_at as timestamptz) + make_interval(mins => number::int) as minute,
                number
            from generate_series(0, cast(:minutes as bigint) - 1) as number
        ) as minutes
    ),
    fetched as (
        select
            *,
            minute + make_interval(secs => (61 + 4 * a)::double precision) as news_at,
            minute + case when number % 97 = 96 then interval '30 seconds' else interval '0' end
            + make_interval(secs => (66 + 6 * b)::double precision) as bars_at
        from drawn
    ),
    scored as (
        select *, bars_at + make_interval(secs => (0.3 + 2 * a)::double precision) as sentiment_at
        from fetched
    ),
    cut as (
        select *, greatest(minute + interval '80 seconds', sentiment_at) as cutoff from scored
    ),
    computed as (
        select *, cutoff + make_interval(secs => (0.8 + 2 * b)::double precision) as features_at
        from cut
    )
    select
        *,
        features_at + interval '0.3 seconds' as watchlist_at,
        features_at + interval '0.7 seconds' as signals_at,
        minute + make_interval(secs => (30 + 8 * a)::double precision) as run_at,
        number >= 6 and number % 4 = 2 as is_signal,
        to_char(minute at time zone 'UTC', 'YYYYMMDDHH24MI') as name
    from computed"""
FILL = (
    """
    insert into world.stage_minutes
        (stage, minute, session_date, rows_count, run_id, written_at, first_written_at)
    select each.stage, t.minute, :day, 7, t.name, each.at, each.at
    from times as t
    cross join lateral (
        values
        ('news', t.news_at), ('bars', t.bars_at), ('sentiment', t.sentiment_at),
        ('features', t.features_at), ('watchlist', t.watchlist_at), ('signals', t.signals_at)
    ) as each (stage, at)""",
    """
    insert into world.minute_cutoffs
        (minute, session_date, session_opens_at, cutoff, run_id, written_at)
    select minute, :day, :opens_at, cutoff, name, cutoff from times""",
    """
    insert into world.bars_1m
        (ticker, minute, session_date, open, high, low, close, volume, feed, origin, available_at)
    select u.ticker, t.minute, :day, 100, 101, 99, 100, 1000, 'iex', 'live', t.bars_at
    from times as t cross join universe as u
    where hashtext(u.ticker || t.name) % 100 <> 0""",
    """
    insert into world.features_1m
        (ticker, minute, session_date, bar_at, close, sma20, sma50, distance_sma20, distance_sma50,
        trend_state, volume, volume_avg_20, volume_ratio, volume_surge, news_count_30,
        news_count_60, confident_count_30, positive_count_30, negative_count_30, neutral_count_30,
        available_at, written_at)
    select u.ticker, t.minute, :day, t.minute, 100, 100, 100, 0, 0, 1, 1000, 1000, 1, false,
        0, 0, 0, 0, 0, 0, t.cutoff, t.features_at
    from times as t cross join universe as u""",
    """
    insert into world.watchlist_entries
        (minute, ticker, session_date, score, rank, in_watchlist, reason, sentiment_pressure,
        setup_quality, volatility, trend_alignment, available_at, written_at)
    select t.minute, u.ticker, :day, 0.5, 1, false, 'score', 0, 0, 0, 0, t.cutoff, t.watchlist_at
    from times as t cross join universe as u where t.number % 5 = 0""",
    """
    insert into world.signals
        (minute, ticker, session_date, action, rule, confidence, reason, available_at, written_at)
    select t.minute, u.ticker, :day,
        case when t.is_signal and u.ticker = 'AAPL' then 'BUY' else 'HOLD' end, 'rule', 0.8, '{}',
        t.cutoff, t.signals_at
    from times as t cross join universe as u""",
    """
    insert into world.news_items
        (news_id, title, summary, link, text_hash, event_at, origin, available_at)
    select t.name || n, 'title', '', 'https://news.example/', t.name || n,
        t.minute - interval '1 minute', 'live', t.news_at
    from times as t
    cross join lateral generate_series(1, case when t.number = 0 then 40 else 1 end) as n
    where t.number % 4 = 0""",
    """
    insert into world.news_sentiments
        (text_hash, model, revision, backend, precision, label, probability, p_positive, p_negative,
        p_neutral, score, origin, available_at)
    select i.text_hash, 'model', '1', 'finbert', 'int8', 'neutral', 1, 0, 0, 1, 0, 'live',
        t.sentiment_at
    from world.news_items as i inner join times as t on i.available_at = t.news_at""",
    """
    insert into world.news_tickers (news_id, ticker, match_source, span, available_at)
    select i.news_id, 'AAPL', 'alias', 'Apple', i.available_at
    from world.news_items as i inner join times as t on i.available_at = t.news_at
    where t.number % 8 = 0""",
    """
    insert into world.dispatcher_runs
        (run_id, started_at, finished_at, outcome, mode, code_version, config_hash, run_config_json,
        orchestrator_run_id)
    select gen_random_uuid(), at, at + interval '0.4 seconds', 'FINISHED', 'simulated', '1', '',
        '{}', ''
    from (
        select run_at as at from times
        union all
        select t.at
        from generate_series(
            cast(:opens_at as timestamptz) - interval '1 hour',
            cast(:opens_at as timestamptz) - interval '1 minute', interval '1 minute'
        ) as t (at)
        union all
        select cast(:closes_at as timestamptz) + make_interval(mins => n)
        from generate_series(0, 60) as n
    ) as runs""",
    # Decided by the first run after it; each eighth trades, on the bar that was newest.
    """
    insert into world.dispatch_recommendations
        (ts, ticker, minute, session_date, action, instrument_type, intent, confidence, reason,
        status, expires_at, processed_at, failure_reason, available_at)
    select t.signals_at, 'AAPL', t.minute, :day, 'BUY', 'STOCK', 'open', 0.8, '{}',
        case when t.number % 32 = 6 then 'SIMULATED' else 'SKIPPED' end,
        t.signals_at + interval '5 minutes',
        t.minute + make_interval(secs => (90.5 + 8 * t.a)::double precision),
        case when t.number % 32 <> 6 then 'confidence: too low' end, t.cutoff
    from times as t where t.is_signal""",
    """
    insert into world.dispatch_executions
        (execution_id, recommendation_id, dispatcher_run_id, claim_epoch, account, ticker, action,
        intent, decision_ts, simulated_ts, session_date, side, qty, entry_price, notional,
        fill_model, slippage_bps, execution_mode, explain_json, risk_json, sim_json)
    select gen_random_uuid(), id, gen_random_uuid(), 1, 'paper', ticker, 'BUY_STOCK', 'open', ts,
        processed_at, session_date, 'buy', 1, 100, 100, 'close+slip', 5, 'SIMULATED', '{}', '{}',
        jsonb_build_object(
            'bar_used', jsonb_build_object('timestamp', minute + interval '1 minute')
        )
    from world.dispatch_recommendations where session_date = :day and status = 'SIMULATED'""",
    """
    insert into world.broker_orders
        (account, broker_order_id, client_order_id, ticker, side, qty, state, filled_qty,
        filled_price, created_at, told_at, is_external)
    select 'paper', 'b-' || id, 'op1-' || id, ticker, 'buy', 1, 'FILLED', 1, 100, processed_at,
        processed_at, false
    from world.dispatch_recommendations where session_date = :day and status = 'SIMULATED'""",
)
FORGET = {
    "stage_minutes": "minute",
    "minute_cutoffs": "minute",
    "bars_1m": "minute",
    "features_1m": "minute",
    "watchlist_entries": "minute",
    "signals": "minute",
    "news_items": "available_at",
    "news_sentiments": "available_at",
    "news_tickers": "available_at",
    "dispatcher_runs": "started_at",
    "dispatch_recommendations": "ts",
    "dispatch_executions": "simulated_ts",
    "broker_orders": "created_at",
}


def fill(connection: Connection, session: Session) -> None:
    """Put the rows of a healthy session, from an hour before it to an hour after it."""
    known = {
        "day": session.day,
        "opens_at": session.opens_at,
        "closes_at": session.closes_at,
        "minutes": len(session.minutes()),
    }
    connection.execute(text(QUIET))
    for insert in (TIMES, *FILL):
        asked = text(insert)
        connection.execute(asked, {key: known[key] for key in asked.compile().params})
    connection.execute(text("drop table times"))


def forget(connection: Connection, before: datetime) -> None:
    """Remove what lies before an instant, so that every session is asked of as many rows."""
    connection.execute(text(QUIET))
    for table, column in FORGET.items():
        statement = f"delete from world.{table} where {column} < :before"
        connection.execute(text(statement), {"before": before})


LATE = "update world.{table} set {column} = :again where minute >= :start and minute < :end"
# What a service would have written meanwhile, but for its own finished minutes.
WRITES = {
    "bars": LATE.format(table="bars_1m", column="available_at"),
    "features": LATE.format(table="features_1m", column="written_at"),
    "watchlist": LATE.format(table="watchlist_entries", column="written_at"),
    "signals": LATE.format(table="signals", column="written_at"),
    "dispatch": (
        "delete from world.dispatcher_runs where started_at >= :start and started_at < :end"
    ),
}
CAUGHT_UP = """
    update world.stage_minutes set first_written_at = :again, run_id = 'caught up'
    where minute >= :start and minute < :end and stage = :stage"""


def stop(connection: Connection, stage: Stage, start: datetime, end: datetime) -> None:
    """Let a service do nothing for the minutes in [start, end); its next tick makes up for them."""
    connection.execute(text(QUIET))
    known = {"start": start, "end": end, "again": end + timedelta(seconds=95), "stage": stage.name}
    own = [] if stage is DISPATCH else [CAUGHT_UP]
    for change in filter(None, [*own, WRITES.get(stage.name)]):
        asked = text(change)
        connection.execute(asked, {key: known[key] for key in asked.compile().params})
