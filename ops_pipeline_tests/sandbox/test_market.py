from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from statistics import mean, stdev

import pytest
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from ops_pipeline.domain.session import MINUTE, Calendar
from ops_pipeline.domain.values import Bar, NewsEntry
from ops_pipeline.sandbox.market import DEFAULT_TICKERS, GENERAL_FEED, GeneratedMarket

XNYS = Calendar("XNYS")
ROUND_THE_CLOCK = Calendar("24/7")
WHOLE_DAY = date(2025, 3, 11)
HALF_DAY = date(2025, 11, 28)
HOLIDAY = date(2025, 11, 27)
SATURDAY = date(2025, 3, 15)
SEVERAL_DAYS = [date(2025, 3, 10), date(2025, 3, 11), date(2025, 11, 3), HALF_DAY]
MARKETS = [(XNYS, day) for day in SEVERAL_DAYS] + [(ROUND_THE_CLOCK, SATURDAY)]

each_day = pytest.mark.parametrize("day", SEVERAL_DAYS, ids=str)
each_market = pytest.mark.parametrize(
    ("calendar", "day"), MARKETS, ids=[f"{calendar.name} {day}" for calendar, day in MARKETS]
)


def market(calendar: Calendar = XNYS, **options: int) -> GeneratedMarket:
    return GeneratedMarket(calendar, DEFAULT_TICKERS, **options)


def by_ticker(bars: list[Bar]) -> dict[str, list[Bar]]:
    return {ticker: [bar for bar in bars if bar.ticker == ticker] for ticker in DEFAULT_TICKERS}


def dated(entries: list[NewsEntry]) -> list[tuple[datetime, NewsEntry]]:
    return [(entry.published_at, entry) for entry in entries if entry.published_at]


def shock_of(generated: GeneratedMarket, day: date) -> tuple[str, int, list[NewsEntry]]:
    """The shock's ticker and direction as planned, and its news."""
    session = generated.calendar.on(day)
    assert session
    shock = generated._plan(session).shock
    return shock.ticker, 1 if shock.move > 0 else -1, generated._shock_news(session)


def test_the_same_seed_gives_the_same_day() -> None:
    assert market().bars(WHOLE_DAY) == market().bars(WHOLE_DAY)
    assert market().news(WHOLE_DAY) == market().news(WHOLE_DAY)


def test_another_seed_gives_another_day() -> None:
    assert market(seed=8).bars(WHOLE_DAY) != market().bars(WHOLE_DAY)
    assert market(seed=8).news(WHOLE_DAY) != market().news(WHOLE_DAY)


def test_a_day_does_not_depend_on_the_days_asked_before() -> None:
    used = market()
    used.bars(date(2025, 3, 12))
    used.news(date(2025, 3, 12))
    assert used.bars(WHOLE_DAY) == market().bars(WHOLE_DAY)
    assert used.news(WHOLE_DAY) == market().news(WHOLE_DAY)


def test_known_prices_stay_the_same_on_every_machine() -> None:
    bars = by_ticker(market().bars(WHOLE_DAY))["AAPL"]
    assert (bars[0].open, bars[-1].close) == (210.49, 211.56)


def test_a_market_without_tickers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one ticker"):
        GeneratedMarket(XNYS, [])


@pytest.mark.parametrize(
    ("calendar", "day", "minutes"),
    [(XNYS, WHOLE_DAY, 390), (XNYS, HALF_DAY, 210), (ROUND_THE_CLOCK, SATURDAY, 1440)],
    ids=["whole day", "half day", "round the clock"],
)
def test_bars_cover_the_session_and_nothing_else(
    calendar: Calendar, day: date, minutes: int
) -> None:
    session = calendar.on(day)
    assert session
    seen = {bar.minute for bar in market(calendar).bars(day)}
    assert seen == set(session.minutes())
    assert len(seen) == minutes


@pytest.mark.parametrize("day", [HOLIDAY, SATURDAY], ids=["holiday", "weekend"])
def test_a_closed_day_has_neither_bars_nor_news(day: date) -> None:
    assert market().bars(day) == []
    assert market().news(day) == []


@pytest.mark.parametrize(
    ("day", "opens_at"),
    [
        (date(2025, 3, 7), datetime(2025, 3, 7, 14, 30, tzinfo=UTC)),
        (date(2025, 3, 10), datetime(2025, 3, 10, 13, 30, tzinfo=UTC)),
        (date(2025, 10, 31), datetime(2025, 10, 31, 13, 30, tzinfo=UTC)),
        (date(2025, 11, 3), datetime(2025, 11, 3, 14, 30, tzinfo=UTC)),
    ],
    ids=str,
)
def test_the_open_follows_daylight_saving(day: date, opens_at: datetime) -> None:
    assert market().bars(day)[0].minute == opens_at


@each_market
def test_bars_are_ordered_by_minute_and_ticker_without_repetition(
    calendar: Calendar, day: date
) -> None:
    keys = [(bar.minute, bar.ticker) for bar in market(calendar).bars(day)]
    assert keys == sorted(set(keys))


@each_market
def test_every_bar_is_consistent_and_in_cents(calendar: Calendar, day: date) -> None:
    for bar in market(calendar).bars(day):
        assert bar.high >= max(bar.open, bar.close)
        assert 0 < bar.low <= min(bar.open, bar.close)
        assert bar.volume >= 0
        for price in (bar.open, bar.high, bar.low, bar.close):
            assert price == round(price, 2)


@each_day
def test_the_open_is_a_small_gap_away_from_the_previous_close(day: date) -> None:
    generated = market()
    before = by_ticker(generated.bars(XNYS.before(day).day))
    for ticker, bars in by_ticker(generated.bars(day)).items():
        assert 0.0009 < abs(bars[0].open / before[ticker][-1].close - 1) < 0.0081


def test_levels_move_smoothly_from_day_to_day_over_a_year() -> None:
    generated = market()
    days = [session.day for session in XNYS.between(date(2025, 1, 2), date(2025, 12, 31))]
    for ticker in DEFAULT_TICKERS:
        levels = [generated._level(ticker, day) for day in days]
        assert max(abs(after / before - 1) for before, after in pairwise(levels)) < 0.06


@each_day
def test_minute_returns_are_as_wide_as_those_of_large_stocks(day: date) -> None:
    for bars in by_ticker(market().bars(day)).values():
        returns = [after.close / before.close - 1 for before, after in pairwise(bars)]
        assert 0.0004 < stdev(returns) < 0.0013


@each_day
def test_volume_is_highest_at_the_open_and_the_close(day: date) -> None:
    for bars in by_ticker(market().bars(day)).values():
        volumes = [bar.volume for bar in bars]
        middle = mean(volumes[30:-30])
        assert mean(volumes[:30]) > middle
        assert mean(volumes[-30:]) > middle


def test_volume_surges_are_rare_but_not_absent() -> None:
    ratios = [
        bars[index].volume / mean(bar.volume for bar in bars[index - 19 : index + 1])
        for bars in by_ticker(market().bars(WHOLE_DAY)).values()
        for index in range(19, len(bars))
    ]
    assert 0.02 < mean(ratio > 2 for ratio in ratios) < 0.07
    assert 0.08 < mean(ratio > 1.5 for ratio in ratios) < 0.17


@each_market
def test_one_bar_of_the_day_has_no_volume_and_the_price_before_it(
    calendar: Calendar, day: date
) -> None:
    silent = []
    for bars in by_ticker(market(calendar).bars(day)).values():
        silent += [pair for pair in pairwise(bars) if pair[1].volume == 0]
    [(before, bar)] = silent
    assert {bar.open, bar.high, bar.low, bar.close} == {before.close}


@each_market
def test_one_ticker_is_halted_and_comes_back_at_another_price(
    calendar: Calendar, day: date
) -> None:
    halts = []
    for bars in by_ticker(market(calendar).bars(day)).values():
        halts += [pair for pair in pairwise(bars) if pair[1].minute - pair[0].minute > 5 * MINUTE]
    [(last, first)] = halts
    assert 10 <= (first.minute - last.minute) // MINUTE - 1 <= 17
    assert abs(first.open / last.close - 1) > 0.003


@each_market
def test_a_few_single_minutes_are_missing(calendar: Calendar, day: date) -> None:
    gaps = [
        (after.minute - before.minute) // MINUTE - 1
        for bars in by_ticker(market(calendar).bars(day)).values()
        for before, after in pairwise(bars)
    ]
    assert 1 <= sum(gap for gap in gaps if gap < 10) <= 4


@each_market
def test_the_shock_moves_its_ticker_in_the_direction_of_its_news(
    calendar: Calendar, day: date
) -> None:
    generated = market(calendar)
    ticker, sign, entries = shock_of(generated, day)
    starts = min(at for at, _ in dated(entries)).replace(second=0)
    bars = by_ticker(generated.bars(day))[ticker]
    during = [bar for bar in bars if starts <= bar.minute < starts + 10 * MINUTE]
    before = [bar for bar in bars if starts - 20 * MINUTE <= bar.minute < starts]
    assert sign * (during[-1].close / before[-1].close - 1) > 0.012
    assert mean(bar.volume for bar in during) > 2 * mean(bar.volume for bar in before)


@each_market
def test_the_shock_is_reported_several_times_within_ten_minutes(
    calendar: Calendar, day: date
) -> None:
    generated = market(calendar)
    _, _, entries = shock_of(generated, day)
    times = [at for at, _ in dated(entries)]
    assert 5 <= len({entry.title for entry in entries}) == len(entries) <= 7
    assert max(times) - min(times) <= 10 * MINUTE
    assert set(entries) <= set(generated.news(day))


@each_market
def test_shock_news_are_clearly_positive_or_negative(calendar: Calendar, day: date) -> None:
    _, sign, entries = shock_of(market(calendar), day)
    score: Callable[[str], dict[str, float]] = SentimentIntensityAnalyzer().polarity_scores
    for entry in entries:
        assert sign * score(entry.title)["compound"] > 0.65
        assert sign * score(f"{entry.title}. {entry.summary}")["compound"] > 0.65


@each_market
def test_news_are_ordered_and_the_undated_entry_comes_last(calendar: Calendar, day: date) -> None:
    entries = market(calendar).news(day)
    times = [entry.published_at for entry in entries]
    assert times[-1] is None
    assert None not in times[:-1]
    assert times[:-1] == sorted(at for at in times if at)


@each_market
def test_news_come_out_between_the_early_morning_and_the_close(
    calendar: Calendar, day: date
) -> None:
    session = calendar.on(day)
    assert session
    early = min(calendar.day_starts_at(day) + timedelta(hours=4), session.opens_at)
    times = [at for at, _ in dated(market(calendar).news(day))]
    assert all(early <= at <= session.closes_at for at in times)
    assert mean(at >= session.opens_at for at in times) > 0.5
    assert 40 <= len(times) <= 85


@each_day
def test_some_news_come_out_before_the_open(day: date) -> None:
    session = XNYS.on(day)
    assert session
    assert any(at < session.opens_at for at, _ in dated(market().news(day)))


@each_market
def test_a_feed_of_one_ticker_names_it_and_the_general_feed_names_none(
    calendar: Calendar, day: date
) -> None:
    for entry in market(calendar).news(day):
        if entry.feed == GENERAL_FEED:
            assert entry.tickers == ()
        else:
            assert (entry.feed,) == tuple(f"generated/{ticker}" for ticker in entry.tickers)


@each_market
def test_some_stories_are_in_two_feeds_with_one_title_and_link(
    calendar: Calendar, day: date
) -> None:
    feeds = {(entry.title, entry.link, entry.feed) for entry in market(calendar).news(day)}
    carriers = Counter((title, link) for title, link, _ in feeds)
    assert max(carriers.values()) == 2


@each_market
def test_one_entry_comes_again_later_with_the_same_identity(calendar: Calendar, day: date) -> None:
    entries = market(calendar).news(day)
    times = Counter((entry.feed, entry.entry_id, entry.title, entry.link) for entry in entries)
    [again] = [key for key, count in times.items() if count > 1]
    first, second = (entry for entry in entries if (entry.feed, entry.entry_id) == again[:2])
    assert first.published_at
    assert second.published_at
    assert first.published_at < second.published_at


@each_market
def test_one_link_belongs_to_one_story(calendar: Calendar, day: date) -> None:
    stories = {(entry.link, entry.title, entry.summary) for entry in market(calendar).news(day)}
    assert len({link for link, _, _ in stories}) == len(stories)
    assert all(link.startswith("https://news.example/") for link, _, _ in stories)


def test_texts_use_names_symbols_and_cashtags_and_some_have_markup() -> None:
    entries = [entry for day in SEVERAL_DAYS for entry in market().news(day)]
    titles = " ".join(entry.title for entry in entries)
    assert "Apple" in titles
    assert " AAPL" in titles
    assert "$AAPL" in titles
    assert any("<p>" in entry.summary and "&amp;" in entry.summary for entry in entries)
    assert any("<" not in entry.summary for entry in entries)
    assert not any("{" in entry.title + entry.summary for entry in entries)


def test_a_single_unknown_ticker_is_a_market_of_its_own() -> None:
    lonely = GeneratedMarket(XNYS, ["ZZZZ"])
    assert {bar.ticker for bar in lonely.bars(HALF_DAY)} == {"ZZZZ"}
    assert [bar.volume for bar in lonely.bars(HALF_DAY)].count(0) == 1
    assert any("ZZZZ" in entry.title for entry in lonely.news(HALF_DAY))
