"""Recognize the columns and times of bar files, as vendors export them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pandas as pd

from ops_pipeline.domain.errors import BadInput

PRICES = ("open", "high", "low", "close")
BAR_COLUMNS = ("ticker", "ts", *PRICES, "volume")
OPTIONAL = ("available_at", "revision")
# What vendors call our columns. Names of one letter count only as they stand here.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "ticker": ("ticker", "symbol", "S"),
    "ts": ("ts", "timestamp", "t", "datetime", "date", "time", "window_start", "ts_event"),
    "open": ("open", "o"),
    "high": ("high", "h"),
    "low": ("low", "l"),
    "close": ("close", "c"),
    "volume": ("volume", "v"),
}
# The first of these whose columns are all there names the vendor.
VENDORS: Sequence[tuple[str, frozenset[str]]] = (
    ("Massive (Polygon)", frozenset({"window_start"})),
    ("databento", frozenset({"ts_event"})),
    ("Alpaca", frozenset({"symbol", "timestamp"})),
    ("Alpaca", frozenset("tohlcv")),
    ("yfinance", frozenset({"Datetime", "Close"})),
)
# databento's record type of one-minute bars, and the unit of its fixed-point prices.
ONE_MINUTE_RECORD, FIXED_POINT_USD = 33, 1e-9
# From here on a whole number is a fixed-point price: 0.001 USD.
LEAST_FIXED_POINT = 1_000_000
EPOCH_UNITS: Mapping[int, Literal["s", "ms", "us", "ns"]] = {10: "s", 13: "ms", 16: "us", 19: "ns"}
_EPOCH = r"([1-9]\d{9}|[1-9]\d{12}|[1-9]\d{15}|[1-8]\d{18})(?:\.0+)?"
_OFFSET = r"Z$|[T :]\d{2,6}(?:\.\d+)?\s*[+-]\d{2}(?::?\d{2})?$"


@dataclass(frozen=True)
class BarFormat:
    """What the user says of a bar file: its columns, the zone of naive times, its one ticker."""

    columns: Mapping[str, str] = field(default_factory=dict)
    zone: ZoneInfo | None = None
    ticker: str | None = None

    @classmethod
    def parse(cls, columns: str | None, zone: str | None) -> "BarFormat":
        """Return the format that `--map` and `--tz` describe.

        Raises:
            BadInput: a pair is none, names no column of ours, or the zone is unknown.
        """
        pairs = [pair.strip() for pair in (columns or "").split(",") if pair.strip()]
        named = dict(_pair(pair) for pair in pairs)
        if len(set(named.values())) < len(named):
            raise BadInput(f"--map names one column twice: {columns}")
        return cls(named, _zone(zone) if zone else None)


def recognize(where: str, table: pd.DataFrame, form: BarFormat) -> tuple[pd.DataFrame, list[str]]:
    """Give the columns of a bar file our names.

    Returns:
        The table with the columns that we read, and a line that says what was recognized.

    Raises:
        BadInput: a column is missing, or two could be the same; the message names them.
    """
    table = _long(table)
    names = {name: _column(where, table, name, form) for name in (*BAR_COLUMNS, *OPTIONAL)}
    found = {column: name for name, column in names.items() if column is not None}
    # A csv reader numbers columns that stand twice.
    if twice := [column for column in found if f"{column}.1" in table.columns]:
        raise BadInput(f"{where} has the column {twice[0]} twice")
    vendor = next((vendor for vendor, has in VENDORS if has <= set(table.columns)), None)
    renamed = [f"{column}={name}" for column, name in found.items() if column != name]
    said = [f"columns read{f' as of {vendor}' if vendor else ''}: {', '.join(renamed)}"]
    known = table[list(found)].rename(columns=found)
    if names["ticker"] is None and form.ticker:
        known["ticker"] = form.ticker
    if missing := [name for name in BAR_COLUMNS if name not in known.columns]:
        raise BadInput(f"{where} has no column {', '.join(missing)}", _remedy(missing))
    if names["ts"] == "ts_event":
        known, more = _from_databento(where, table, known)
        said += more
    return known, said if renamed else said[1:]


def parse_times(
    column: "pd.Series[Any]", zone: ZoneInfo | None, *, may_count: bool
) -> "tuple[pd.Series[Any], pd.Series[bool]]":
    """Read times in any form that can mean only one instant.

    These are ISO 8601, RFC 3339, PostgreSQL's and pandas' texts with an offset or a Z; where it
    may count, whole seconds, milli-, micro- and nanoseconds since 1970; and, where there is a zone,
    other texts as its local times.

    Returns:
        The times in UTC, none where the text is no time; and which texts lack a zone.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert("UTC"), column.isna() & False
    text = column.astype(str).str.strip().str.upper()
    epoch = text.str.extract(f"^{_EPOCH}$", expand=False)
    if not may_count:
        epoch = epoch.mask(epoch.notna())
    text = text.str.replace(r"\s*(?:UTC|GMT)$", "Z", regex=True)
    text = text.str.replace(r"(\d),(\d+)", r"\1.\2", regex=True)
    is_aware = text.str.contains(_OFFSET, regex=True) & epoch.isna()
    is_naive = ~is_aware & epoch.isna()
    times = pd.Series(pd.NaT, index=column.index, dtype="datetime64[us, UTC]")
    times[is_aware] = _from_iso(text[is_aware])
    for digits, unit in EPOCH_UNITS.items():
        counted = epoch[epoch.str.len() == digits].astype("int64")
        times[counted.index] = pd.to_datetime(counted, unit=unit, utc=True).dt.as_unit("us")
    if zone is not None:
        local = pd.to_datetime(text[is_naive], errors="coerce", format="ISO8601")
        local = local.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
        times[is_naive] = local.dt.tz_convert("UTC").dt.as_unit("us")
        is_naive &= False
    return times, is_naive


def _from_iso(text: "pd.Series[Any]") -> "pd.Series[Any]":
    times = pd.to_datetime(text, utc=True, errors="coerce", format="ISO8601")
    return times.dt.as_unit("us")


def _pair(text: str) -> tuple[str, str]:
    column, equals, name = (part.strip() for part in text.rpartition("="))
    if not equals or not column or name not in (*BAR_COLUMNS, *OPTIONAL):
        raise BadInput(
            f"--map must be COLUMN=NAME,..., not {text!r}",
            f"NAME is one of {', '.join((*BAR_COLUMNS, *OPTIONAL))}",
        )
    return column, name


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise BadInput(f"--tz {name!r} is no time zone", "try: --tz America/New_York") from None


def _column(where: str, table: pd.DataFrame, name: str, form: BarFormat) -> str | None:
    """Find the column that the user, or else its own name, or else a vendor's name says."""
    columns = list(table.columns)
    if chosen := [column for column, ours in form.columns.items() if ours == name]:
        if chosen[0] not in columns:
            raise BadInput(f"{where} has no column {chosen[0]}; it has {', '.join(columns)}")
        return chosen[0]
    free = [column for column in columns if column not in form.columns]
    if name in free:
        return name
    aliases = ALIASES.get(name, ())
    words = [alias for alias in aliases if len(alias) > 1]
    candidates = [c for c in free if c in aliases or c.strip().casefold() in words]
    if len(candidates) > 1:
        raise BadInput(
            f"{where}: {' and '.join(candidates)} could each be {name}",
            f"choose one: --map {candidates[0]}={name}",
        )
    return candidates[0] if candidates else None


def _remedy(missing: Sequence[str]) -> str:
    one = "; of one ticker, name it with --tickers" if missing == ["ticker"] else ""
    needed = ", ".join(BAR_COLUMNS)
    return f"it needs {needed}: name other columns with --map COLUMN=NAME,...{one}"


def _from_databento(
    where: str, table: pd.DataFrame, known: pd.DataFrame
) -> tuple[pd.DataFrame, list[str]]:
    """Refuse records that are no one-minute bars, and read fixed-point prices."""
    if "rtype" in table.columns:
        kinds = sorted(set(table["rtype"].astype(str)) - {str(ONE_MINUTE_RECORD)})
        if kinds:
            raise BadInput(
                f"{where} has records of rtype {', '.join(kinds)}; one-minute bars are"
                f" {ONE_MINUTE_RECORD}",
                "export schema ohlcv-1m",
            )
    if "publisher_id" in table.columns and table["publisher_id"].nunique() > 1:
        raise BadInput(
            f"{where} has bars of several venues (publisher_id), which are no whole market",
            "export one publisher, or a consolidated dataset such as EQUS.MINI",
        )
    prices = known[list(PRICES)].astype(str)
    if not prices.apply(lambda column: column.str.fullmatch(r"\d+")).all(axis=None):
        return known, []
    numbers = prices.astype("float64")
    if (numbers < LEAST_FIXED_POINT).any(axis=None):
        return known, []
    scaled = (numbers * FIXED_POINT_USD).round(9)
    return known.assign(**{name: scaled[name] for name in PRICES}), [
        "prices are fixed-point, in 1e-9 USD"
    ]


def _long(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each ticker and minute, where yfinance has a column for each ticker."""
    if isinstance(table.columns, pd.MultiIndex):
        upper, lower = (list(table.columns.get_level_values(n)) for n in (0, 1))
        return _stacked(upper, lower, pd.Series(table.index), table.reset_index(drop=True))
    columns = [str(column) for column in table.columns]
    if len(table) and columns[0] in ("Price", "Ticker") and len(columns) > 1:
        first = str(table.iloc[0, 0])
        if {first, columns[0]} == {"Price", "Ticker"}:
            # A csv reader numbers names that stand twice: Close, Close.1.
            upper = [re.sub(r"\.\d+$", "", column) for column in columns[1:]]
            body = table.iloc[2:].reset_index(drop=True)
            lower = [str(cell) for cell in table.iloc[0, 1:]]
            return _stacked(upper, lower, body.iloc[:, 0], body.iloc[:, 1:])
    if any(table.index.names):
        table = table.reset_index()
    return table.set_axis([str(column) for column in table.columns], axis=1)


def _stacked(
    upper: list[str], lower: list[str], times: "pd.Series[Any]", body: pd.DataFrame
) -> pd.DataFrame:
    fields, tickers = (upper, lower) if "Close" in upper else (lower, upper)
    parts = []
    for ticker in dict.fromkeys(tickers):
        own = [number for number, each in enumerate(tickers) if each == ticker]
        part = body.iloc[:, own].set_axis([fields[number] for number in own], axis=1)
        traded = part.notna().all(axis=1) & (part.astype(str) != "").all(axis=1)
        # Where one ticker did not trade in a minute of another, its cells are empty.
        parts.append(part.assign(Ticker=ticker, Datetime=times)[traded])
    return pd.concat(parts, ignore_index=True)
