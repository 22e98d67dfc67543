"""One story is one item, whatever changes in it; two stories are two, whatever they share."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops_pipeline.domain.stories import KnownEntry, Resolved, StoryIndex
from ops_pipeline_tests.builders import NOON, an_entry

LATER, HOUR = timedelta(minutes=1), timedelta(hours=1)


def known(after: timedelta = timedelta(0), **changes: Any) -> KnownEntry:
    """An entry that became known so long after noon."""
    return KnownEntry(an_entry(**changes), NOON + HOUR + after)


def resolved(*entries: KnownEntry) -> list[Resolved]:
    return list(StoryIndex([], {}).resolve(entries))


def stories(*entries: KnownEntry) -> int:
    return sum(found.is_new for found in resolved(*entries))


def link(number: int) -> str:
    return f"https://news.example/{number}"


@pytest.mark.parametrize(
    "changes",
    [
        {"link": link(2)},
        {"title": "Apple beats by a lot"},
        {"summary": "Profit soars."},
        {"title": "Apple beats by a lot", "link": link(2)},
        {"entry_id": "2", "link": link(2)},
        {"entry_id": "2", "link": link(2), "published_at": NOON + timedelta(minutes=59)},
        {"entry_id": "2", "link": link(2), "published_at": None},
        {"entry_id": "2", "link": ""},
        {"published_at": NOON + timedelta(days=30), "title": "Apple beats again"},
    ],
    ids=str,
)
def test_what_changes_later_in_a_story_makes_no_new_one(changes: dict[str, Any]) -> None:
    assert stories(known(), known(LATER, **changes)) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"entry_id": "2", "title": "Tesla misses", "link": link(2)},
        {"entry_id": "2", "link": link(2), "published_at": NOON + HOUR},
        {"entry_id": "2", "published_at": NOON + HOUR},
        {"feed": "blog", "link": link(2)},
        {"feed": "blog", "title": "Other"},
        {"entry_id": "", "title": "Tesla misses", "link": link(2)},
        {"entry_id": "", "link": "", "published_at": NOON + HOUR},
    ],
    ids=str,
)
@pytest.mark.parametrize("first", [{}, {"entry_id": "", "link": ""}], ids=["named", "nameless"])
def test_what_differs_is_a_story_of_its_own(first: dict[str, Any], changes: dict[str, Any]) -> None:
    assert stories(known(**first), known(LATER, **changes)) == 2


def test_a_story_told_twenty_times_is_one() -> None:
    told = [
        known(n * LATER, link=link(n), entry_id=f"{n}", published_at=NOON + n * LATER)
        for n in range(20)
    ]
    assert stories(*told) == 1


def test_a_text_that_comes_each_minute_for_hours_is_one_story() -> None:
    told = [
        known(n * LATER, entry_id=f"{n}", link=link(n), published_at=NOON + n * LATER)
        for n in range(300)
    ]
    assert stories(*told) == 1


def test_one_title_of_three_events_without_links_is_three_stories() -> None:
    events = [
        known(entry_id=f"h-{n}", link="", summary="", published_at=NOON - n * HOUR)
        for n in range(3)
    ]
    assert stories(*events) == 3


def test_entries_that_share_a_link_and_have_no_text_of_their_own_are_apart() -> None:
    listed = [
        known(title="No title", summary=f"Text {n}", entry_id=f"{n}", published_at=None)
        for n in range(3)
    ]
    assert stories(*listed) == 3


def test_entries_without_any_text_are_told_apart_by_their_links() -> None:
    empty = [
        known(title="No title", summary="", entry_id=link(n), link=link(n), published_at=None)
        for n in range(2)
    ]
    assert stories(*empty) == 2


FILING = {"entry_id": "accession-1", "summary": "Filed"}
REPORTING = {**FILING, "title": "4 - Smith (Reporting)", "link": link(1)}
ISSUER = {**FILING, "title": "4 - Example Corp (Issuer)", "link": link(2)}


def test_an_id_that_one_document_gives_two_texts_names_none() -> None:
    assert stories(known(**REPORTING), known(**ISSUER)) == 2


def test_a_document_that_lists_two_texts_by_one_id_tells_the_new_one_apart() -> None:
    later = [known(LATER, **REPORTING), known(LATER, **ISSUER)]
    assert stories(known(**REPORTING), *later) == 2


def test_an_id_that_names_several_stories_names_none_later() -> None:
    other = known(LATER, **{**FILING, "title": "4 - Other (Reporting)", "link": link(3)})
    assert stories(known(**REPORTING), known(**ISSUER), other) == 3


def test_the_first_version_of_a_story_stays_and_a_later_text_is_a_revision() -> None:
    first, second = resolved(known(), known(LATER, title="Apple beats by a lot"))
    assert (first.is_new, first.is_revision) == (True, False)
    assert (second.is_new, second.is_revision) == (False, True)
    assert first.provenance.news_id == second.provenance.news_id


def test_what_adds_nothing_is_not_kept() -> None:
    assert len(resolved(known(), known(LATER), known(2 * LATER, link=link(2)))) == 1


def test_another_text_of_another_feed_is_no_revision() -> None:
    _, second = resolved(known(), known(LATER, feed="blog", summary="Shorter."))
    assert (second.is_new, second.is_revision) == (False, False)


def test_a_row_that_repeats_a_story_with_another_ticker_adds_the_ticker() -> None:
    rows = [known(tickers=(ticker,), entry_id="") for ticker in ("SPY", "QQQ", "SPY")]
    found = resolved(*rows)
    assert [r.is_new for r in found] == [True, False]
    assert {t for r in found for t in r.provenance.tickers} == {"SPY", "QQQ"}


def test_a_later_story_takes_no_earlier_one_away() -> None:
    index = StoryIndex([], {})
    (later,) = index.resolve([known(2 * HOUR)])
    (earlier,) = index.resolve([known()])
    assert earlier.is_new
    assert earlier.provenance.news_id != later.provenance.news_id


entries_of_a_day = st.lists(
    st.builds(
        lambda feed, entry_id, title, to, minute, after, is_dated: KnownEntry(
            an_entry(
                feed=feed,
                entry_id=entry_id,
                title=title,
                link=to,
                published_at=NOON + minute * LATER if is_dated else None,
            ),
            NOON + (minute + after) * LATER,
        ),
        st.sampled_from(["wire", "blog"]),
        st.sampled_from(["", "1", "2"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["", link(1), link(2)]),
        st.integers(0, 180),
        st.integers(0, 3),
        st.booleans(),
    ),
    max_size=14,
)


def outline(found: Sequence[Resolved], until: datetime) -> list[tuple[Any, ...]]:
    return [
        (r.provenance.entry_key, r.provenance.news_id, r.is_new, r.is_revision)
        for r in found
        if r.provenance.available_at <= until
    ]


@settings(deadline=None, max_examples=50)
@given(entries_of_a_day, st.integers(0, 180))
def test_no_later_entry_changes_what_an_earlier_one_is(
    entries: list[KnownEntry], minute: int
) -> None:
    until = NOON + minute * LATER
    then = [each for each in entries if each.available_at <= until]
    assert outline(resolved(*then), until) == outline(resolved(*entries), until)


@settings(deadline=None, max_examples=50)
@given(entries_of_a_day)
def test_entries_one_document_at_a_time_are_the_same_stories_as_all_at_once(
    entries: list[KnownEntry],
) -> None:
    index, found = StoryIndex([], {}), list[Resolved]()
    for instant in sorted({each.available_at for each in entries}):
        document = [each for each in entries if each.available_at == instant]
        found += index.resolve(document)
        assert list(index.resolve(document)) == []
    assert found == resolved(*entries)


@settings(deadline=None, max_examples=50)
@given(entries_of_a_day)
def test_a_document_that_is_read_again_later_adds_nothing(entries: list[KnownEntry]) -> None:
    index, now = StoryIndex([], {}), NOON + 12 * HOUR
    # The entries of a feed have ids; none gives one text twice by one id.
    named = {(e.entry.feed, e.entry.entry_id, e.entry.title): e for e in entries}
    entries = [each for each in named.values() if each.entry.entry_id]
    list(index.resolve(replace(each, available_at=now) for each in entries))
    again = [replace(each, available_at=now + LATER) for each in entries]
    assert list(index.resolve(again)) == []
