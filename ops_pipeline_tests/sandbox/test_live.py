from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest

from ops_pipeline.domain.bars import fault
from ops_pipeline.domain.session import MINUTE, ROUND_THE_CLOCK, Calendar
from ops_pipeline.sandbox.live import LiveMarket, RestampedMarket, UnfoldingMarket
from ops_pipeline.sandbox.market import DEFAULT_TICKERS, GeneratedMarket
from ops_pipeline_tests.builders import a_bar, an_entry
from ops_pipeline_tests.sandbox.worlds import NOW, Clock

TODAY = NOW.replace(hour=0, minute=0, second=0)
SECOND = timedelta(seconds=1)


def generated(clock: Clock, count: int = 0) -> UnfoldingMarket:
    copies = [f"T{number}" for number in range(count)]
    return UnfoldingMarket(clock, (*DEFAULT_TICKERS, *copies))


def recorded(clock: Clock) -> RestampedMarket:
    """Three minutes, of which the second is absent."""
    bars = [a_bar(close=200.1), a_bar(close=200.3, minute=a_bar().minute + 2 * MINUTE)]
    story = an_entry(published_at=a_bar().minute + MINUTE + 5 * SECOND)
    return RestampedMarket(bars, clock, [story])


@pytest.mark.parametrize("make", [generated, recorded], ids=["generated", "recorded"])
def test_nothing_that_has_not_begun_is_seen(make: type[LiveMarket]) -> None:
    clock = Clock()
    market = make(clock)
    for clock.now in (NOW, NOW + 10 * SECOND, NOW + 7 * MINUTE):
        minutes = [bar.minute for bar in market.bars("AAPL", TODAY, NOW + 90 * MINUTE)]
        assert clock.now - 3 * MINUTE < minutes[-1] <= clock.now
        assert all(e.published_at is None or e.published_at <= clock.now for e in market.news())


@pytest.mark.parametrize("make", [generated, recorded], ids=["generated", "recorded"])
def test_the_past_does_not_change(make: type[LiveMarket]) -> None:
    clock = Clock()
    market = make(clock)
    before = list(market.bars("AAPL", NOW - 60 * MINUTE, NOW))
    clock.now += 30 * MINUTE
    assert list(market.bars("AAPL", NOW - 60 * MINUTE, NOW)) == before


@pytest.mark.parametrize("make", [generated, recorded], ids=["generated", "recorded"])
def test_start_and_end_are_both_included(make: type[LiveMarket]) -> None:
    first = next(iter(make(Clock()).bars("AAPL", NOW - 30 * MINUTE, NOW))).minute
    assert [b.minute for b in make(Clock()).bars("AAPL", first, first)] == [first]
    found = [b.minute for b in make(Clock()).bars("AAPL", first + SECOND, first + 3 * MINUTE)]
    assert first not in found
    assert found[-1] == first + 3 * MINUTE


@pytest.mark.parametrize("make", [generated, recorded], ids=["generated", "recorded"])
def test_an_unknown_ticker_has_no_bars(make: type[LiveMarket]) -> None:
    assert list(make(Clock()).bars("ZZZZ", TODAY, NOW)) == []


def test_the_generated_bars_are_those_of_the_day() -> None:
    whole = GeneratedMarket(Calendar(ROUND_THE_CLOCK), DEFAULT_TICKERS, 7).bars(NOW.date())
    expected = [bar for bar in whole if bar.ticker == "AAPL" and bar.minute <= NOW]
    assert list(generated(Clock()).bars("AAPL", TODAY, NOW)) == expected


def test_bars_go_on_over_midnight() -> None:
    clock = Clock(TODAY + timedelta(minutes=1))
    found = [b.minute for b in generated(clock).bars("AAPL", TODAY - MINUTE, TODAY + MINUTE)]
    assert found == [TODAY - MINUTE, TODAY, TODAY + MINUTE]


def test_a_copied_ticker_is_consistent_and_unlike_the_others() -> None:
    market = generated(Clock(), 7)
    days = {t: list(market.bars(t, NOW - 60 * MINUTE, NOW)) for t in market.tickers}
    assert all(fault(bar) is None for bars in days.values() for bar in bars)
    assert all(bar.ticker == ticker for ticker, bars in days.items() for bar in bars)
    assert len({bars[-1].close for bars in days.values()}) == 14


def test_a_copied_ticker_does_not_change_the_others() -> None:
    few, many = generated(Clock()), generated(Clock(), 3)
    assert list(few.bars("AAPL", TODAY, NOW)) == list(many.bars("AAPL", TODAY, NOW))


def test_when_the_exchange_rests_then_nothing_is_seen() -> None:
    saturday = datetime(2025, 2, 15, 20, tzinfo=UTC)
    market = UnfoldingMarket(Clock(saturday), calendar=Calendar("XNYS"))
    assert list(market.bars("AAPL", saturday - 300 * MINUTE, saturday)) == []


def test_a_story_is_out_when_its_time_has_come() -> None:
    story = next(e for e in generated(Clock()).news()[::-1] if e.published_at)
    assert story.published_at
    before, after = story.published_at - SECOND, story.published_at
    assert story not in generated(Clock(before)).news()
    assert story in generated(Clock(after)).news()


def test_a_story_without_a_time_is_out_by_the_end_of_its_day() -> None:
    day = date(2025, 3, 10)
    undated = GeneratedMarket(Calendar(ROUND_THE_CLOCK), DEFAULT_TICKERS, 7).news(day)[-1]
    assert undated.published_at is None
    assert undated in generated(Clock()).news()
    assert undated not in generated(Clock(NOW - timedelta(days=1))).news()


def test_a_recording_is_played_in_a_loop_without_the_bars_that_it_lacks() -> None:
    found = list(recorded(Clock()).bars("AAPL", NOW - 9 * MINUTE, NOW))
    assert len({bar.close for bar in found}) == 2
    by_place = {int(bar.minute.timestamp()) // 60 % 3: bar.close for bar in found}
    assert by_place == {0: 200.1, 2: 200.3}
    assert len(found) == 6


def test_recorded_news_come_again_with_an_identity_of_their_own() -> None:
    clock = Clock()
    market = recorded(clock)
    seen = set()
    for number in range(9):
        clock.now = NOW + number * MINUTE
        seen |= {(e.entry_id, e.link, e.published_at) for e in market.news()}
    assert len(seen) in (4, 5)
    times = sorted(at for _, _, at in seen)
    assert {after - before for before, after in pairwise(times)} == {3 * MINUTE}
    assert len({link for _, link, _ in seen}) == len(seen)


def test_a_recorded_story_keeps_its_distance_to_the_bars() -> None:
    market = recorded(Clock())
    places = {
        (e.published_at - datetime(1970, 1, 1, tzinfo=UTC)) % (3 * MINUTE) for e in market.news()
    }
    assert places == {MINUTE + 5 * SECOND}


def test_a_recorded_story_without_a_time_stays_without() -> None:
    market = RestampedMarket([a_bar()], Clock(), [replace(an_entry(), published_at=None)])
    assert {entry.published_at for entry in market.news()} == {None}


def test_a_recording_without_bars_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one bar"):
        RestampedMarket([], Clock())
