"""What vendors export is recognized, and what could mean two things is refused."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ops_pipeline.clients.bar_formats import BarFormat
from ops_pipeline.clients.replay import BarFile, bars_of, days_of, is_regular, load_bars
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.session import MINUTE, Calendar
from ops_pipeline.domain.values import Bar

AT = datetime(2025, 2, 4, 14, 30, tzinfo=UTC)
SECONDS = int(AT.timestamp())
HEADER = "ticker,ts,open,high,low,close,volume"
AAPL = Bar("AAPL", AT, 104.0, 104.03, 103.82, 103.85, 1133)
MSFT = Bar("MSFT", AT, 412.5, 412.9, 412.25, 412.75, 900)
NEW_YORK = "America/New_York"


def written(folder: Path, text: str, name: str = "bars.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def loaded(path: Path, columns: str | None = None, zone: str | None = None) -> BarFile:
    return load_bars(path, BarFormat.parse(columns, zone))


def of_times(folder: Path, *times: object, zone: str | None = None) -> list[datetime]:
    """The minutes that a file with these times has."""
    rows = [f"AAPL,{at},104.0,104.03,103.82,103.85,{1133 + n}" for n, at in enumerate(times)]
    found = loaded(written(folder, "\n".join([HEADER, *rows])), zone=zone)
    return [bar.minute for bar in bars_of(found.bars)]


@pytest.mark.parametrize(
    "text",
    [
        "2025-02-04 14:30:00+00",
        "2025-02-04 09:30:00-05",
        "2025-02-04 20:00:00+05:30",
        "2025-02-04 14:30:00 UTC",
        "2025-02-04 14:30:00 +00:00",
        "2025-02-04 14:30:00.000000+00",
        "2025-02-04T14:30:00.000000000Z",
        '"2025-02-04T14:30:00,000Z"',
        "2025-02-04t14:30:00z",
        "2025-02-04T14:30Z",
        "2025-02-04T14:30:00+0000",
        "20250204T143000Z",
        "20250204T093000-0500",
        " 2025-02-04T14:30:00Z ",
        SECONDS,
        f"{SECONDS}.0",
        SECONDS * 10**3,
        SECONDS * 10**6,
        SECONDS * 10**9,
    ],
)
def test_times_that_can_mean_one_instant_are_read(tmp_path: Path, text: object) -> None:
    assert of_times(tmp_path, text) == [AT]


def test_times_of_several_forms_may_stand_in_one_file(tmp_path: Path) -> None:
    after = "2025-02-04 14:31:00+00"
    assert of_times(tmp_path, SECONDS, after, zone=NEW_YORK) == [AT, AT + MINUTE]


@pytest.mark.parametrize("text", ["2025-02-04 09:30:00", "2025-02-04T09:30", "20250204T093000"])
def test_times_without_a_zone_are_those_of_the_zone_that_is_named(
    tmp_path: Path, text: str
) -> None:
    assert of_times(tmp_path, text, zone=NEW_YORK) == [AT]
    with pytest.raises(BadInput, match="row 1: ts has no time zone") as refused:
        of_times(tmp_path, text)
    assert refused.value.hint == "name their zone: --tz America/New_York"


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        # Of the hour that the clocks show twice, and of the one that they leave out.
        ("2025-11-02 01:30:00", NEW_YORK),
        ("2025-03-09 02:30:00", NEW_YORK),
        ("02/04/2025 09:30", NEW_YORK),
        ("1.7386794e+18", NEW_YORK),
        ("20250204143000", NEW_YORK),
        ("2025-02-04 09:30:00 EST", NEW_YORK),
    ],
)
def test_times_that_can_mean_two_instants_are_refused(tmp_path: Path, text: str, zone: str) -> None:
    with pytest.raises(BadInput, match="row 1: ts is no time"):
        of_times(tmp_path, text, zone=zone)


def test_naive_times_of_parquet_need_a_zone(tmp_path: Path) -> None:
    naive = pd.Timestamp("2025-02-04 09:30")
    values = ["AAPL", naive, 104.0, 104.03, 103.82, 103.85, 1133]
    row = dict(zip(HEADER.split(","), values, strict=True))
    pd.DataFrame([row]).to_parquet(tmp_path / "bars.parquet", index=False)
    with pytest.raises(BadInput, match="ts has no time zone"):
        loaded(tmp_path / "bars.parquet")
    assert list(bars_of(loaded(tmp_path / "bars.parquet", zone=NEW_YORK).bars)) == [AAPL]


# Vendors.

YFINANCE = """Price,Close,Close,High,High,Low,Low,Open,Open,Volume,Volume
Ticker,AAPL,MSFT,AAPL,MSFT,AAPL,MSFT,AAPL,MSFT,AAPL,MSFT
Datetime,,,,,,,,,,
2025-02-04 14:30:00+00:00,103.85,412.75,104.03,412.9,103.82,412.25,104.0,412.5,1133,900
2025-02-04 14:31:00+00:00,103.9,,104.03,,103.82,,104.0,,1200,
"""
YFINANCE_BY_TICKER = """Ticker,AAPL,AAPL,AAPL,AAPL,AAPL,MSFT,MSFT,MSFT,MSFT,MSFT
Price,Open,High,Low,Close,Volume,Open,High,Low,Close,Volume
Datetime,,,,,,,,,,
2025-02-04 09:30:00-05:00,104.0,104.03,103.82,103.85,1133,412.5,412.9,412.25,412.75,900
"""
ALPACA = """symbol,timestamp,open,high,low,close,volume,trade_count,vwap
AAPL,2025-02-04 14:30:00+00:00,104.0,104.03,103.82,103.85,1133.0,21.0,103.9
MSFT,2025-02-04 14:30:00+00:00,412.5,412.9,412.25,412.75,900.0,9.0,412.6
"""
MASSIVE = f"""ticker,volume,open,close,high,low,window_start,transactions
AAPL,1133,104.0,103.85,104.03,103.82,{SECONDS}000000000,21
MSFT,900,412.5,412.75,412.9,412.25,{SECONDS}000000000,9
"""
DATABENTO = f"""ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol
{SECONDS}000000000,33,2,38,104000000000,104030000000,103820000000,103850000000,1133,AAPL
{SECONDS}000000000,33,2,39,412500000000,412900000000,412250000000,412750000000,900,MSFT
"""
DATABENTO_PRETTY = """ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol
2025-02-04T14:30:00.000000000Z,33,2,38,104.000000000,104.03,103.82,103.850000000,1133,AAPL
2025-02-04T14:30:00.000000000Z,33,2,39,412.500000000,412.9,412.25,412.750000000,900,MSFT
"""
EXPORTS: Mapping[str, tuple[str, str]] = {
    "yfinance": (
        YFINANCE.replace("2025-02-04 14:31:00+00:00,103.9,,104.03,,103.82,,104.0,,1200,\n", ""),
        "yfinance: Ticker=ticker, Datetime=ts, Open=open",
    ),
    "yfinance by ticker": (YFINANCE_BY_TICKER, "yfinance: Ticker=ticker, Datetime=ts"),
    "Alpaca": (ALPACA, "Alpaca: symbol=ticker, timestamp=ts"),
    "Massive": (MASSIVE, "Massive (Polygon): window_start=ts"),
    "databento": (DATABENTO, "databento: symbol=ticker, ts_event=ts"),
    "databento, pretty": (DATABENTO_PRETTY, "databento: symbol=ticker, ts_event=ts"),
}


@pytest.mark.parametrize(("text", "said"), EXPORTS.values(), ids=list(EXPORTS))
def test_exports_of_vendors_are_recognized(tmp_path: Path, text: str, said: str) -> None:
    found = loaded(written(tmp_path, text))
    assert list(bars_of(found.bars)) == [AAPL, MSFT]
    assert found.notes[0].startswith(f"columns read as of {said}")


def test_ticker_without_a_trade_in_a_minute_of_another_has_no_bar_there(tmp_path: Path) -> None:
    bars = loaded(written(tmp_path, YFINANCE)).bars
    assert list(bars["ticker"]) == ["AAPL", "MSFT", "AAPL"]


def test_frames_that_vendors_saved_as_parquet_are_recognized(tmp_path: Path) -> None:
    times = pd.DatetimeIndex([AT], name="Datetime")
    upper = ["Close", "High", "Low", "Open", "Volume"]
    columns = pd.MultiIndex.from_product([upper, ["AAPL"]], names=["Price", "Ticker"])
    values = [[103.85, 104.03, 103.82, 104.0, 1133]]
    pd.DataFrame(values, index=times, columns=columns).to_parquet(tmp_path / "yfinance.parquet")
    index = pd.MultiIndex.from_tuples([("AAPL", AT)], names=["symbol", "timestamp"])
    alpaca = pd.DataFrame(values, index=index, columns=[name.lower() for name in upper])
    alpaca.to_parquet(tmp_path / "alpaca.parquet")
    for name in ("yfinance", "alpaca"):
        assert list(bars_of(loaded(tmp_path / f"{name}.parquet").bars)) == [AAPL]


def test_fields_of_alpaca_with_the_one_ticker_that_is_named(tmp_path: Path) -> None:
    text = "t,o,h,l,c,v,n,vw\n2025-02-04T14:30:00Z,104,104.03,103.82,103.85,1133,21,103.9\n"
    path = written(tmp_path, text)
    found = load_bars(path, BarFormat(ticker="AAPL"))
    assert list(bars_of(found.bars)) == [AAPL]
    with pytest.raises(BadInput, match="has no column ticker") as refused:
        load_bars(path)
    assert "--tickers" in refused.value.hint


def test_columns_of_any_name_are_mapped(tmp_path: Path) -> None:
    text = (
        "Kurzel,Zeit,Auf,Hoch,Tief,Zu,Stueck\nAAPL,2025-02-04 09:30,104,104.03,103.82,103.85,1133"
    )
    names = "Kurzel=ticker,Zeit=ts,Auf=open,Hoch=high,Tief=low,Zu=close,Stueck=volume"
    found = loaded(written(tmp_path, text), names, NEW_YORK)
    assert list(bars_of(found.bars)) == [AAPL]


def test_two_columns_that_could_be_the_time_are_refused_with_the_choice(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "ticker,timestamp,window_start,open,high,low,close,volume\n"
        f"AAPL,2025-02-04 14:30Z,{SECONDS}000000000,104.0,104.03,103.82,103.85,1133\n",
    )
    with pytest.raises(BadInput, match="timestamp and window_start could each be ts") as refused:
        loaded(path)
    assert refused.value.hint == "choose one: --map timestamp=ts"
    assert list(bars_of(loaded(path, "window_start=ts").bars)) == [AAPL]


def test_our_own_name_counts_before_a_vendors(tmp_path: Path) -> None:
    text = f"{HEADER},date\nAAPL,2025-02-04 14:30Z,104.0,104.03,103.82,103.85,1133,2025-02-04\n"
    found = loaded(written(tmp_path, text))
    assert (list(bars_of(found.bars)), found.notes) == ([AAPL], [])


@pytest.mark.parametrize(
    ("columns", "zone", "message"),
    [
        ("Zeit", None, "--map must be COLUMN=NAME"),
        ("Zeit=when", None, "--map must be COLUMN=NAME"),
        ("=ts", None, "--map must be COLUMN=NAME"),
        ("a=ts,b=ts", None, "--map names one column twice"),
        ("Zeit=ts", None, "has no column Zeit; it has ticker, ts"),
        (None, "Mars", "--tz 'Mars' is no time zone"),
        (None, "../etc/passwd", "is no time zone"),
    ],
)
def test_map_and_tz_that_cannot_be_are_refused(
    tmp_path: Path, columns: str | None, zone: str | None, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        loaded(written(tmp_path, f"{HEADER}\n"), columns, zone)


@pytest.mark.parametrize("rtype", [32, 34, 35])
def test_records_of_databento_that_are_no_minutes_are_refused(tmp_path: Path, rtype: int) -> None:
    path = written(tmp_path, DATABENTO.replace(",33,", f",{rtype},"))
    with pytest.raises(BadInput, match=f"rtype {rtype}; one-minute bars are 33"):
        loaded(path)


def test_venues_of_databento_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="bars of several venues"):
        loaded(written(tmp_path, DATABENTO.replace(",33,2,39,", ",33,39,39,")))


def test_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    row = "AAPL,2025-02-04 14:30Z,104.0,104.03,103.82,103.85,1133,99"
    with pytest.raises(BadInput, match="has the column close twice"):
        loaded(written(tmp_path, f"{HEADER},close\n{row}\n"))


def test_price_that_databento_leaves_undefined_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, DATABENTO.replace("104030000000", str(2**63 - 1)))
    with pytest.raises(BadInput, match="row 1: high is no price"):
        loaded(path)


# What is changed, and what is left out.


def notes_of(folder: Path, *rows: Any) -> list[str]:
    text = "\n".join([HEADER, *(",".join(map(str, row)) for row in rows)])
    return loaded(written(folder, text)).notes


def a_row(
    ticker: str = "AAPL", close: float = 103.85, high: float = 104.03, volume: Any = 1133
) -> Any:
    return ticker, "2025-02-04T14:30Z", 104.0, high, 103.82, close, volume


def test_fractions_of_shares_are_rounded_down_and_said_once(tmp_path: Path) -> None:
    rows = [a_row(volume=1000.5), a_row("MSFT", volume="0.999"), a_row("NVDA")]
    text = "\n".join([HEADER, *(",".join(map(str, row)) for row in rows)])
    found = loaded(written(tmp_path, text))
    assert list(found.bars["volume"]) == [1000, 0, 1133]
    assert found.notes == ["fractional volumes rounded down to whole shares: 2"]


def test_rows_that_repeat_a_bar_are_counted_by_whether_they_differ(tmp_path: Path) -> None:
    assert notes_of(tmp_path, a_row(), a_row(), a_row(), a_row(close=103.9)) == [
        "rows left out because they repeat a bar: 2",
        (
            "rows left out because they differ from the first row of their bar: 1, first AAPL at"
            " 2025-02-04 14:30:00+00:00"
        ),
    ]


def test_one_class_of_shares_is_one_ticker(tmp_path: Path) -> None:
    assert notes_of(tmp_path, a_row("BRK.B"), a_row("BRK-B"), a_row("BRK/B")) == [
        "BRK-B is read as BRK.B",
        "BRK/B is read as BRK.B",
        "rows left out because they repeat a bar: 2",
    ]


def test_price_that_is_far_off_is_kept_and_named(tmp_path: Path) -> None:
    assert notes_of(tmp_path, a_row("MSFT"), a_row(high=198.47)) == [
        (
            "bars kept though prices lie 20% apart or from the bar before: 1, first AAPL at"
            " 2025-02-04 14:30:00+00:00 (low 103.82, high 198.47)"
        )
    ]


def test_bars_of_session_minutes_are_told_from_others(xnys: Calendar) -> None:
    """A half day, its evening, a Saturday, and a day that begins before its open."""
    times = [
        "2025-11-28 14:29Z",
        "2025-11-28 14:30Z",
        "2025-11-28 17:59Z",
        "2025-11-28 18:00Z",
        "2025-11-29 15:00Z",
        "2025-12-01 14:30Z",
    ]
    table = pd.DataFrame({"minute": pd.to_datetime(pd.Series(times), utc=True)})
    assert list(is_regular(table, xnys)) == [False, True, True, False, False, True]
    assert days_of(table, xnys) == [date(2025, 11, 28), date(2025, 12, 1)]
