from ops_pipeline.clients.universe import tickers_of, universe_file
from ops_pipeline.domain.bars import is_ticker
from ops_pipeline.domain.news import TickerLinker
from ops_pipeline.domain.values import Ticker

DEFAULT = ["AAPL", "MSFT", "TSLA", "GOOGL", "AMZN", "META", "NVDA"]


def test_the_first_seven_tickers_are_the_default() -> None:
    assert list(universe_file().known())[:7] == DEFAULT


def test_every_known_symbol_is_one() -> None:
    assert [symbol for symbol in universe_file().known() if not is_ticker(symbol)] == []


def test_every_known_ticker_has_names() -> None:
    known = universe_file().known().values()
    assert [ticker.symbol for ticker in known if not ticker.aliases] == []


def test_every_name_leads_to_its_ticker() -> None:
    linker = TickerLinker(list(universe_file().known().values()))
    for symbol, ticker in universe_file().known().items():
        for alias in ticker.aliases:
            found = {mention.ticker for mention in linker.mentions(f"So {alias}: news")}
            assert symbol in found, alias


def test_tickers_of_orders_by_symbol_and_names_each_once() -> None:
    found = tickers_of(["TSLA", "AAPL", "TSLA"])
    assert [ticker.symbol for ticker in found] == ["AAPL", "TSLA"]


def test_tickers_of_gives_the_names_that_are_known() -> None:
    assert tickers_of(["AAPL"]) == [Ticker("AAPL", ("Apple",))]


def test_tickers_of_when_a_symbol_is_unknown_then_it_has_no_names() -> None:
    assert tickers_of(["ZZZZ"]) == [Ticker("ZZZZ")]
