import json
import logging
import traceback
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ops_pipeline.clients.alpaca_bars import CHUNK, AlpacaBars
from ops_pipeline.clients.alpaca_http import AlpacaBusy, AlpacaSilent
from ops_pipeline.clients.protocols import BarSource, FetchedBars
from ops_pipeline.domain.errors import BadConfiguration, BadInput, OperatorError
from ops_pipeline.domain.session import MINUTE
from ops_pipeline.domain.values import Bar
from ops_pipeline.settings import AlpacaAccess
from ops_pipeline_tests.builders import NOON, a_bar
from ops_pipeline_tests.clients.alpaca_stub import (
    DROP,
    Answer,
    Asked,
    Script,
    Stub,
    Time,
    market,
    minutes,
    row_of,
    rows,
    serving,
)

KEY, SECRET = "PKTOPSECRETKEY123456", "s3cr3tOfTheAccount"
START = NOON - 6 * MINUTE
BROKEN = Answer("broken", 500)


@pytest.fixture
def clock() -> Time:
    return Time()


def source(stub: Stub, clock: Time, *, feed: str = "iex", **changes: Any) -> AlpacaBars:
    access = AlpacaAccess(KEY, SECRET, stub.url, stub.url, feed)
    return AlpacaBars(access, clock.now, **{"patience": clock.patience(), **changes})


def fetch(stub: Stub, clock: Time, *tickers: str, **changes: Any) -> FetchedBars:
    """The six minutes before noon."""
    return source(stub, clock, **changes).fetch_bars(tickers or ("AAPL",), START, NOON)


def a_market(*tickers: str, count: int = 6) -> list[Bar]:
    return [a_bar(ticker=ticker, minute=minute) for minute in minutes(count) for ticker in tickers]


def a_row(**changes: Any) -> dict[str, Any]:
    return {**row_of(a_bar(minute=START)), **changes}


def failing(*tickers: str, answer: Answer = BROKEN, bars: list[Bar]) -> Script:
    """A market whose answer is a failure for parts with one of these tickers."""
    served = market(bars)

    def script(asked: Asked) -> Answer:
        return answer if set(tickers) & set(asked.symbols) else served(asked)

    return script


def unknowing(*unknown: str, bars: list[Bar], message: str = "invalid symbol: {}") -> Script:
    """A market that refuses a request, as Alpaca does, for the first symbol it does not know."""
    served = market(bars)

    def script(asked: Asked) -> Answer:
        found = [symbol for symbol in asked.symbols if symbol in unknown]
        return Answer({"message": message.format(*found)}, 400) if found else served(asked)

    return script


def tickers_in(fetched: FetchedBars) -> set[str]:
    return {bar.ticker for bar in fetched.bars}


# What is asked, and what is given back


def test_it_is_a_source_of_bars_named_by_its_feed(clock: Time) -> None:
    made: BarSource = AlpacaBars(AlpacaAccess(KEY, SECRET, feed="sip"), clock.now)
    assert made.feed == "alpaca/sip"


def test_bars_come_back_as_they_were_by_minute_and_ticker(clock: Time) -> None:
    bars = a_market("AAPL", "MSFT")
    with serving(market(list(reversed(bars)))) as stub:
        assert fetch(stub, clock, "MSFT", "AAPL") == FetchedBars(
            bars, requests=1, bytes=len(market(bars)(stub.asked[0]).content)
        )


def test_the_request_names_all_that_matters(clock: Time) -> None:
    with serving(rows()) as stub:
        fetch(stub, clock, "AAPL", "BRK.B")
    asked = stub.asked[0]
    assert asked.target.startswith("/v2/stocks/bars?")
    assert asked.query == {
        "symbols": "AAPL,BRK.B",
        "timeframe": "1Min",
        "start": "2025-02-12T16:54:00+00:00",
        "end": "2025-02-12T16:59:00+00:00",
        "limit": "10000",
        "adjustment": "raw",
        "feed": "iex",
        "sort": "asc",
    }
    assert asked.headers["APCA-API-KEY-ID"] == KEY


def test_the_minute_of_end_is_not_among_the_bars(clock: Time) -> None:
    clock.passed = 3600
    with serving(market([*a_market("AAPL"), a_bar(minute=NOON)])) as stub:
        assert [bar.minute for bar in fetch(stub, clock).bars] == minutes(6)


def test_a_window_may_be_one_minute(clock: Time) -> None:
    with serving(market(a_market("AAPL"))) as stub:
        fetched = source(stub, clock).fetch_bars(["AAPL"], START, START + MINUTE)
    assert [bar.minute for bar in fetched.bars] == [START]


def test_an_end_within_a_minute_includes_that_minute(clock: Time) -> None:
    clock.passed = 3600
    with serving(market([a_bar(minute=NOON)])) as stub:
        end = NOON + timedelta(seconds=30)
        fetched = source(stub, clock).fetch_bars(["AAPL"], START, end)
    assert [bar.minute for bar in fetched.bars] == [NOON]


def test_a_bar_outside_of_the_window_or_of_another_ticker_is_left_out(clock: Time) -> None:
    early, late = (row_of(a_bar(minute=at)) for at in (START - MINUTE, NOON))
    with serving(rows(AAPL=[early, a_row(), late], TSLA=[a_row()])) as stub:
        assert fetch(stub, clock).bars == [a_bar(minute=START)]


def test_a_ticker_counts_only_in_the_answer_to_its_own_chunk(clock: Time) -> None:
    own, stray = rows(A=[a_row(c=100.25)]), rows(A=[a_row(c=100.5)], B=[a_row()])
    with serving(own, stray) as stub:
        fetched = fetch(stub, clock, "A", "B", chunk=1)
    assert [(bar.ticker, bar.close) for bar in fetched.bars] == [("A", 100.25), ("B", 200)]


def test_the_minute_that_is_not_over_is_left_out(clock: Time) -> None:
    with serving(market([*a_market("AAPL"), a_bar(minute=NOON)])) as stub:
        fetched = source(stub, clock).fetch_bars(["AAPL"], START, NOON + 5 * MINUTE)
    assert fetched.bars[-1].minute == NOON - MINUTE


def test_a_minute_that_ends_while_it_is_fetched_is_left_out(clock: Time) -> None:
    half_formed = [a_bar(minute=NOON)]
    with serving(Answer("", 503, {"Retry-After": "25"}), market(half_formed)) as stub:
        clock.passed = 40
        assert source(stub, clock).fetch_bars(["AAPL"], START, NOON + MINUTE).bars == []
    assert clock.passed > 60


def test_pages_are_followed(clock: Time) -> None:
    bars = a_market("AAPL", "MSFT", count=5200)
    clock.passed = 60
    with serving(market(bars)) as stub:
        fetched = source(stub, clock).fetch_bars(["AAPL", "MSFT"], bars[0].minute, NOON)
    assert fetched.bars == bars
    assert fetched.requests == len(stub.asked) == 2


def test_a_page_that_repeats_is_no_answer(clock: Time) -> None:
    with serving(rows(AAPL=[a_row()], token="again")) as stub:
        with pytest.raises(AlpacaSilent, match="the same page"):
            fetch(stub, clock)
        assert len(stub.asked) == 2


@pytest.mark.parametrize("token", ["", None])
def test_the_last_page_has_no_token(token: str | None, clock: Time) -> None:
    with serving(rows(AAPL=[a_row()], token=token)) as stub:
        assert len(fetch(stub, clock).bars) == 1


def test_tickers_are_asked_in_chunks_and_each_once(clock: Time) -> None:
    tickers = [f"T{number}" for number in range(7)]
    with serving(market(a_market(*tickers))) as stub:
        fetched = fetch(stub, clock, *tickers, *tickers, chunk=3)
    assert [len(asked.symbols) for asked in stub.asked] == [3, 3, 1]
    assert len(fetched.bars) == 42


def test_the_longest_symbols_make_no_request_of_8_kb(clock: Time) -> None:
    tickers = [f"T{number:05}.ABC" for number in range(CHUNK + 1)]
    with serving(rows()) as stub:
        fetch(stub, clock, *tickers)
    assert len(stub.asked) == 2
    assert max(len(asked.target) for asked in stub.asked) < 8000


@pytest.mark.parametrize(
    ("tickers", "seconds"), [([], (0, 60)), (["AAPL"], (0, 0)), (["AAPL"], (20, 50))]
)
def test_nothing_asked_costs_no_request(
    tickers: list[str], seconds: tuple[int, int], clock: Time
) -> None:
    start, end = (START + timedelta(seconds=count) for count in seconds)
    with serving(rows()) as stub:
        assert source(stub, clock).fetch_bars(tickers, start, end) == FetchedBars([])
        assert stub.asked == []


def test_the_rate_budget_is_kept_by_all_fetches_of_a_source(clock: Time) -> None:
    with serving(rows()) as stub:
        bars = source(stub, clock, chunk=1, budget=clock.budget(limit=3))
        for _ in range(2):
            bars.fetch_bars(["A", "B"], START, NOON)
    assert clock.slept == [60]


# What cannot be read


@pytest.mark.parametrize(
    "body",
    [
        {"bars": None, "next_page_token": None},
        {"bars": {}, "next_page_token": None},
        {"bars": {"AAPL": []}},
        {"bars": {"AAPL": None}},
    ],
)
def test_an_empty_answer_is_an_answer(body: Any, clock: Time) -> None:
    with serving(Answer(body)) as stub:
        fetched = fetch(stub, clock)
    assert (fetched.bars, fetched.unanswered) == ([], {})


@pytest.mark.parametrize("body", [[], None, 7, "text", {}, {"bars": []}, {"message": "hello"}])
def test_an_answer_of_another_shape_is_none(body: Any, clock: Time) -> None:
    with serving(Answer(json.dumps(body))) as stub, pytest.raises(AlpacaSilent, match="no bars"):
        fetch(stub, clock)


UNREADABLE = {
    **{f"no {name}": {name: ...} for name in "tohlcv"},
    **{f"null {name}": {name: None} for name in "tohlcv"},
    **{f"text {name}": {name: "12.5"} for name in "tohlcv"},
    "NaN": {"c": float("nan")},
    "infinite": {"h": float("inf")},
    "true": {"o": True},
    "immense": {"o": 10**400},
    "immense volume": {"v": 10**30},
    "a list": {"l": [1]},
    "seconds": {"t": "2025-02-12T16:54:30Z"},
    "no zone": {"t": "2025-02-12T16:54:00"},
    "a day": {"t": "2025-02-12"},
    "no such day": {"t": "2025-02-31T16:54:00Z"},
    "an epoch": {"t": 1739379240},
    "before all time": {"t": "0001-01-01T00:00:00+23:00"},
}


@pytest.mark.parametrize("change", UNREADABLE.values(), ids=UNREADABLE)
def test_a_bar_that_cannot_be_read_is_left_out(
    change: dict[str, Any], clock: Time, caplog: pytest.LogCaptureFixture
) -> None:
    bad = {name: value for name, value in a_row(**change).items() if value is not ...}
    good = row_of(a_bar(minute=START + MINUTE))
    with serving(rows(AAPL=[bad, good])) as stub:
        fetched = fetch(stub, clock)
    assert [bar.minute for bar in fetched.bars] == [START + MINUTE]
    assert fetched.unanswered == {}
    assert "1 of Alpaca's bars cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("volume", "shares"), [(1200.375, 1200), (1200.0, 1200), (0.5, 0), (0.999999, 0), (7, 7)]
)
def test_fractions_of_shares_are_rounded_down(volume: float, shares: int, clock: Time) -> None:
    with serving(rows(AAPL=[a_row(v=volume)])) as stub:
        fetched = fetch(stub, clock)
    assert [bar.volume for bar in fetched.bars] == [shares]


@pytest.mark.parametrize("row", [None, "text", 7, [], {}])
def test_a_ticker_none_of_whose_bars_can_be_read_is_unanswered(row: Any, clock: Time) -> None:
    with serving(rows(AAPL=[row, row], MSFT=[a_row()])) as stub:
        fetched = fetch(stub, clock, "AAPL", "MSFT")
    assert fetched.unanswered == {"AAPL": "none of its 2 bars can be read"}
    assert tickers_in(fetched) == {"MSFT"}


def test_of_a_bar_that_stands_twice_the_first_counts(clock: Time) -> None:
    with serving(rows(AAPL=[a_row(c=100.25), a_row(c=100.5)])) as stub:
        assert [bar.close for bar in fetch(stub, clock).bars] == [100.25]


def test_times_come_back_in_utc(clock: Time) -> None:
    with serving(rows(AAPL=[a_row(t="2025-02-12T11:54:00.000000000-05:00")])) as stub:
        minute = fetch(stub, clock).bars[0].minute
    assert minute == START
    assert minute.tzinfo is UTC


# Refusals


def test_401_is_a_refused_key(clock: Time) -> None:
    with serving(Answer({"message": f"{KEY} is not authorized"}, 401)) as stub:
        with pytest.raises(BadConfiguration, match=r"Alpaca refused the key \(401\)") as caught:
            fetch(stub, clock, "A", "B", chunk=1)
        assert len(stub.asked) == 1
    assert caught.value.hint == "set ALPACA_API_KEY and ALPACA_API_SECRET"


def test_403_ends_the_fetch_with_what_alpaca_says(clock: Time) -> None:
    refusal = Answer({"message": "forbidden."}, 403)
    with serving(failing("B", answer=refusal, bars=a_market("A"))) as stub:
        with pytest.raises(BadConfiguration, match=r"\(403: forbidden\.\)"):
            fetch(stub, clock, "A", "B", "C", chunk=1)
        assert len(stub.asked) == 2


@pytest.mark.parametrize("status", [403, 422])
def test_a_feed_that_is_not_paid_for_is_named(status: int, clock: Time) -> None:
    body = {"message": "subscription does not permit querying recent SIP data"}
    with (
        serving(Answer(body, status)) as stub,
        pytest.raises(BadConfiguration, match="not entitled to feed sip") as caught,
    ):
        fetch(stub, clock, feed="sip")
    assert caught.value.hint == "set OPS_ALPACA_FEED=iex"


@pytest.mark.parametrize("status", [400, 422])
def test_a_refusal_that_is_not_about_symbols_is_not_asked_again(status: int, clock: Time) -> None:
    with serving(Answer({"message": "end should not be before start"}, status)) as stub:
        with pytest.raises(BadInput, match="end should not be before start"):
            fetch(stub, clock, "A", "B", chunk=1)
        assert len(stub.asked) == 1


@pytest.mark.parametrize("body", ["<html>\x1b[1m\n  not found\n", "{", "[]", '{"message": null}'])
def test_a_refusal_without_a_message_is_told_in_one_line(body: str, clock: Time) -> None:
    with serving(Answer(body, 404)) as stub, pytest.raises(BadInput, match="404") as caught:
        fetch(stub, clock)
    assert str(caught.value).isprintable()


def test_a_symbol_that_alpaca_names_is_left_out(clock: Time) -> None:
    with serving(unknowing("C2", "E2", bars=a_market("A", "B", "D"))) as stub:
        fetched = fetch(stub, clock, "A", "B", "C2", "D", "E2")
    assert fetched.unanswered == {"C2": "invalid symbol: C2", "E2": "invalid symbol: E2"}
    assert tickers_in(fetched) == {"A", "B", "D"}
    assert len(stub.asked) == fetched.requests == 3


@pytest.mark.parametrize("status", [400, 422])
def test_a_single_symbol_that_is_refused_is_unanswered(status: int, clock: Time) -> None:
    with serving(Answer({"message": "invalid symbol"}, status)) as stub:
        assert fetch(stub, clock).unanswered == {"AAPL": "invalid symbol"}


def test_a_word_of_the_message_is_no_symbol(clock: Time) -> None:
    script = unknowing("C2", bars=a_market("A"), message="A symbol is invalid: {}")
    with serving(script) as stub:
        assert fetch(stub, clock, "A", "C2").unanswered.keys() == {"C2"}


def test_when_all_symbols_are_unknown_all_are_unanswered(clock: Time) -> None:
    with serving(unknowing("A2", "B2", bars=[])) as stub:
        fetched = fetch(stub, clock, "A2", "B2")
    assert fetched.bars == []
    assert fetched.unanswered.keys() == {"A2", "B2"}


def test_a_symbol_that_is_not_named_is_found_by_halving(clock: Time) -> None:
    tickers = [f"T{number}" for number in range(500)]
    script = unknowing("T123", bars=a_market(*tickers, count=1), message="invalid symbol")
    with serving(script) as stub:
        fetched = fetch(stub, clock, *tickers)
    assert fetched.unanswered == {"T123": "invalid symbol"}
    assert len(fetched.bars) == 499
    assert len(stub.asked) <= 1 + 2 * 9


def test_refusals_without_end_are_given_up(clock: Time) -> None:
    with serving(Answer({"message": "too many symbols"}, 400)) as stub:
        fetched = fetch(stub, clock, *(f"T{number}" for number in range(500)))
    assert len(fetched.unanswered) == 500
    assert len(stub.asked) <= 120
    assert "given up after 100 refusals" in fetched.unanswered.values()


# Outages


def test_a_chunk_that_fails_does_not_lose_the_others(clock: Time) -> None:
    tickers = list("ABCDEF")
    with serving(failing("C", bars=a_market(*tickers))) as stub:
        fetched = fetch(stub, clock, *tickers, chunk=2)
    assert tickers_in(fetched) == set("ABEF")
    assert fetched.unanswered == dict.fromkeys("CD", "Alpaca does not answer: status 500")
    assert fetched.requests == len(stub.asked) == 2 + 4


def test_a_chunk_whose_second_page_fails_is_unanswered_whole(clock: Time) -> None:
    first = rows(AAPL=[a_row()], token="next")
    last = rows(MSFT=[a_row()])
    with serving(first, *[BROKEN] * 4, last) as stub:
        fetched = fetch(stub, clock, "AAPL", "MSFT", chunk=1)
    assert tickers_in(fetched) == {"MSFT"}
    assert fetched.unanswered.keys() == {"AAPL"}


def test_when_all_chunks_fail_the_first_failure_is_told(clock: Time) -> None:
    second = Answer("", 503)
    with (
        serving(*[BROKEN] * 4, second) as stub,
        pytest.raises(AlpacaSilent, match="status 500"),
    ):
        fetch(stub, clock, "A", "B", chunk=1)


def test_a_rate_limit_that_holds_says_for_how_long(clock: Time) -> None:
    limit = Answer("", 429, {"Retry-After": "45"})
    with serving(limit) as stub, pytest.raises(AlpacaBusy) as caught:
        fetch(stub, clock)
    assert str(caught.value) == "Alpaca's rate limit holds (429), asked to wait 45 s"
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("answer", [BROKEN, DROP, Answer("{")])
def test_an_outage_says_so(answer: Answer, clock: Time) -> None:
    with serving(answer) as stub, pytest.raises(AlpacaSilent, match="does not answer") as caught:
        fetch(stub, clock)
    assert (caught.value.exit_code, caught.value.hint) == (3, "run: ops-pipeline doctor")


# Probe


@pytest.mark.parametrize("answer", [rows(), rows(AAPL=[a_row()])])
def test_a_probe_costs_one_request_and_says_what_works(answer: Answer, clock: Time) -> None:
    with serving(answer) as stub:
        assert source(stub, clock).probe() == "feed iex answers"
        assert [asked.symbols for asked in stub.asked] == [["AAPL"]]


def test_a_probe_of_a_refused_key_says_so(clock: Time) -> None:
    with serving(Answer("", 401)) as stub, pytest.raises(BadConfiguration, match="401"):
        source(stub, clock).probe()


# Secrets


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 422, 429, 500])
def test_the_key_is_in_no_log_message_or_repr(
    status: int, clock: Time, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told = {"message": f"no symbol for {KEY}:{SECRET}"}
    with serving(Answer(told, status)) as stub:
        bars = source(stub, clock)
        try:
            texts = list(bars.fetch_bars(["A", "B"], START, NOON).unanswered.values())
        except OperatorError as error:
            texts = [str(error), repr(error), error.hint, *traceback.format_exception(error)]
    seen = "\n".join([*texts, caplog.text, repr(bars), repr(bars.__dict__)])
    assert texts
    assert KEY not in seen
    assert SECRET not in seen


@pytest.mark.parametrize("bad", ["", "a\nb", "a key ", "clé"])
def test_a_key_that_cannot_be_sent_is_refused_without_telling_it(bad: str, clock: Time) -> None:
    for access in (AlpacaAccess(bad, SECRET), AlpacaAccess(KEY, bad)):
        with pytest.raises(BadConfiguration) as caught:
            AlpacaBars(access, clock.now).fetch_bars(["A"], START, NOON)
        assert str(caught.value) == "the key for Alpaca cannot be one"


# Recorded answers

LATER = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.mark.recorded
@pytest.mark.parametrize("entry", ["get_bars", "get_bars_desc", "multisymbol_get_bars"])
def test_recorded_bars_are_read_whole(entry: str, recorded: Path, clock: Time) -> None:
    name = f"test_historical_stock_data__test_{entry}.json"
    text = (recorded / "alpaca_py_responses" / name).read_text()
    told = json.loads(text)["bars"]
    with serving(Answer(text), rows()) as stub:
        start = datetime(2022, 1, 1, tzinfo=UTC)
        bars = source(stub, clock).fetch_bars(list(told), start, LATER).bars
    assert sorted((bar.ticker, row_of(bar)["t"], bar.volume) for bar in bars) == sorted(
        (ticker, row["t"], row["v"]) for ticker, own in told.items() for row in own
    )
    assert bars == sorted(bars, key=lambda bar: (bar.minute, bar.ticker))


@pytest.mark.recorded
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_recorded_empty_answers_are_answers(kind: str, recorded: Path, clock: Time) -> None:
    name = f"test_historical_stock_data__test_get_bars_{kind}_empty_response.json"
    with serving(Answer((recorded / "alpaca_py_responses" / name).read_text())) as stub:
        assert replace(fetch(stub, clock), requests=0, bytes=0) == FetchedBars([])


@pytest.mark.recorded
def test_each_recorded_error_of_the_data_host_has_its_outcome(recorded: Path) -> None:
    text = (recorded / "alpaca_error_bodies" / "errors.json").read_text()
    told = {}
    for error in json.loads(text):
        if error["api"] == "data":
            told[error["body"]["message"]] = outcome(Answer(error["body"], error["http"]))
    assert told == {
        "too many requests.": "AlpacaBusy: Alpaca's rate limit holds (429)",
        "subscription does not permit querying recent SIP data": (
            "BadConfiguration: the account is not entitled to feed sip"
            " (403: subscription does not permit querying recent SIP data)"
        ),
        "OPRA agreement is not signed": (
            "BadConfiguration: Alpaca forbids it (403: OPRA agreement is not signed)"
        ),
    }


def outcome(answer: Answer) -> str:
    with serving(answer) as stub, pytest.raises(OperatorError) as caught:
        fetch(stub, Time(), feed="sip")
    return f"{type(caught.value).__name__}: {caught.value}"
