"""What a trade stands on is found, and what is gone is named."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection

from ops_pipeline.domain.gates import GATES
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.storage import explain
from ops_pipeline.storage.explain import StampedCutoff
from ops_pipeline_tests.builders import DAY, NOON, OPENS_AT, a_bar
from ops_pipeline_tests.storage.rows import CONFIG, TS, put_execution, put_recommendation, rows
from ops_pipeline_tests.storage.trade import (
    STORY,
    change,
    put_bars,
    put_basis,
    put_closing,
    put_decided,
    put_features,
    put_opening,
    put_score,
    put_story,
    put_telling,
    put_watchlist,
)

AT_NOON = "AAPL 2025-02-12T17:00:00+00:00"


def lost(connection: Connection, execution_id: UUID | None = None) -> list[tuple[str, str]]:
    """Link and missing thing of all that leads nowhere on the day of the trade."""
    found = explain.unresolved_links(connection, DAY, DAY, execution_id)
    return [(link.link, link.missing) for link in found]


@pytest.fixture
def trade(connection: Connection) -> UUID:
    """A trade and all that it stands on."""
    put_basis(connection)
    return put_opening(connection)


def test_a_trade_whose_rows_are_all_there_has_no_unresolved_link(
    connection: Connection, trade: UUID
) -> None:
    assert lost(connection) == []


NEWS_ROWS = ("news_provenance", "news_tickers", "news_items")
CUTS = {
    "signal": ("delete from signals", "signal", AT_NOON),
    "other action": ("update signals set action = 'SELL'", "signal", AT_NOON),
    "watchlist": ("delete from watchlist_entries", "watchlist", AT_NOON),
    "not watched": (
        "update watchlist_entries set in_watchlist = false, entered_at = null",
        "watchlist",
        AT_NOON,
    ),
    "features": ("delete from features.features_1m", "features", AT_NOON),
    "other close": ("update features.features_1m set close = 200.01", "bar", AT_NOON),
    "other bar": (
        "update features.features_1m set bar_at = bar_at - interval '1 minute'",
        "bar",
        "AAPL 2025-02-12T16:59:00+00:00",
    ),
    "cut-off": ("delete from minute_cutoffs", "cut-off", "2025-02-12T17:00:00+00:00"),
    "feed": ("delete from news_provenance", "feed of news", STORY),
    "ticker": ("delete from news_tickers", "ticker of news", STORY),
    "another ticker": ("update news_tickers set ticker = 'MSFT'", "ticker of news", STORY),
    "score": ("delete from news_sentiments", "score of news", STORY),
    **{
        f"{name} of the bar": (f"update bars_1m set {name} = {value}", "bar of the fill", AT_NOON)
        for name, value in [("open", 200.1), ("high", 201), ("low", 199), ("volume", 9_999)]
    },
}


@pytest.mark.parametrize(("statement", "link", "missing"), CUTS.values(), ids=list(CUTS))
def test_a_link_that_is_cut_is_named_alone(
    connection: Connection, trade: UUID, statement: str, link: str, missing: str
) -> None:
    change(connection, statement)
    assert lost(connection) == [(link, missing)]


def test_a_story_that_is_gone_is_named_once(connection: Connection, trade: UUID) -> None:
    for table in NEWS_ROWS:
        change(connection, f"delete from {table}")
    assert lost(connection) == [("news", STORY)]


def test_every_story_that_is_gone_is_named(connection: Connection, trade: UUID) -> None:
    put_story(connection, "story-2")
    change(connection, "update features.features_1m set news_ids = '{story-1,story-2,story-3}'")
    change(connection, "delete from news_provenance where news_id = 'story-2'")
    assert lost(connection) == [("feed of news", "story-2"), ("news", "story-3")]


def test_a_bar_that_is_gone_is_missed_by_the_features_and_by_the_fill(
    connection: Connection, trade: UUID
) -> None:
    change(connection, "delete from bars_1m")
    assert lost(connection) == [("bar", AT_NOON), ("bar of the fill", AT_NOON)]


def test_a_fill_without_a_minute_is_named_by_the_end_of_its_bar(connection: Connection) -> None:
    put_basis(connection)
    put_opening(connection, sim_json='{"bar_used": {"timestamp": "2025-02-12T17:01:00+00:00"}}')
    assert lost(connection) == [("bar of the fill", "AAPL 2025-02-12T17:01:00+00:00")]


def test_a_decision_that_is_gone_is_not_replaced_by_the_one_before(
    connection: Connection, trade: UUID
) -> None:
    before = NOON - 5 * MINUTE
    put_decided(connection, "watchlist", minute=before)
    put_watchlist(connection, minute=before)
    change(connection, "delete from watchlist_entries where minute = :noon", noon=NOON)
    assert lost(connection) == [("watchlist", AT_NOON)]


def test_the_decision_before_is_in_force_in_minutes_that_decide_nothing(
    connection: Connection, trade: UUID
) -> None:
    before = NOON - 3 * MINUTE
    put_decided(connection, "watchlist", minute=before)
    change(connection, "update watchlist_entries set minute = :before", before=before)
    change(connection, "update stage_minutes set rows_count = 0 where minute = :noon", noon=NOON)
    assert lost(connection) == []


def test_a_closing_execution_needs_its_opening(connection: Connection, trade: UUID) -> None:
    closing = put_closing(connection)
    assert lost(connection, closing) == []
    change(connection, "delete from dispatch_executions where intent = 'open'")
    assert lost(connection) == [("opening execution", "AAPL 2025-02-12T17:01:20+00:00")]


@pytest.mark.parametrize(
    "changed",
    ["ticker = 'MSFT'", "simulated_ts = simulated_ts + interval '1 second'", "intent = 'close'"],
)
def test_another_execution_is_not_the_opening(
    connection: Connection, trade: UUID, changed: str
) -> None:
    closing = put_closing(connection)
    change(connection, f"update dispatch_executions set {changed} where intent = 'open'")
    assert [link for link, _ in lost(connection, closing)] == ["opening execution"]


def test_an_opening_that_the_reason_does_not_name_is_unresolved(
    connection: Connection, trade: UUID
) -> None:
    closing = put_closing(connection, explain_json='{"rule": "EXIT"}')
    assert lost(connection, closing) == [("opening execution", "AAPL at an unknown time")]


def test_links_of_other_sessions_and_of_other_executions_are_not_asked(
    connection: Connection, trade: UUID
) -> None:
    change(connection, "delete from signals")
    after = DAY + timedelta(days=1)
    assert explain.unresolved_links(connection, after, after) == []
    assert lost(connection, uuid4()) == []
    assert lost(connection, trade) == [("signal", AT_NOON)]


def test_an_unresolved_link_names_its_execution_and_ticker(
    connection: Connection, trade: UUID
) -> None:
    change(connection, "delete from signals")
    (found,) = explain.unresolved_links(connection, DAY, DAY)
    assert (found.execution_id, found.ticker) == (trade, "AAPL")


def test_executions_are_counted_by_session(connection: Connection, trade: UUID) -> None:
    put_closing(connection, session_date=DAY + timedelta(days=1))
    assert explain.count_executions(connection, DAY, DAY) == 1
    assert explain.count_executions(connection, DAY, DAY + timedelta(days=1)) == 2


IDS = ("5e884898-da28-0471-51d0-e56f8dc62927", "5e884898-da28-0471-ffff-ffffffffffff")


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        ("5e884898da28047151", IDS[:1]),
        ("5e884898da280471ffffffffffffffff", IDS[1:]),
        ("5e884898da280471", IDS),
        ("5e884898da280472", ()),
        ("5e884898da2804715", IDS[:1]),
    ],
)
def test_executions_are_found_by_the_digits_that_their_id_begins_with(
    connection: Connection, prefix: str, found: tuple[str, ...]
) -> None:
    for number, execution_id in enumerate(IDS):
        row = put_recommendation(connection, minute=NOON + number * MINUTE)
        put_execution(connection, row, execution_id=UUID(execution_id))
    assert explain.executions_that_begin(connection, prefix) == [UUID(i) for i in found]


def test_an_execution_is_found_by_its_id_and_by_its_recommendation(
    connection: Connection, trade: UUID
) -> None:
    found = explain.execution(connection, trade)
    assert found is not None
    assert (found.ticker, found.quantity, found.price, found.at) == ("AAPL", 10, 200.0, TS)
    assert found.bar_used["close"] == 200.0
    by_row = explain.execution(connection, recommendation_id=found.recommendation_id)
    assert by_row == found
    assert explain.execution(connection, uuid4()) is None


def test_executions_of_an_orchestrators_run_come_newest_first(
    connection: Connection, trade: UUID
) -> None:
    closing = put_closing(connection)
    change(connection, "update dispatcher_runs set orchestrator_run_id = 'this'")
    assert explain.executions_of(connection, "this", 10) == [closing, trade]
    assert explain.executions_of(connection, "this", 1) == [closing]
    assert explain.executions_of(connection, "that", 10) == []


def test_a_recommendation_has_the_gates_in_their_order(connection: Connection, trade: UUID) -> None:
    found = explain.recommendation(connection, ticker="AAPL", minute=NOON)
    assert found is not None
    assert [gate.gate for gate in found.gates] == [gate.name for gate in GATES]
    assert explain.recommendation(connection, found.id) == found


def test_a_gate_that_is_gone_since_then_stands_last(connection: Connection, trade: UUID) -> None:
    answer = '{"bygone": {"passed": true, "code": "", "reason": "", "observed": 1, "threshold": 2}}'
    statement = "update dispatch_recommendations set risk_gate_json = risk_gate_json || :answer"
    change(connection, statement.replace(":answer", "cast(:answer as jsonb)"), answer=answer)
    found = explain.recommendation(connection, ticker="AAPL", minute=NOON)
    assert found is not None
    assert [gate.gate for gate in found.gates][-1] == "bygone"
    assert len(found.gates) == len(GATES) + 1


def test_a_closing_recommendation_is_not_that_of_a_minute(connection: Connection) -> None:
    put_recommendation(connection, intent="close", action="SELL")
    assert explain.recommendation(connection, ticker="AAPL", minute=NOON) is None


def test_a_run_of_the_dispatcher_has_every_setting(connection: Connection, trade: UUID) -> None:
    made = explain.execution(connection, trade)
    assert made is not None
    found = explain.dispatcher_run(connection, made.run_id)
    assert (found.mode, found.code_version) == ("replay", "test")
    assert found.config_hash == CONFIG.fingerprint()
    assert found.config == CONFIG.document()


def test_a_cutoff_says_who_stamped_it(connection: Connection) -> None:
    assert explain.cutoff(connection, NOON) is None
    put_decided(connection)
    assert explain.cutoff(connection, NOON) == StampedCutoff(
        NOON, DAY, OPENS_AT, TS, "run of cut-off"
    )


@pytest.mark.parametrize(("minutes", "bars"), [(0, 180), (179, 180), (180, 181), (389, 390)])
def test_features_look_back_180_bars_or_to_the_open(minutes: int, bars: int) -> None:
    minute = OPENS_AT + minutes * MINUTE
    assert StampedCutoff(minute, DAY, OPENS_AT, minute, "").look_back == bars


def test_stage_runs_are_those_of_the_minute_and_of_the_watchlists_decision(
    connection: Connection,
) -> None:
    before = NOON - 5 * MINUTE
    put_decided(connection, "watchlist", minute=before)
    change(connection, "update stage_minutes set run_id = 'run of its decision'")
    put_decided(connection, "bars", "watchlist", "dispatch", rows=0)
    decided = explain.decided_at(connection, DAY, NOON)
    assert decided == before
    assert explain.stage_runs(connection, NOON, decided) == {
        "bars": "run of bars",
        "watchlist": "run of its decision",
    }
    assert explain.stage_runs(connection, NOON, None) == {"bars": "run of bars"}


def test_no_decision_of_another_session_is_in_force(connection: Connection) -> None:
    put_decided(connection, "watchlist")
    assert explain.decided_at(connection, DAY + timedelta(days=1), NOON + MINUTE) is None


def test_a_feature_row_is_shown_with_all_its_columns(connection: Connection) -> None:
    put_features(connection)
    found = explain.features(connection, "AAPL", NOON)
    assert found is not None
    columns = rows(
        connection,
        "select column_name from information_schema.columns where table_name = 'features_1m'",
    )
    assert sorted(found) == sorted(name for (name,) in columns)
    assert (found["bar_at"], found["news_ids"]) == (NOON, [STORY])
    assert explain.features(connection, "MSFT", NOON) is None


def test_bars_are_those_that_were_known_at_the_cutoff(connection: Connection) -> None:
    put_bars(connection, *(a_bar(minute=NOON + n * MINUTE) for n in range(-30, 2)))
    put_bars(connection, a_bar(ticker="MSFT"))
    late = NOON - 3 * MINUTE
    change(connection, "update bars_1m set available_at = :ts where minute = :m", ts=TS, m=late)
    before = TS - timedelta(microseconds=1)
    found = explain.visible_bars(connection, "AAPL", NOON, known(before))
    assert (found.count, found.first_minute) == (30, NOON - 30 * MINUTE)
    assert [bar.minute for bar in found.newest[:4]] == [NOON - n * MINUTE for n in (0, 1, 2, 4)]
    assert len(found.newest) == 20
    assert explain.visible_bars(connection, "AAPL", NOON, known(TS)).count == 31


def test_bars_beyond_the_look_back_are_not_counted(connection: Connection) -> None:
    put_bars(connection, *(a_bar(minute=OPENS_AT - n * MINUTE) for n in range(200)))
    found = explain.visible_bars(connection, "AAPL", NOON, known(TS, OPENS_AT))
    assert (found.count, found.first_minute) == (180, OPENS_AT - 179 * MINUTE)


def test_no_bars_have_no_first_minute(connection: Connection) -> None:
    found = explain.visible_bars(connection, "AAPL", NOON, known(TS))
    assert (found.count, found.first_minute, found.newest) == (0, None, ())


def known(at: object, minute: object = NOON) -> StampedCutoff:
    return StampedCutoff(minute, DAY, OPENS_AT, at, "")  # type: ignore[arg-type]


def test_stories_come_in_the_order_of_their_ids_with_all_that_is_known(
    connection: Connection,
) -> None:
    put_story(connection)
    put_story(connection, "story-0")
    put_telling(connection, "atom")
    found = explain.stories(connection, "AAPL", [STORY, "absent", "story-0"], TS)
    assert [story.news_id for story in found] == [STORY, "story-0"]
    first = found[0]
    assert first.feeds == ("atom", "wire")
    assert (first.match_source, first.span) == ("alias", "Apple")
    assert (first.label, first.score, first.probability) == ("positive", 0.6, 0.7)
    assert (first.model, first.revision) == ("words", "1")


def test_a_story_has_the_newest_score_that_was_known_then(connection: Connection) -> None:
    put_story(connection)
    put_score(connection, revision="2", available_at=NOON)
    put_score(connection, revision="3", available_at=TS + MINUTE)
    assert [s.revision for s in explain.stories(connection, "AAPL", [STORY], TS)] == ["2"]


def test_a_story_of_which_nothing_is_left_but_itself_is_shown(connection: Connection) -> None:
    put_story(connection)
    for table in (*NEWS_ROWS[:2], "news_sentiments"):
        change(connection, f"delete from {table}")
    (found,) = explain.stories(connection, "AAPL", [STORY], TS)
    assert (found.feeds, found.match_source, found.label) == ((), None, None)


def test_fills_of_a_position_are_those_from_its_opening_to_the_execution(
    connection: Connection, trade: UUID
) -> None:
    put_opening(connection, minute=NOON - 9 * MINUTE, simulated_ts=TS - 9 * MINUTE)
    put_opening(connection, minute=NOON + 9 * MINUTE, simulated_ts=TS + 9 * MINUTE)
    added = put_opening(connection, minute=NOON + MINUTE, simulated_ts=TS + MINUTE, qty=5)
    closing = put_closing(connection, qty=15)
    found = explain.fills_of_position(connection, closing, TS)
    assert [execution_id for execution_id, _ in found] == [trade, added, closing]
    assert [fill.quantity for _, fill in found] == [10, 5, -15]
