from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pytest

from ops_pipeline.domain.session import MINUTE, Calendar
from ops_pipeline.domain.values import NewsEntry
from ops_pipeline.sandbox.live import UnfoldingMarket
from ops_pipeline.sandbox.market import DEFAULT_TICKERS, GeneratedMarket
from ops_pipeline_tests.builders import DAY, OPENS_AT, SESSION, at

XNYS = Calendar("XNYS")
DAY_STARTS_AT, DAY_ENDS_AT = XNYS.day_starts_at(DAY), XNYS.day_starts_at(DAY + timedelta(days=1))
SECOND = timedelta(seconds=1)


class Clock:
    """A present that is moved by hand."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock(OPENS_AT)


@pytest.fixture(scope="module")
def market(clock: Clock) -> UnfoldingMarket:
    return UnfoldingMarket(XNYS, clock)


@pytest.fixture(scope="module")
def story() -> NewsEntry:
    """A story of the day that others follow."""
    return published(GeneratedMarket(XNYS, DEFAULT_TICKERS, 7).news(DAY))[5]


def published(entries: Sequence[NewsEntry]) -> list[NewsEntry]:
    return [entry for entry in entries if entry.published_at]


@pytest.mark.parametrize("minutes", [0, 1, 30, 389])
def test_fetch_bars_serves_complete_bars_only(
    minutes: int, market: UnfoldingMarket, clock: Clock
) -> None:
    clock.now = at(minutes) + 59 * SECOND
    found = {bar.minute for bar in market.fetch_bars(["AAPL"], OPENS_AT, SESSION.closes_at)}
    assert found == {at(number) for number in range(minutes)}


def test_fetch_bars_serves_a_bar_when_its_minute_has_ended(
    market: UnfoldingMarket, clock: Clock
) -> None:
    clock.now = at(1)
    found = market.fetch_bars(["AAPL"], OPENS_AT, SESSION.closes_at)
    assert [bar.minute for bar in found] == [OPENS_AT]


def test_fetch_bars_serves_nothing_of_tomorrow(market: UnfoldingMarket, clock: Clock) -> None:
    clock.now = at(100)
    tomorrow = OPENS_AT + timedelta(days=1)
    assert market.fetch_bars(DEFAULT_TICKERS, tomorrow, tomorrow + 10 * MINUTE) == []


def test_fetch_bars_takes_the_start_and_leaves_out_the_end(
    market: UnfoldingMarket, clock: Clock
) -> None:
    clock.now = DAY_ENDS_AT
    found = market.fetch_bars(["AAPL"], at(10), at(12))
    assert [bar.minute for bar in found] == [at(10), at(11)]


def test_fetch_bars_gives_the_tickers_asked_for_by_minute_and_ticker(
    market: UnfoldingMarket, clock: Clock
) -> None:
    clock.now = DAY_ENDS_AT
    found = market.fetch_bars(["TSLA", "AAPL", "ZZZZ"], OPENS_AT, at(60))
    order = [(bar.minute, bar.ticker) for bar in found]
    assert order == sorted(order)
    assert {bar.ticker for bar in found} == {"AAPL", "TSLA"}


def test_fetch_bars_does_not_change_the_past(market: UnfoldingMarket, clock: Clock) -> None:
    clock.now = at(60)
    before = market.fetch_bars(DEFAULT_TICKERS, OPENS_AT, at(60))
    clock.now = at(390)
    assert market.fetch_bars(DEFAULT_TICKERS, OPENS_AT, at(60)) == before


@pytest.mark.parametrize("minutes", [-200, 0, 60, 389])
def test_fetch_news_serves_nothing_after_the_present(
    minutes: int, market: UnfoldingMarket, clock: Clock
) -> None:
    clock.now = at(minutes)
    found = published(market.fetch_news(DAY_STARTS_AT, DAY_ENDS_AT))
    assert all(entry.published_at < clock.now for entry in found if entry.published_at)


def test_fetch_news_serves_a_story_when_it_is_out(
    market: UnfoldingMarket, clock: Clock, story: NewsEntry
) -> None:
    assert story.published_at
    served = []
    for clock.now in (story.published_at, story.published_at + SECOND):
        served.append(story in market.fetch_news(DAY_STARTS_AT, DAY_ENDS_AT))
    assert served == [False, True]


def test_fetch_news_leaves_out_what_is_not_asked_for(
    market: UnfoldingMarket, clock: Clock, story: NewsEntry
) -> None:
    assert story.published_at
    clock.now = DAY_ENDS_AT
    assert story not in market.fetch_news(DAY_STARTS_AT, story.published_at)
    assert story in market.fetch_news(story.published_at, DAY_ENDS_AT)


def test_when_the_exchange_rests_then_nothing_is_served() -> None:
    saturday = datetime(2025, 2, 15, tzinfo=UTC)
    market = UnfoldingMarket(XNYS, lambda: saturday + timedelta(days=1))
    assert XNYS.on(date(2025, 2, 15)) is None
    assert market.fetch_bars(DEFAULT_TICKERS, saturday, saturday + timedelta(hours=20)) == []


def test_the_feed_is_named_as_generated(market: UnfoldingMarket) -> None:
    assert market.feed == "generated"
