import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from alpaca.common.enums import Sort
from alpaca.common.exceptions import APIError
from alpaca.data.enums import Adjustment, CorporateActionsType, DataFeed
from alpaca.data.historical.corporate_actions import CorporateActionsClient
from alpaca.data.requests import CorporateActionsRequest
from alpaca.data.timeframe import TimeFrame

from ops_pipeline.clients.replay import bars_of, read_bars
from ops_pipeline.domain.session import Calendar
from ops_pipeline.sandbox.live import RestampedMarket, UnfoldingMarket
from ops_pipeline.sandbox.market import DEFAULT_TICKERS
from ops_pipeline_tests.sandbox.served import served
from ops_pipeline_tests.sandbox.worlds import (
    ACCESS,
    HEADERS,
    MINUTE,
    NOW,
    WEB,
    Clock,
    a_world,
    ask_bars,
)

RUNNING = NOW.replace(second=0)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(a_world()) as address:
        yield address


def get(url: str, **query: Any) -> httpx.Response:
    asked = {"symbols": "AAPL", "timeframe": "1Min", **query}
    return WEB.get(f"{url}/v2/stocks/bars", params=asked, headers=HEADERS)


def test_bars_are_those_of_the_market(url: str) -> None:
    found = ask_bars(url, ["AAPL", "MSFT"], NOW - 40 * MINUTE, NOW - 2 * MINUTE)
    market = UnfoldingMarket(Clock())
    assert set(found) == {"AAPL", "MSFT"}
    for symbol, bars in found.items():
        expected = list(market.bars(symbol, NOW - 40 * MINUTE, NOW - 2 * MINUTE))
        seen = [(b.timestamp, b.open, b.high, b.low, b.close, b.volume) for b in bars]
        assert seen == [(b.minute, b.open, b.high, b.low, b.close, b.volume) for b in expected]
        assert all(bar.low <= bar.vwap <= bar.high for bar in bars)


def test_start_and_end_are_both_included(url: str) -> None:
    found = ask_bars(url, ["AAPL"], RUNNING - 5 * MINUTE, RUNNING - 3 * MINUTE)["AAPL"]
    assert [bar.timestamp for bar in found] == [RUNNING - n * MINUTE for n in (5, 4, 3)]


def test_the_running_minute_is_half_formed() -> None:
    clock = Clock()
    with served(a_world(clock)) as url:
        half = ask_bars(url, ["AAPL"], RUNNING, NOW)["AAPL"][0]
        clock.now = RUNNING + MINUTE
        whole = ask_bars(url, ["AAPL"], RUNNING, NOW)["AAPL"][0]
    assert half.timestamp == whole.timestamp
    assert half.volume == whole.volume // 2
    assert half.open == whole.open
    assert whole.low <= half.low <= half.close <= half.high <= whole.high


def test_nothing_of_the_future_is_served(url: str) -> None:
    assert ask_bars(url, ["AAPL"], RUNNING + MINUTE, NOW + timedelta(hours=2)) == {}


@pytest.mark.parametrize("sort", [Sort.ASC, Sort.DESC])
def test_pages_run_over_symbol_then_time_and_lose_nothing(url: str, sort: Sort) -> None:
    asked = {"symbols": "MSFT,AAPL,TSLA", "sort": sort.value, "limit": 7}
    start, end = RUNNING - 9 * MINUTE, RUNNING - MINUTE
    seen, token, pages = list[tuple[str, str]](), "", 0
    while token is not None:
        more = {"page_token": token} if token else {}
        body = get(url, **asked, start=start.isoformat(), end=end.isoformat(), **more).json()
        page = [(symbol, bar["t"]) for symbol, bars in body["bars"].items() for bar in bars]
        assert len(page) <= 7
        seen += page
        token, pages = body["next_page_token"], pages + 1
    found = ask_bars(url, ["AAPL", "MSFT", "TSLA"], start, end, sort=sort)
    assert seen == [
        (s, f"{b.timestamp:%Y-%m-%dT%H:%M:%SZ}") for s in sorted(found) for b in found[s]
    ]
    assert pages == 4
    times = [at for symbol, at in seen if symbol == "AAPL"]
    assert times == sorted(times, reverse=sort is Sort.DESC)


def test_newest_first_is_the_same_the_other_way_round(url: str) -> None:
    start, end = NOW - timedelta(days=2, seconds=7), NOW - timedelta(seconds=13)
    forth = ask_bars(url, ["AAPL"], start, end)["AAPL"]
    back = ask_bars(url, ["AAPL"], start, end, sort=Sort.DESC)["AAPL"]
    assert back == forth[::-1]
    assert len(forth) > 2 * 1_400


@pytest.mark.parametrize("sort", ["asc", "desc"])
def test_a_page_of_a_century_costs_what_it_shows(url: str, sort: str) -> None:
    wide = {"start": "0001-01-01", "end": "9999-12-31", "sort": sort}
    for symbol, count in (("AAPL", 1_000), ("ZZZZ", 0)):
        page = get(url, symbols=symbol, **wide).json()["bars"]
        assert len(page.get(symbol, [])) == count
    newest = get(url, limit=3, **{**wide, "sort": "desc"}).json()["bars"]["AAPL"]
    assert [bar["t"][11:16] for bar in newest] == ["15:30", "15:29", "15:28"]


def test_the_client_follows_pages_by_itself(url: str) -> None:
    start = NOW - timedelta(days=1)
    found = ask_bars(url, list(DEFAULT_TICKERS), start, NOW)
    market = UnfoldingMarket(Clock())
    expected = {ticker: len(list(market.bars(ticker, start, NOW))) for ticker in DEFAULT_TICKERS}
    assert {ticker: len(bars) for ticker, bars in found.items()} == expected
    assert sum(expected.values()) > 10_000


def test_unknown_symbols_are_absent(url: str) -> None:
    assert set(ask_bars(url, ["AAPL", "ZZZZ"], NOW - 9 * MINUTE, NOW)) == {"AAPL"}
    assert get(url, symbols="ZZZZ").json() == {"bars": {}, "next_page_token": None}


def test_one_symbol_has_a_path_of_its_own(url: str) -> None:
    def ask(symbol: str) -> Any:
        query = {"timeframe": "1Min", "start": (RUNNING - 2 * MINUTE).isoformat()}
        path = f"{url}/v2/stocks/{symbol}/bars"
        return WEB.get(path, params=query, headers=HEADERS).json()

    assert ask("ZZZZ") == {"bars": None, "symbol": "ZZZZ", "next_page_token": None}
    assert [bar["t"][11:16] for bar in ask("AAPL")["bars"]] == ["15:28", "15:29", "15:30"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"symbols": "AAPL,aa$pl"}, "invalid symbol: aa$pl"),
        ({"symbols": ""}, "invalid symbol: "),
        ({"timeframe": "1Day"}, "invalid timeframe: 1Day"),
        ({"timeframe": ""}, "invalid timeframe: "),
        ({"start": "yesterday"}, "invalid start: yesterday"),
        ({"start": "0001-01-01T00:00:00+23:00"}, "invalid start: 0001-01-01T00:00:00+23:00"),
        ({"start": "2025-03-11", "end": "2025-03-10"}, "end should not be before start"),
        ({"limit": 0}, "limit must be between 1 and 10000"),
        ({"limit": 10_001}, "limit must be between 1 and 10000"),
        ({"limit": "9" * 5000}, "limit must be between 1 and 10000"),
        ({"feed": "otc"}, "invalid feed: otc"),
        ({"adjustment": "none"}, "invalid adjustment: none"),
        ({"sort": "up"}, "invalid sort: up"),
        ({"page_token": "nonsense"}, "invalid page_token"),
        ({"page_token": "QUFQTA=="}, "invalid page_token"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(url: str, query: Any, message: str) -> None:
    answer = get(url, **query)
    assert (answer.status_code, answer.json()) == (400, {"message": message})


def test_recent_bars_of_the_tape_need_a_subscription(url: str) -> None:
    with pytest.raises(APIError, match="subscription does not permit") as refused:
        ask_bars(url, ["AAPL"], NOW - 30 * MINUTE, NOW - 14 * MINUTE, feed=DataFeed.SIP)
    assert refused.value.status_code == 403
    assert ask_bars(url, ["AAPL"], NOW - 30 * MINUTE, NOW - 15 * MINUTE, feed=DataFeed.SIP)


def test_adjustments_are_taken(url: str) -> None:
    for adjustment in Adjustment:
        assert ask_bars(url, ["AAPL"], NOW - 9 * MINUTE, NOW, adjustment=adjustment)


def test_another_timeframe_is_refused(url: str) -> None:
    with pytest.raises(APIError, match="invalid timeframe"):
        ask_bars(url, ["AAPL"], NOW - 9 * MINUTE, NOW, timeframe=TimeFrame.Hour)


def test_the_shape_is_that_of_a_recorded_answer(url: str, recorded: Path) -> None:
    folder = recorded / "alpaca_py_responses"
    body = json.loads(
        (folder / "test_historical_stock_data__test_multisymbol_get_bars.json").read_text()
    )
    ours = get(url, start=RUNNING.isoformat()).json()
    assert set(ours) == set(body)
    assert set(ours["bars"]["AAPL"][0]) == set(next(iter(body["bars"].values()))[0])


def test_a_recorded_day_is_played_now(recorded: Path) -> None:
    table = read_bars(recorded / "bars_us7_2025_02" / "bars_1m.csv.gz")
    session = Calendar("XNYS").at(table["minute"].iloc[len(table) // 2].to_pydatetime())
    assert session
    of_session = table["minute"].between(session.opens_at, session.closes_at, "left")
    day = list(bars_of(table[of_session & (table["ticker"] == "AAPL")]))
    clock = Clock()
    with served(a_world(clock, RestampedMarket(day, clock))) as url:
        found = ask_bars(url, ["AAPL"], RUNNING - 390 * MINUTE, RUNNING - MINUTE)["AAPL"]
    assert sorted(bar.close for bar in found) == sorted(bar.close for bar in day)
    assert len(found) == 390


def test_there_are_no_corporate_actions_until_someone_tells_of_one() -> None:
    request = CorporateActionsRequest(symbols=["AAPL", "TSLA"], start=date(2025, 3, 1))
    with served(a_world()) as url:
        client = CorporateActionsClient(*ACCESS, url_override=url)
        assert client.get_corporate_actions(request).data == {}
        for symbol, rate in (("AAPL", 4), ("TSLA", 0.1), ("MSFT", 2)):
            split = {"symbol": symbol, "new_rate": rate, "ex_date": "2025-03-12"}
            assert WEB.post(f"{url}/control/splits", json=split).status_code == 201
        found = client.get_corporate_actions(request).data
        for window in ({"start": date(2025, 3, 13)}, {"end": date(2025, 3, 11)}):
            other = CorporateActionsRequest(**window)
            assert client.get_corporate_actions(other).data == {}
        forward = CorporateActionsRequest(types=[CorporateActionsType.FORWARD_SPLIT])
        assert len(client.get_corporate_actions(forward).data["forward_splits"]) == 2
    told = {
        kind: [(s.symbol, s.new_rate, s.old_rate) for s in splits] for kind, splits in found.items()
    }
    assert told == {"forward_splits": [("AAPL", 4, 1)], "reverse_splits": [("TSLA", 0.1, 1)]}


def test_a_split_that_makes_no_sense_is_refused(url: str) -> None:
    answer = WEB.post(f"{url}/control/splits", json={"symbol": "AAPL", "new_rate": 0})
    assert answer.status_code == 422
    assert "new_rate" in answer.json()["message"]
