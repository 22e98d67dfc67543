"""The universe file: which tickers are known, and what news call them."""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files

import yaml

from ops_pipeline.domain.values import Ticker


@cache
def known_tickers() -> dict[str, Ticker]:
    """The tickers of the universe file by symbol, in its order."""
    text = files("ops_pipeline").joinpath("universe.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    return {
        symbol: Ticker(symbol, tuple(aliases)) for symbol, aliases in document["tickers"].items()
    }


def tickers_of(symbols: Iterable[str]) -> list[Ticker]:
    """These symbols with their names; one that the file does not know has none."""
    known = known_tickers()
    return [known.get(symbol, Ticker(symbol)) for symbol in sorted(set(symbols))]
