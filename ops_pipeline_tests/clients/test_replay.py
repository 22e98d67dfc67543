import gzip
import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from math import inf, nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ops_pipeline.clients.replay import (
    RecordedMarket,
    bars_of,
    days_of,
    read_bars,
    read_news,
    table_of,
)
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.session import MINUTE, Calendar
from ops_pipeline.domain.values import Bar, NewsEntry
from ops_pipeline_tests.builders import DAY, NOON, OPENS_AT, a_bar, an_entry, at

COLUMNS = ["ticker", "ts", "open", "high", "low", "close", "volume"]
GOOD: dict[str, Any] = {
    "ticker": "AAPL",
    "ts": "2025-02-12T17:00:00Z",
    "open": 200.0,
    "high": 200.5,
    "low": 199.5,
    "close": 200.0,
    "volume": 10_000,
}
OTHER = {**GOOD, "ticker": "MSFT"}
STORY: dict[str, Any] = {"published_at": "2025-02-12T17:00:00Z", "title": "Apple beats"}
GARBAGE = bytes(range(256)) * 8
LATE = datetime(2025, 2, 13, 17, 0, tzinfo=UTC)

Writer = Callable[[Path, list[dict[str, Any]]], Path]


def csv_text(rows: list[dict[str, Any]]) -> str:
    return pd.DataFrame(rows).to_csv(index=False)


def as_csv(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "bars.csv"
    path.write_text(csv_text(rows), encoding="utf-8")
    return path


def as_csv_gz(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "bars.csv.gz"
    path.write_bytes(gzip.compress(csv_text(rows).encode()))
    return path


def as_parquet(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "bars.parquet"
    pd.DataFrame(rows).to_parquet(path, index=False)
    return path


def as_jsonl(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "news.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


each_format = pytest.mark.parametrize("write", [as_csv, as_csv_gz, as_parquet])
each_news_format = pytest.mark.parametrize("write", [as_csv, as_jsonl])


@each_format
def test_read_bars_reads_every_column(write: Writer, tmp_path: Path) -> None:
    assert list(bars_of(read_bars(write(tmp_path, [GOOD])))) == [a_bar()]


def test_read_bars_reads_parquet_times_of_any_zone(tmp_path: Path) -> None:
    at_noon = pd.Timestamp("2025-02-12 12:00", tz="America/New_York")
    path = as_parquet(tmp_path, [{**GOOD, "ts": at_noon}])
    assert list(bars_of(read_bars(path))) == [a_bar()]


@pytest.mark.parametrize(
    "text", ["2025-02-12T12:00:00-05:00", "2025-02-12 17:00:00+00:00", "2025-02-12T17:00Z"]
)
def test_read_bars_reads_csv_times_of_any_zone(text: str, tmp_path: Path) -> None:
    path = as_csv(tmp_path, [{**GOOD, "ts": text}])
    assert list(bars_of(read_bars(path))) == [a_bar()]


@each_format
def test_read_bars_when_a_bar_stands_twice_then_the_first_counts(
    write: Writer, tmp_path: Path
) -> None:
    table = read_bars(write(tmp_path, [GOOD, OTHER, {**GOOD, "close": 200.4}]))
    assert table["ticker"].tolist() == ["AAPL", "MSFT"]
    assert table["close"].tolist() == [200.0, 200.0]


@each_format
def test_read_bars_sorts_by_minute_and_ticker(write: Writer, tmp_path: Path) -> None:
    later = {**GOOD, "ts": "2025-02-12T17:01:00Z"}
    table = read_bars(write(tmp_path, [later, OTHER, GOOD]))
    found = list(zip(table["minute"], table["ticker"], strict=True))
    assert found == [(NOON, "AAPL"), (NOON, "MSFT"), (NOON + MINUTE, "AAPL")]


def test_read_bars_leaves_other_columns_out(tmp_path: Path) -> None:
    table = read_bars(as_csv(tmp_path, [{**GOOD, "vwap": 1}]))
    assert set(table.columns) == (set(COLUMNS) - {"ts"}) | {"minute", "available_at"}


@each_format
def test_read_bars_keeps_the_versions_of_a_bar_in_the_order_of_their_revision(
    tmp_path: Path, write: Writer
) -> None:
    later = {**GOOD, "close": 200.2, "revision": 2}
    between = {**GOOD, "close": 200.1, "revision": 1}
    table = read_bars(write(tmp_path, [later, {**GOOD, "revision": 0}, between]))
    assert list(table["close"]) == [200.0, 200.1, 200.2]


@each_format
def test_read_bars_tells_when_a_version_was_known_where_the_file_does(
    tmp_path: Path, write: Writer
) -> None:
    known = "2025-02-12T17:03:30Z"
    rows = [{**GOOD, "available_at": known}, {**OTHER, "available_at": ""}]
    bars = {bar.ticker: bar for bar in bars_of(read_bars(write(tmp_path, rows)))}
    assert bars["AAPL"].available_at == datetime.fromisoformat(known)
    assert bars["MSFT"].available_at is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"available_at": "2025-02-12T17:00:59Z"}, "available_at lies before the end"),
        ({"available_at": "2025-02-12T17:05:00"}, "available_at has no time zone"),
        ({"available_at": "soon Z"}, "available_at is no time"),
        ({"revision": -1}, "revision is no count"),
        ({"revision": 0.5}, "revision is no count"),
        ({"revision": "x"}, "revision is no number"),
    ],
)
def test_read_bars_refuses_versions_that_cannot_be(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=f"row 1: {message}"):
        read_bars(as_csv(tmp_path, [{**GOOD, **changes}]))


def test_a_saved_market_gives_back_versions_and_when_they_were_known(tmp_path: Path) -> None:
    known = "2025-02-12T17:03:30Z"
    rows = [{**GOOD, "revision": 0}, {**GOOD, "close": 200.1, "revision": 1, "available_at": known}]
    market = RecordedMarket(tmp_path / "market")
    market.save(read_bars(as_csv(tmp_path, rows)), [])
    first, second = market.fetch_bars(["AAPL"], NOON, NOON + MINUTE).bars
    assert (first.close, first.available_at) == (200.0, None)
    assert (second.close, second.available_at) == (200.1, datetime.fromisoformat(known))


BAD_VALUES: list[tuple[str, Any, str]] = [
    *[(name, value, name) for name in ("open", "high", "low", "close") for value in (nan, -1, 0)],
    ("high", inf, "high is no price"),
    ("close", -inf, "close is no price"),
    ("high", 1e8, "high is no price"),
    ("high", 199.0, "high is below"),
    ("low", 200.2, "low is above"),
    ("volume", nan, "volume is no number"),
    ("volume", -0.5, "volume is no count of shares"),
    ("volume", -1, "volume is no count of shares"),
    ("volume", inf, "volume is no count of shares"),
    ("volume", 1e19, "volume is no count of shares"),
    ("ts", "2025-02-12T17:00:00", "ts has no time zone"),
    ("ts", "2025-02-12", "ts has no time zone"),
    ("ts", "2025-02-12T17:00:30Z", "ts is no minute"),
    ("ts", "2025-02-12T17:00:00.5Z", "ts is no minute"),
    ("ts", "2025-02-30T17:00:00Z", "ts is no time"),
    ("ts", "nonsenseZ", "ts is no time"),
    ("ts", "nonsense", "ts has no time zone"),
    ("ts", "", "ts has no time zone"),
    ("ticker", "aapl", "ticker is no symbol"),
    ("ticker", "", "ticker is no symbol"),
    ("ticker", "'; drop table bars; --", "ticker is no symbol"),
    ("ticker", "../../etc/passwd", "ticker is no symbol"),
    ("ticker", "AAPL\n", "ticker is no symbol"),
    ("ticker", "A" * 1_000, "ticker is no symbol"),
    ("ticker", "<script>", "ticker is no symbol"),
]


@pytest.mark.parametrize("write", [as_csv, as_parquet])
@pytest.mark.parametrize(("column", "value", "what"), BAD_VALUES)
def test_read_bars_when_a_value_is_bad_then_names_file_row_and_fault(
    column: str, value: object, what: str, write: Writer, tmp_path: Path
) -> None:
    path = write(tmp_path, [GOOD, {**OTHER, column: value}])
    with pytest.raises(BadInput) as caught:
        read_bars(path)
    assert f"{path}, row 2: " in str(caught.value)
    assert what in str(caught.value)


@pytest.mark.parametrize("column", ["open", "volume"])
def test_read_bars_when_a_number_is_text_then_refuses(column: str, tmp_path: Path) -> None:
    path = as_csv(tmp_path, [GOOD, {**OTHER, column: "many"}])
    with pytest.raises(BadInput, match=rf"row 2: {column} is no number: 'many'"):
        read_bars(path)


def test_read_bars_shows_a_bad_number_as_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"row 1: close is no price: -1\.0$"):
        read_bars(as_csv(tmp_path, [{**GOOD, "close": -1}]))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("ts", pd.to_datetime(["2025-02-12T17:00Z", None])),
        ("ts", pd.to_datetime(["2025-02-12T17:00", "2025-02-12T17:01"])),
        ("ticker", ["AAPL", None]),
        ("ticker", [1, 2]),
        ("close", [200.0, None]),
    ],
    ids=["no time", "naive time", "no ticker", "number as ticker", "no price"],
)
def test_read_bars_when_a_parquet_column_has_a_gap_or_another_type_then_refuses(
    column: str, values: object, tmp_path: Path
) -> None:
    path = tmp_path / "bars.parquet"
    table = pd.DataFrame([{**GOOD, "ts": pd.Timestamp(GOOD["ts"])}, {**OTHER, "ts": NOON}])
    table.assign(**{column: values}).to_parquet(path)
    with pytest.raises(BadInput, match=rf"row [12]: {column} "):
        read_bars(path)


def test_read_bars_when_a_row_is_short_then_refuses(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(csv_text([GOOD]) + "AAPL,2025-02-12T17:01:00Z,1,1\n")
    with pytest.raises(BadInput, match="row 2: low is no number"):
        read_bars(path)


@pytest.mark.parametrize("column", COLUMNS)
@each_format
def test_read_bars_when_a_column_is_missing_then_names_it(
    column: str, write: Writer, tmp_path: Path
) -> None:
    path = write(tmp_path, [{k: v for k, v in GOOD.items() if k != column}])
    with pytest.raises(BadInput) as caught:
        read_bars(path)
    assert str(caught.value) == f"{path} has no column {column}"
    assert "ticker, ts, open" in caught.value.hint


def test_read_bars_when_there_are_no_rows_then_refuses(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(BadInput, match=r"bars\.csv holds no bars"):
        read_bars(path)


@pytest.mark.parametrize("read", [read_bars, read_news])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet", "a.jsonl"])
def test_reading_when_the_file_is_absent_then_says_so(
    read: Callable[[Path], Any], name: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=rf"{name} does not exist"):
        read(tmp_path / name)


def test_reading_when_the_path_is_a_folder_then_refuses(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        read_bars(tmp_path)


@pytest.mark.parametrize("read", [read_bars, read_news])
@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet", "a.jsonl"])
@pytest.mark.parametrize(
    "content", [GARBAGE, b"", b"\x00" * 100, b"\xff\xfe\xfd"], ids=["garbage", "none", "nul", "bom"]
)
def test_reading_when_the_file_is_no_table_then_names_it(
    read: Callable[[Path], Any], name: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.95])
def test_read_bars_when_a_compressed_file_is_cut_off_then_refuses(
    part: float, tmp_path: Path
) -> None:
    path = as_csv_gz(tmp_path, [{**GOOD, "volume": n * 7_919 % 977} for n in range(500)])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(BadInput, match="cannot be read"):
        read_bars(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_read_bars_when_a_compressed_file_is_damaged_then_refuses(
    part: float, tmp_path: Path
) -> None:
    path = as_csv_gz(tmp_path, [{**GOOD, "volume": n * 7_919 % 977} for n in range(500)])
    content = bytearray(path.read_bytes())
    place = int(len(content) * part)
    content[place : place + 8] = b"\xff" * 8
    path.write_bytes(bytes(content))
    with pytest.raises(BadInput, match="cannot be read"):
        read_bars(path)


@each_news_format
def test_read_news_reads_every_field(write: Writer, tmp_path: Path) -> None:
    story = {
        **STORY,
        "id": "7",
        "summary": "Profit rises.",
        "link": "https://news.example/7",
        "source": "wire",
        "tickers": "AAPL,MSFT",
    }
    assert read_news(write(tmp_path, [story])) == [
        NewsEntry(
            feed="wire",
            entry_id="7",
            title="Apple beats",
            summary="Profit rises.",
            link="https://news.example/7",
            published_at=NOON,
            tickers=("AAPL", "MSFT"),
        )
    ]


@each_news_format
def test_read_news_knows_url_and_publisher(write: Writer, tmp_path: Path) -> None:
    story = {**STORY, "url": "https://news.example/7", "publisher": "wire"}
    entry = read_news(write(tmp_path, [story]))[0]
    assert (entry.link, entry.entry_id, entry.feed) == ("https://news.example/7", "", "wire")


@each_news_format
def test_read_news_when_only_time_and_title_are_known_then_the_rest_is_empty(
    write: Writer, tmp_path: Path
) -> None:
    entry = read_news(write(tmp_path, [STORY]))[0]
    assert entry == NewsEntry("replay", "", "Apple beats", "", "", NOON, ())


@pytest.mark.parametrize(
    ("fields", "tickers"),
    [
        ({}, ()),
        ({"tickers": []}, ()),
        ({"tickers": ["AAPL", "MSFT"]}, ("AAPL", "MSFT")),
        ({"tickers": ["AAPL", None, " MSFT "]}, ("AAPL", "MSFT")),
        ({"tickers": "AAPL, MSFT"}, ("AAPL", "MSFT")),
        ({"tickers": "AAPL;MSFT"}, ("AAPL", "MSFT")),
        ({"tickers": ""}, ()),
        ({"tickers": None}, ()),
        ({"tickers": "['AAPL', 'MSFT']"}, ("AAPL", "MSFT")),
        ({"tickers": "aapl|msft"}, ("AAPL", "MSFT")),
        ({"tickers": "NASDAQ:AAPL, ^GSPC"}, ("AAPL",)),
        ({"symbols": ["AAPL"]}, ("AAPL",)),
        ({"ticker": "AAPL"}, ("AAPL",)),
        ({"tickers": None, "ticker": "AAPL"}, ("AAPL",)),
    ],
)
def test_read_news_takes_tickers_as_they_come(
    fields: dict[str, Any], tickers: tuple[str, ...], tmp_path: Path
) -> None:
    assert read_news(as_jsonl(tmp_path, [{**STORY, **fields}]))[0].tickers == tickers


@pytest.mark.parametrize("value", [5, ["AAPL", 5], ["not one"], "AAPL & MSFT", "<AAPL>"], ids=str)
def test_read_news_when_a_ticker_is_none_then_names_row_value_and_forms(
    value: object, tmp_path: Path
) -> None:
    path = as_jsonl(tmp_path, [STORY, {**STORY, "tickers": value}])
    with pytest.raises(BadInput, match=r"row 2: tickers has .* no symbol") as caught:
        read_news(path)
    assert "it may be AAPL, $AAPL, NASDAQ:AAPL" in caught.value.hint


def notes(path: Path, tracked: list[str] | None = None) -> list[str]:
    """What reading a file of news says, without the file's name."""
    said = list[str]()
    read_news(path, said.append, tracked)
    return [line.removeprefix(f"{path}: ") for line in said]


def test_read_news_says_which_tickers_it_took_and_which_it_ignored(tmp_path: Path) -> None:
    rows = [{**STORY, "tickers": t} for t in ("aapl", "AAPL|MSFT", "^GSPC AAPL", "")]
    (line,) = notes(as_csv(tmp_path, rows), ["AAPL"])
    assert line == "4 rows; tickers: AAPL 3; not tracked, and ignored: MSFT 1, ^GSPC 1"


@each_news_format
@pytest.mark.parametrize("title", [None, "", " ", "nan", "None", "null"])
def test_read_news_leaves_out_what_has_no_title_and_says_so(
    write: Writer, title: str | None, tmp_path: Path
) -> None:
    path = write(tmp_path, [STORY, {**STORY, "title": title}, {**STORY, "title": title}])
    assert [entry.title for entry in read_news(path)] == ["Apple beats"]
    assert notes(path)[0] == "left out 2 rows without a title, the first is 2"


def test_read_news_when_no_row_has_a_title_then_refuses(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no row with a title"):
        read_news(as_csv(tmp_path, [{**STORY, "title": ""}]))


@each_news_format
def test_read_news_knows_the_columns_of_other_exports(write: Writer, tmp_path: Path) -> None:
    row = {
        "id": 41,
        "Headline": "Apple beats",
        "created_at": STORY["published_at"],
        "url": "https://news.example/7",
        "symbols": "['AAPL']",
        "source": "benzinga",
    }
    path = write(tmp_path, [row])
    (entry,) = read_news(path)
    assert (entry.title, entry.published_at, entry.tickers) == ("Apple beats", NOON, ("AAPL",))
    assert (entry.entry_id, entry.link) == ("41", "https://news.example/7")
    assert notes(path)[0] == (
        "read created_at as published_at, Headline as title, url as link, symbols as tickers"
    )


def test_read_news_when_rows_have_different_fields_then_takes_each_as_it_is(
    tmp_path: Path,
) -> None:
    rows = [
        {**STORY, "id": "1", "tickers": ["AAPL"]},
        {**STORY, "id": "2", "ticker": "MSFT"},
        {**STORY, "id": "3"},
    ]
    found = [entry.tickers for entry in read_news(as_jsonl(tmp_path, rows))]
    assert found == [("AAPL",), ("MSFT",), ()]


@each_news_format
def test_read_news_sorts_by_publication(write: Writer, tmp_path: Path) -> None:
    rows = [{**STORY, "published_at": f"2025-02-12T{hour}:00:00Z"} for hour in (19, 17, 18)]
    found = [entry.published_at for entry in read_news(write(tmp_path, rows))]
    assert found == [NOON, NOON + timedelta(hours=1), NOON + timedelta(hours=2)]


def test_read_news_cuts_nanoseconds(tmp_path: Path) -> None:
    path = as_jsonl(tmp_path, [{**STORY, "published_at": "2025-02-12T17:00:00.123456789Z"}])
    assert read_news(path)[0].published_at == NOON + timedelta(microseconds=123_456)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("2025-02-12T17:00:00", "published_at has no time zone"),
        ("yesterday", "published_at has no time zone"),
        ("2025-13-12T17:00:00Z", "published_at is no time"),
        (None, "published_at has no time zone"),
        (1_739_379_600, "published_at has no time zone"),
        ({"at": 1}, "published_at has no time zone"),
    ],
    ids=str,
)
def test_read_news_when_the_time_is_bad_then_names_file_and_row(
    value: object, what: str, tmp_path: Path
) -> None:
    path = as_jsonl(tmp_path, [STORY, {**STORY, "published_at": value}])
    with pytest.raises(BadInput) as caught:
        read_news(path)
    assert str(caught.value).startswith(f"{path}, row 2: {what}")


@pytest.mark.parametrize("line", ["[1, 2]", "5", '"text"', "null", "{half", "[" * 3_000])
def test_read_news_when_a_line_is_no_object_then_names_file_and_row(
    line: str, tmp_path: Path
) -> None:
    path = as_jsonl(tmp_path, [STORY])
    path.write_text(path.read_text() + "\n" + line + "\n")
    with pytest.raises(BadInput) as caught:
        read_news(path)
    assert str(caught.value).startswith(f"{path}, row 2: no JSON object")


def test_read_news_when_a_parquet_time_is_missing_then_names_the_row(tmp_path: Path) -> None:
    times = pd.to_datetime(["2025-02-12T17:00Z", None])
    path = tmp_path / "news.parquet"
    pd.DataFrame({"published_at": times, "title": ["a", "b"]}).to_parquet(path)
    with pytest.raises(BadInput, match="row 2: published_at is no time"):
        read_news(path)


@pytest.mark.parametrize("column", ["published_at", "title"])
def test_read_news_when_a_column_is_missing_then_names_it(column: str, tmp_path: Path) -> None:
    path = as_jsonl(tmp_path, [{k: v for k, v in STORY.items() if k != column}])
    with pytest.raises(BadInput, match=f"has no column {column}"):
        read_news(path)


BARS = [
    a_bar(minute=OPENS_AT),
    a_bar(minute=OPENS_AT, ticker="MSFT"),
    a_bar(minute=at(1)),
    a_bar(minute=LATE, ticker="MSFT"),
]
NEWS = [an_entry(published_at=at(number), tickers=("AAPL",)) for number in (0, 1, 2)]


@pytest.fixture
def market(tmp_path: Path) -> RecordedMarket:
    """A saved market of two tickers and two days."""
    made = RecordedMarket(tmp_path / "market")
    made.save(table_of(BARS), NEWS)
    return made


def fetched(market: RecordedMarket) -> tuple[list[Bar], list[NewsEntry]]:
    start, end = OPENS_AT, LATE + MINUTE
    bars = market.fetch_bars(["AAPL", "MSFT"], start, end).bars
    return bars, market.fetch_news(start, end, {}).entries


def test_a_saved_market_comes_back_as_it_was(market: RecordedMarket) -> None:
    assert fetched(market) == (BARS, NEWS)


def test_a_saved_market_gives_plain_utc_times(market: RecordedMarket) -> None:
    bar = market.fetch_bars(["AAPL"], OPENS_AT, at(1)).bars[0]
    assert type(bar.minute) is datetime
    assert bar.minute.utcoffset() == timedelta(0)


def test_fetch_bars_takes_the_start_and_leaves_out_the_end(market: RecordedMarket) -> None:
    found = market.fetch_bars(["AAPL", "MSFT"], OPENS_AT, at(1)).bars
    assert found == BARS[:2]


def test_fetch_bars_gives_the_tickers_asked_for_only(market: RecordedMarket) -> None:
    found = market.fetch_bars(["MSFT", "TSLA"], OPENS_AT, LATE + MINUTE).bars
    assert found == [BARS[1], BARS[3]]


def test_fetch_news_takes_the_start_and_leaves_out_the_end(market: RecordedMarket) -> None:
    assert market.fetch_news(OPENS_AT, at(2), {}).entries == NEWS[:2]


def test_fetch_news_leaves_out_what_has_no_date(tmp_path: Path) -> None:
    market = RecordedMarket(tmp_path)
    market.save(table_of(BARS), [an_entry(published_at=None), *NEWS])
    assert fetched(market)[1] == NEWS


def test_fetch_news_when_there_is_no_file_then_nothing(tmp_path: Path) -> None:
    assert RecordedMarket(tmp_path).fetch_news(OPENS_AT, LATE, {}).entries == []


def test_days_of_bars_are_their_sessions() -> None:
    assert days_of(table_of(BARS), Calendar("XNYS")) == [DAY, DAY + timedelta(days=1)]


def test_days_of_bars_outside_the_session_are_none() -> None:
    outside = [a_bar(minute=at(-1)), a_bar(minute=at(390)), a_bar(minute=LATE)]
    assert days_of(table_of(outside), Calendar("XNYS")) == [DAY + timedelta(days=1)]


@pytest.mark.parametrize(("calendar", "days"), [("XNYS", []), ("24/7", [date(2025, 2, 15)])])
def test_days_of_bars_of_a_weekend_depend_on_the_calendar(calendar: str, days: list[date]) -> None:
    saturday = a_bar(minute=datetime(2025, 2, 15, 17, 0, tzinfo=UTC))
    assert days_of(table_of([saturday]), Calendar(calendar)) == days


def test_save_puts_a_market_in_place_of_the_old_one(market: RecordedMarket) -> None:
    market.save(table_of(BARS[:1]), NEWS[:1])
    assert fetched(market) == (BARS[:1], NEWS[:1])


def test_save_leaves_nothing_but_the_market(market: RecordedMarket) -> None:
    market.save(table_of(BARS), NEWS)
    assert {path.name for path in market.folder.iterdir()} == {"bars.parquet", "news.jsonl"}


def test_save_when_it_fails_then_the_old_market_stays(market: RecordedMarket) -> None:
    def failing() -> Iterator[NewsEntry]:
        yield an_entry()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        market.save(table_of(BARS[:1]), failing())
    assert fetched(market) == (BARS, NEWS)


def test_save_keeps_unicode(tmp_path: Path) -> None:
    market = RecordedMarket(tmp_path)
    story = an_entry(title="\u5b8f\u89c2 \U0001f30d", published_at=OPENS_AT)
    market.save(table_of(BARS), [story])
    assert fetched(market)[1] == [story]


@pytest.mark.slow
@pytest.mark.recorded
def test_the_recorded_month_of_bars_is_read_whole(recorded: Path) -> None:
    table = read_bars(recorded / "bars_us7_2025_02" / "bars_1m.csv.gz")
    assert len(table) == 97_620
    assert table["ticker"].nunique() == 7


@pytest.mark.slow
@pytest.mark.recorded
def test_the_recorded_headlines_are_read_whole(recorded: Path) -> None:
    entries = read_news(recorded / "news_yahoo_2026_03" / "headlines.jsonl")
    assert len(entries) == 120
    assert all(entry.title and entry.tickers and entry.published_at for entry in entries)


def test_fetch_when_no_market_was_saved_then_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no recorded market yet"):
        RecordedMarket(tmp_path / "absent").fetch_bars(["AAPL"], NOON, NOON)
