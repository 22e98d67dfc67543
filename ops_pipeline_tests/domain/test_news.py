import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops_pipeline.domain.news import (
    MAX_SUMMARY,
    MAX_TITLE,
    clean,
    entry_key,
    news_id,
    plain_text,
    text_hash,
)
from ops_pipeline_tests.builders import an_entry

any_text = st.text(st.characters(), max_size=60) | st.text("<>/&;#scriptyle!-\x00 ", max_size=40)


@pytest.mark.parametrize(
    "changes", [{"entry_id": "2"}, {"title": "Other"}, {"link": "https://news.example/2"}]
)
def test_entry_key_tells_entries_of_one_feed_apart(changes: dict[str, str]) -> None:
    assert entry_key(an_entry(**changes)) != entry_key(an_entry())


@pytest.mark.parametrize("changes", [{"feed": "other"}, {"summary": "Other."}])
def test_entry_key_does_not_depend_on_what_may_change(changes: dict[str, str]) -> None:
    assert entry_key(an_entry(**changes)) == entry_key(an_entry())


def test_one_id_may_cover_several_entries() -> None:
    filings = [an_entry(link=f"https://sec.example/{number}") for number in range(4)]
    assert len({entry_key(entry) for entry in filings}) == 4


@pytest.mark.parametrize("changes", [{"feed": "other"}, {"entry_id": "99"}])
def test_the_same_story_in_two_feeds_is_one_item(changes: dict[str, str]) -> None:
    assert news_id(an_entry(**changes)) == news_id(an_entry())


def test_a_repeated_title_with_links_of_its_own_is_a_story_each_time() -> None:
    notices = [an_entry(link=f"https://news.example/{number}") for number in range(47)]
    assert len({news_id(entry) for entry in notices}) == 47


def test_identities_do_not_run_title_and_link_together() -> None:
    first, second = an_entry(title="ab", link="c"), an_entry(title="a", link="bc")
    assert news_id(first) != news_id(second)
    assert entry_key(first) != entry_key(second)


@pytest.mark.parametrize(
    ("title", "summary"),
    [
        ("Apple  beats", "Profit\nrises"),
        ("Apple beats", "Profit rises"),
        ("\uff21pple beats", "Profit rises"),
    ],
)
def test_text_hash_does_not_depend_on_space_and_width(title: str, summary: str) -> None:
    assert text_hash(title, summary) == text_hash("Apple beats", "Profit rises")


def test_text_hash_depends_on_title_and_summary() -> None:
    texts = [("a", "b"), ("a", "c"), ("c", "b")]
    assert len({text_hash(*text) for text in texts}) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("<p>Apple <b>beats</b></p><p>again", "Apple beats again"),
        ("one<br/>two", "one two"),
        ("AT&amp;T &#8211; up 5&nbsp;%", "AT&T \u2013 up 5 %"),
        ("AT&T up", "AT&T up"),
        ("5 < 6 & 7 > 2", "5 < 6 & 7 > 2"),
        ("a<script>alert(1)</script>b", "a b"),
        ("a<SCRIPT src='x'>alert(1)</SCRIPT>b", "a b"),
        ("a<style>p {color: red}</style>b", "a b"),
        ("a<script>alert(1)", "a"),
        ("</style></script>a<script>alert(1)</script>b", "a b"),
        ("a<!-- hidden -->b", "ab"),
        ("<a href='javascript:alert(1)'>click</a>", "click"),
        ("<img src=x onerror=alert(1)>a", "a"),
        ("a\x00b\x07c\x1bd\x7fe\x85f", "a b c d e f"),
        ("a\ud800b", "a b"),
        ("a\r\n\t  b", "a b"),
        ("\ufb01ne \uff34esla", "fine Tesla"),
        ("", ""),
        ("<p></p>", ""),
        ("Apple\u2122 and Google\u00ae raise Nvidia\u2122\ufe0f", "Apple and Google raise Nvidia"),
        ("Apple\u00aeWatch, Apple\u2122\u2019s", "Apple Watch, Apple's"),
        ("Apple&trade; Apple&amp;reg; \u00a92026", "Apple Apple 2026"),
        ("Micro\u00adsoft A\u200bpple A\u2060APL $\u200bAAPL", "Microsoft Apple AAPL $AAPL"),
        ("Meta\u200bPlatforms", "Meta Platforms"),
        ("\u202eAAPL\u202c \u2066MSFT\u2069 N\ufeffVDA T\u3164", "AAPL MSFT NVDA T"),
        ("Coca\u2011Cola\u00a0up 5\u202f%", "Coca-Cola up 5 %"),
        ("Apple\u2019s \u201cbest\u201d", 'Apple\'s "best"'),
        ("\uff21\uff21\uff30\uff2c \uff04\uff34", "AAPL $T"),
        ("AT&amp;amp;amp;T and S&amp;amp;P", "AT&T and S&P"),
        ("&amp;lt;b&amp;gt;Apple&amp;lt;/b&amp;gt; up", "Apple up"),
        ("Apple <AAPL.O> beats; EPS <$1.40", "Apple (AAPL.O) beats; EPS <$1.40"),
    ],
)
def test_plain_text_is_what_a_reader_would_see(text: str, expected: str) -> None:
    assert plain_text(text, 100) == expected


@settings(deadline=None, max_examples=80)
@given(any_text | st.text("a\u2122\u200b\u00ad\u2019&;amptrdelg#<>b/ A", max_size=30))
def test_plain_text_of_plain_text_is_itself(text: str) -> None:
    once = plain_text(text, 1_000)
    assert plain_text(once, 1_000) == once


def test_plain_text_is_cut_to_its_length() -> None:
    assert plain_text("ab " * 100, 10) == "ab ab ab a"


@settings(deadline=None, max_examples=40)
@given(title=any_text, link=any_text, entry_id=any_text)
def test_a_clean_entry_can_be_stored_whatever_came_in(title: str, link: str, entry_id: str) -> None:
    entry = clean(an_entry(title=title, summary=title, link=link, entry_id=entry_id, feed=title))
    for text in (entry.title, entry.summary, entry.link, entry.entry_id, entry.feed):
        assert "\x00" not in text
        assert text.encode().decode() == text


@settings(deadline=None, max_examples=40)
@given(title=any_text)
def test_a_clean_entry_always_has_a_title(title: str) -> None:
    assert 0 < len(clean(an_entry(title=title)).title) <= MAX_TITLE


@pytest.mark.parametrize("title", ["", "  ", "<p></p>", "\x00"])
def test_clean_when_the_title_is_empty_then_says_so(title: str) -> None:
    assert clean(an_entry(title=title)).title == "No title"


@pytest.mark.parametrize(
    ("link", "kept"),
    [
        ("https://news.example/1", "https://news.example/1"),
        (" http://news.example/1\n", "http://news.example/1"),
        ("javascript:alert(1)", ""),
        ("JavaScript:alert(1)//http://", ""),
        ("data:text/html,x", ""),
        ("file:///etc/passwd", ""),
        ("//news.example", ""),
        ("news.example", ""),
        ("", ""),
    ],
)
def test_clean_keeps_web_links_only(link: str, kept: str) -> None:
    assert clean(an_entry(link=link)).link == kept


def test_clean_cuts_title_and_summary() -> None:
    entry = clean(an_entry(title="t" * 10_000, summary="s" * 10_000))
    assert (len(entry.title), len(entry.summary)) == (MAX_TITLE, MAX_SUMMARY)


def test_clean_keeps_what_it_does_not_understand() -> None:
    entry = an_entry(tickers=("AAPL",))
    assert clean(entry) == entry
