"""Recorded feeds are kept once: a second telling adds no row, in any table."""

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Connection

from ops_pipeline.clients.guard import Refused
from ops_pipeline.clients.replay import read_news
from ops_pipeline.clients.rss import parse_feed
from ops_pipeline.domain.linking import TickerLinker
from ops_pipeline.domain.news import clean, news_id
from ops_pipeline.domain.stories import KnownEntry
from ops_pipeline.domain.values import Feed, NewsEntry
from ops_pipeline.storage.news import insert_entries, link_tickers
from ops_pipeline_tests.conftest import RECORDED
from ops_pipeline_tests.storage.rows import rows

FOLDERS = ("feeds_feedparser_wellformed_rss", "feeds_cnbc_2019", "feeds_edgar_atom")
CASES = RECORDED / "public_cases"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
pytestmark = pytest.mark.skipif(
    not all((RECORDED / folder).exists() for folder in FOLDERS),
    reason="no recorded feeds in ../shared/data",
)


def told(path: Path) -> list[NewsEntry]:
    feed = Feed(path.stem, f"https://feeds.example/{path.name}")
    response = httpx.Response(200, request=httpx.Request("GET", feed.url))
    try:
        entries = parse_feed(feed, path.read_bytes(), response, NOW, float("inf"))
    except Refused:
        return []
    return [clean(entry) for entry in entries]


def documents(folder: str) -> list[Path]:
    found = (RECORDED / folder).rglob("*")
    return sorted(path for path in found if path.suffix in (".xml", ".atom"))


@pytest.mark.parametrize(("folder", "count"), [*zip(FOLDERS, (128, 2, 4), strict=True)])
def test_every_recorded_feed_is_kept_once(connection: Connection, folder: str, count: int) -> None:
    paths = documents(folder)
    assert len(paths) == count
    entries = [entry for path in paths for entry in told(path)]
    known = [KnownEntry(entry, NOW) for entry in entries]
    added = insert_entries(connection, known, origin="live")
    assert added == len({news_id(entry) for entry in entries}) > 0
    tables = ("news_items", "news_provenance")
    before = [rows(connection, f"select count(*) from {table}") for table in tables]
    assert insert_entries(connection, known, origin="live") == 0
    assert [rows(connection, f"select count(*) from {table}") for table in tables] == before


def test_400_filings_with_238_ids_are_399_items(connection: Connection) -> None:
    entries = [entry for path in documents("feeds_edgar_atom") for entry in told(path)]
    assert len({entry.entry_id for entry in entries}) == 238
    known = [KnownEntry(entry, NOW) for entry in entries]
    assert insert_entries(connection, known, origin="live") == 399


def recorded_news(path: Path) -> list[KnownEntry]:
    entries = [clean(entry) for entry in read_news(path)]
    return [KnownEntry(e, e.published_at) for e in entries if e.published_at]


@pytest.mark.parametrize("name", ["once", "twenty"])
def test_a_story_told_twenty_times_is_the_same_row_as_told_once(
    connection: Connection, name: str
) -> None:
    told_often = recorded_news(CASES / "24-story-told-often" / f"{name}.jsonl")
    assert len(told_often) == {"once": 1, "twenty": 20}[name]
    assert insert_entries(connection, told_often, origin="recorded") == 1
    assert rows(connection, "select link from news_items") == [
        ("https://news.example/apple-profit?rnd=0",)
    ]


def test_every_row_of_a_file_is_linked_to_the_tickers_that_it_names(connection: Connection) -> None:
    known = recorded_news(CASES / "12-news-files" / "list_repr.csv")
    assert insert_entries(connection, known, origin="recorded") == 9
    link_tickers(connection, TickerLinker([]))
    counts = "select ticker, count(*) from news_tickers group by ticker order by ticker"
    assert rows(connection, counts) == [("AAPL", 8), ("BRK.B", 1), ("MSFT", 4)]


def test_a_headline_that_a_file_repeats_for_other_tickers_is_linked_to_all(
    connection: Connection,
) -> None:
    known = recorded_news(RECORDED / "news_yahoo_2026_03" / "headlines.jsonl")
    assert len(known) == 120
    assert insert_entries(connection, known, origin="recorded") == 73
    link_tickers(connection, TickerLinker([]))
    assert rows(connection, "select count(*) from news_tickers") == [(102,)]
