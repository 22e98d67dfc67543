import io
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import feedparser
import httpx
import pytest

from ops_pipeline.clients.guard import Refused
from ops_pipeline.clients.rss import MAX_PROLOGUE, MAX_SUMMARY, decoded, parse_feed
from ops_pipeline.domain.news import clean, entry_key, news_id, next_state
from ops_pipeline.domain.values import Feed, FeedState, FeedStatus, NewsEntry
from ops_pipeline_tests.clients.rss_server import (
    NOW,
    FeedServer,
    Page,
    a_feed,
    following,
    rss,
    serving,
)

FEED = Feed("wire", "https://news.example/rss")
XML = "application/xml"


@pytest.fixture
def server() -> Iterator[FeedServer]:
    with serving() as running:
        yield running


def parsed(
    body: bytes,
    content_type: str = XML,
    url: str = "https://news.example/rss?key=secret",
    seconds: float = 60,
) -> list[NewsEntry]:
    request = httpx.Request("GET", url)
    response = httpx.Response(200, headers={"content-type": content_type}, request=request)
    return parse_feed(FEED, body, response, NOW, time.monotonic() + seconds)


def entry_of(item: str) -> NewsEntry:
    (entry,) = parsed(rss(f"<item>{item}</item>"))
    return entry


def fetched(server: FeedServer, file: Path) -> list[NewsEntry]:
    page = Page(file.read_bytes(), headers={"Content-Type": XML, "ETag": f'"{file.name}"'})
    told = following(server.feed(f"/{file.name}", page)).fetch_news(NOW, NOW, {})
    assert told.feeds[0].status is FeedStatus.OK, file.name
    return told.entries


@pytest.mark.recorded
def test_every_recorded_feed_tells_what_feedparser_finds(
    server: FeedServer, recorded: Path
) -> None:
    files = sorted((recorded / "feeds_feedparser_wellformed_rss").rglob("*.xml"))
    assert len(files) == 128
    pages = {
        f"/{n}": Page(f.read_bytes(), headers={"Content-Type": XML, "ETag": f'"{n}"'})
        for n, f in enumerate(files)
    }
    source = following(*(server.feed(path, page) for path, page in pages.items()))
    told = source.fetch_news(NOW, NOW, {})
    found = [len(feedparser.parse(io.BytesIO(file.read_bytes())).entries) for file in files]
    assert {o.reason for o in told.feeds} == {""}
    assert [o.entries for o in told.feeds] == found
    sent = server.sent.copy()
    states = {o.feed: next_state(FeedState(o.feed), o, NOW) for o in told.feeds}
    again = source.fetch_news(NOW, NOW, states)
    assert {o.status for o in again.feeds} == {FeedStatus.NOT_MODIFIED}
    assert server.sent == sent


@pytest.mark.recorded
@pytest.mark.parametrize("name", ["cnbc.xml", "packer_cnbc.xml"])
def test_a_time_without_seconds_is_a_time(server: FeedServer, recorded: Path, name: str) -> None:
    entries = fetched(server, recorded / "feeds_cnbc_2019" / name)
    assert len(entries) == 30
    assert all(entry.published_at and entry.published_at.year == 2019 for entry in entries)


@pytest.mark.recorded
def test_filings_that_share_an_id_are_told_apart(server: FeedServer, recorded: Path) -> None:
    pages = sorted((recorded / "feeds_edgar_atom").glob("*.atom"))
    raw = [
        entry for page in pages for entry in feedparser.parse(io.BytesIO(page.read_bytes())).entries
    ]
    distinct = {(entry.id, entry.title, entry.link) for entry in raw}
    assert (len(pages), len(raw), len({entry.id for entry in raw})) == (4, 400, 238)
    entries = [clean(entry) for page in pages for entry in fetched(server, page)]
    duplicates = len(raw) - len(distinct)
    assert duplicates == 1
    assert len({entry_key(entry) for entry in entries}) == 400 - duplicates == len(entries)
    assert len({news_id(entry) for entry in entries}) == len({(e.title, e.link) for e in raw})


def test_an_entry_that_stands_twice_in_a_document_is_told_once() -> None:
    item = "<item><title>{}</title><guid>1</guid></item>"
    titles = [e.title for e in parsed(rss(item.format("a") + item.format("b") + item.format("a")))]
    assert titles == ["a", "b"]


def test_a_feed_without_entries_is_a_feed(server: FeedServer) -> None:
    (outcome,) = following(server.feed("/a", rss(""))).fetch_news(NOW, NOW, {}).feeds
    assert (outcome.status, outcome.entries) == (FeedStatus.OK, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        b"no markup",
        b'{"items": []}',
        b"<!DOCTYPE html><html><head><title>Wire</title></head><body><p>Hello<br></body></html>",
        b"<html xmlns='http://www.w3.org/1999/xhtml'><body><p>Hello</p></body></html>",
        b"<rss version='2.0'><channel>",
        b" " * MAX_PROLOGUE + b"\n<rss version='2.0'></rss>",
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    ],
)
def test_what_is_no_feed_is_refused(body: bytes) -> None:
    with pytest.raises(Refused, match="not a feed"):
        parsed(body)


def test_a_broken_feed_with_entries_is_used() -> None:
    assert len(parsed(a_feed() + b"&nbsp;<oops")) == 2
    assert len(parsed(a_feed().replace(b"Wire", b"Wire &nbsp; & Co"))) == 2


LAUGHS = "".join(f"<!ENTITY l{n} '{f'&l{n - 1};' * 10}'>" for n in range(1, 10))
BOMBS = {
    "billion laughs": f"<!DOCTYPE r [<!ENTITY l0 'ha'>{LAUGHS}]>{{}}",
    "quadratic blowup": f"<!DOCTYPE r [<!ENTITY b '{'x' * 50_000}'>]>{{}}",
    "external": "<!DOCTYPE r [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>{}",
    "parameter": "<!DOCTYPE r [<!ENTITY % b SYSTEM 'http://127.0.0.1:1/x'> %b;]>{}",
    "late": f"<!-- {'x' * 3_000} --><!DOCTYPE r [<!ENTITY b 'x'>]>{{}}",
    "hidden": "<!-- <x> --><!DOCTYPE r [\n<!ENTITY\tb 'x'>]>{}",
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "utf-32", "cp037", "utf-7"])
def test_a_document_that_declares_entities_is_refused(name: str, encoding: str) -> None:
    item = "<item><title>&l9;" + "&b;" * 10_000 + "</title></item>"
    document = BOMBS[name].format(rss(item).decode())
    text = f"<?xml version='1.0' encoding='{encoding}'?>{document}"
    body = text.encode(encoding)
    with pytest.raises(Refused, match="the feed declares entities"):
        parsed(body, f"text/xml; charset={encoding}")


def test_a_reference_to_an_outer_document_is_not_followed(server: FeedServer) -> None:
    doctype = f"<!DOCTYPE rss SYSTEM '{server.url('/dtd')}'>".encode()
    assert len(parsed(doctype + a_feed())) == 2
    assert server.requests == []


@pytest.mark.parametrize(
    ("written", "declared", "content_type"),
    [
        ("utf-8", "utf-8", "text/xml; charset=utf-8"),
        ("utf-8", "iso-8859-1", XML),
        ("utf-8", "utf-8", "text/xml; charset=ISO-8859-1"),
        ("utf-8", "utf-8", "text/xml"),
        ("utf-8", "klingon", "text/xml; charset=klingon"),
        ("utf-8", "punycode", "text/xml; charset=zlib"),
        ("utf-8", "unicode_escape", "text/xml; charset=undefined"),
        ("utf-8", "utf-16", XML),
        ("iso-8859-1", "iso-8859-1", XML),
        ("iso-8859-1", "utf-8", XML),
        ("iso-8859-1", "us-ascii", "text/xml; charset=utf-8"),
        ("windows-1252", "utf-8", "text/html"),
        ("utf-16", "utf-16", XML),
        ("utf-16-le", "utf-16", XML),
        ("utf-16-be", "utf-8", "text/xml; charset=utf-8"),
        ("utf-32", "utf-8", XML),
        ("utf-8-sig", "iso-8859-1", XML),
        ("iso2022_jp", "iso2022_jp", "text/xml; charset=iso-2022-jp"),
        ("koi8-r", "koi8-r", XML),
    ],
)
def test_text_is_read_whatever_its_encoding_claims(
    written: str, declared: str, content_type: str
) -> None:
    title = {"iso2022_jp": "\u6771\u4eac", "koi8-r": "\u0413\u0430\u0437"}.get(written, "Nestl\xe9")
    document = rss(f"<item><title>{title}</title></item>").decode()
    body = f"<?xml version='1.0' encoding='{declared}'?>\n{document}".encode(written)
    (entry,) = parsed(body, content_type)
    assert entry.title == title


@pytest.mark.parametrize("charset", ["punycode", "idna", "unicode_escape", "raw_unicode_escape"])
def test_an_encoding_that_is_no_character_set_is_not_used(charset: str) -> None:
    assert decoded(rb"-\u0041-a", f"text/xml; charset={charset}") == r"-\u0041-a"


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"\x81\x8d", b"\x00<\x00", b"\xed\xa0\x80"])
def test_any_bytes_are_some_text(body: bytes) -> None:
    assert isinstance(decoded(body, "text/xml; charset=\x00"), str)


@pytest.mark.parametrize(
    "hostile",
    [
        "\x00",
        "\x0b",
        "&#0;",
        "&#xD800;",
        "&#xd800",
        "&#x110000;",
        "&#" + "9" * 5_000 + ";",
        "\ufffe",
        "&undefined;",
    ],
)
def test_text_that_no_database_takes_comes_out_clean(server: FeedServer, hostile: str) -> None:
    item = f"<item><title>Profit{hostile} rises</title><link>https://news.example/{hostile}</link>"
    body = rss(item + f"<guid>1{hostile}</guid></item>")
    told = following(server.feed("/a", body)).fetch_news(NOW, NOW, {})
    (entry,) = (clean(entry) for entry in told.entries)
    assert entry.title.startswith("Profit")
    for text in (entry.title, entry.link, entry.entry_id):
        assert "\x00" not in text
        assert text.encode().decode() == text


def test_a_reference_to_a_character_is_read() -> None:
    assert entry_of("<title>Nestl&#233; &#xe9; &#0;</title>").title == "Nestl\xe9 \xe9 \ufffd"


@pytest.mark.parametrize("link", ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd"])
def test_a_link_to_no_web_page_is_gone_when_clean(link: str) -> None:
    assert clean(entry_of(f"<title>a</title><link>{link}</link>")).link == ""


def test_a_relative_link_starts_at_the_feed_and_takes_no_key_along() -> None:
    items = "<item><title>a</title><link>{}</link></item>"
    links = [parsed(rss(items.format(to)))[0].link for to in ("/story", "story", "#top")]
    assert links == [
        "https://news.example/story",
        "https://news.example/story",
        "https://news.example/rss#top",
    ]


@pytest.mark.parametrize(
    ("item", "summary"),
    [
        ("<description>short</description>", "short"),
        ("<description/><content:encoded>long</content:encoded>", "long"),
        ("<title>only</title>", ""),
        (f"<description>{'x' * 30_000}</description>", "x" * MAX_SUMMARY),
    ],
)
def test_the_summary_is_the_first_text_that_there_is(item: str, summary: str) -> None:
    assert entry_of(item).summary == summary


def test_an_entry_without_an_id_has_its_link_or_one_of_its_own() -> None:
    assert entry_of("<title>a</title><link>https://news.example/1</link>").entry_id == (
        "https://news.example/1"
    )
    dated = "<title>a</title><pubDate>Mon, 02 Mar 2026 1{}:00:00 GMT</pubDate>"
    ids = {entry_of(dated.format(hour)).entry_id for hour in (3, 4, 3)}
    assert len(ids) == 2
    assert entry_of("").entry_id


def test_a_link_too_long_to_keep_is_no_link() -> None:
    assert entry_of(f"<link>https://news.example/{'x' * 2_000}</link>").link == ""


@pytest.mark.parametrize(
    ("told", "iso"),
    [
        ("<pubDate>Mon, 02 Mar 2026 09:30:00 -0500</pubDate>", "2026-03-02T14:30:00+00:00"),
        ("<dc:date>2026-03-02T14:30:00Z</dc:date>", "2026-03-02T14:30:00+00:00"),
        ("<pubDate>Tue, 03 Mar 2026 15:00:00 GMT</pubDate>", "2026-03-03T15:00:00+00:00"),
        ("<pubDate>Tue, 03 Mar 2026 15:00:01 GMT</pubDate>", None),
        ("<pubDate>Thu, 01 Jan 1970 00:00:00 GMT</pubDate>", None),
        ("<pubDate>yesterday</pubDate>", None),
        ("", None),
        (
            "<pubDate>Thu, 01 Jan 1970 00:00:00 GMT</pubDate><dc:date>2026-03-02</dc:date>",
            "2026-03-02T00:00:00+00:00",
        ),
    ],
)
def test_an_entry_has_the_first_time_that_can_be_true(told: str, iso: str | None) -> None:
    namespace = b"<rss xmlns:dc='http://purl.org/dc/elements/1.1/'"
    (entry,) = parsed(rss(f"<item><title>a</title>{told}</item>").replace(b"<rss", namespace))
    assert (entry.published_at and entry.published_at.isoformat()) == iso


@pytest.mark.parametrize(
    "body",
    [
        rss(f"<item><author>{'a' * 300_000}</author></item>"),
        rss(f"<item><q:Creator>{'a.' * 150_000}</q:Creator></item>"),
        rss(f"<webMaster>{'a' * 300_000}</webMaster><item></item>"),
        b"<?x " + b"encoding='x'" * 30_000 + b"?>" + rss("<item></item>"),
        b"<!--" + b"\n" * 40_000 + b"-->" + rss("<item></item>"),
    ],
)
def test_a_document_made_to_be_slow_is_not(body: bytes) -> None:
    began = time.monotonic()
    with suppress(Refused):
        assert len(parsed(body)) == 1
    assert time.monotonic() - began < 3


def test_a_document_of_nothing_but_tags_is_refused() -> None:
    with pytest.raises(Refused, match="not a feed"):
        parsed(rss("<a>" * 300_000))


def test_reading_ends_when_the_time_is_over() -> None:
    with pytest.raises(Refused, match="the feed takes too long to read"):
        parsed(a_feed(), seconds=-1)
