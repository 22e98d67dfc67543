"""Bars and news come in over HTTP from a sandbox: what is asked, kept, left out and made up for."""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import dagster as dg
import pytest

from ops_pipeline.clients.alpaca_bars import AlpacaBars
from ops_pipeline.clients.alpaca_http import Patience
from ops_pipeline.defs.checks import acceptance
from ops_pipeline.defs.minutes import minutes_between, seconds_left
from ops_pipeline.defs.partitions import partition_key
from ops_pipeline.defs.resources import Market, Pipeline
from ops_pipeline.domain.bars import FRESH_SECONDS
from ops_pipeline.domain.checks import FRESH
from ops_pipeline.domain.errors import BadConfiguration, NotRunning, OperatorError
from ops_pipeline.domain.session import MINUTE, Session, newest_closed_minute
from ops_pipeline.sandbox.live import UnfoldingMarket
from ops_pipeline.sandbox.market import DEFAULT_TICKERS
from ops_pipeline.sandbox.world import SandboxWorld
from ops_pipeline.settings import AlpacaAccess, Mode, PartitionWindow, Settings
from ops_pipeline.storage.knowledge import clock
from ops_pipeline_tests.defs.world import World, open_world
from ops_pipeline_tests.sandbox.served import served
from ops_pipeline_tests.sandbox.worlds import WEB

HASTE = Patience(first_wait=0.01)
BARS, FEEDS = "/v2/stocks/bars", "/feeds"


class Live:
    """A world in sandbox mode, the server that it asks, and yesterday, which is over."""

    def __init__(self, world: World, url: str) -> None:
        self.world, self.url = world, url
        self.session: Session = world.calendar.before(clock().date())
        world.settings = replace(
            world.settings,
            alpaca=AlpacaAccess("sandbox-key", "sandbox-secret", url, url),
            sandbox_port=int(url.rpartition(":")[2]),
        )
        world.pipeline = Pipeline(world.settings)
        self.ask_in_chunks()

    def ask_in_chunks(self, chunk: int = 500, **access: str) -> None:
        """Ask for so many tickers at once, and fail fast."""
        pipeline = self.world.pipeline
        assert pipeline.settings.alpaca
        source = AlpacaBars(
            replace(pipeline.settings.alpaca, **access), clock, chunk=chunk, patience=HASTE
        )
        market: Market = pipeline.market
        pipeline.__dict__["market"] = replace(market, bars=source)

    def at(self, minutes: float) -> datetime:
        return self.session.opens_at + timedelta(hours=12, minutes=minutes)

    def run(self, first: float, last: float, stage: str = "bars") -> dict[str, Any]:
        """One stage over minutes of yesterday, both included."""
        return self.world.stages(self.at(first), self.at(last), [stage])[stage]

    def order(self, *rules: dict[str, Any]) -> None:
        """Let these faults strike; none without rules."""
        if not rules:
            WEB.delete(f"{self.url}/control/faults").raise_for_status()
            return
        document = {"seed": 1, "rules": list(rules)}
        WEB.post(f"{self.url}/control/faults", json=document).raise_for_status()

    def asked(self, path: str = BARS) -> list[dict[str, Any]]:
        """The requests since the last time."""
        found = WEB.get(f"{self.url}/control/requests").json()
        WEB.delete(f"{self.url}/control/requests")
        return [request for request in found if request["path"].startswith(path)]

    def spans(self) -> list[tuple[str, datetime, datetime]]:
        """Symbols, first and last minute of each request for bars."""
        queries = [dict(parse_qsl(request["query"])) for request in self.asked()]
        return [
            (query["symbols"], *(datetime.fromisoformat(query[name]) for name in ("start", "end")))
            for query in queries
        ]


@pytest.fixture
def live(template: Settings) -> Iterator[Live]:
    sandbox = SandboxWorld(UnfoldingMarket(clock), clock, requests_per_minute=100_000)
    with served(sandbox) as url, open_world(template, Mode.SANDBOX) as world:
        first = world.pipeline
        yield Live(world, url)
        first.engine.dispose()


def test_the_first_run_asks_from_the_session_before_on(live: Live) -> None:
    said = live.run(0, 4)
    spans = live.spans()
    before = live.world.calendar.before(live.session.day)
    assert {span[1:] for span in spans} == {(before.opens_at, live.at(4))}
    assert len(spans) == said["requests"] == -(-said["rows"] // 10_000)
    assert said["rows"] == live.world.value("select count(*) from bars_1m") > 14_000


def test_the_next_run_asks_for_what_is_missing_and_five_minutes(live: Live) -> None:
    live.run(0, 4)
    live.asked()
    said = live.run(5, 5)
    assert [span[1:] for span in live.spans()] == [(live.at(0), live.at(5))]
    assert (said["requests"], said["unanswered"]) == (1, "")
    assert 5 <= said["rows"] <= 7


def test_an_outage_fails_the_run_and_the_next_good_one_closes_the_gap(live: Live) -> None:
    live.run(0, 4)
    live.order({"match": BARS, "kind": "status", "status": 503})
    for minute in (5, 6, 7):
        with pytest.raises(NotRunning, match="Alpaca does not answer"):
            live.run(minute, minute)
    live.order()
    live.asked()
    live.run(5, 9)
    assert [span[1:] for span in live.spans()] == [(live.at(0), live.at(9))]
    minutes = live.world.rows(
        "select minute from stage_minutes where stage = 'bars' and minute >= :first order by 1",
        first=live.at(5),
    )
    assert [row["minute"] for row in minutes] == [live.at(n) for n in range(5, 10)]
    assert (
        live.world.value(
            "select count(distinct minute) from bars_1m where minute between :first and :last",
            first=live.at(0),
            last=live.at(9),
        )
        == 10
    )


def test_a_chunk_that_failed_is_asked_again_alone(live: Live) -> None:
    live.run(0, 4)
    live.ask_in_chunks(4)
    live.order({"match": BARS, "kind": "drop", "times": HASTE.attempts})
    said = live.run(5, 5)
    lost = sorted(DEFAULT_TICKERS)[:4]
    assert said["unanswered"].startswith(f"{lost[0]}: Alpaca does not answer")
    live.order()
    live.asked()
    live.run(6, 6)
    spans = {symbols: start for symbols, start, _ in live.spans()}
    assert spans == {",".join(lost): live.at(0), ",".join(sorted(DEFAULT_TICKERS)[4:]): live.at(1)}
    assert live.run(7, 7)["unanswered"] == ""


def test_an_unknown_symbol_harms_no_other(live: Live) -> None:
    live.world.track([*DEFAULT_TICKERS, "ZZZZ"])
    said = live.run(0, 1)
    assert said["rows"] > 14_000
    assert live.world.value("select count(*) from bars_1m where ticker = 'ZZZZ'") == 0


def test_no_bar_of_any_ticker_in_hours_fails_the_run(live: Live) -> None:
    live.world.track(["ZZZZ"])
    with pytest.raises(NotRunning, match="no bar of any ticker"):
        live.run(0, 1)
    assert live.world.value("select count(*) from stage_minutes") == 0


def test_a_wrong_key_is_one_line_and_nothing_tells_it(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    live.ask_in_chunks(key="PKWRONGKEY12345", secret="a-very-secret-one")
    with pytest.raises(BadConfiguration) as raised:
        live.run(0, 1)
    assert str(raised.value) == "Alpaca refused the key (401)"
    for told in (caplog.text, repr(raised.value), raised.value.hint):
        assert "PKWRONG" not in told
        assert "very-secret" not in told


def test_the_key_is_in_no_event_of_a_run_that_it_fails(live: Live) -> None:
    world = live.world
    assert world.settings.alpaca
    wrong = replace(world.settings.alpaca, key="PKWRONGKEY12345", secret="a-very-secret-one")
    world.settings = replace(world.settings, alpaca=wrong)
    world.window = PartitionWindow(live.session.day, live.session.day)
    key = partition_key(live.at(0), world.calendar)
    done = world.job("minute_job", partition_key=key, raise_on_error=False)
    assert not done.success
    told = "\n".join(repr(entry) for entry in world.instance.all_logs(done.run_id))
    assert "Alpaca refused the key (401)" in told
    assert "set ALPACA_API_KEY and ALPACA_API_SECRET" in told
    assert "PKWRONG" not in told
    assert "very-secret" not in told


def test_a_vendors_later_version_is_counted_and_changes_nothing(live: Live) -> None:
    live.order({"kind": "revise", "rate": 1.0})
    live.run(0, 4)
    before = live.world.rows("select * from bars_1m order by ticker, minute")
    said = live.run(5, 5)
    assert said["revisions"] > 20
    assert live.world.value("select count(*) from bar_revisions") == said["revisions"]
    kept = live.world.rows(
        "select * from bars_1m where minute < :new order by ticker, minute", new=live.at(5)
    )
    assert kept == before


def test_a_split_quarantines_its_ticker(live: Live) -> None:
    split = {"symbol": "NVDA", "new_rate": 10, "old_rate": 1, "ex_date": str(live.session.day)}
    WEB.post(f"{live.url}/control/splits", json=split).raise_for_status()
    assert live.run(0, 1)["quarantined"] == "NVDA"
    assert live.world.rows("select ticker, cause, observed from quarantines") == [
        {"ticker": "NVDA", "cause": "split", "observed": 10.0}
    ]
    live.asked()
    live.run(2, 2)
    assert live.asked("/v1/corporate-actions") == []


def test_a_silent_corporate_actions_host_fails_the_first_run_of_a_session(live: Live) -> None:
    live.order({"match": "/v1/corporate-actions", "kind": "status", "status": 403})
    with pytest.raises(OperatorError):
        live.run(0, 1)
    assert live.world.value("select count(*) from bars_1m") == 0
    live.order()
    assert live.run(0, 1)["rows"] > 14_000


def test_news_of_unchanged_feeds_cost_no_body_and_no_row(live: Live) -> None:
    first = live.run(0, 0, "news")
    assert first["rows"] > 0
    assert first["feeds"]["ok"] == 1 + len(DEFAULT_TICKERS)
    kept = live.world.value("select count(*) from news_provenance")
    live.asked()
    again = live.run(1, 1, "news")
    counts = again["feeds"]
    assert (again["rows"], counts["failed"]) == (0, 0)
    assert counts["not_modified"] >= len(DEFAULT_TICKERS) - 1
    assert live.world.value("select count(*) from news_provenance") <= kept + 3
    quiet = [request for request in live.asked(FEEDS) if request["status"] == 304]
    assert [request["bytes"] for request in quiet] == [0] * counts["not_modified"]


def test_one_story_in_two_feeds_is_one_item_with_two_tellings(live: Live) -> None:
    live.run(0, 0, "news")
    tellings = live.world.rows(
        "select news_id, count(distinct feed) as feeds from news_provenance group by 1"
    )
    assert max(row["feeds"] for row in tellings) == 2
    assert len(tellings) == live.world.value("select count(*) from news_items")


def test_a_feed_that_fails_harms_no_other_and_is_left_alone_for_a_while(live: Live) -> None:
    live.order({"match": f"{FEEDS}/AAPL", "kind": "status", "status": 500})
    for minute in (0, 1, 2):
        said = live.run(minute, minute, "news")
    assert (said["feeds"]["failed"], said["feeds"]["backing_off"]) == (0, 1)
    state = live.world.rows("select * from feed_state where feed = 'sandbox/AAPL'")[0]
    assert (state["failures"], state["last_ok_at"]) == (2, None)
    assert state["retry_at"] > clock() + MINUTE
    others = "select count(*) from feed_state where feed <> 'sandbox/AAPL' and failures = 0"
    assert live.world.value(others) == len(DEFAULT_TICKERS)


def test_a_run_in_which_every_feed_failed_is_a_failed_run(live: Live) -> None:
    live.order({"match": FEEDS, "kind": "status", "status": 500})
    with pytest.raises(NotRunning, match=r"none of 8 feeds answered.*HTTP 500"):
        live.run(0, 0, "news")
    assert live.world.value("select count(*) from feed_state where failures = 1") == 8
    assert live.world.value("select count(*) from stage_minutes") == 0


def test_what_is_too_slow_for_the_minute_is_given_up_at_its_deadline(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ops_pipeline.defs.minutes.LEAST_SECONDS", 0)
    live.order(
        {"match": "/v2", "kind": "delay", "seconds": 8},
        {"match": FEEDS, "kind": "delay", "seconds": 8},
    )
    for stage, said in (("bars", "Alpaca does not answer"), ("news", "no answer in time")):
        began = time.monotonic()
        with pytest.raises(NotRunning, match=said):
            live.run(0, 0, stage)
        assert time.monotonic() - began < 4
    assert live.world.value("select count(*) from stage_minutes") == 0


def test_a_minute_has_until_45_seconds_after_its_end_and_a_long_range_longer(live: Live) -> None:
    pipeline, newest = live.world.pipeline, newest_closed_minute(clock())
    end = newest + MINUTE
    left = seconds_left(minutes_between(newest, end, "", pipeline), pipeline)
    assert left == pytest.approx((end - clock()).total_seconds() + 45, abs=2) or left == 6
    many = minutes_between(newest - 299 * MINUTE, end, "", pipeline)
    assert seconds_left(many, pipeline) == 305


def evaluate(pipeline: Pipeline, now: datetime) -> dg.AssetCheckEvaluation:
    """What the check of the newest bar says."""
    (found,) = acceptance.evaluate(pipeline, now, [FRESH])
    return found


def test_the_bars_are_fresh_for_three_minutes(live: Live) -> None:
    live.run(0, 4)
    newest = live.world.value("select max(minute) from bars_1m")
    live.world.execute("update bars_1m set available_at = minute + interval '61 seconds'")
    limit = newest + MINUTE + timedelta(seconds=FRESH_SECONDS)
    assert evaluate(live.world.pipeline, limit).passed
    late = evaluate(live.world.pipeline, limit + timedelta(seconds=1))
    assert not late.passed
    assert late.severity is dg.AssetCheckSeverity.ERROR
    assert late.description == f"the newest bar ended {FRESH_SECONDS + 1} s ago"


def test_a_closed_market_is_never_stale(world: World) -> None:
    saturday = datetime.fromisoformat("2025-02-15T15:00Z")
    found = evaluate(world.pipeline, saturday)
    assert (found.passed, found.description) == (True, "the market is closed")


def test_an_open_market_without_any_bar_is_stale_after_three_minutes(world: World) -> None:
    opens_at = datetime.fromisoformat("2025-02-12T14:30Z")
    assert evaluate(world.pipeline, opens_at + timedelta(seconds=FRESH_SECONDS)).passed
    assert not evaluate(world.pipeline, opens_at + timedelta(seconds=FRESH_SECONDS + 1)).passed
