from collections.abc import Iterator
from datetime import timedelta
from xml.etree import ElementTree as ET

import feedparser
import pytest

from ops_pipeline.domain.values import NewsEntry
from ops_pipeline.sandbox.feeds import MAX_ENTRIES, document
from ops_pipeline.sandbox.live import RestampedMarket, UnfoldingMarket
from ops_pipeline_tests.builders import a_bar, an_entry
from ops_pipeline_tests.sandbox.served import served
from ops_pipeline_tests.sandbox.worlds import MINUTE, NOW, WEB, Clock, a_world


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(a_world()) as address:
        yield address


def shown(url: str, name: str) -> list[tuple[str, str, str, str]]:
    found = feedparser.parse(WEB.get(f"{url}/feeds/{name}.rss").content, sanitize_html=False)
    assert not found.bozo
    return [(e.id, e.title, e.link, e.summary) for e in found.entries]


def told(entries: list[NewsEntry]) -> list[tuple[str, str, str, str]]:
    newest_first = entries[::-1][:MAX_ENTRIES]
    return [(e.entry_id, e.title, e.link, e.summary) for e in newest_first]


def test_the_general_feed_carries_the_newest_entries_that_are_out(url: str) -> None:
    entries = [e for e in UnfoldingMarket(Clock()).news() if e.feed == "generated/markets"]
    assert len(entries) > MAX_ENTRIES
    assert shown(url, "markets") == told(entries)


def test_a_ticker_has_a_feed_of_its_own(url: str) -> None:
    entries = [e for e in UnfoldingMarket(Clock()).news() if e.feed == "generated/AAPL"]
    assert entries
    assert shown(url, "AAPL") == told(entries)


def test_markup_in_a_description_survives(url: str) -> None:
    entries = [entry for name in ("markets", "AAPL", "TSLA") for entry in shown(url, name)]
    assert any("<p>" in summary and "&nbsp;" in summary for *_, summary in entries)
    assert any("&" in summary and "<p>" not in summary for *_, summary in entries)


def test_times_are_told_and_an_entry_without_one_has_none(url: str) -> None:
    found = feedparser.parse(WEB.get(f"{url}/feeds/markets.rss").content)
    dated = [entry for entry in found.entries if "published_parsed" in entry]
    assert dated[0].published.endswith(" GMT")
    news = UnfoldingMarket(Clock()).news()
    undated = [e for e in news if e.published_at is None]
    assert undated
    assert (
        b"pubDate" not in document("x", [an_entry(published_at=None, tickers=("x",))], []).content
    )


def test_an_unknown_feed_is_not_found(url: str) -> None:
    assert WEB.get(f"{url}/feeds/ZZZZ.rss").status_code == 404


def test_a_ticker_without_news_has_an_empty_feed() -> None:
    clock = Clock()
    with served(a_world(clock, RestampedMarket([a_bar()], clock))) as url:
        answer = WEB.get(f"{url}/feeds/AAPL.rss")
    assert answer.status_code == 200
    assert "last-modified" not in answer.headers
    assert ET.fromstring(answer.content).findall(".//item") == []  # noqa: S314 - our own


@pytest.mark.parametrize("sent", ["etag", "weak", "list", "last-modified"])
def test_what_is_known_costs_no_body(url: str, sent: str) -> None:
    first = WEB.get(f"{url}/feeds/markets.rss")
    tag, changed = first.headers["etag"], first.headers["last-modified"]
    headers = {
        "etag": {"If-None-Match": tag},
        "weak": {"If-None-Match": f"W/{tag}"},
        "list": {"If-None-Match": f'"other", {tag}'},
        "last-modified": {"If-Modified-Since": changed},
    }
    again = WEB.get(f"{url}/feeds/markets.rss", headers=headers[sent])
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert "content-length" not in again.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"If-None-Match": '"other"', "If-Modified-Since": "Tue, 11 Mar 2036 00:00:00 GMT"},
        {"If-Modified-Since": "Tue, 11 Mar 2025 00:00:00 GMT"},
        {"If-Modified-Since": "Tue, 11 Mar 2025 00:00:00 -0000"},
        {"If-Modified-Since": "yesterday"},
    ],
)
def test_what_is_not_known_is_served(url: str, headers: dict[str, str]) -> None:
    assert WEB.get(f"{url}/feeds/markets.rss", headers=headers).status_code == 200


def test_a_new_entry_changes_the_validators() -> None:
    clock = Clock()
    with served(a_world(clock)) as url:
        first = WEB.get(f"{url}/feeds/markets.rss")
        clock.now += timedelta(hours=3)
        headers = {"If-None-Match": first.headers["etag"]}
        second = WEB.get(f"{url}/feeds/markets.rss", headers=headers)
        dated = {"If-Modified-Since": first.headers["last-modified"]}
        third = WEB.get(f"{url}/feeds/markets.rss", headers=dated)
    assert second.status_code == third.status_code == 200
    assert second.headers["etag"] != first.headers["etag"]


def test_the_passing_of_time_alone_changes_nothing(url: str) -> None:
    clock = Clock()
    with served(a_world(clock)) as other:
        story = max(e.published_at for e in UnfoldingMarket(clock).news() if e.published_at)
        clock.now = story
        tags = {WEB.get(f"{other}/feeds/markets.rss").headers["etag"]}
        clock.now = min(NOW, story + MINUTE)
        tags.add(WEB.get(f"{other}/feeds/markets.rss").headers["etag"])
    assert len(tags) == 1


def test_recorded_news_of_what_is_not_traded_is_general() -> None:
    clock = Clock()
    at = a_bar().minute
    news = [
        an_entry(entry_id="own", tickers=("AAPL",), published_at=at),
        an_entry(entry_id="index", tickers=("SPY",), published_at=at),
    ]
    with served(a_world(clock, RestampedMarket([a_bar()], clock, news))) as url:
        own, general = shown(url, "AAPL"), shown(url, "markets")
    assert {entry[0].partition("-")[0] for entry in own} == {"own"}
    assert {entry[0].partition("-")[0] for entry in general} == {"index"}


def test_text_that_xml_does_not_know_is_left_out() -> None:
    entry = an_entry(title="a\x00b\ud800c\ufffe<&>]]>", tickers=("AAPL",))
    root = ET.fromstring(document("AAPL", [entry], []).content)  # noqa: S314 - our own
    assert root.findtext(".//item/title") == "a b c <&>]]>"
