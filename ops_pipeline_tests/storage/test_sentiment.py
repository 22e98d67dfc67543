"""A text is scored once by each model, and a score is known no earlier than it could be."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from ops_pipeline.domain.news import text_hash
from ops_pipeline.domain.stories import KnownEntry
from ops_pipeline.domain.values import Model, Score
from ops_pipeline.storage import news, sentiment
from ops_pipeline.storage.knowledge import counts_by_minute
from ops_pipeline.storage.sentiment import Unscored
from ops_pipeline_tests.builders import an_entry, at
from ops_pipeline_tests.storage.rows import rows

MODEL = Model("lexicon", "words", "1", "exact")
SCORE = Score(positive=0.7, negative=0.1, neutral=0.2)
DELAY = timedelta(seconds=5)


def tell(connection: Connection, *titles: str, origin: str = "recorded") -> None:
    told = [KnownEntry(an_entry(title=t, entry_id=t), at(200 + n)) for n, t in enumerate(titles)]
    news.insert_entries(connection, told, origin=origin)


def score(connection: Connection, known_at: datetime | None = None, value: Score = SCORE) -> None:
    waiting = sentiment.unscored(connection, MODEL, 100)
    pairs = [(item, value) for item in waiting]
    sentiment.insert_scores(connection, MODEL, pairs, known_at=known_at, delay=DELAY)


def test_a_text_waits_with_what_a_model_reads(connection: Connection) -> None:
    tell(connection, "A")
    hashed = text_hash("A", "Profit rises.")
    assert sentiment.unscored(connection, MODEL, 9) == [
        Unscored(hashed, "A", "Profit rises.", "recorded", at(200))
    ]


def test_what_was_known_last_is_scored_first(connection: Connection) -> None:
    tell(connection, "B", "A", "C")
    assert [item.title for item in sentiment.unscored(connection, MODEL, 2)] == ["C", "A"]


def test_one_text_of_two_stories_waits_once_and_was_known_first_then(
    connection: Connection,
) -> None:
    told = [KnownEntry(an_entry(link=f"https://x/{n}"), at(200 - n)) for n in range(2)]
    news.insert_entries(connection, told, origin="recorded")
    assert [u.available_at for u in sentiment.unscored(connection, MODEL, 9)] == [at(199)]


def test_a_scored_text_waits_no_longer(connection: Connection) -> None:
    tell(connection, "A", "B")
    score(connection)
    assert sentiment.unscored(connection, MODEL, 9) == []


@pytest.mark.parametrize(
    "other",
    [Model("lexicon", "words", "2", "exact"), Model("lexicon", "others", "1", "exact")],
    ids=["revision", "name"],
)
def test_a_text_that_another_model_scored_waits(connection: Connection, other: Model) -> None:
    tell(connection, "A")
    score(connection)
    assert len(sentiment.unscored(connection, other, 9)) == 1


def test_the_first_score_of_a_text_stays(connection: Connection) -> None:
    tell(connection, "A")
    waiting = sentiment.unscored(connection, MODEL, 9)
    for value in (SCORE, Score(positive=0.0, negative=1.0, neutral=0.0)):
        pairs = [(item, value) for item in waiting]
        sentiment.insert_scores(connection, MODEL, pairs, known_at=None, delay=DELAY)
    assert rows(connection, "select label, probability from news_sentiments") == [("positive", 0.7)]


def test_a_score_is_signed(connection: Connection) -> None:
    tell(connection, "A")
    score(connection)
    assert rows(connection, "select score from news_sentiments") == [(pytest.approx(0.6),)]


def test_the_model_that_scored_is_kept(connection: Connection) -> None:
    tell(connection, "A")
    score(connection)
    found = rows(connection, "select backend, model, revision, precision from news_sentiments")
    assert found == [("lexicon", "words", "1", "exact")]


def test_a_recorded_score_is_known_a_delay_after_its_text(connection: Connection) -> None:
    tell(connection, "A")
    score(connection)
    assert rows(connection, "select origin, available_at from news_sentiments") == [
        ("recorded", at(200) + DELAY)
    ]


def test_a_live_score_is_known_when_it_was_made(connection: Connection) -> None:
    tell(connection, "A", origin="live")
    score(connection, known_at=at(300))
    assert rows(connection, "select origin, available_at from news_sentiments") == [
        ("live", at(300))
    ]


def test_no_scores_are_nothing(connection: Connection) -> None:
    sentiment.insert_scores(connection, MODEL, [], known_at=None, delay=DELAY)
    assert rows(connection, "select 1 from news_sentiments") == []


@pytest.mark.parametrize(
    "value",
    [
        Score(positive=0.5, negative=0.5, neutral=0.5),
        Score(positive=1.2, negative=-0.2, neutral=0.0),
        Score(positive=float("nan"), negative=0.0, neutral=1.0),
    ],
    ids=str,
)
def test_the_database_refuses_what_is_no_probability(connection: Connection, value: Score) -> None:
    tell(connection, "A")
    with pytest.raises(IntegrityError, match="violates check constraint"):
        score(connection, value=value)


def test_scores_are_counted_by_the_minute_in_which_they_were_known(connection: Connection) -> None:
    tell(connection, "A", "B", "C")
    score(connection)
    found = counts_by_minute(connection, "sentiment", at(200), at(202))
    assert found == {at(200): 1, at(201): 1}


def test_weights_and_whether_a_text_was_cut_are_kept(connection: Connection) -> None:
    tell(connection, "A")
    (item,) = sentiment.unscored(connection, MODEL, 9)
    model = replace(MODEL, weights="abc")
    cut = replace(SCORE, is_truncated=True)
    sentiment.insert_scores(connection, model, [(item, cut)], known_at=None, delay=DELAY)
    found = rows(connection, "select weights, is_truncated from news_sentiments")
    assert found == [("abc", True)]


def test_a_text_is_given_up_after_three_attempts(connection: Connection) -> None:
    tell(connection, "A", "B")
    for attempt in range(3):
        waiting = {item.title: item for item in sentiment.unscored(connection, MODEL, 9)}
        assert (waiting["A"].attempts, waiting["B"].attempts) == (attempt, 0)
        sentiment.begin_attempts(connection, MODEL, [waiting["A"]])
    assert [item.title for item in sentiment.unscored(connection, MODEL, 9)] == ["B"]
    assert sentiment.backlog(connection, MODEL) == sentiment.Backlog(waiting=1, given_up=1)


def test_another_model_tries_what_one_has_given_up(connection: Connection) -> None:
    tell(connection, "A")
    for _ in range(3):
        sentiment.begin_attempts(connection, MODEL, sentiment.unscored(connection, MODEL, 9))
    other = replace(MODEL, revision="2")
    assert [item.attempts for item in sentiment.unscored(connection, other, 9)] == [0]


def test_nothing_is_left_of_an_attempt_that_gave_a_score(connection: Connection) -> None:
    tell(connection, "A")
    sentiment.begin_attempts(connection, MODEL, sentiment.unscored(connection, MODEL, 9))
    score(connection)
    assert rows(connection, "select 1 from news_scoring_attempts") == []
    assert sentiment.backlog(connection, MODEL) == sentiment.Backlog(0, 0)


def test_why_an_attempt_failed_is_kept(connection: Connection) -> None:
    tell(connection, "A")
    (item,) = sentiment.unscored(connection, MODEL, 9)
    sentiment.begin_attempts(connection, MODEL, [item])
    assert rows(connection, "select reason from news_scoring_attempts") == [("the process ended",)]
    sentiment.fail_attempts(connection, MODEL, {item.text_hash: "ValueError: no"})
    assert rows(connection, "select reason from news_scoring_attempts") == [("ValueError: no",)]
