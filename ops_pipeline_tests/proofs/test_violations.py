"""A healthy world in which every check is normal, and what makes each of them red, and no other."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from ops_pipeline.domain.acceptance import Level
from ops_pipeline.domain.checks import CHECKS, NAMES
from ops_pipeline.domain.session import MINUTE, Calendar
from ops_pipeline.domain.stages import SERVICES
from ops_pipeline.settings import Settings
from ops_pipeline.storage import acceptance
from ops_pipeline.storage.engine import opened
from ops_pipeline_tests.defs.world import prepare
from ops_pipeline_tests.proofs.calendar import world

DAY = date(2025, 2, 12)
NOW = datetime.fromisoformat("2025-02-12T19:30:07Z")

RECOMMEND = """
    insert into world.dispatch_recommendations
        (ts, ticker, minute, session_date, action, instrument_type, intent, confidence, reason,
        status, expires_at, processed_at, failure_reason, lease_until, claimed_at,
        dispatcher_run_id, available_at)
    select ts, 'MSFT', ts, '2025-02-12', 'BUY', 'STOCK', 'open', 0.8, '{{}}', '{status}',
        ts + interval '5 minutes',
        case when '{status}' = 'FAILED' then ts end,
        case when '{status}' = 'FAILED' then 'error' end,
        case when '{status}' = 'PROCESSING' then ts end,
        case when '{status}' = 'PROCESSING' then ts end,
        case when '{status}' = 'PROCESSING' then gen_random_uuid() end, ts
    from generate_series(1, {count}) as n
    cross join lateral (
        select cast(:now as timestamptz) - interval '{ago}' - make_interval(secs => n) as ts
    ) as each"""
EXECUTE = """
    insert into world.dispatch_executions
        (execution_id, recommendation_id, dispatcher_run_id, claim_epoch, account, ticker, action,
        intent, decision_ts, simulated_ts, session_date, side, qty, entry_price, notional,
        fill_model, slippage_bps, execution_mode, explain_json, risk_json, sim_json)
    select gen_random_uuid(), {recommendation}, dispatcher_run_id, claim_epoch, account, ticker,
        action, intent, decision_ts, simulated_ts, session_date, side, qty, entry_price, notional,
        fill_model, slippage_bps, execution_mode, explain_json, risk_json, sim_json
    from world.dispatch_executions cross join generate_series(1, {count}) as n
    where execution_id = (
        select execution_id from world.dispatch_executions
        where session_date = '2025-02-12' order by simulated_ts limit 1
    )"""
TWICE = "alter table world.dispatch_executions drop constraint {name}"
LATELY = "cast(:now as timestamptz) - interval '{ago}'"


def since(ago: str) -> str:
    return LATELY.format(ago=ago)


SESSION = "session_date = '2025-02-12'"
# What is done to the healthy world, the level that its check takes, and what must follow.
VIOLATIONS: dict[str, tuple[list[str], Level, dict[str, Level]]] = {
    "backlog_state": (
        [RECOMMEND.format(status="PENDING", count=21, ago="5 seconds")],
        Level.HIGH,
        {},
    ),
    "stuck_processing": (
        [RECOMMEND.format(status="PROCESSING", count=1, ago="10 minutes")],
        Level.HIGH,
        {},
    ),
    "duplicate_executions": (
        [
            TWICE.format(name="dispatch_executions_recommendation_id_key"),
            EXECUTE.format(recommendation="recommendation_id", count=1),
        ],
        Level.CRITICAL,
        {},
    ),
    "recent_dispatcher_runs": (
        [
            f"""
                update world.dispatcher_runs set finished_at = null, outcome = null
                where started_at between {since("3 minutes")} and {since("121 seconds")}"""
        ],
        Level.HIGH,
        {},
    ),
    "execution_volume": (
        [EXECUTE.format(recommendation="1000000 + n", count=200)],
        Level.HIGH,
        {},
    ),
    "skip_reasons": (
        [
            f"""
                update world.dispatch_recommendations set status = 'SKIPPED',
                failure_reason = 'confidence: too low' where {SESSION}"""
        ],
        Level.MEDIUM,
        {"decision_volume": Level.LOW},
    ),
    "execution_freshness": (
        [
            f"""
                update world.dispatch_executions set sim_json = jsonb_build_object('bar_used',
                jsonb_build_object('timestamp', simulated_ts - interval '121 seconds'))
                where simulated_ts >= {since("1 hour")}"""
        ],
        Level.HIGH,
        {},
    ),
    "services_are_running": (
        [f"delete from world.stage_minutes where stage = 'news' and minute > {since('5 minutes')}"],
        Level.HIGH,
        {},
    ),
    "backlog_growth": (
        [
            RECOMMEND.format(status="PENDING", count=1, ago="150 minutes"),
            RECOMMEND.format(status="PENDING", count=2, ago="90 minutes"),
            RECOMMEND.format(status="PENDING", count=4, ago="30 minutes"),
        ],
        Level.HIGH,
        {},
    ),
    "decision_volume": (
        [RECOMMEND.format(status="FAILED", count=6, ago="30 minutes")],
        Level.LOW,
        {},
    ),
    "abandoned_runs": (
        [
            f"""
                update world.dispatcher_runs set outcome = 'ABANDONED'
                where started_at between {since("181 minutes")} and {since("180 minutes")}"""
        ],
        Level.LOW,
        {},
    ),
    "bars_are_fresh": (
        [f"delete from world.bars_1m where minute > {since('5 minutes')}"],
        Level.HIGH,
        {},
    ),
    "bar_volume": (
        [f"delete from world.bars_1m where {SESSION} and ticker in ('META', 'TSLA')"],
        Level.MEDIUM,
        {"tickers_have_bars": Level.MEDIUM},
    ),
    "tickers_have_bars": (
        [f"delete from world.bars_1m where {SESSION} and ticker = 'TSLA'"],
        Level.MEDIUM,
        {},
    ),
    "feature_completeness": (
        [
            f"""
                delete from world.features_1m where ticker = 'TSLA'
                and minute between {since("6 minutes")} and {since("5 minutes")}"""
        ],
        Level.MEDIUM,
        {},
    ),
    "watchlist_cadence": (
        [
            f"""
                delete from world.watchlist_entries
                where minute between {since("35 minutes")} and {since("30 minutes")}"""
        ],
        Level.MEDIUM,
        {},
    ),
    "signal_volume": ([f"update world.signals set action = 'BUY' where {SESSION}"], Level.LOW, {}),
    "news_volume": (
        ["delete from world.news_items where available_at >= '2025-02-12 14:30+00'"],
        Level.LOW,
        {"sentiment_volume": Level.LOW},
    ),
    "sentiment_volume": (
        ["delete from world.news_sentiments where available_at >= '2025-02-12 14:30+00'"],
        Level.LOW,
        {"news_are_scored": Level.MEDIUM},
    ),
    "news_are_scored": (
        [f"delete from world.news_sentiments where available_at >= {since('1 hour')}"],
        Level.MEDIUM,
        {},
    ),
    "news_name_tickers": (["delete from world.news_tickers"], Level.MEDIUM, {}),
    "run_durations": (
        [
            """
                update world.stage_minutes
                set first_written_at = first_written_at + interval '5 seconds'
                where stage in ('features', 'watchlist', 'signals')"""
        ],
        Level.LOW,
        {},
    ),
    # The instant of the world is not moved with the clock that is read beside it.
    "clock_skew": (
        ["select set_config('world.now', '2025-02-12T19:30:04Z', true)"],
        Level.MEDIUM,
        {},
    ),
    "cost_per_day": (
        ["insert into cost_lines values ('2025-02-12', 'a', 1, 'hours', 5.01, false, :now)"],
        Level.CRITICAL,
        {},
    ),
    "config_drift": (
        ["update config_state set invalid = 'no JSON', invalid_since = :now"],
        Level.HIGH,
        {},
    ),
    "unclosed_positions": (
        [
            """
                insert into world.dispatch_recommendations
                    (ts, ticker, minute, session_date, action, instrument_type, intent, confidence,
                    reason, status, expires_at, processed_at, available_at)
                select at, 'AAPL', at, '2025-02-12', 'SELL', 'STOCK', 'close', 1,
                    '{"exit": "stop"}', 'EXECUTED', at + interval '5 minutes', at, at
                from (select cast(:now as timestamptz) - interval '30 seconds' as at) as now""",
            """
                insert into order_intents
                    (recommendation_id, client_order_id, account, ticker, intent, side, qty, state,
                    reason, expires_at, decided_at, settled_at)
                select id, 'op1-refused', 'paper', 'AAPL', 'close', 'sell', 1, 'REJECTED',
                    'potential wash trade detected (403)', :now, :now, :now
                from world.dispatch_recommendations where intent = 'close'""",
        ],
        Level.CRITICAL,
        {},
    ),
    "duplicate_orders": (
        [
            """
                insert into world.broker_orders (account, broker_order_id, client_order_id, ticker,
                side, qty, state, filled_qty, created_at, told_at, is_external)
                select account, 'again', client_order_id, ticker, side, qty, 'ACKED', 0, created_at,
                told_at, false from world.broker_orders order by created_at limit 1"""
        ],
        Level.CRITICAL,
        {},
    ),
}


@pytest.fixture(scope="module")
def healthy_world(template: Settings) -> Settings:
    def play(made: object) -> None:
        settings: Settings = made.settings  # type: ignore[attr-defined]
        calendar = settings.mode.calendar
        with opened(settings) as engine, engine.begin() as connection:
            world.build(connection)
            for session in [*(calendar.back(DAY, n) for n in (3, 2, 1)), calendar.on(DAY)]:
                assert session is not None
                world.fill(connection, session)

    return prepare(template, "healthy", play)


@pytest.fixture(scope="module")
def healthy_engine(healthy_world: Settings) -> Iterator[Engine]:
    with opened(healthy_world) as engine:
        yield engine


@pytest.fixture
def healthy(healthy_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """Four sessions in which all is well, looked at five hours into the last; what is done goes."""
    monkeypatch.setattr(acceptance, "clock", lambda: NOW)
    with healthy_engine.connect() as connection:
        connection.execute(text(world.SEARCHED))
        connection.execute(text(world.QUIET))
        look_at(connection, NOW)
        yield connection


def look_at(connection: Connection, now: datetime) -> None:
    connection.execute(text("select set_config('world.now', :now, true)"), {"now": now.isoformat()})


def abnormal(connection: Connection, calendar: Calendar, now: datetime = NOW) -> dict[str, Level]:
    found = acceptance.verdicts(connection, now, calendar, is_live=True)
    assert tuple(verdict.name for verdict in found) == NAMES
    return {verdict.name: verdict.level for verdict in found if not verdict.is_normal}


def violate(connection: Connection, changes: list[str], **known: object) -> None:
    for change in changes:
        asked = text(change)
        wanted = {key: ({"now": NOW} | known)[key] for key in asked.compile().params}
        connection.execute(asked, wanted)


def test_every_check_has_its_violation() -> None:
    assert set(VIOLATIONS) == set(NAMES)


def test_in_the_healthy_world_every_check_is_normal(healthy: Connection, xnys: Calendar) -> None:
    assert abnormal(healthy, xnys) == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_violation_makes_its_check_red_and_no_other(
    healthy: Connection, xnys: Calendar, name: str
) -> None:
    changes, level, follow = VIOLATIONS[name]
    violate(healthy, changes)
    assert abnormal(healthy, xnys) == {name: level, **follow}


def test_all_services_silent_is_critical(healthy: Connection, xnys: Calendar) -> None:
    violate(
        healthy,
        [
            f"delete from world.stage_minutes where minute > {since('5 minutes')}",
            f"delete from world.dispatcher_runs where started_at > {since('4 minutes')}",
        ],
    )
    assert abnormal(healthy, xnys) == {"services_are_running": Level.CRITICAL}


def test_a_day_without_executions_is_a_stall(healthy: Connection, xnys: Calendar) -> None:
    violate(healthy, ["delete from world.dispatch_executions where simulated_ts >= '2025-02-11'"])
    assert abnormal(healthy, xnys) == {"execution_volume": Level.MEDIUM}


@pytest.mark.parametrize(
    "name", [check.name for check in CHECKS if check.services and check.name in VIOLATIONS]
)
def test_a_check_is_silent_while_its_service_is_switched_off(
    healthy: Connection, xnys: Calendar, name: str
) -> None:
    services = next(check.services for check in CHECKS if check.name == name)
    violate(healthy, VIOLATIONS[name][0])
    switch_off(healthy, services[0].service)
    assert name not in abnormal(healthy, xnys)


@pytest.mark.parametrize("service", [stage.service for stage in SERVICES])
def test_a_service_that_is_switched_off_is_not_missed(
    healthy: Connection, xnys: Calendar, service: str
) -> None:
    stage = next(stage for stage in SERVICES if stage.service == service)
    begin = NOW.replace(second=0) - 20 * MINUTE
    world.stop(healthy, stage, begin, NOW + timedelta(hours=1))
    assert "services_are_running" in abnormal(healthy, xnys)
    switch_off(healthy, service)
    assert "services_are_running" not in abnormal(healthy, xnys)


def switch_off(connection: Connection, service: str) -> None:
    statement = "insert into services (service, is_enabled, changed_at) values (:name, false, :at)"
    connection.execute(text(statement), {"name": service, "at": NOW - timedelta(minutes=30)})


def test_a_pipeline_that_is_minutes_old_is_normal(healthy: Connection, xnys: Calendar) -> None:
    begun = NOW - timedelta(minutes=8)
    for table, column in world.FORGET.items():
        if table != "bars_1m":
            violate(healthy, [f"delete from world.{table} where {column} < :begun"], begun=begun)
    violate(healthy, ["update installation set created_at = :begun"], begun=begun)
    assert abnormal(healthy, xnys) == {}


@pytest.mark.parametrize("seconds", [0, 100])
def test_a_database_that_was_just_made_is_normal(
    connection: Connection, xnys: Calendar, seconds: int
) -> None:
    now = NOW - timedelta(days=1)
    made = now - timedelta(seconds=seconds)
    connection.execute(text("update installation set created_at = :made"), {"made": made})
    found = acceptance.verdicts(connection, now, xnys, is_live=True)
    assert [verdict.name for verdict in found if not verdict.is_normal] == []


def test_the_nights_after_an_outage_are_silent(healthy: Connection, xnys: Calendar) -> None:
    violate(healthy, [f"delete from world.stage_minutes where minute > {since('5 minutes')}"])
    night = datetime.fromisoformat("2025-02-13T04:00:00Z")
    look_at(healthy, night)
    assert "services_are_running" not in abnormal(healthy, xnys, night)
