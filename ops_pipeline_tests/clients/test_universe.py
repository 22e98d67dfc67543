import re
from pathlib import Path

import pytest

from ops_pipeline.clients.universe import tickers_of, universe_file
from ops_pipeline.domain.bars import is_ticker
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.domain.linking import TickerLinker
from ops_pipeline.domain.values import Feed, Ticker

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


MINE = """
tracked: [AAPL, MSFT]
tickers:
  AAPL: [Apple]
  MSFT: [Microsoft, Windows]
  BRK.B: []
feeds:
  - {name: wire/markets, url: "https://wire.example/markets.rss"}
  - {name: "wire/{ticker}", url: "https://wire.example/t?s={ticker}&x=1"}
"""


def written(folder: Path, text: str = MINE) -> Path:
    """A universe file with this text."""
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def changed(folder: Path, old: str, new: str) -> Path:
    """A universe file in which one thing is different."""
    assert old in MINE
    return written(folder, MINE.replace(old, new))


def test_a_file_is_read_as_it_stands(tmp_path: Path) -> None:
    found = universe_file(written(tmp_path))
    assert found.tracked == ("AAPL", "MSFT")
    assert list(found.known().values()) == [
        Ticker("AAPL", ("Apple",)),
        Ticker("MSFT", ("Microsoft", "Windows")),
        Ticker("BRK.B"),
    ]


def test_names_come_from_the_file_that_is_asked(tmp_path: Path) -> None:
    path = changed(tmp_path, "[Apple]", "[Cupertino]")
    assert tickers_of(["AAPL", "TSLA"], path) == [Ticker("AAPL", ("Cupertino",)), Ticker("TSLA")]


def test_feeds_are_the_general_ones_and_those_of_each_ticker_that_is_asked(
    tmp_path: Path,
) -> None:
    found = universe_file(written(tmp_path))
    assert found.feeds_for(["NVDA", "BRK.B", "NVDA"]) == [
        Feed("wire/markets", "https://wire.example/markets.rss"),
        Feed("wire/BRK.B", "https://wire.example/t?s=BRK.B&x=1", "BRK.B"),
        Feed("wire/NVDA", "https://wire.example/t?s=NVDA&x=1", "NVDA"),
    ]
    assert [feed.name for feed in found.feeds_for([])] == ["wire/markets"]


def test_a_file_without_feeds_has_none(tmp_path: Path) -> None:
    path = written(tmp_path, MINE[: MINE.index("feeds:")])
    assert universe_file(path).feeds_for(["AAPL"]) == []


@pytest.mark.parametrize("symbol", ["ON", "NO", "Y", "TRUE", "NULL", "NAN", "E5", "OFF"])
def test_a_symbol_that_yaml_takes_for_something_else_is_text(tmp_path: Path, symbol: str) -> None:
    path = changed(tmp_path, "BRK.B: []", f"{symbol}: [{symbol} Corp, 0o17, 1E5, 2025-02-04, null]")
    path.write_text(path.read_text().replace("[AAPL, MSFT]", f"[AAPL, {symbol}]"))
    found = universe_file(path)
    assert found.tracked == ("AAPL", symbol)
    names = (f"{symbol} Corp", "0o17", "1E5", "2025-02-04", "null")
    assert found.tickers[symbol] == names


@pytest.mark.parametrize("text", ["BRK.B", "BRK-B", "BRK/B"])
def test_a_class_of_shares_has_one_spelling(tmp_path: Path, text: str) -> None:
    path = changed(tmp_path, "BRK.B: []", f"{text}: []")
    path.write_text(path.read_text().replace("[AAPL, MSFT]", f"[AAPL, {text}]"))
    found = universe_file(path)
    assert found.tracked == ("AAPL", "BRK.B")
    assert list(found.tickers) == ["AAPL", "MSFT", "BRK.B"]


REFUSED = {
    "unknown key": ("feeds:", "feed:", "mine.yaml, feed: "),
    "unknown key of a feed": ("{name: wire/markets", "{lang: en, name: w", "feeds.0.lang: "),
    "bad symbol": ("[AAPL, MSFT]", "[AAPL, msft]", "tracked.1: .*'msft' is no symbol"),
    "bad symbol that is known": ("BRK.B:", "BRK B:", "tickers.BRK B.*'BRK B' is no symbol"),
    "one ticker in two spellings": ("BRK.B: []", "BRK.B: []\n  BRK-B: []", "BRK.B and BRK-B are"),
    "nothing tracked": ("[AAPL, MSFT]", "[]", "mine.yaml, tracked: "),
    "tracked and not known": ("[AAPL, MSFT]", "[AAPL, NVDA]", "NVDA is tracked, and does not"),
    "name of one letter": ("[Apple]", "[A]", "tickers.AAPL.0: "),
    "one name instead of a list": ("[Apple]", "Apple", "tickers.AAPL: "),
    "two feeds of a name": ('"wire/{ticker}"', "wire/markets", "two feeds are called wire/markets"),
    "ftp": ("https://wire.example/m", "ftp://wire.example/m", "feeds.0.url: .*http or https"),
    "file": ("https://wire.example/m", "file:///etc/m", "feeds.0.url: .*http or https"),
    "no host": ("https://wire.example/m", "https:///m", "feeds.0.url: "),
    "broken host": ("https://wire.example/m", "https://[/m", "feeds.0.url: "),
    "user": ("https://wire.example/m", "https://u:p@wire.example/m", "without a user name"),
    "no user, a password": ("https://wire.example/m", "https://:p@wire.example/m", "a user name"),
    "ticker in the url alone": ('"wire/{ticker}"', "wire/own", "wire/own: {ticker} belongs in"),
    "ticker in the name alone": ("?s={ticker}", "?s=AAPL", "wire/{ticker}: {ticker} belongs in"),
    "name with a blank": ("wire/markets,", "the wire,", "feeds.0.name: "),
}


@pytest.mark.parametrize(("old", "new", "said"), REFUSED.values(), ids=list(REFUSED))
def test_a_file_is_refused_by_the_place_that_is_wrong(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    with pytest.raises(BadConfiguration, match=r"^mine\.yaml, .*") as refused:
        universe_file(changed(tmp_path, old, new))
    assert re.search(said.replace("{", r"\{"), str(refused.value))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["", "- AAPL\n", "AAPL", "tracked: [AAPL]\n"])
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadConfiguration, match=r"^mine\.yaml, "):
        universe_file(written(tmp_path, text))


@pytest.mark.parametrize("text", ["tracked: [AAPL", "a: b: c", "!!python/object:os.system {}"])
def test_what_is_no_yaml_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadConfiguration, match=r"^mine\.yaml is no YAML: .*line 1") as refused:
        universe_file(written(tmp_path, text))
    assert len(str(refused.value).splitlines()) == 1


def test_a_missing_file_is_named_with_the_variable_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match=r"absent\.yaml cannot be read: FileNotF") as refused:
        universe_file(tmp_path / "absent.yaml")
    assert refused.value.hint == "OPS_UNIVERSE_FILE names it"


def test_a_folder_and_what_is_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"tracked: \xff\xfe")
    for path in (tmp_path, tmp_path / "bytes.yaml"):
        with pytest.raises(BadConfiguration, match="cannot be read"):
            universe_file(path)
