"""The check of the explanations: silent on a played morning, and it names what is gone."""

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from ops_pipeline.defs.assets import executions
from ops_pipeline.defs.assets.executions import DispatchConfig
from ops_pipeline.defs.checks.explained import window
from ops_pipeline.defs.replay import Player
from ops_pipeline.domain.acceptance import Level
from ops_pipeline.domain.checks import NAMES
from ops_pipeline.domain.sentiment import FOR_PRODUCTION
from ops_pipeline.domain.session import Calendar
from ops_pipeline.engine.launcher import WORKER_TAG
from ops_pipeline.operations.explain import explain_execution, explain_run
from ops_pipeline.settings import Settings
from ops_pipeline_tests.defs.markets import generated
from ops_pipeline_tests.defs.world import STAGES, World, _on_a_short_stack, open_world, prepare

HALF_DAY = date(2025, 11, 28)
CHECK = "every_execution_explained"


@pytest.fixture(scope="module")
def played(template: Settings) -> Settings:
    def play(world: World) -> None:
        world.open_market(*generated(HALF_DAY))
        minutes = world.session(HALF_DAY).minutes()
        world.stages(minutes[0], minutes[-1])
        world.dispatch(minutes)

    return prepare(template, "explained", play)


@pytest.fixture
def morning(played: Settings) -> Iterator[World]:
    """A half day of generated bars and news through all stages, and dispatched."""
    with open_world(played) as world:
        yield world


OPENED = """
    select made.ticker, made.execution_id, asked.minute, known.news_ids, known.bar_at
    from dispatch_executions as made
    join dispatch_recommendations as asked on asked.id = made.recommendation_id
    join features.features_1m as known
        on known.ticker = asked.ticker and known.minute = asked.minute
    where made.intent = 'open' and made.ticker = 'TSLA'
    order by made.simulated_ts limit 1"""


def ask(world: World) -> dg.AssetCheckEvaluation:
    outcome = world.job("acceptance_job", op_selection=[f"executions_{CHECK}"])
    (found,) = outcome.get_asset_check_evaluations()
    return found


def opened(world: World) -> dict[str, Any]:
    """The first opening execution that stands on news."""
    (found,) = world.rows(OPENED)
    assert found["news_ids"]
    return found


def require_failed(world: World, missing: str) -> None:
    """The check fails as an error, and names what is missing in a sentence and in a table."""
    found = ask(world)
    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    assert missing in str(found.description)
    assert missing in str(found.metadata["missing"].value)


def place(ticker: str, at: datetime) -> str:
    return f"{ticker} {at.astimezone(UTC).isoformat()}"


def test_every_execution_of_a_played_morning_is_explained(morning: World) -> None:
    found = ask(morning)
    count = morning.value("select count(*) from dispatch_executions")
    assert found.passed
    assert found.description == f"{count} executions, 0 links unresolved"
    assert (found.metadata["executions"].value, found.metadata["unresolved"].value) == (count, 0)
    kinds = morning.rows("select intent from dispatch_executions group by 1 order by 1")
    assert [row["intent"] for row in kinds] == ["close", "open"]


def test_every_explanation_has_all_its_parts(morning: World) -> None:
    ids = morning.rows("select execution_id, intent from dispatch_executions")
    with morning.pipeline.engine.connect() as connection:
        for row in ids:
            found = explain_execution(connection, row["execution_id"])
            assert len(found.gates) == 13
            assert found.unresolved == ()
            if row["intent"] == "close":
                assert found.round_trip is not None
                assert found.round_trip.profit_usd is not None
            else:
                assert found.basis is not None
                assert found.basis.confidence is not None
                assert found.basis.bars is not None
                assert found.basis.features is not None
                assert found.basis.bars.newest[0].minute == found.basis.features["bar_at"]
                assert len(found.basis.news) == found.basis.features["news_count_60"]
                assert set(found.basis.stage_runs) == set(STAGES)


def test_features_name_the_stories_that_they_count_in_their_order(morning: World) -> None:
    different = """
        select count(*) from features.features_1m as made
        where made.news_ids is distinct from array(
            select item.news_id
            from news_items as item
            join news_tickers as link on link.news_id = item.news_id and link.ticker = made.ticker
            join news_sentiments as scored on scored.text_hash = item.text_hash
            where item.event_at < made.minute + interval '1 minute'
                and item.event_at >= made.minute - interval '59 minutes'
                and greatest(item.available_at, link.available_at, scored.available_at)
                    <= made.available_at
            order by item.event_at, item.news_id)
        or made.news_count_60 <> cardinality(made.news_ids)"""
    assert morning.value(different) == 0
    named = "select count(*) from features.features_1m where cardinality(news_ids) > 1"
    assert morning.value(named) > 0


def test_a_story_that_is_deleted_is_named(morning: World) -> None:
    story = opened(morning)["news_ids"][0]
    for table in ("news_provenance", "news_tickers", "news_items"):
        morning.execute(f"delete from {table} where news_id = :story", story=story)
    require_failed(morning, story)


@pytest.mark.parametrize("table", ["features.features_1m", "signals"])
def test_a_row_of_the_minute_that_is_deleted_is_named(morning: World, table: str) -> None:
    trade = opened(morning)
    morning.execute(
        f"delete from {table} where ticker = :ticker and minute = :minute",
        ticker=trade["ticker"],
        minute=trade["minute"],
    )
    require_failed(morning, place(trade["ticker"], trade["minute"]))


def test_a_bar_that_is_deleted_is_named(morning: World) -> None:
    trade = opened(morning)
    where = "ticker = :ticker and minute = :minute"
    statement = f"delete from bars_1m where {where}"
    morning.execute(statement, ticker=trade["ticker"], minute=trade["bar_at"])
    require_failed(morning, place(trade["ticker"], trade["bar_at"]))


def test_a_decision_of_the_watchlist_that_is_deleted_is_named(morning: World) -> None:
    trade = opened(morning)
    decided = trade["minute"] - timedelta(minutes=trade["minute"].minute % 5)
    morning.execute("delete from watchlist_entries where minute = :decided", decided=decided)
    require_failed(morning, place(trade["ticker"], decided))


def test_the_table_ends_and_the_count_does_not(morning: World) -> None:
    morning.execute("delete from signals")
    morning.execute("delete from minute_cutoffs")
    morning.execute("delete from watchlist_entries")
    morning.execute("delete from bars_1m")
    found = ask(morning)
    count = found.metadata["unresolved"].value
    assert count == found.metadata["executions"].value + 4 * morning.value(
        "select count(*) from dispatch_executions where intent = 'open'"
    )
    assert len(str(found.metadata["missing"].value).splitlines()) == 2 + 20


def test_a_run_of_the_dispatcher_explains_what_it_executed(morning: World) -> None:
    made = explained(morning, "test")
    (newest,) = morning.rows(
        "select execution_id from dispatch_executions"
        " order by simulated_ts desc, written_at desc limit 1"
    )
    assert made.index(str(newest["execution_id"])) < 250
    count = morning.value("select count(*) from dispatch_executions")
    assert 5 < count < 10
    assert made.count("- gates: 13 of 13 passed") == count
    assert made.count("- confidence: ") > 0
    assert len(made.encode()) < 20_000


def test_of_many_executions_of_a_run_the_newest_are_explained(morning: World) -> None:
    with morning.pipeline.engine.connect() as connection:
        every = [found.execution for found in explain_run(connection, "test")]
        newest = [found.execution for found in explain_run(connection, "test", 3)]
    assert len(newest) == 3
    assert newest == every[:3]


def test_a_run_without_executions_says_so(morning: World) -> None:
    assert explained(morning, "another") == "no execution in this run"


def explained(world: World, run_id: str) -> str:
    nothing = SimpleNamespace(add_run_tags=lambda *_: None)
    context: Any = SimpleNamespace(run=SimpleNamespace(run_id=run_id), instance=nothing)
    outcome = executions.materialize(context, DispatchConfig(), world.pipeline)
    assert outcome.metadata is not None
    found = outcome.metadata["explained"]
    assert isinstance(found, dg.MarkdownMetadataValue)
    return str(found.value)


def test_a_replay_prints_every_check_that_is_not_in_the_catalogue(morning: World) -> None:
    morning.execute("delete from signals where minute = :minute", minute=opened(morning)["minute"])
    player = Player(morning.definitions, morning.instance, morning.settings.mode)
    verdicts = {verdict.name: verdict for verdict in _on_a_short_stack(player.check)}
    # A daemon of the same mode does not give up what this process plays.
    run = morning.instance.get_runs(limit=1)[0]
    assert run.tags[WORKER_TAG].startswith(f"{os.getpid()} ")
    assert set(verdicts) >= {CHECK, FOR_PRODUCTION}
    assert set(verdicts) & set(NAMES) == set()
    assert len(verdicts) == 7
    assert (verdicts[CHECK].level, verdicts["features_are_unique"].finding) == (
        Level.HIGH,
        "pass",
    )
    assert "links unresolved: signal TSLA" in verdicts[CHECK].finding


@pytest.mark.parametrize(
    ("now", "first", "last"),
    [
        (datetime(2025, 2, 12, 17, tzinfo=UTC), date(2024, 12, 30), date(2025, 2, 12)),
        (datetime(2025, 2, 16, 17, tzinfo=UTC), date(2025, 1, 2), date(2025, 2, 14)),
    ],
    ids=["session", "weekend"],
)
def test_the_check_looks_at_30_sessions_up_to_the_present(
    xnys: Calendar, now: datetime, first: date, last: date
) -> None:
    assert window(xnys, now) == (first, last)
    assert len(xnys.between(first, last)) == 30


def test_executions_before_the_window_are_not_counted(morning: World) -> None:
    morning.execute("update replay_clock set present = present + interval '60 days'")
    found = ask(morning)
    assert (found.passed, found.metadata["executions"].value) == (True, 0)
