"""Tickers as files of news name them: one, or several, in the forms that exports write."""

import math
import re
from collections.abc import Iterable, Mapping

from ops_pipeline.domain.bars import is_ticker
from ops_pipeline.domain.news import plain_text

FORMS = "AAPL, $AAPL, NASDAQ:AAPL, AAPL.O, AAPL US, BRK/B, or several: AAPL|MSFT, ['AAPL', 'MSFT']"
MAX_LENGTH = 10_000
NOTHING = frozenset({"", "nan", "NaN", "None", "none", "null", "NaT", "<NA>", "N/A", "-"})
# What numpy and pandas write around a list.
_WRAPPING = re.compile(r"\b(?:[\w.]*[a-z_])\(|,\s*dtype=[^,()\]]+")
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")
_BETWEEN_ITEMS = re.compile(r"[,;|()\[\]{}]+")
_BETWEEN_WORDS = re.compile(r"[\s,;|()\[\]{}]+")
_PREFIX = re.compile(
    r"^(?:NASDAQ(?:GS|GM|CM)?|NYSE(?:ARCA|AMERICAN|MKT)?|AMEX|ARCA|BATS|CBOE|XNAS|XNYS|XASE|ARCX"
    r"|NAS|NYS|NMS|NYQ|US):|^[$#]"
)
_SUFFIX = re.compile(r"(?:\.(?:OQ?|N|K|US)|:(?:US|UN|UW|UQ|NASDAQ|NYSE))$")
_BLOOMBERG = re.compile(r"(\S)\s+(?:US(?:\s+Equity)?|U[NQRW]\s+Equity)\b", re.IGNORECASE)
# An index, a currency, a future, a listing elsewhere: no stock of ours, but a symbol.
_OTHER_SYMBOL = re.compile(r"(?!.{21})\^?[A-Z0-9]+(?:[.=/:_-][A-Z0-9]+)*")
_FIELDS = ("symbol", "ticker", "name")


def parse_tickers(value: object) -> tuple[str, ...]:
    """Return each symbol of a cell once: in order, upper case, a share class after a dot.

    Symbols of other instruments are returned, too; `is_ticker` tells them apart.

    Raises:
        ValueError: a part is no symbol; the message is that part.
    """
    return tuple(dict.fromkeys(_symbol(part) for part in _parts(value)))


def _parts(value: object) -> Iterable[str]:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, str):
        return _parts_of_text(value)
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise ValueError(repr(value))  # noqa: TRY004 - one kind of fault for the caller
    return [part for item in value for part in _parts_of_item(item)]


def _parts_of_item(item: object) -> Iterable[str]:
    if isinstance(item, Mapping):
        item = next((item[name] for name in _FIELDS if name in item), repr(item))
    # A space inside an item is no separator: "not one" is no list of two.
    return _split(item, _BETWEEN_ITEMS) if isinstance(item, str) else _parts(item)


def _parts_of_text(text: str) -> Iterable[str]:
    text = _WRAPPING.sub(" ", _plain(text))
    quoted = [first or second for first, second in _QUOTED.findall(text)]
    if not quoted:
        return _split(text, _BETWEEN_WORDS)
    if rest := _split(_QUOTED.sub(" ", text), _BETWEEN_WORDS):
        raise ValueError(repr(" ".join(rest)))
    return [part for item in quoted for part in _parts_of_item(item)]


def _split(text: str, between: re.Pattern[str]) -> list[str]:
    text = re.sub(r":\s+", ":", _BLOOMBERG.sub(r"\1", _plain(text)))
    parts = (part.strip() for part in between.split(text))
    return [part.upper() for part in parts if part not in NOTHING]


def _plain(text: str) -> str:
    # Markup is no ticker; plain_text would take it away without a word.
    return text.strip() if "<" in text else plain_text(text, MAX_LENGTH)


def _symbol(part: str) -> str:
    symbol = _SUFFIX.sub("", _PREFIX.sub("", part))
    symbol = re.sub(r"[-/]([A-Z])$", r".\1", symbol)
    if not is_ticker(symbol) and not _OTHER_SYMBOL.fullmatch(symbol):
        raise ValueError(repr(part))
    return symbol
