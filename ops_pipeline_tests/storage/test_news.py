"""A story is kept once, each telling of it too, and each text is searched once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from ops_pipeline.domain.linking import TickerLinker
from ops_pipeline.domain.news import news_id
from ops_pipeline.domain.stories import KnownEntry
from ops_pipeline.domain.values import NewsEntry, Ticker
from ops_pipeline.storage import news
from ops_pipeline.storage.knowledge import counts_by_minute
from ops_pipeline_tests.builders import NOON, an_entry, at
from ops_pipeline_tests.storage.rows import rows

LINKER = TickerLinker([Ticker("AAPL", ("Apple",)), Ticker("MSFT", ("Microsoft",))])
LINKS = "select ticker, match_source, span from news_tickers order by ticker"


def tell(connection: Connection, *told: NewsEntry | KnownEntry) -> int:
    known = [t if isinstance(t, KnownEntry) else KnownEntry(t, at(200)) for t in told]
    return news.insert_entries(connection, known, origin="recorded")


def test_no_entries_are_nothing(connection: Connection) -> None:
    assert tell(connection) == 0


def test_one_story_in_two_feeds_is_one_item(connection: Connection) -> None:
    assert tell(connection, an_entry(feed="wire"), an_entry(feed="blog", entry_id="9")) == 1


def test_one_story_in_two_feeds_has_two_provenances(connection: Connection) -> None:
    tell(connection, an_entry(feed="wire"), an_entry(feed="blog", entry_id="9"))
    found = rows(connection, "select feed, entry_id from news_provenance order by feed")
    assert found == [("blog", "9"), ("wire", "1")]


def test_the_second_feeds_own_ticker_is_kept(connection: Connection) -> None:
    tell(connection, an_entry(feed="wire"), an_entry(feed="msft", tickers=("MSFT",)))
    news.link_tickers(connection, LINKER)
    assert [ticker for ticker, *_ in rows(connection, LINKS)] == ["AAPL", "MSFT"]


def test_one_id_may_cover_several_entries(connection: Connection) -> None:
    assert tell(connection, an_entry(title="Form 4"), an_entry(title="Form 8-K")) == 2


def test_a_later_text_of_a_story_is_kept_as_a_revision(connection: Connection) -> None:
    assert tell(connection, KnownEntry(an_entry(), at(200))) == 1
    later = an_entry(title="Apple beats by a lot", link="https://news.example/2")
    assert tell(connection, KnownEntry(later, at(205))) == 0
    assert rows(connection, "select title, available_at from news_items") == [
        ("Apple beats expectations", at(200))
    ]
    revised = "select revised_title, available_at from news_provenance order by available_at"
    assert rows(connection, revised) == [(None, at(200)), ("Apple beats by a lot", at(205))]
    assert news.count_revisions(connection, at(200), at(206)) == 1
    assert news.count_revisions(connection, at(206), at(300)) == 0


def test_a_story_with_a_new_link_at_each_fetch_is_one_row(connection: Connection) -> None:
    links = [an_entry(link=f"https://news.example/a?rnd={n}") for n in range(20)]
    assert sum(tell(connection, KnownEntry(e, at(200 + n))) for n, e in enumerate(links)) == 1
    assert len(rows(connection, "select 1 from news_provenance")) == 1


def test_what_an_older_version_stored_is_not_told_again(connection: Connection) -> None:
    tell(connection, an_entry())
    # Then the key of an entry was made of other text.
    connection.execute(text("update news_provenance set entry_key = 'old'"))
    assert tell(connection, KnownEntry(an_entry(), at(201))) == 0
    assert len(rows(connection, "select 1 from news_provenance")) == 1


def test_a_further_ticker_of_a_story_in_the_same_feed_is_linked(connection: Connection) -> None:
    said = [an_entry(title="Fund flows", tickers=(t,), entry_id="") for t in ("AAPL", "MSFT")]
    assert tell(connection, *said) == 1
    news.link_tickers(connection, LINKER)
    assert [ticker for ticker, *_ in rows(connection, LINKS)] == ["AAPL", "MSFT"]


def test_two_fetches_at_once_agree_on_what_is_one_story(engine: Engine) -> None:
    def fetch(number: int) -> int:
        with engine.begin() as own:
            entry = an_entry(link=f"https://news.example/{number}", entry_id=f"{number}")
            return tell(own, KnownEntry(entry, at(200)))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(fetch, range(8))) == 1


def test_a_telling_that_is_read_again_adds_nothing(connection: Connection) -> None:
    tell(connection, an_entry())
    assert tell(connection, an_entry()) == 0
    assert len(rows(connection, "select 1 from news_provenance")) == 1


@pytest.mark.parametrize("order", [1, -1])
def test_the_earliest_telling_decides_when_a_story_was_known(
    connection: Connection, order: int
) -> None:
    early = KnownEntry(an_entry(feed="wire"), at(200))
    late = KnownEntry(an_entry(feed="blog"), at(210))
    tell(connection, *[early, late][::order])
    assert rows(connection, "select available_at from news_items") == [(at(200),)]


def test_a_later_batch_does_not_change_when_a_story_was_known(connection: Connection) -> None:
    tell(connection, KnownEntry(an_entry(feed="wire"), at(200)))
    tell(connection, KnownEntry(an_entry(feed="blog"), at(210)))
    assert rows(connection, "select available_at from news_items") == [(at(200),)]


def test_a_publication_in_the_future_happened_when_it_was_known(connection: Connection) -> None:
    future = at(200) + timedelta(days=1)
    tell(connection, an_entry(published_at=future))
    found = rows(connection, "select published_at, event_at from news_items")
    assert found == [(future, at(200))]


def test_a_publication_in_the_past_happened_then(connection: Connection) -> None:
    tell(connection, an_entry(published_at=NOON))
    assert rows(connection, "select event_at from news_items") == [(NOON,)]


def test_a_story_without_a_time_happened_when_it_was_known(connection: Connection) -> None:
    tell(connection, an_entry(published_at=None))
    assert rows(connection, "select published_at, event_at from news_items") == [(None, at(200))]


def test_the_feeds_own_ticker_comes_before_what_the_text_says(connection: Connection) -> None:
    tell(connection, an_entry(tickers=("AAPL",)))
    news.link_tickers(connection, LINKER)
    assert rows(connection, LINKS) == [("AAPL", "feed", "wire")]


def test_a_name_in_the_text_is_a_link(connection: Connection) -> None:
    tell(connection, an_entry())
    news.link_tickers(connection, LINKER)
    assert rows(connection, LINKS) == [("AAPL", "alias", "Apple")]


def test_a_name_in_the_summary_is_a_link(connection: Connection) -> None:
    tell(connection, an_entry(title="Deal", summary="It was $MSFT who bought."))
    news.link_tickers(connection, LINKER)
    assert rows(connection, LINKS) == [("MSFT", "cashtag", "$MSFT")]


def test_a_text_is_searched_once(connection: Connection) -> None:
    tell(connection, an_entry())
    news.link_tickers(connection, LINKER)
    assert news.link_tickers(connection, LINKER) == 0


def test_searching_all_again_changes_no_link(connection: Connection) -> None:
    tell(connection, an_entry())
    news.link_tickers(connection, LINKER)
    before = rows(connection, "select * from news_tickers")
    tell(connection, an_entry(feed="blog"))
    news.link_tickers(connection, LINKER)
    assert rows(connection, "select * from news_tickers") == before


def test_a_text_without_tickers_is_searched_too(connection: Connection) -> None:
    tell(connection, an_entry(title="Weather", summary=""))
    news.link_tickers(connection, LINKER)
    assert rows(connection, "select is_linked from news_provenance") == [(True,)]


def test_a_link_is_known_since_its_telling(connection: Connection) -> None:
    tell(connection, KnownEntry(an_entry(), at(207)))
    news.link_tickers(connection, LINKER)
    assert rows(connection, "select news_id, available_at from news_tickers") == [
        (news_id(an_entry()), at(207))
    ]


def test_stories_are_counted_by_the_minute_in_which_they_were_known(connection: Connection) -> None:
    known = [(1, at(200)), (2, at(200) + timedelta(seconds=59)), (3, at(201)), (4, at(202))]
    tell(
        connection,
        *[KnownEntry(an_entry(title=str(n), entry_id=str(n)), when) for n, when in known],
    )
    found = counts_by_minute(connection, "news", at(200), at(202))
    assert found == {at(200): 2, at(201): 1}
