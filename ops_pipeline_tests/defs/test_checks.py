"""Acceptance queries and dbt's tests, as asset checks: silent on a normal day, loud on a fault."""

from collections.abc import Iterator
from datetime import UTC, date, datetime

import dagster as dg
import pytest

from ops_pipeline.domain.checks import CHECKS, NAMES
from ops_pipeline.domain.sentiment import FOR_PRODUCTION
from ops_pipeline.settings import Settings
from ops_pipeline_tests.defs.markets import generated, plain, warm_up
from ops_pipeline_tests.defs.world import World, open_world, prepare

HALF_DAY = date(2025, 11, 28)
DAY = date(2025, 2, 12)
NOW = datetime(2025, 2, 12, 17, 0, tzinfo=UTC)
DBT_TESTS = {
    "features_do_not_look_ahead",
    "features_are_unique",
    "features_volatility_in_range",
    "features_volume_in_range",
}
ACCEPTANCE = "acceptance_of_executions"
RUN = "00000000-0000-0000-0000-000000000001"


def ask(world: World, check: str | None = None) -> dict[str, dg.AssetCheckEvaluation]:
    """What the checks say, all of them or those of one function."""
    outcome = world.job("acceptance_job", op_selection=[check] if check else None)
    return {found.check_name: found for found in outcome.get_asset_check_evaluations()}


def failed(found: dict[str, dg.AssetCheckEvaluation]) -> set[str]:
    return {name for name, evaluation in found.items() if not evaluation.passed}


# The acceptance queries.


@pytest.fixture
def normal(world: World) -> World:
    """One finished run with one execution, a minute ago."""
    world.execute("insert into replay_clock (present) values (:now)", now=NOW)
    a_dispatcher_run(world)
    execute(world)
    return world


EXECUTION = """(
        execution_id, recommendation_id, dispatcher_run_id, claim_epoch, account, ticker, action,
        intent, decision_ts, simulated_ts, session_date, side, qty, entry_price, notional,
        fill_model, slippage_bps, execution_mode, explain_json, risk_json, sim_json)
    select gen_random_uuid(), id, cast(:run as uuid), claim_epoch, 'paper', ticker, action,
        intent, ts, ts, session_date, 'buy', 1, 100, 100, 'close+slip', 5, 'SIMULATED', '{}', '{}',
        '{"bar_used": {"timestamp": "2025-02-12T17:00:00+00:00"}}'
    from asked"""


def a_dispatcher_run(world: World) -> None:
    world.execute(
        """
        insert into dispatcher_runs (run_id, started_at, finished_at, outcome, mode, code_version,
            config_hash, run_config_json, orchestrator_run_id)
        values (cast(:run as uuid), :now - interval '1 minute', :now, 'FINISHED', 'replay', '0',
            '', '{}', 'test')""",
        run=RUN,
        now=NOW,
    )


def recommend(world: World, status: str, minutes_ago: int = 1, count: int = 1) -> None:
    """Recommendations in this status, each about another minute."""
    world.execute(recommended(status), now=NOW, ago=minutes_ago, count=count)


def execute(world: World, minutes_ago: int = 1, count: int = 1) -> None:
    """Recommendations with their executions, which the database takes only together."""
    asked = f"with asked as ({recommended('SIMULATED')} returning *)"
    statement = f"{asked} insert into dispatch_executions {EXECUTION}"
    world.execute(statement, now=NOW, ago=minutes_ago, count=count, run=RUN)


def recommended(status: str) -> str:
    done = "null" if status in ("PENDING", "PROCESSING") else "m.minute"
    lease = "m.minute" if status == "PROCESSING" else "null"
    run = f"cast('{RUN}' as uuid)" if status == "PROCESSING" else "null"
    return f"""
        insert into dispatch_recommendations (ts, ticker, minute, session_date, action,
            instrument_type, intent, confidence, reason, status, expires_at, processed_at,
            lease_until, claimed_at, dispatcher_run_id, available_at)
        select m.minute, 'AAPL', m.minute, cast(m.minute as date), 'BUY', 'STOCK', 'open', 0.9,
            '{{}}', '{status}', m.minute + interval '5 minutes', {done}, {lease}, {lease}, {run},
            m.minute
        from (
            select :now - make_interval(secs => :ago * 60 + n) as minute
            from generate_series(0, :count - 1) as n
        ) as m"""


def test_acceptance_checks_are_those_of_the_catalogue(normal: World) -> None:
    of_executions = {check.name for check in CHECKS if check.asset == "executions"}
    assert set(ask(normal, ACCEPTANCE)) == of_executions


def test_acceptance_checks_pass_when_all_is_normal(normal: World) -> None:
    assert failed(ask(normal, ACCEPTANCE)) == set()


def test_backlog_check_fails_on_more_than_20_pending_rows(normal: World) -> None:
    recommend(normal, "PENDING", minutes_ago=2, count=21)
    assert failed(ask(normal, ACCEPTANCE)) == {"backlog_state"}


def test_a_row_that_a_run_is_at_work_on_is_normal(normal: World) -> None:
    recommend(normal, "PROCESSING", minutes_ago=9)
    assert failed(ask(normal, ACCEPTANCE)) == set()


def test_stuck_check_fails_on_a_row_in_processing_for_more_than_10_minutes(normal: World) -> None:
    recommend(normal, "PROCESSING", minutes_ago=11)
    assert failed(ask(normal, ACCEPTANCE)) == {"stuck_processing"}


def duplicate(world: World) -> dict[str, dg.AssetCheckEvaluation]:
    """An execution twice, which only a database without its constraint can hold."""
    name = "dispatch_executions_recommendation_id_key"
    world.execute(f"alter table dispatch_executions drop constraint {name}")
    asked = "with asked as (select * from dispatch_recommendations order by id limit 1)"
    world.execute(f"{asked} insert into dispatch_executions {EXECUTION}", run=RUN)
    return ask(world, ACCEPTANCE)


def test_duplicate_check_fails_on_an_execution_that_stands_twice(normal: World) -> None:
    assert failed(duplicate(normal)) == {"duplicate_executions"}


def test_duplicate_execution_halts_trading_once_and_says_why(normal: World) -> None:
    duplicate(normal)
    ask(normal, ACCEPTANCE)
    changes = normal.rows("select state, changed_by, reason from trading_state_changes")
    assert [tuple(row.values()) for row in changes] == [
        ("HALTED", "acceptance", "duplicate executions: recommendations 1")
    ]
    assert normal.value("select state from trading_state") == "HALTED"


def test_checks_of_a_normal_day_leave_the_trading_state_alone(normal: World) -> None:
    ask(normal, ACCEPTANCE)
    assert normal.value("select state from trading_state") == "ACTIVE"


OVERNIGHT = "no_position_is_held_overnight"


def test_overnight_check_passes_while_the_positions_session_is_open(normal: World) -> None:
    assert failed(ask(normal, f"executions_{OVERNIGHT}")) == set()


def test_overnight_check_fails_from_the_close_on_and_names_what_is_held(normal: World) -> None:
    close = datetime(2025, 2, 12, 21, 0, tzinfo=UTC)
    normal.execute("update replay_clock set present = :at", at=close)
    found = ask(normal, f"executions_{OVERNIGHT}")
    assert failed(found) == {OVERNIGHT}
    assert found[OVERNIGHT].severity is dg.AssetCheckSeverity.ERROR
    assert found[OVERNIGHT].description == "held over the close: AAPL"


def test_duplicate_execution_is_an_error_and_the_rest_warns(normal: World) -> None:
    found = duplicate(normal)
    errors = {n for n, e in found.items() if e.severity is dg.AssetCheckSeverity.ERROR}
    assert errors == {"duplicate_executions"}


def test_runs_check_fails_on_a_run_without_an_end(normal: World) -> None:
    normal.execute(
        "update dispatcher_runs set finished_at = null, outcome = null,"
        " started_at = started_at - interval '61 seconds'"
    )
    assert failed(ask(normal, ACCEPTANCE)) == {"recent_dispatcher_runs"}


def test_runs_check_fails_without_a_recent_run_while_open(normal: World) -> None:
    normal.execute("update dispatcher_runs set started_at = started_at - interval '6 minutes'")
    assert failed(ask(normal, ACCEPTANCE)) == {"recent_dispatcher_runs"}


def test_runs_check_needs_no_recent_run_while_closed(normal: World) -> None:
    normal.execute("update replay_clock set present = present + interval '8 hours'")
    assert failed(ask(normal, ACCEPTANCE)) == set()


def test_volume_check_passes_on_200_executions_a_day(normal: World) -> None:
    execute(normal, minutes_ago=2, count=199)
    assert failed(ask(normal, ACCEPTANCE)) == set()


def test_volume_check_fails_on_more_than_200_executions_a_day(normal: World) -> None:
    execute(normal, minutes_ago=2, count=200)
    assert failed(ask(normal, ACCEPTANCE)) == {"execution_volume"}


def test_volume_check_fails_after_a_trading_day_without_executions(normal: World) -> None:
    normal.execute("update replay_clock set present = present + interval '2 days'")
    assert "execution_volume" in failed(ask(normal, ACCEPTANCE))


def test_checks_carry_what_was_found_and_what_was_expected(normal: World) -> None:
    found = ask(normal, ACCEPTANCE)["stuck_processing"]
    assert found.description == "0 stuck"
    assert found.metadata["expected"].value == "0"


# dbt's tests.


@pytest.fixture(scope="module")
def eight_minutes(template: Settings) -> Settings:
    def play(world: World) -> None:
        session = world.session(DAY)
        minutes = session.minutes()[:8]
        world.open_market(plain(warm_up(world.calendar, session, 60) + minutes))
        world.stages(minutes[0], minutes[-1], ["bars", "features"])

    return prepare(template, "eight_minutes", play)


@pytest.fixture
def computed(eight_minutes: Settings) -> Iterator[World]:
    """Eight minutes of features."""
    with open_world(eight_minutes) as world:
        yield world


def spoil(world: World, change: str) -> set[str]:
    world.execute(
        f"update features.features_1m set {change} where (ticker, minute) in "
        "(select 'AAPL', min(minute) from features.features_1m)"
    )
    return failed(ask(world, "features_tests"))


def test_feature_checks_are_dbts_four_tests_and_pass(computed: World) -> None:
    found = ask(computed, "features_tests")
    assert set(found) == DBT_TESTS
    assert failed(found) == set()


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ("recent_vol = 1.01", "features_volatility_in_range"),
        ("vol_ratio = 'NaN'", "features_volatility_in_range"),
        ("volume = -1", "features_volume_in_range"),
        ("volume_ratio = 20.1", "features_volume_in_range"),
        ("bar_at = minute + interval '1 minute'", "features_do_not_look_ahead"),
        ("available_at = minute + interval '59 seconds'", "features_do_not_look_ahead"),
    ],
)
def test_feature_check_fails_on_its_violation_alone(
    computed: World, change: str, check: str
) -> None:
    assert spoil(computed, change) == {check}


def test_grain_check_fails_on_a_row_that_stands_twice(computed: World) -> None:
    computed.execute("alter table features.features_1m drop constraint features_1m_pkey")
    computed.execute("insert into features.features_1m select * from features.features_1m limit 1")
    assert failed(ask(computed, "features_tests")) == {"features_are_unique"}


def test_feature_checks_fail_when_dbt_cannot_read_the_table(computed: World) -> None:
    computed.execute("alter table features.features_1m rename column volume to shares")
    assert failed(ask(computed, "features_tests")) == {"features_volume_in_range"}


def test_feature_checks_have_nothing_to_say_before_there_are_features(world: World) -> None:
    found = ask(world, "features_tests")
    assert failed(found) == set()
    assert {each.description for each in found.values()} == {"no features yet"}


# A whole day, played once and only looked at.


@pytest.fixture(scope="module")
def whole_day(template: Settings) -> Settings:
    def play(world: World) -> None:
        world.open_market(*generated(HALF_DAY))
        session = world.session(HALF_DAY)
        world.stages(session.opens_at, datetime(2025, 11, 28, 20, 59, tzinfo=UTC))
        world.dispatch(session.minutes())

    return prepare(template, "whole_day", play)


@pytest.fixture
def half_day(whole_day: Settings) -> Iterator[World]:
    """A half day through all stages, over all keys of its date, and dispatched."""
    with open_world(whole_day) as world:
        yield world


@pytest.mark.slow
def test_every_check_passes_on_a_normal_day(half_day: World) -> None:
    found = ask(half_day)
    others = {FOR_PRODUCTION, "every_execution_explained", OVERNIGHT}
    assert set(found) == {*NAMES, *DBT_TESTS, *others}
    assert failed(found) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "table", ["features.features_1m", "signals", "minute_cutoffs", "stage_minutes"]
)
def test_half_day_has_rows_in_its_210_minutes_alone(half_day: World, table: str) -> None:
    (row,) = half_day.rows(f"select count(distinct minute), min(minute), max(minute) from {table}")
    assert list(row.values()) == [
        210,
        datetime(2025, 11, 28, 14, 30, tzinfo=UTC),
        datetime(2025, 11, 28, 17, 59, tzinfo=UTC),
    ]


@pytest.mark.slow
def test_watchlist_decides_each_fifth_minute_of_the_half_day(half_day: World) -> None:
    statement = "select count(distinct minute) from watchlist_entries"
    assert half_day.value(statement) == 42


@pytest.mark.slow
def test_half_day_ends_without_positions(half_day: World) -> None:
    signed = "case when side = 'buy' then qty else -qty end"
    held = half_day.rows(
        f"select ticker from dispatch_executions group by 1 having sum({signed}) <> 0"
    )
    assert held == []
    assert half_day.value("select count(*) from dispatch_executions") > 0
