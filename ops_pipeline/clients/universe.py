"""The universe file: which tickers are known, what news call them, and which feeds to follow."""

from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ops_pipeline.domain.bars import canonical_ticker, is_ticker
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.domain.values import Feed, Ticker

PER_TICKER = "{ticker}"


class _TextLoader(yaml.SafeLoader):
    """Reads each plain value as the text that stands there: ON and 1E5 are no truth and number."""

    # All that is left is the merge key.
    yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}  # noqa: RUF012


def _symbol(text: str) -> str:
    symbol = canonical_ticker(text)
    if not is_ticker(symbol):
        raise ValueError(f"{text!r} is no symbol of a US stock")
    return symbol


def _http_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("a feed is an http or https address without a user name")
    return text


Symbol = Annotated[str, AfterValidator(_symbol)]
Alias = Annotated[str, Field(min_length=2, max_length=80)]


class _FeedEntry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_./{}-]{0,79}$")]
    url: Annotated[str, Field(max_length=2_000), AfterValidator(_http_url)]

    @property
    def is_per_ticker(self) -> bool:
        return PER_TICKER in self.url


class UniverseFile(BaseModel):
    """The file, checked whole: known tickers with their names, the tracked ones, the feeds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tracked: Annotated[tuple[Symbol, ...], Field(min_length=1)]
    tickers: dict[Symbol, tuple[Alias, ...]]
    feeds: tuple[_FeedEntry, ...] = ()

    @field_validator("tickers", mode="before")
    @classmethod
    def _are_different(cls, tickers: object) -> object:
        spellings: dict[str, str] = {}
        for text in tickers if isinstance(tickers, dict) else ():
            other = spellings.setdefault(canonical_ticker(str(text)), str(text))
            if other != text:
                raise ValueError(f"{other} and {text} are one ticker")
        return tickers

    @model_validator(mode="after")
    def _fits_together(self) -> "UniverseFile":
        if unknown := [symbol for symbol in self.tracked if symbol not in self.tickers]:
            raise ValueError(f"{unknown[0]} is tracked, and does not stand among the tickers")
        names = [feed.name for feed in self.feeds]
        if double := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two feeds are called {double[0]}")
        for feed in self.feeds:
            if feed.is_per_ticker != (PER_TICKER in feed.name):
                raise ValueError(f"{feed.name}: {PER_TICKER} belongs in both name and url, or none")
        return self

    def known(self) -> dict[str, Ticker]:
        """All tickers of the file by symbol, in its order."""
        return {symbol: Ticker(symbol, names) for symbol, names in self.tickers.items()}

    def feeds_for(self, tickers: Iterable[str]) -> list[Feed]:
        """The general feeds, and for each of these tickers its own ones."""
        symbols = sorted(set(tickers))
        return [feed for entry in self.feeds for feed in _expanded(entry, symbols)]


def universe_file(path: Path | None = None) -> UniverseFile:
    """The universe file at a path, or the one that comes with the package.

    Raises:
        BadConfiguration: it is absent, no YAML, or a value is refused; the message names it.
    """
    return _shipped() if path is None else _read(path.name, _text_of(path))


def tickers_of(symbols: Iterable[str], path: Path | None = None) -> list[Ticker]:
    """These symbols with their names; one that the file does not know has none."""
    known = universe_file(path).known()
    return [known.get(symbol, Ticker(symbol)) for symbol in sorted(set(symbols))]


@cache
def _shipped() -> UniverseFile:
    name = "universe.yaml"
    return _read(name, files("ops_pipeline").joinpath(name).read_text(encoding="utf-8"))


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfiguration(
            f"the universe file {path} cannot be read: {type(error).__name__}",
            "OPS_UNIVERSE_FILE names it",
        ) from error


def _read(name: str, text: str) -> UniverseFile:
    try:
        return UniverseFile.model_validate(yaml.load(text, Loader=_TextLoader))  # noqa: S506
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else type(error).__name__
        raise BadConfiguration(f"{name} is no YAML: {where}") from error
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"]) or name
        raise BadConfiguration(f"{name}, {path}: {first['msg']}") from error


def _expanded(entry: _FeedEntry, symbols: Sequence[str]) -> list[Feed]:
    if not entry.is_per_ticker:
        return [Feed(entry.name, entry.url)]
    return [
        Feed(entry.name.replace(PER_TICKER, symbol), entry.url.replace(PER_TICKER, symbol), symbol)
        for symbol in symbols
    ]
