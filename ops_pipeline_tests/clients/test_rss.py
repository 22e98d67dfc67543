import gzip
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime

import pytest

from ops_pipeline.clients.guard import MAX_BODY_BYTES
from ops_pipeline.clients.rss import MAX_ENTRIES, RssFeeds
from ops_pipeline.domain.news import next_state
from ops_pipeline.domain.values import Feed, FeedOutcome, FeedState, FeedStatus, NewsEntry
from ops_pipeline_tests.clients.rss_server import (
    NOW,
    FeedServer,
    Page,
    a_feed,
    following,
    rss,
    serving,
)

START = NOW - timedelta(minutes=1)


@pytest.fixture
def server() -> Iterator[FeedServer]:
    with serving() as running:
        yield running


def outcome_of(source: RssFeeds, state: FeedState | None = None) -> FeedOutcome:
    states = {state.feed: state} if state else {}
    (outcome,) = source.fetch_news(START, NOW, states).feeds
    return outcome


def drip(seconds: float = 0.02) -> Iterator[bytes]:
    while True:
        time.sleep(seconds)
        yield b" "


def zeros() -> bytes:
    """100 MB of nothing, packed into 100 kB."""
    packer = zlib.compressobj(wbits=31)
    return b"".join(packer.compress(bytes(1_000_000)) for _ in range(100)) + packer.flush()


def test_a_feed_is_told_with_its_outcome(server: FeedServer) -> None:
    page = Page(a_feed(), headers={"ETag": '"1"', "Last-Modified": "Mon, 02 Mar 2026 14:00:00 GMT"})
    told = following(server.feed("/a", page, ticker="AAPL")).fetch_news(START, NOW, {})
    assert told.entries[0] == NewsEntry(
        feed="/a",
        entry_id="0",
        title="Story 0",
        summary="",
        link="https://news.example/0",
        published_at=NOW - timedelta(hours=1),
        tickers=("AAPL",),
    )
    assert told.feeds == [
        FeedOutcome(
            "/a",
            FeedStatus.OK,
            entries=2,
            bytes=len(a_feed()),
            etag='"1"',
            last_modified="Mon, 02 Mar 2026 14:00:00 GMT",
        )
    ]


def test_entries_of_all_feeds_are_told_oldest_first_and_undated_last(server: FeedServer) -> None:
    dates = ["Mon, 02 Mar 2026 13:00:00 GMT", "", "Mon, 02 Mar 2026 15:30:00 GMT"]
    items = [f"<item><title>{d}</title><pubDate>{d}</pubDate></item>" for d in dates]
    feeds = [server.feed(f"/{number}", rss(item)) for number, item in enumerate(items)]
    entries = following(*feeds).fetch_news(START, NOW, {}).entries
    assert [entry.feed for entry in entries] == ["/0", "/2", "/1"]


def test_a_304_costs_no_body(server: FeedServer) -> None:
    source = following(server.feed("/a", Page(a_feed(), headers={"ETag": '"1"'})))
    first = outcome_of(source)
    state = next_state(FeedState("/a"), first, NOW)
    second = outcome_of(source, state)
    assert (second.status, second.etag, second.bytes) == (FeedStatus.NOT_MODIFIED, '"1"', 0)
    assert next_state(state, second, NOW) == state
    assert server.sent["/a"] == len(a_feed())


def test_what_the_state_holds_is_sent_back(server: FeedServer) -> None:
    state = FeedState("/a", '"x"', "Mon, 02 Mar 2026 14:00:00 GMT")
    outcome = outcome_of(following(server.feed("/a", a_feed())), state)
    headers = server.requests[0][1]
    assert headers["If-None-Match"] == '"x"'
    assert headers["If-Modified-Since"] == "Mon, 02 Mar 2026 14:00:00 GMT"
    assert (outcome.etag, outcome.last_modified) == ("", "")


def test_nothing_is_sent_back_where_nothing_is_known(server: FeedServer) -> None:
    outcome_of(following(server.feed("/a", a_feed())))
    assert not {"If-None-Match", "If-Modified-Since"} & set(server.requests[0][1])


@pytest.mark.parametrize("etag", ["\xe9", "x" * 501])
def test_a_validator_that_cannot_be_sent_back_is_not_kept(server: FeedServer, etag: str) -> None:
    outcome = outcome_of(following(server.feed("/a", Page(a_feed(), headers={"ETag": etag}))))
    assert (outcome.status, outcome.etag) == (FeedStatus.OK, "")


def test_a_feed_whose_time_has_not_come_is_not_asked(server: FeedServer) -> None:
    source = following(server.feed("/a", a_feed()), server.feed("/b", a_feed()))
    states = {"/a": FeedState("/a", failures=3, retry_at=NOW + timedelta(seconds=1))}
    assert statuses(source, states) == [FeedStatus.BACKING_OFF, FeedStatus.OK]
    assert [path for path, _ in server.requests] == ["/b"]
    states["/a"] = replace(states["/a"], retry_at=NOW)
    assert statuses(source, states) == [FeedStatus.OK, FeedStatus.OK]


def test_where_no_feeds_time_has_come_the_nearest_is_asked(server: FeedServer) -> None:
    source = following(*(server.feed(path, a_feed()) for path in ("/a", "/b", "/c")))
    waits = {"/a": 9, "/b": 3, "/c": 6}
    states = {
        path: FeedState(path, failures=6, retry_at=NOW + timedelta(minutes=minutes))
        for path, minutes in waits.items()
    }
    assert statuses(source, states) == [
        FeedStatus.BACKING_OFF,
        FeedStatus.OK,
        FeedStatus.BACKING_OFF,
    ]
    assert [path for path, _ in server.requests] == ["/b"]


def statuses(source: RssFeeds, states: dict[str, FeedState]) -> list[FeedStatus]:
    return [outcome.status for outcome in source.fetch_news(START, NOW, states).feeds]


def test_of_an_archive_the_newest_are_told(server: FeedServer) -> None:
    dates = [NOW - timedelta(minutes=minutes) for minutes in range(MAX_ENTRIES + 100, 0, -1)]
    items = "".join(
        f"<item><title>{at}</title><pubDate>{format_datetime(at)}</pubDate></item>" for at in dates
    )
    found = following(server.feed("/a", rss(items))).fetch_news(START, NOW, {}).entries
    assert [entry.published_at for entry in found] == dates[100:]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        ("Mon, 02 Mar 2026 15:02:00 GMT", 120),
        ("Mon, 02 Mar 2026 15:02:00 -0000", 120),
        ("Mon, 02 Mar 2026 14:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("9" * 5_000, None),
        ("Mon, 99 Mar 2026 15:02:00 GMT", None),
    ],
)
def test_a_busy_server_says_when_to_come_back(
    server: FeedServer, status: int, value: str, seconds: float | None
) -> None:
    page = Page(status=status, headers={"Retry-After": value})
    outcome = outcome_of(following(server.feed("/a", page)))
    assert (outcome.reason, outcome.retry_after_seconds) == (f"HTTP {status}", seconds)


@pytest.mark.parametrize("status", [204, 301, 302, 307, 404, 410, 500])
def test_any_other_status_and_a_redirect_to_nowhere_is_a_failure_without_a_second_try(
    server: FeedServer, status: int
) -> None:
    page = Page(status=status, headers={"Retry-After": "60"})
    outcome = outcome_of(following(server.feed("/a", page)))
    assert (outcome.status, outcome.reason) == (FeedStatus.FAILED, f"HTTP {status}")
    assert outcome.retry_after_seconds is None
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_feed_that_moved_is_followed(server: FeedServer, status: int) -> None:
    server.feed("/new", a_feed())
    moved = server.feed("/old", Page(status=status, headers={"Location": "/new"}))
    assert outcome_of(following(moved)).entries == 2


@pytest.mark.parametrize(("hops", "status"), [(5, FeedStatus.OK), (6, FeedStatus.FAILED)])
def test_five_hops_are_followed_and_no_more(
    server: FeedServer, hops: int, status: FeedStatus
) -> None:
    server.feed("/0", a_feed())
    for hop in range(1, hops + 1):
        server.feed(f"/{hop}", Page(status=301, headers={"Location": f"/{hop - 1}"}))
    outcome = outcome_of(following(Feed("a", server.url(f"/{hops}"))))
    assert outcome.status is status
    assert len(server.requests) == 6


def test_the_contact_is_part_of_the_user_agent(server: FeedServer) -> None:
    outcome_of(following(server.feed("/a", a_feed()), contact="J\xf6rg ops@example.com"))
    agent = server.requests[0][1]["User-Agent"].encode("latin-1").decode()
    assert agent == "ops-pipeline/1 J\xf6rg ops@example.com"
    outcome_of(following(server.feed("/a", a_feed())))
    assert server.requests[1][1]["User-Agent"] == "ops-pipeline/1"


@pytest.mark.parametrize("host", ["sec.gov", "www.sec.gov", "WWW.SEC.GOV", "www.sec.gov."])
def test_sec_is_not_asked_without_a_contact(server: FeedServer, host: str) -> None:
    asked = [Feed("direct", f"https://{host}/feed")]
    asked += [server.feed("/a", Page(status=301, headers={"Location": f"https://{host}/"}))]
    outcomes = following(*asked).fetch_news(START, NOW, {}).feeds
    assert {o.reason for o in outcomes} == {"SEC asks for a contact: set OPS_CONTACT"}


@pytest.mark.parametrize("host", ["notsec.gov", "sec.gov.example.invalid"])
def test_a_host_that_only_looks_like_sec_needs_no_contact(host: str) -> None:
    source = RssFeeds([Feed("a", f"file://{host}/")], lambda: NOW, user_agent="ops-pipeline/1")
    assert outcome_of(source).reason == "only http and https are requested"


def test_a_large_body_stops_at_the_limit(server: FeedServer) -> None:
    feed = server.feed("/a", Page(lambda: (b"x" * 50_000 for _ in range(1_000))))
    assert outcome_of(following(feed)).reason == "the answer has more than 5 MB"
    assert server.sent["/a"] < 4 * MAX_BODY_BYTES


def test_a_body_of_just_the_limit_is_read(server: FeedServer) -> None:
    padding = MAX_BODY_BYTES - len(a_feed())
    assert outcome_of(following(server.feed("/a", a_feed() + b" " * padding))).entries == 2
    large = server.feed("/b", a_feed() + b" " * (padding + 1))
    assert outcome_of(following(large)).status is FeedStatus.FAILED


def test_a_packed_feed_is_unpacked_and_counted_as_sent(server: FeedServer) -> None:
    packed = gzip.compress(a_feed(items=50))
    page = Page(packed, headers={"Content-Encoding": "gzip"})
    outcome = outcome_of(following(server.feed("/a", page)))
    assert (outcome.entries, outcome.bytes) == (50, len(packed))
    assert server.requests[0][1]["Accept-Encoding"] == "gzip"


RAW = zlib.compressobj(wbits=-15)
RAW_DEFLATE = RAW.compress(a_feed(items=30)) + RAW.flush()


def parts(body: bytes, count: int) -> list[bytes]:
    size = len(body) // count + 1
    return [body[at : at + size] for at in range(0, len(body), size)]


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"".join(gzip.compress(part) for part in parts(a_feed(items=30), 3))),
        ("gzip", gzip.compress(a_feed(items=30)) + b"\0" * 512),
        ("x-gzip", gzip.compress(b"") + gzip.compress(a_feed(items=30))),
        ("deflate", zlib.compress(a_feed(items=30))),
        ("deflate", RAW_DEFLATE),
        ("identity", gzip.compress(a_feed(items=30))),
    ],
    ids=["three members", "padded", "an empty member", "zlib", "raw deflate", "undeclared"],
)
def test_no_entry_is_lost_however_a_body_is_packed(
    server: FeedServer, encoding: str, body: bytes
) -> None:
    page = Page(body, headers={"Content-Encoding": encoding})
    assert outcome_of(following(server.feed("/a", page))).entries == 30


def test_a_gzip_bomb_is_not_unpacked(server: FeedServer) -> None:
    page = Page(zeros(), headers={"Content-Encoding": "gzip"})
    source = following(server.feed("/a", page))
    tracemalloc.start()
    try:
        assert outcome_of(source).reason == "the answer has more than 5 MB"
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_BODY_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("encoding", "body", "reason"),
    [
        ("br", b"x", "the answer has an unknown encoding"),
        ("gzip, gzip", b"x", "the answer has an unknown encoding"),
        ("zstd", b"x", "the answer has an unknown encoding"),
        ("deflate", b"\xff\xff", "the answer is no deflate, though it says so"),
        ("deflate", zlib.compress(a_feed())[:-9], "the answer is cut short"),
        ("gzip", gzip.compress(a_feed()) + gzip.compress(b" ")[:-9], "the answer is cut short"),
        ("gzip", gzip.compress(a_feed()) + b"rubbish", "the answer is no gzip, though it says so"),
        ("identity", gzip.compress(a_feed())[:-9], "the answer is cut short"),
        ("gzip", gzip.compress(b"") * 1_001, "the answer has more than 1000 gzip members"),
        ("gzip", gzip.compress(b" " * 4_000_000) * 2, "the answer has more than 5 MB"),
        ("deflate", zlib.compress(b" " * 6_000_000), "the answer has more than 5 MB"),
        ("gzip", b"this is not packed", "the answer is no gzip, though it says so"),
        ("gzip", gzip.compress(a_feed())[:-9], "the answer is cut short"),
        ("gzip", b"", "the answer is cut short"),
    ],
)
def test_a_body_that_cannot_be_unpacked_is_a_failure(
    server: FeedServer, encoding: str, body: bytes, reason: str
) -> None:
    page = Page(body, headers={"Content-Encoding": encoding})
    assert outcome_of(following(server.feed("/a", page))).reason == reason


def test_a_body_that_breaks_off_is_a_failure_and_keeps_no_validator(server: FeedServer) -> None:
    headers = {"Content-Length": "1000", "ETag": '"1"'}
    feed = server.feed("/a", Page(lambda: iter([a_feed()]), headers=headers))
    outcome = outcome_of(following(feed))
    assert (outcome.reason, outcome.etag) == ("the answer is broken", "")


def test_an_answer_that_is_no_http_is_a_failure(server: FeedServer) -> None:
    feed = server.feed("/a", Page(a_feed(), status=99))
    assert outcome_of(following(feed)).reason == "the answer is broken"


def test_a_surprise_in_one_feed_is_its_failure(server: FeedServer) -> None:
    state = FeedState("/a", etag="1\nX: 2")
    outcome = outcome_of(following(server.feed("/a", a_feed())), state)
    assert outcome.status is FeedStatus.FAILED
    assert server.requests == []


def test_an_endless_body_ends_by_the_deadline(server: FeedServer) -> None:
    endless = server.feed("/a", Page(drip))
    began = time.monotonic()
    outcome = outcome_of(following(endless, deadline_seconds=0.6))
    assert outcome.reason == "no answer in time"
    assert time.monotonic() - began < 3.0


def test_endless_headers_end_within_the_share_of_one_feed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=drip_headers, args=(listener,))
        answering.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        outcome = outcome_of(following(Feed("a", url), deadline_seconds=0.6))
        # It ends only where the other side hangs up, and not just because nobody waits any more.
        answering.join(timeout=2)
    assert outcome.reason == "no answer in time"
    assert not answering.is_alive()


def drip_headers(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection, suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            time.sleep(0.02)
            connection.sendall(b"x")


def test_slow_feeds_do_not_hold_up_the_others(server: FeedServer) -> None:
    slow = [server.feed(f"/slow{number}", Page(drip)) for number in range(8)]
    quick = [server.feed(f"/quick{number}", a_feed()) for number in range(3)]
    began = time.monotonic()
    # A quarter of it is left for the quick ones, which is much for three of them.
    outcomes = following(*slow, *quick, deadline_seconds=6.0).fetch_news(START, NOW, {}).feeds
    assert time.monotonic() - began < 9.0
    assert [o.status for o in outcomes] == [FeedStatus.FAILED] * 8 + [FeedStatus.OK] * 3


def test_feeds_that_are_too_slow_for_the_minute_are_given_up(server: FeedServer) -> None:
    slow = [server.feed(f"/slow{number}", Page(drip)) for number in range(8)]
    began = time.monotonic()
    feeds = following(*slow, server.feed("/quick", a_feed()))
    outcomes = feeds.fetch_news(START, NOW, {}, within_seconds=4.0).feeds
    assert time.monotonic() - began < 8.0
    assert [o.status for o in outcomes] == [FeedStatus.FAILED] * 8 + [FeedStatus.OK]


def test_a_document_that_takes_long_to_read_holds_up_nobody(server: FeedServer) -> None:
    slow = server.feed("/slow", rss("<a>" * 200_000))
    quick = server.feed("/quick", a_feed())
    outcomes = following(slow, quick, deadline_seconds=2.0).fetch_news(START, NOW, {}).feeds
    assert [o.status for o in outcomes] == [FeedStatus.FAILED, FeedStatus.OK]
    assert outcomes[0].reason == "no answer in time"


def bad_feeds(server: FeedServer) -> list[Feed]:
    bomb = rss("<item><title>&b;</title></item>").replace(
        b"<rss", b"<!DOCTYPE r [<!ENTITY b 'x'>]><rss"
    )
    pages = {
        "/missing": Page(status=404),
        "/busy": Page(status=503, headers={"Retry-After": "60"}),
        "/html": Page(b"<!DOCTYPE html><html><body>Hello<br></body></html>"),
        "/drip": Page(drip),
        "/large": Page(lambda: (b"x" * 50_000 for _ in range(1_000))),
        "/bomb": Page(bomb),
        "/gzip": Page(b"no gzip", headers={"Content-Encoding": "gzip"}),
        "/loop": Page(status=301, headers={"Location": "/loop"}),
        "/local": Page(status=301, headers={"Location": "file:///etc/passwd"}),
    }
    served = [server.feed(path, page) for path, page in pages.items()]
    return [*served, Feed("/closed", "http://127.0.0.1:1/?key=secret")]


def test_ten_bad_feeds_do_not_harm_two_good_ones(server: FeedServer) -> None:
    bad = bad_feeds(server)
    good = [server.feed(f"/good{number}", a_feed(items=3)) for number in range(2)]
    source = following(good[0], *bad, good[1], deadline_seconds=2.0)
    told = source.fetch_news(START, NOW, {})
    assert [o.feed for o in told.feeds] == [good[0].name, *(f.name for f in bad), good[1].name]
    assert [o.status for o in told.feeds if o.feed.startswith("/good")] == [FeedStatus.OK] * 2
    failed = [o for o in told.feeds if o.status is FeedStatus.FAILED]
    assert len(failed) == 10
    assert len(told.entries) == 6
    for outcome in failed:
        assert outcome.reason
        assert len(outcome.reason.splitlines()) == 1
        assert "secret" not in outcome.reason


def test_many_feeds_at_once_are_told_once_each(server: FeedServer) -> None:
    feeds = [server.feed(f"/{number}", a_feed()) for number in range(30)]
    told = following(*feeds).fetch_news(START, NOW, {})
    assert sorted(path for path, _ in server.requests) == sorted(feed.name for feed in feeds)
    assert {o.status for o in told.feeds} == {FeedStatus.OK}


def test_no_thread_is_left_when_all_have_answered(server: FeedServer) -> None:
    before = set(threading.enumerate())
    following(server.feed("/a", a_feed())).fetch_news(START, NOW, {})
    left = [t for t in threading.enumerate() if t.name.startswith("feed") and t not in before]
    for thread in left:
        thread.join(timeout=2)
    assert not any(thread.is_alive() for thread in left)


def test_no_feeds_tell_nothing() -> None:
    told = following().fetch_news(START, NOW, {})
    assert (told.entries, told.feeds) == ([], [])
