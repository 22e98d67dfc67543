"""What the features make of gaps, silence, thin histories and whatever is known late."""

from datetime import UTC, date, datetime, timedelta

import pytest

from ops_pipeline.domain.session import MINUTE, Session
from ops_pipeline.domain.values import Bar, NewsEntry
from ops_pipeline.storage.bars import insert_bars
from ops_pipeline_tests.defs.markets import plain, warm_up
from ops_pipeline_tests.defs.world import World

DAY = date(2025, 2, 12)
INPUTS = ["news", "bars", "sentiment", "features"]
PLAYED = 8


@pytest.fixture
def session(world: World) -> Session:
    return world.session(DAY)


def play(world: World, session: Session, bars: list[Bar], *news: NewsEntry) -> dict[str, object]:
    """The first minutes of the session, on these bars and news; what features said of them."""
    world.open_market(bars, news)
    minutes = session.minutes()
    return world.stages(minutes[0], minutes[PLAYED - 1], INPUTS)["features"]


def bars_of(world: World, session: Session, warm: int = 60, **how: object) -> list[Bar]:
    minutes = warm_up(world.calendar, session, warm) + session.minutes()[:PLAYED]
    return plain(minutes, **how)  # type: ignore[arg-type]


def a_story(at: datetime) -> NewsEntry:
    return NewsEntry(
        feed="wire",
        entry_id="1",
        title="Great profit growth, best results in years",
        summary="",
        link="https://news.example/1",
        published_at=at,
        tickers=("AAPL",),
    )


def test_minute_without_any_bars_keeps_the_bar_before(world: World, session: Session) -> None:
    gap = session.minutes()[3]
    play(world, session, bars_of(world, session, without=[("AAPL", gap), ("MSFT", gap)]))
    found = world.features()
    assert {found[t, gap]["bar_at"] for t in ("AAPL", "MSFT")} == {gap - MINUTE}
    assert found["AAPL", gap]["close"] == found["AAPL", gap - MINUTE]["close"]


def test_return_over_a_missing_minute_counts_as_one_return(world: World, session: Session) -> None:
    gap = session.minutes()[3]
    play(world, session, bars_of(world, session, warm=49, without=[("AAPL", gap)]))
    found = world.features()
    # 48 returns of the evening and as many of the morning as make 49.
    assert found["MSFT", session.minutes()[1]]["baseline_vol"] is not None
    assert found["AAPL", session.minutes()[0]]["baseline_vol"] is None


def test_missing_bar_of_one_ticker_leaves_the_others_current(
    world: World, session: Session
) -> None:
    gap = session.minutes()[3]
    play(world, session, bars_of(world, session, without=[("AAPL", gap)]))
    found = world.features()
    assert found["AAPL", gap]["bar_at"] == gap - MINUTE
    assert found["MSFT", gap]["bar_at"] == gap


def test_bar_without_volume_has_ratio_0_and_no_surge(world: World, session: Session) -> None:
    bars = bars_of(world, session)
    silent = session.minutes()[3]
    hushed = [
        Bar(b.ticker, b.minute, b.open, b.high, b.low, b.close, 0 if b.minute == silent else 500)
        for b in bars
    ]
    play(world, session, hushed)
    row = world.features()["AAPL", silent]
    assert (row["volume"], row["volume_ratio"], row["volume_surge"]) == (0, 0.0, False)
    assert row["volume_avg_20"] == 475.0


def test_bar_without_volume_does_not_move_the_vwap(world: World, session: Session) -> None:
    silent = session.minutes()[3]
    bars = [
        Bar(b.ticker, b.minute, b.open, b.high, b.low, b.close, 0) if b.minute == silent else b
        for b in bars_of(world, session)
    ]
    play(world, session, bars)
    found = world.features()
    before = found["AAPL", silent - MINUTE]["session_vwap"]
    assert found["AAPL", silent]["session_vwap"] == pytest.approx(before, rel=1e-12)


def test_market_without_volume_has_rows_with_ratio_0_and_no_vwap(
    world: World, session: Session
) -> None:
    play(world, session, bars_of(world, session, volume=0))
    rows = world.features().values()
    assert len(rows) == 2 * PLAYED
    assert {(r["volume_ratio"], r["volume_surge"], r["session_vwap"]) for r in rows} == {
        (0.0, False, None)
    }


def test_fewer_than_50_bars_have_no_row(world: World, session: Session) -> None:
    play(world, session, bars_of(world, session, warm=46))
    fourth = session.minutes()[3]
    assert min(minute for _, minute in world.features()) == fourth


def test_fewer_than_50_bars_are_counted_by_reason(world: World, session: Session) -> None:
    bars = [
        *bars_of(world, session, warm=46, tickers=["AAPL"]),
        *bars_of(world, session, tickers=["MSFT"]),
    ]
    world.open_market(bars)
    world.track(["AAPL", "MSFT", "TSLA"])
    minutes = session.minutes()
    said = world.stages(minutes[0], minutes[PLAYED - 1], INPUTS)["features"]
    assert (said["fewer_than_50_bars"], said["no_bar"]) == (3, PLAYED)
    assert said["rows"] == PLAYED + PLAYED - 3


def test_return_over_night_is_left_out(world: World, session: Session) -> None:
    calm = [
        Bar(b.ticker, b.minute, *(4 * (100.0 if b.minute < session.opens_at else 150.0,)), b.volume)
        for b in bars_of(world, session)
    ]
    play(world, session, calm)
    row = world.features()["AAPL", session.minutes()[5]]
    assert (row["recent_vol"], row["baseline_vol"], row["vol_ratio"]) == (0.0, 0.0, None)


def test_bars_outside_the_regular_session_are_not_kept(world: World, session: Session) -> None:
    early = [session.opens_at - n * MINUTE for n in (1, 2, 3)]
    play(world, session, [*bars_of(world, session), *plain(early)])
    assert world.value("select count(*) from bars_1m where minute = any(:early)", early=early) == 0


def store(world: World, bars: list[Bar]) -> None:
    """Bars of any sessions, each known in its own minute's time."""
    world.track(sorted({bar.ticker for bar in bars}))
    with world.pipeline.engine.begin() as connection:
        insert_bars(
            connection,
            bars,
            {bar.minute: world.calendar.day(bar.minute) for bar in bars},
            lambda bar: bar.minute + MINUTE,
            feed="replay",
            origin="recorded",
        )


def opening_bars(world: World, session: Session, before: int, each: int) -> list[Bar]:
    """So many bars at each of the sessions before, and the first one of this session."""
    days = world.calendar.between(session.day - timedelta(days=30), session.day)[-before - 1 : -1]
    assert len(days) == before
    return plain([m for s in days for m in s.minutes()[:each]] + [session.opens_at], ["AAPL"])


def test_windows_hold_the_bars_of_five_sessions(world: World, session: Session) -> None:
    first = session.opens_at
    store(world, opening_bars(world, session, before=12, each=13))
    world.stages(first, first, ["features"])
    with_all = world.features()
    world.execute("delete from bars_1m where session_date < '2025-02-06'")
    assert world.value("select count(*) from bars_1m") == 4 * 13 + 1
    world.stages(first, first, ["features"])
    assert world.features() == with_all
    assert with_all["AAPL", first]["baseline_vol"] is None
    assert with_all["AAPL", first]["recent_vol"] is not None


def test_fewer_than_50_bars_in_five_sessions_have_no_row(world: World, session: Session) -> None:
    first = session.opens_at
    store(world, opening_bars(world, session, before=12, each=12))
    said = world.stages(first, first, ["features"])["features"]
    assert (said["rows"], said["fewer_than_50_bars"]) == (0, 1)


def test_ticker_that_stops_trading_has_rows_for_30_minutes(world: World, session: Session) -> None:
    minutes = session.minutes()
    store(world, plain([*warm_up(world.calendar, session, 60), *minutes[:3]]))
    said = world.stages(minutes[0], minutes[59], ["features"])["features"]
    assert sorted(m for ticker, m in world.features() if ticker == "AAPL") == minutes[:33]
    assert (said["rows"], said["bar_too_old"]) == (66, 54)


def test_the_night_does_not_age_a_bar(world: World, session: Session) -> None:
    minutes = session.minutes()
    store(world, plain(warm_up(world.calendar, session, 80)[:-20]))
    world.stages(minutes[0], minutes[59], ["features"])
    # 19 minutes without a bar in the evening, and 11 in the morning: the next one is too late.
    assert {m for _, m in world.features()} == set(minutes[:10])


def test_ticker_that_returns_has_a_row_again(world: World, session: Session) -> None:
    minutes = session.minutes()
    store(world, plain([*warm_up(world.calendar, session, 60), minutes[50]]))
    world.stages(minutes[0], minutes[59], ["features"])
    rows = sorted(m for ticker, m in world.features() if ticker == "AAPL")
    assert rows == minutes[:30] + minutes[50:60]


@pytest.mark.parametrize("price", [0.1, 10.1, 33.33, 104.07, 187.93, 4_321.7])
def test_equal_averages_have_trend_0(world: World, session: Session, price: float) -> None:
    flat = [
        Bar(b.ticker, b.minute, price, price, price, price, b.volume)
        for b in bars_of(world, session)
    ]
    play(world, session, flat)
    assert {row["trend_state"] for row in world.features().values()} == {0}


def test_least_tick_between_averages_is_a_trend(world: World, session: Session) -> None:
    """A hundredth of a cent in one of 50 closes of 10,000 USD."""
    newest = session.minutes()[0]
    bars = [
        Bar(b.ticker, b.minute, *(4 * (10_000.0 + 1e-4 * (b.minute == newest),)), b.volume)
        for b in bars_of(world, session)
    ]
    play(world, session, bars)
    assert world.features()["AAPL", newest]["trend_state"] == 1


# Known late.


def hold_back(world: World, minute: datetime, until: datetime) -> None:
    world.execute(
        "update bars_1m set available_at = :until where ticker = 'AAPL' and minute = :minute",
        minute=minute,
        until=until,
    )


def features_with_late_bar(world: World, session: Session, late: datetime) -> dict:
    """Features where this bar of AAPL became known within the minute after the next."""
    minutes = session.minutes()
    world.open_market(bars_of(world, session))
    world.stages(minutes[0], minutes[PLAYED - 1], ["news", "bars", "sentiment"])
    hold_back(world, late, late + 3 * MINUTE)
    world.stages(minutes[0], minutes[PLAYED - 1], ["features"])
    return world.features()


def test_late_bar_is_unknown_until_it_arrives(world: World, session: Session) -> None:
    late = session.minutes()[3]
    found = features_with_late_bar(world, session, late)
    # The minute after it is decided 20 s after its end, and that is before the arrival.
    assert found["AAPL", late]["bar_at"] == late - MINUTE
    assert found["AAPL", late + MINUTE]["bar_at"] == late + MINUTE


def test_late_bar_changes_no_minute_before_its_arrival(world: World, session: Session) -> None:
    late = session.minutes()[3]
    found = features_with_late_bar(world, session, late)
    world.execute("truncate features.features_1m")
    world.execute("delete from bars_1m where ticker = 'AAPL' and minute = :late", late=late)
    world.stages(session.minutes()[0], late + MINUTE, ["features"])
    without = world.features()
    assert without == {key: found[key] for key in without}
    assert len(without) == 2 * 5


def test_late_bar_is_seen_from_its_arrival_on(world: World, session: Session) -> None:
    late = session.minutes()[3]
    found = features_with_late_bar(world, session, late)
    world.execute("update bars_1m set available_at = minute + interval '65 seconds'")
    world.execute("truncate features.features_1m")
    world.stages(late + 2 * MINUTE, session.minutes()[PLAYED - 1], ["features"])
    in_time = world.features()
    assert in_time == {key: found[key] for key in in_time}
    assert ("AAPL", late + 2 * MINUTE) in in_time


def test_story_counts_in_the_minute_in_which_it_happened(world: World, session: Session) -> None:
    at = session.minutes()[2] + timedelta(seconds=30)
    play(world, session, bars_of(world, session), a_story(at))
    found = world.features()
    counts = [found["AAPL", m]["news_count_30"] for m in session.minutes()[:4]]
    assert counts == [0, 0, 1, 1]
    assert found["AAPL", session.minutes()[2]]["news_age_seconds_30"] == 30.0


def test_story_known_late_counts_from_then_on_with_its_true_age(
    world: World, session: Session
) -> None:
    at = session.minutes()[2] + timedelta(seconds=30)
    minutes = session.minutes()
    world.open_market(bars_of(world, session), [a_story(at)])
    world.stages(minutes[0], minutes[PLAYED - 1], ["news", "bars", "sentiment"])
    world.execute("update news_items set available_at = :at", at=at + 3 * MINUTE)
    world.stages(minutes[0], minutes[PLAYED - 1], ["features"])
    found = world.features()
    assert [found["AAPL", m]["news_count_30"] for m in minutes[:6]] == [0, 0, 0, 0, 0, 1]
    assert found["AAPL", minutes[5]]["news_age_seconds_30"] == 210.0


@pytest.mark.parametrize("table", ["news_tickers", "news_sentiments"])
def test_story_counts_only_when_its_link_and_score_are_known_too(
    world: World, session: Session, table: str
) -> None:
    at = session.minutes()[2]
    minutes = session.minutes()
    world.open_market(bars_of(world, session), [a_story(at)])
    world.stages(minutes[0], minutes[PLAYED - 1], ["news", "bars", "sentiment"])
    world.execute(f"update {table} set available_at = :at", at=at + 3 * MINUTE)
    world.stages(minutes[0], minutes[PLAYED - 1], ["features"])
    counts = [world.features()["AAPL", m]["news_count_60"] for m in minutes[:6]]
    assert counts == [0, 0, 0, 0, 1, 1]


def test_score_of_another_model_does_not_count(world: World, session: Session) -> None:
    minutes = session.minutes()
    world.open_market(bars_of(world, session), [a_story(minutes[0])])
    world.stages(minutes[0], minutes[PLAYED - 1], ["news", "bars", "sentiment"])
    world.execute("update news_sentiments set revision = 'another'")
    world.stages(minutes[0], minutes[PLAYED - 1], ["features"])
    assert {row["news_count_60"] for row in world.features().values()} == {0}


def test_features_are_known_at_the_cut_off_of_their_minute(world: World, session: Session) -> None:
    play(world, session, bars_of(world, session))
    assert {(row["available_at"] - row["minute"]) for row in world.features().values()} == {
        timedelta(seconds=80)
    }


def test_times_come_back_in_utc(world: World, session: Session) -> None:
    play(world, session, bars_of(world, session))
    assert min(m for _, m in world.features()) == datetime(2025, 2, 12, 14, 30, tzinfo=UTC)
