"""Why a trade was made, and the first thing that stood in the way of one that was not."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, text

from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.gates import GATES
from ops_pipeline.domain.session import MINUTE, Calendar
from ops_pipeline.operations.explain import (
    Explanation,
    explain_execution,
    explain_minute,
    explain_recommendation,
    explain_run,
    usd,
)
from ops_pipeline.operations.explain_page import (
    as_markdown,
    as_note,
    sections,
)
from ops_pipeline.settings import Mode
from ops_pipeline_tests.builders import NOON, a_bar
from ops_pipeline_tests.storage.rows import TS, put_recommendation
from ops_pipeline_tests.storage.trade import (
    REASON,
    STORY,
    change,
    gates,
    put_bars,
    put_basis,
    put_closing,
    put_decided,
    put_features,
    put_opening,
    put_signal,
    put_story,
    put_watchlist,
)

HOSTILE = "<script>x</script> | a\nb \\ `c` [d](javascript:e) \x1b[31m& end"


@pytest.fixture
def trade(connection: Connection) -> UUID:
    """A trade and all that it stands on."""
    put_basis(connection)
    return put_opening(connection)


# What was traded.


def test_a_trade_is_explained_down_to_its_news(connection: Connection, trade: UUID) -> None:
    found = explain_execution(connection, trade)
    assert found.headline == (
        "bought 10 AAPL at 200.00 USD: BULL_ENTRY with confidence 0.80, 13 gates passed"
    )
    assert (found.ticker, found.minute, found.unresolved) == ("AAPL", NOON, ())
    assert found.execution is not None
    assert found.execution.execution_id == trade
    basis = found.basis
    assert basis is not None
    assert [story.news_id for story in basis.news] == [STORY]
    assert basis.features is not None
    assert (basis.features["bar_at"], basis.decided_at) == (NOON, NOON)
    assert basis.bars is not None
    assert (basis.bars.count, basis.bars.newest) == (1, (a_bar(),))
    assert basis.cutoff is not None
    assert (basis.cutoff.cutoff, basis.cutoff.run_id) == (TS, "run of cut-off")
    assert basis.watchlist is not None
    assert (basis.watchlist.rank, basis.watchlist.reason) == (1, "in: score")


def test_a_trade_carries_its_gates_its_run_and_its_settings(
    connection: Connection, trade: UUID
) -> None:
    found = explain_execution(connection, trade)
    assert [gate.gate for gate in found.gates] == [gate.name for gate in GATES]
    assert all(gate.passed for gate in found.gates)
    assert found.run is not None
    assert (found.run.mode, found.run.config["confidence_min"]) == ("replay", 0.55)
    assert found.basis is not None
    assert set(found.basis.stage_runs) == {
        "news",
        "bars",
        "sentiment",
        "features",
        "watchlist",
        "signals",
    }


def test_the_confidence_is_broken_down(connection: Connection, trade: UUID) -> None:
    basis = explain_execution(connection, trade).basis
    assert basis is not None
    assert basis.confidence is not None
    assert (basis.confidence.base, basis.confidence.final) == (0.9, 0.8)
    assert basis.confidence.multipliers == {"sentiment": 1.1, "volume": 1.15, "move": 0.7}


def test_bars_are_those_up_to_the_one_that_the_features_stand_on(
    connection: Connection, trade: UUID
) -> None:
    put_bars(connection, a_bar(minute=NOON - MINUTE))
    change(connection, "update features.features_1m set bar_at = bar_at - interval '1 minute'")
    basis = explain_execution(connection, trade).basis
    assert basis is not None
    assert basis.bars is not None
    assert [bar.minute for bar in basis.bars.newest] == [NOON - MINUTE]


def test_a_cut_link_stands_in_the_explanation(connection: Connection, trade: UUID) -> None:
    change(connection, "delete from news_provenance")
    found = explain_execution(connection, trade)
    assert [(link.link, link.missing) for link in found.unresolved] == [("feed of news", STORY)]
    assert sections(found)[0].rows == (("feed of news", STORY),)


def test_a_recommendation_that_was_executed_is_explained_as_its_execution(
    connection: Connection, trade: UUID, xnys: Calendar
) -> None:
    found = explain_execution(connection, trade)
    assert found.recommendation is not None
    assert explain_recommendation(connection, found.recommendation.id) == found
    assert explain_minute(connection, "AAPL", NOON, xnys) == found


def test_a_closing_trade_says_why_and_what_it_came_to(connection: Connection, trade: UUID) -> None:
    found = explain_execution(connection, put_closing(connection))
    assert found.headline == "sold 10 AAPL at 202.00 USD: exit by target, +20.00 USD"
    trip = found.round_trip
    assert trip is not None
    assert (trip.exit, trip.opened_at, trip.opening_id) == ("target", TS, trade)
    assert (trip.opening_price, trip.average_price, trip.profit_usd) == (200.0, 200.0, 20.0)
    assert found.basis is None
    assert found.unresolved == ()


def test_profit_of_a_round_trip_counts_what_was_added(connection: Connection, trade: UUID) -> None:
    at = TS + MINUTE
    put_opening(connection, minute=NOON + MINUTE, simulated_ts=at, entry_price=206.0)
    trip = explain_execution(connection, put_closing(connection, qty=20)).round_trip
    assert trip is not None
    assert (trip.opening_price, trip.average_price) == (200.0, 203.0)
    assert trip.profit_usd == pytest.approx(-20.0)


def test_a_closing_trade_without_its_opening_has_no_profit(
    connection: Connection, trade: UUID
) -> None:
    closing = put_closing(connection)
    change(connection, "delete from dispatch_executions where intent = 'open'")
    found = explain_execution(connection, closing)
    assert found.headline == "sold 10 AAPL at 202.00 USD: exit by target, unknown profit"
    assert found.round_trip is not None
    assert found.round_trip.opening_id is None
    assert [link.link for link in found.unresolved] == ["opening execution"]


def test_a_fill_that_is_not_the_opening_is_not_taken_for_it(
    connection: Connection, trade: UUID
) -> None:
    trip = explain_execution(connection, put_closing(connection, TS - MINUTE)).round_trip
    assert trip is not None
    assert (trip.opening_id, trip.profit_usd) == (None, None)


def test_a_closing_trade_that_does_not_say_why_is_explained_all_the_same(
    connection: Connection, trade: UUID
) -> None:
    closing = put_closing(connection)
    change(connection, "update dispatch_recommendations set reason = '{}' where intent = 'close'")
    trip = explain_execution(connection, closing).round_trip
    assert trip is not None
    assert (trip.exit, trip.opened_at) == ("no reason", None)


def test_a_refused_exit_has_a_reason_and_no_profit(connection: Connection) -> None:
    number = put_recommendation(
        connection,
        intent="close",
        action="SELL",
        status="SKIPPED",
        failure_reason="trading_hours: Market closed",
        processed_at=TS,
        reason={"rule": "EXIT", "exit": "stop", "position_opened_at": TS.isoformat()},
    )
    found = explain_recommendation(connection, number)
    assert found.round_trip is not None
    assert (found.round_trip.exit, found.round_trip.profit_usd) == ("stop", None)


def test_executions_of_a_run_are_explained_the_newest_first(
    connection: Connection, trade: UUID
) -> None:
    closing = put_closing(connection)
    change(connection, "update dispatcher_runs set orchestrator_run_id = 'this'")
    found = explain_run(connection, "this")
    assert [f.execution.execution_id for f in found if f.execution] == [closing, trade]
    assert explain_run(connection, "that") == []


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda connection: explain_execution(connection, uuid4()), "there is no execution"),
        (lambda connection: explain_recommendation(connection, 7), "there is no recommendation 7"),
    ],
    ids=["execution", "recommendation"],
)
def test_what_is_not_there_is_bad_input_with_a_hint(
    connection: Connection, ask: Callable[[Connection], Explanation], said: str
) -> None:
    with pytest.raises(BadInput, match=said) as raised:
        ask(connection)
    assert "ops-pipeline sql" in raised.value.hint


# What was not.


def why_not(connection: Connection, calendar: Calendar, **changes: Any) -> str:
    asked = {"ticker": "AAPL", "minute": NOON, "calendar": calendar} | changes
    found = explain_minute(connection, **asked)
    assert found.execution is None
    return found.headline.removeprefix("not traded: ")


def test_a_ticker_that_is_not_tracked_is_bad_input(connection: Connection, xnys: Calendar) -> None:
    with pytest.raises(BadInput, match="ZZZ is not tracked; tracked are AAPL, AMZN"):
        why_not(connection, xnys, ticker="ZZZ")


def test_a_ticker_that_was_tracked_then_can_be_asked_for(
    connection: Connection, trade: UUID, xnys: Calendar
) -> None:
    change(connection, "delete from universe where ticker = 'AAPL'")
    assert explain_minute(connection, "AAPL", NOON, xnys).execution is not None


@pytest.mark.parametrize(
    "minute",
    [
        NOON.replace(hour=22),
        NOON + timedelta(days=3),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1, 6, 1, tzinfo=UTC),
        datetime(9999, 12, 31, tzinfo=UTC),
    ],
)
def test_a_minute_outside_every_session_is_bad_input(
    connection: Connection, xnys: Calendar, minute: datetime
) -> None:
    with pytest.raises(BadInput, match="is no minute of a session of XNYS"):
        why_not(connection, xnys, minute=minute)


def test_the_sandbox_never_closes(connection: Connection) -> None:
    midnight = NOON.replace(hour=0)
    calendar = Mode.SANDBOX.calendar
    assert "was not decided" in why_not(connection, calendar, minute=midnight)


def test_a_minute_without_a_cutoff_was_not_decided(connection: Connection, xnys: Calendar) -> None:
    put_features(connection)
    assert why_not(connection, xnys) == "the minute was not decided, it has no cut-off"


@pytest.mark.parametrize(
    ("bars", "said"),
    [
        (0, "no bar was known"),
        (49, "only 49 of 50 bars were known"),
        (50, "the stage features has not computed this minute"),
    ],
)
def test_why_there_are_no_features_is_said(
    connection: Connection, xnys: Calendar, bars: int, said: str
) -> None:
    put_decided(connection)
    put_bars(connection, *(a_bar(minute=NOON - n * MINUTE) for n in range(bars)))
    put_bars(connection, a_bar(ticker="MSFT"))
    assert why_not(connection, xnys) == f"AAPL has no features, {said}"


def test_a_newest_bar_that_is_too_old_is_said(connection: Connection, xnys: Calendar) -> None:
    put_decided(connection)
    put_bars(connection, *(a_bar(minute=NOON - n * MINUTE) for n in range(50)))
    oldest = "update minute_cutoffs set oldest_bar_at = :minute where minute = :minute"
    connection.execute(text(oldest), {"minute": NOON})
    connection.execute(text("delete from bars_1m where minute = :minute"), {"minute": NOON})
    assert why_not(connection, xnys) == (
        "AAPL has no features, its newest bar, 2025-02-12 11:59 ET (16:59 UTC), is older than"
        " 2025-02-12 12:00 ET (17:00 UTC)"
    )


def test_before_the_first_decision_the_watchlist_stood_in_the_way(
    connection: Connection, xnys: Calendar
) -> None:
    put_decided(connection)
    put_features(connection)
    assert why_not(connection, xnys) == "the watchlist had not decided yet in this session"


def test_a_ticker_without_features_at_the_decision_was_not_ranked(
    connection: Connection, xnys: Calendar
) -> None:
    put_decided(connection, "watchlist")
    put_features(connection)
    put_watchlist(connection, ticker="MSFT")
    said = "AAPL had no features when the watchlist decided, 2025-02-12 12:00 ET (17:00 UTC)"
    assert why_not(connection, xnys) == said


def test_a_ticker_off_the_watchlist_has_its_rank_score_and_reason(
    connection: Connection, xnys: Calendar
) -> None:
    put_decided(connection, "watchlist")
    put_features(connection)
    put_watchlist(
        connection, in_watchlist=False, entered_at=None, rank=9, score=0.21, reason="out: score"
    )
    said = "AAPL was not on the watchlist, rank 9 with score 0.21 (out: score)"
    assert why_not(connection, xnys) == said


def put_watched(connection: Connection) -> None:
    put_decided(connection, "watchlist")
    put_features(connection)
    put_watchlist(connection)


def test_a_minute_without_its_signals_says_so(connection: Connection, xnys: Calendar) -> None:
    put_watched(connection)
    put_signal(connection, ticker="MSFT")
    assert why_not(connection, xnys) == "the stage signals has not decided this minute"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("NO_FEATURES", "its features are incomplete"),
        ("NO_SETUP", "no setup at +0.20% from sma20 with trend +1"),
        ("VOLUME_TOO_LOW", "volume is 2.50 of its mean"),
        ("CONFIDENCE_TOO_LOW", "confidence 0.80 is too low"),
        ("COOLDOWN", "it was recommended at 2025-02-12 11:51 ET (16:51 UTC)"),
        ("A_NEW_CODE", "the rules say so"),
    ],
)
def test_a_hold_names_its_code_and_what_it_looked_at(
    connection: Connection, xnys: Calendar, rule: str, said: str
) -> None:
    put_watched(connection)
    put_signal(connection, action="HOLD", rule=rule)
    put_signal(connection, minute=NOON - 9 * MINUTE)
    put_signal(connection, minute=NOON - 30 * MINUTE)
    assert why_not(connection, xnys) == f"HOLD, {rule}: {said}"


def test_a_hold_carries_its_breakdown_where_the_rules_got_so_far(
    connection: Connection, xnys: Calendar
) -> None:
    put_watched(connection)
    put_signal(connection, action="HOLD", rule="CONFIDENCE_TOO_LOW")
    put_signal(connection, ticker="MSFT", action="HOLD", reason={"rule": "NO_SETUP"})
    basis = explain_minute(connection, "AAPL", NOON, xnys).basis
    assert basis is not None
    assert basis.confidence is not None
    other = explain_minute(connection, "MSFT", NOON, xnys).basis
    assert other is not None
    assert other.confidence is None


def test_a_signal_that_nobody_was_told_of_is_said(connection: Connection, xnys: Calendar) -> None:
    put_watched(connection)
    put_signal(connection)
    said = "the signal BUY of 2025-02-12 12:00 ET (17:00 UTC) became no recommendation"
    assert why_not(connection, xnys) == said


def test_a_refusal_names_every_gate_that_refused(connection: Connection, xnys: Calendar) -> None:
    put_recommendation(
        connection,
        status="SKIPPED",
        processed_at=TS,
        failure_reason="max_positions: Too many open positions",
        risk_gate_json=gates(open_tickers=frozenset("BCDEF"), confidence=0.1),
    )
    said = "BUY of AAPL was refused by max_positions, confidence (Too many open positions)"
    assert why_not(connection, xnys) == said


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"status": "SKIPPED", "failure_reason": "expired"}, "BUY of AAPL is SKIPPED, expired"),
        (
            {"status": "FAILED", "failure_reason": "error: KeyError"},
            "BUY of AAPL is FAILED, error: KeyError",
        ),
        ({"status": "PENDING"}, "not traded so far: BUY of AAPL is PENDING"),
    ],
    ids=["expired", "failed", "pending"],
)
def test_a_recommendation_that_reached_no_gate_says_where_it_stands(
    connection: Connection, xnys: Calendar, row: dict[str, Any], said: str
) -> None:
    done = {} if row["status"] == "PENDING" else {"processed_at": TS}
    put_recommendation(connection, **row, **done)
    assert why_not(connection, xnys) == said


def test_a_refused_recommendation_has_all_that_it_stands_on(
    connection: Connection, xnys: Calendar
) -> None:
    put_basis(connection)
    number = put_recommendation(
        connection, status="SKIPPED", failure_reason="expired", processed_at=TS, reason=REASON
    )
    found = explain_recommendation(connection, number)
    assert found.basis is not None
    assert found.basis.signal is not None
    assert (found.run, found.unresolved) == (None, ())


# The page.


def test_the_page_begins_with_the_verdict_and_shows_every_part(
    connection: Connection, trade: UUID
) -> None:
    page = as_markdown(explain_execution(connection, trade))
    assert page.startswith("**bought 10 AAPL at 200.00 USD")
    for part in (
        str(trade),
        "| confidence | passed | Confidence high enough | 0.8 | 0.55 |",
        "0.8 = base 0.9 x move 0.7 x volume 1.15 x sentiment 1.1",
        "in: score, rank 1",
        "https://news.example/story-1",
        "the newest of 1 bars",
        "words 1",
        "run of watchlist",
        "not as by default: confidence_min 0.55",
    ):
        assert part in page


def test_the_page_of_a_closing_trade_shows_the_round_trip(
    connection: Connection, trade: UUID
) -> None:
    page = as_markdown(explain_execution(connection, put_closing(connection)))
    assert f"| by execution | {trade} |" in page
    assert "| profit USD | +20.00 |" in page


def test_a_minute_without_news_says_so(connection: Connection, xnys: Calendar) -> None:
    put_watched(connection)
    assert "| none |" not in as_markdown(explain_minute(connection, "AAPL", NOON, xnys))
    change(connection, "update features.features_1m set news_count_60 = 0, news_ids = '{}'")
    assert "no scored story" in as_markdown(explain_minute(connection, "AAPL", NOON, xnys))


def test_a_row_from_before_rows_named_their_stories_says_so(
    connection: Connection, xnys: Calendar
) -> None:
    put_watched(connection)
    change(connection, "update features.features_1m set news_ids = '{}'")
    page = as_markdown(explain_minute(connection, "AAPL", NOON, xnys))
    assert "1 in the hour before, when rows did not name their stories yet" in page


def test_the_page_of_a_minute_that_was_not_decided_is_its_verdict(
    connection: Connection, xnys: Calendar
) -> None:
    found = explain_minute(connection, "AAPL", NOON, xnys)
    assert as_markdown(found) == f"**{found.headline}**"


def test_a_hostile_title_breaks_neither_its_table_nor_the_page(
    connection: Connection, trade: UUID
) -> None:
    plain = as_markdown(explain_execution(connection, trade))
    change(connection, "update news_items set title = :title", title=HOSTILE)
    page = as_markdown(explain_execution(connection, trade))
    assert len(page.splitlines()) == len(plain.splitlines())
    assert not re.search(r"[<>\x1b]", page)
    (row,) = [line for line in page.splitlines() if line.startswith("| title |")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
    assert not re.search(r"(?<!\\)[\[\]`]", row)


def test_ten_notes_of_hostile_titles_stay_below_20_kb(connection: Connection, trade: UUID) -> None:
    for number in range(2, 6):
        put_story(connection, f"story-{number}")
    change(connection, "update news_items set title = :title", title="&" * 5_000)
    names = [f"story-{number}" for number in range(1, 6)]
    change(connection, "update features.features_1m set news_ids = :names", names=names)
    note = as_note(explain_execution(connection, trade))
    assert note.count("...") == 3
    assert len(note.encode()) * 10 < 20_000


def test_a_note_has_the_verdict_the_gates_the_confidence_and_the_news(
    connection: Connection, trade: UUID
) -> None:
    assert as_note(explain_execution(connection, trade)).splitlines() == [
        "**bought 10 AAPL at 200.00 USD: BULL_ENTRY with confidence 0.80, 13 gates passed**",
        "- gates: 13 of 13 passed",
        f"- `ops-pipeline explain {trade}`",
        "- confidence: 0.8 = base 0.9 x move 0.7 x volume 1.15 x sentiment 1.1",
        "- news: Apple beats expectations (0.6)",
    ]


def test_a_note_without_news_says_none(connection: Connection, trade: UUID) -> None:
    change(connection, "update features.features_1m set news_ids = '{}'")
    assert as_note(explain_execution(connection, trade)).endswith("- news: none")


@pytest.mark.parametrize(
    ("price", "said"), [(1234.5, "1,234.50"), (1.0, "1.00"), (0.1234, "0.1234"), (None, "-")]
)
def test_a_price_has_the_digits_of_its_tick(price: float | None, said: str) -> None:
    assert usd(price) == said
