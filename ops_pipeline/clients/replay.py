"""A recorded market: files of bars and news, checked once, then served as if they came in."""

import json
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from math import inf
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
from pyarrow import parquet

from ops_pipeline.clients.bar_formats import PRICES, BarFormat, parse_times, recognize
from ops_pipeline.clients.protocols import FetchedBars, FetchedNews
from ops_pipeline.domain.bars import (
    FAR_OFF,
    MAX_PRICE,
    TICKER_PATTERN,
    canonical_ticker,
    far_off,
    is_ticker,
)
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.session import Calendar, Session
from ops_pipeline.domain.ticker_lists import FORMS, NOTHING, parse_tickers
from ops_pipeline.domain.values import Bar, FeedState, NewsEntry

REVISION = "revision"
ANY_FORMAT = BarFormat()
MARKET_COLUMNS = ("ticker", "minute", *PRICES, "volume", "available_at")
MARKET_KEY = b"market"
NEWS_COLUMNS = ("published_at", "title")
# Names that exports of Alpaca, Polygon, Finnhub, Benzinga and others give to a field, first match.
NEWS_FIELDS = {
    "published_at": ("published", "published_utc", "created_at", "datetime", "date", "time"),
    "title": ("headline",),
    "summary": ("description", "teaser"),
    "link": ("url", "article_url", "news_url"),
    "source": ("publisher", "feed"),
    "id": ("entry_id", "guid", "uuid"),
    "tickers": ("symbols", "related", "stocks"),
    "ticker": ("symbol",),
}


@dataclass(frozen=True, eq=False)
class BarFile:
    """The bars of a file, and what was recognized, changed and left out on the way."""

    bars: pd.DataFrame
    notes: list[str]


def read_bars(path: Path) -> pd.DataFrame:
    """Return the bars of a file in a format that needs no explanation."""
    return load_bars(path).bars


def load_bars(path: Path, form: BarFormat = ANY_FORMAT) -> BarFile:
    """Read bars of a csv, csv.gz or parquet file, by minute and ticker.

    Columns are ticker, ts (the bar's start), open, high, low, close (USD) and volume (shares;
    fractions are rounded down), or what vendors call them. Of a bar that stands twice the first
    one counts, as it does when bars come in live. With a column revision (a count from 0), the
    versions of a bar are kept in its order. A column available_at tells when a version was known;
    where it is empty, the usual delay holds.

    Raises:
        BadInput: the file is absent or a row cannot be used; the message names the first such row.
    """
    table, notes = recognize(str(path), _read_table(path), form)
    if table.empty:
        raise BadInput(f"{path} holds no bars")
    table["ts"] = _times(path, table["ts"], "ts", form)
    for column in (*PRICES, "volume"):
        table[column] = _numbers(path, table[column])
    table["ticker"] = _symbols(table["ticker"], notes)
    _check_bars(path, table)
    table["volume"] = _whole_shares(table["volume"], notes)
    table["available_at"] = _known_times(path, table, form)
    table = table.rename(columns={"ts": "minute"})
    if REVISION in table:
        table[REVISION] = _revisions(path, table[REVISION])
        table = table.sort_values(["minute", "ticker", REVISION], kind="stable")
    else:
        table = _first_of_each(table, notes)
    order = table.sort_values(["minute", "ticker"], kind="stable", ignore_index=True)
    order = order[list(MARKET_COLUMNS)]
    return BarFile(order, notes + _far_off(order))


def read_news(
    path: Path,
    note: Callable[[str], None] = lambda line: None,  # noqa: ARG005
    tracked: Collection[str] | None = None,
) -> list[NewsEntry]:
    """Return the news of a csv, jsonl or parquet file, oldest first.

    Fields are published_at (with a zone) and title, and where known summary, link, source, id and
    tickers; NEWS_FIELDS lists the other names that they may have. `note` receives what was
    recognized and what was left out, one line each. Tickers that are not `tracked` are ignored.

    Raises:
        BadInput: the file is absent or a row cannot be used; the message names the first such row.
    """
    table = _news_columns(path, _read_table(path), note)
    table["published_at"] = _times(path, table["published_at"], "published_at")
    rows = table.to_dict("records")
    untitled = [number for number, row in enumerate(rows, 1) if not _text(row, "title")]
    if untitled and len(untitled) == len(rows):
        raise BadInput(f"{path} holds no row with a title")
    if untitled:
        note(f"{path}: left out {len(untitled)} rows without a title, the first is {untitled[0]}")
    tickers = [_row_tickers(path, number, row) for number, row in enumerate(rows, 1)]
    entries = [
        _entry(row, of) for row, of in zip(rows, tickers, strict=True) if _text(row, "title")
    ]
    note(f"{path}: {len(entries)} rows; {_tickers_line(tickers, tracked)}")
    return sorted(entries, key=lambda entry: (entry.published_at, entry.feed, entry.entry_id))


@dataclass(frozen=True)
class RecordedMarket:
    """A folder that holds one checked market; source of bars and of news."""

    folder: Path
    feed: str = "replay"

    @property
    def _bars_file(self) -> Path:
        return self.folder / "bars.parquet"

    @property
    def _news_file(self) -> Path:
        return self.folder / "news.jsonl"

    @property
    def name(self) -> str:
        """What the market was saved as.

        Raises:
            BadInput: no market was saved yet.
        """
        self._require()
        metadata = parquet.read_schema(self._bars_file).metadata
        return str(metadata[MARKET_KEY].decode())

    def save(self, bars: pd.DataFrame, news: Iterable[NewsEntry], name: str = "market") -> None:
        """Put a market in place of the one that is there; all of it or nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        new_bars, new_news = self.folder / "bars.new", self.folder / "news.new"
        table = pyarrow.Table.from_pandas(bars, preserve_index=False)
        metadata = {**(table.schema.metadata or {}), MARKET_KEY: name.encode()}
        parquet.write_table(table.replace_schema_metadata(metadata), new_bars)
        with new_news.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(_document(entry)) + "\n" for entry in news)
        new_bars.replace(self._bars_file)
        new_news.replace(self._news_file)

    def fetch_bars(
        self,
        tickers: Sequence[str],
        start: datetime,
        end: datetime,
        within_seconds: float = inf,  # noqa: ARG002 - a file is there, or not
    ) -> FetchedBars:
        """Bars of these tickers with start <= minute < end, by minute and ticker."""
        self._require()
        filters = [("minute", ">=", pd.Timestamp(start)), ("minute", "<", pd.Timestamp(end))]
        table = pd.read_parquet(self._bars_file, filters=filters)
        return FetchedBars(list(bars_of(table[table["ticker"].isin(tickers)])))

    def fetch_splits(self, tickers: Sequence[str], day: date) -> dict[str, float]:  # noqa: ARG002
        """None: a recording does not tell of splits, only of the jumps that they leave."""
        return {}

    def counts(self, sessions: Sequence[Session], tickers: Sequence[str]) -> dict[date, int]:
        """How many bars of these tickers each of these sessions has.

        Raises:
            BadInput: no market was saved yet.
        """
        self._require()
        table = pd.read_parquet(self._bars_file, columns=["ticker", "minute"]).drop_duplicates()
        minutes = table["minute"][table["ticker"].isin(tickers)]
        return {
            session.day: int(minutes.between(session.opens_at, session.closes_at, "left").sum())
            for session in sessions
        }

    def _require(self) -> None:
        if not self._bars_file.exists():
            raise BadInput("there is no recorded market yet", "run: ops-pipeline demo")

    def fetch_news(
        self,
        start: datetime,
        end: datetime,
        states: Mapping[str, FeedState],  # noqa: ARG002 - a file has no state
        within_seconds: float = inf,  # noqa: ARG002
    ) -> FetchedNews:
        """Entries published in [start, end), oldest first; undated ones have no place here."""
        if not self._news_file.exists():
            return FetchedNews([])
        with self._news_file.open(encoding="utf-8") as file:
            entries = [_entry_of_document(json.loads(line)) for line in file]
        return FetchedNews([e for e in entries if e.published_at and start <= e.published_at < end])


def days_of(table: pd.DataFrame, calendar: Calendar) -> list[date]:
    """The sessions in which a table has bars."""
    sessions, numbers = _sessions_of(table["minute"].drop_duplicates(), calendar)
    return [sessions[number].day for number in sorted(set(numbers[numbers >= 0]))]


def is_regular(table: pd.DataFrame, calendar: Calendar) -> "pd.Series[bool]":
    """Return which bars of a table are of a session's minutes."""
    _, numbers = _sessions_of(table["minute"], calendar)
    return numbers >= 0


def _sessions_of(
    minutes: "pd.Series[Any]", calendar: Calendar
) -> "tuple[list[Session], pd.Series[int]]":
    """Return the sessions that minutes span, and for each minute the number of its own, or -1."""
    days = calendar.day(minutes.min()), calendar.day(minutes.max())
    sessions = calendar.between(*days)
    opens = pd.DatetimeIndex([session.opens_at for session in sessions], tz="UTC")
    closes = pd.DatetimeIndex([session.closes_at for session in sessions], tz="UTC")
    found = pd.Series(opens.searchsorted(minutes, side="right") - 1, index=minutes.index)
    is_over = closes.searchsorted(minutes, side="right") > found
    return sessions, found.mask(is_over, -1)


def bars_of(table: pd.DataFrame) -> Iterator[Bar]:
    """The rows of a table of bars as records."""
    for row in table.itertuples(index=False):
        minute = row.minute.to_pydatetime()  # type: ignore[union-attr]
        # A market that was saved before bars could say when they were known has no such column.
        known: Any = getattr(row, "available_at", None)
        available_at = None if pd.isna(known) else known.to_pydatetime()
        prices = (row.open, row.high, row.low, row.close)
        yield Bar(row.ticker, minute, *prices, int(row.volume), available_at)  # type: ignore[arg-type]


def table_of(bars: Iterable[Bar]) -> pd.DataFrame:
    """Records of bars as a table."""
    columns = list(MARKET_COLUMNS)
    rows = [[getattr(bar, name) for name in columns] for bar in bars]
    table = pd.DataFrame(rows, columns=columns)
    # A column of nothing would otherwise have no type, and no place in the file.
    return table.assign(available_at=pd.to_datetime(table["available_at"], utc=True))


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise BadInput(f"{path} does not exist")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.suffix in (".jsonl", ".ndjson"):
            return pd.DataFrame(list(_objects(path)))
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{path} cannot be read: {str(error).partition(chr(10))[0]}") from error


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(filter(str.strip, file), start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise BadInput(f"{path}, row {number}: no JSON object: {line.strip()[:60]!r}")
            yield row


def _require_columns(path: Path, table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise BadInput(
            f"{path} has no column {', '.join(missing)}", f"it needs {', '.join(columns)}"
        )


def _refuse(
    path: Path, bad: "pd.Series[bool]", what: str, values: "pd.Series[Any]", hint: str = ""
) -> None:
    if bad.any():
        position = int(bad.to_numpy().argmax())
        value = values.iloc[[position]].tolist()[0]
        raise BadInput(f"{path}, row {position + 1}: {what}: {value!r}", hint)


def _times(
    path: Path, column: "pd.Series[Any]", name: str, form: BarFormat | None = None
) -> "pd.Series[Any]":
    times, is_naive = parse_times(column, form.zone if form else None, may_count=form is not None)
    text = column.astype(str)
    hint = "name their zone: --tz America/New_York" if form else ""
    _refuse(path, is_naive, f"{name} has no time zone", text, hint)
    _refuse(path, times.isna(), f"{name} is no time", text)
    return times


def _symbols(column: "pd.Series[Any]", notes: list[str]) -> "pd.Series[Any]":
    """Write each ticker in its one spelling."""
    spellings = {text: canonical_ticker(text) for text in map(str, column.unique())}
    notes += [f"{text} is read as {one}" for text, one in spellings.items() if text != one]
    return column.astype(str).map(spellings)


def _whole_shares(volume: "pd.Series[Any]", notes: list[str]) -> "pd.Series[Any]":
    """Round fractions of a share down: the ratios that features use need no more."""
    if count := int((volume % 1 != 0).sum()):
        notes.append(f"fractional volumes rounded down to whole shares: {count:,}")
    return volume.astype("int64")


def _far_off(table: pd.DataFrame) -> list[str]:
    """Name prices that are hardly true; a print far off is on the tape, so the bar is kept."""
    found = far_off(bars_of(table))
    if not found:
        return []
    first = found[0]
    note = (
        f"bars kept though prices lie {FAR_OFF - 1:.0%} apart or from the bar before:"
        f" {len(found):,}, first {first.ticker} at {first.minute} (low {first.low:g},"
        f" high {first.high:g})"
    )
    return [note]


def _first_of_each(table: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Keep the first row of each ticker and minute."""
    key = ["ticker", "minute"]
    repeats = table.duplicated(key, keep="first")
    same = table.duplicated([*key, *PRICES, "volume"], keep="first")
    if count := int((repeats & same).sum()):
        notes.append(f"rows left out because they repeat a bar: {count:,}")
    if (conflicts := repeats & ~same).any():
        first = table[conflicts].iloc[0]
        notes.append(
            "rows left out because they differ from the first row of their bar:"
            f" {int(conflicts.sum()):,}, first {first['ticker']} at {first['minute']}"
        )
    return table[~repeats]


def _known_times(path: Path, table: pd.DataFrame, form: BarFormat) -> "pd.Series[Any]":
    """When each version was known; no time where the file does not say."""
    known = pd.Series(pd.NaT, index=table.index, dtype="datetime64[us, UTC]")
    if "available_at" not in table:
        return known
    given = table["available_at"]
    is_told = given.notna() & (given.astype(str) != "")
    if is_told.any():
        known[is_told] = _times(path, given[is_told], "available_at", form)
    early = known < table["ts"] + pd.Timedelta(minutes=1)
    _refuse(path, early, "available_at lies before the end of the bar", known)
    return known


def _revisions(path: Path, column: "pd.Series[Any]") -> "pd.Series[Any]":
    numbers = _numbers(path, column)
    _refuse(path, (numbers < 0) | (numbers % 1 != 0), "revision is no count", column)
    return numbers


def _numbers(path: Path, column: "pd.Series[Any]") -> "pd.Series[Any]":
    numbers = pd.to_numeric(column, errors="coerce")
    _refuse(path, numbers.isna(), f"{column.name} is no number", column)
    as_float: pd.Series[Any] = numbers.astype("float64")
    return as_float


def _check_bars(path: Path, table: pd.DataFrame) -> None:
    for name in PRICES:
        usable = (table[name] > 0) & (table[name] <= MAX_PRICE)
        _refuse(path, ~usable, f"{name} is no price", table[name])
    usable = (table["volume"] >= 0) & (table["volume"] < 2**62)
    _refuse(path, ~usable, "volume is no count of shares", table["volume"])
    known = table["ticker"].str.fullmatch(TICKER_PATTERN.pattern)
    _refuse(path, ~known, "ticker is no symbol", table["ticker"])
    high = table["high"] >= table[["open", "close", "low"]].max(axis=1)
    _refuse(path, ~high, "high is below open, close or low", table["high"])
    low = table["low"] <= table[["open", "close"]].min(axis=1)
    _refuse(path, ~low, "low is above open or close", table["low"])
    _refuse(path, table["ts"] != table["ts"].dt.floor("min"), "ts is no minute", table["ts"])


def _news_columns(path: Path, table: pd.DataFrame, note: Callable[[str], None]) -> pd.DataFrame:
    """Return the table with our names for its columns, as NEWS_FIELDS knows them."""
    names = {str(name).strip().lower(): name for name in reversed(list(table.columns))}
    found = {
        field: next((names[name] for name in (field, *others) if name in names), None)
        for field, others in NEWS_FIELDS.items()
    }
    renamed = {name: field for field, name in found.items() if name not in (None, field)}
    if renamed:
        note(f"{path}: read " + ", ".join(f"{name} as {to}" for name, to in renamed.items()))
    table = table[[name for name in found.values() if name is not None]].rename(columns=renamed)
    _require_columns(path, table, NEWS_COLUMNS)
    return table


def _text(row: dict[Any, Any], name: str) -> str:
    """Return a field as text; nothing where it is none, or pandas' or Python's word for none."""
    value = row.get(name)
    if isinstance(value, Mapping):
        value = value.get("name")
    if name == "id" and isinstance(value, int | float) and value == value // 1:
        return f"{value:.0f}"
    return value if isinstance(value, str) and value.strip() not in NOTHING else ""


def _row_tickers(path: Path, number: int, row: dict[Any, Any]) -> tuple[str, ...]:
    try:
        return parse_tickers(row.get("tickers")) or parse_tickers(row.get("ticker"))
    except ValueError as error:
        raise BadInput(
            f"{path}, row {number}: tickers has {error}, which is no symbol", f"it may be {FORMS}"
        ) from None


def _tickers_line(tickers: Iterable[tuple[str, ...]], tracked: Collection[str] | None) -> str:
    counts = Counter(ticker for of_row in tickers for ticker in of_row)
    used = {t for t in counts if is_ticker(t) and (tracked is None or t in tracked)}
    others = [(ticker, count) for ticker, count in counts.most_common() if ticker not in used]
    line = "tickers: " + (_counted([(t, counts[t]) for t in sorted(used)]) or "none")
    return f"{line}; not tracked, and ignored: {_counted(others)}" if others else line


def _counted(counts: Sequence[tuple[str, int]], most: int = 10) -> str:
    more = [f"{len(counts) - most} more"] if len(counts) > most else []
    return ", ".join([f"{ticker} {count}" for ticker, count in counts[:most]] + more)


def _entry(row: dict[Any, Any], tickers: Iterable[str]) -> NewsEntry:
    return NewsEntry(
        feed=_text(row, "source") or "replay",
        # A link is no id: many rows may name one page.
        entry_id=_text(row, "id"),
        title=_text(row, "title"),
        summary=_text(row, "summary"),
        link=_text(row, "link"),
        published_at=row["published_at"].to_pydatetime(warn=False),
        tickers=tuple(filter(is_ticker, tickers)),
    )


def _document(entry: NewsEntry) -> dict[str, Any]:
    published_at = entry.published_at.isoformat() if entry.published_at else None
    return {**entry.__dict__, "published_at": published_at}


def _entry_of_document(document: dict[str, Any]) -> NewsEntry:
    text = document["published_at"]
    published_at = datetime.fromisoformat(text) if text else None
    tickers = tuple(document["tickers"])
    return NewsEntry(**{**document, "published_at": published_at, "tickers": tickers})
