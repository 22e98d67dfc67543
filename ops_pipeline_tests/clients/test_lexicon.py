import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops_pipeline.clients.lexicon import NEUTRAL, WORDS, LexiconClassifier
from ops_pipeline.domain.values import Score

LEXICON = LexiconClassifier()
FINANCE_WORDS = {word: valence for valence, words in WORDS for word in words.split()}
GOOD = [
    "Apple beats expectations as profit soars",
    "Nvidia surges after record growth",
    "Analysts upgrade Microsoft, shares rally",
    "Tesla climbs on strong approval",
]
BAD = [
    "Boeing plunges on fraud investigation",
    "Intel misses expectations, announces layoffs",
    "Retailer warns of bankruptcy",
    "Analysts downgrade Tesla as shares tumble on recall and lawsuit",
]


def score(text: str) -> Score:
    return LEXICON.classify([text])[0]


@pytest.mark.parametrize("text", GOOD)
def test_a_good_headline_is_positive(text: str) -> None:
    assert score(text).label == "positive"


@pytest.mark.parametrize("text", BAD)
def test_a_bad_headline_is_negative(text: str) -> None:
    assert score(text).label == "negative"


@pytest.mark.parametrize(
    "text", ["", "   ", "Company to hold its annual meeting on Tuesday", "123"]
)
def test_a_headline_without_feeling_is_neutral(text: str) -> None:
    assert score(text) == Score(0.0, 0.0, 1.0)


@pytest.mark.parametrize("word", NEUTRAL.split())
def test_a_word_of_the_trade_has_no_feeling(word: str) -> None:
    assert score(word).signed == 0.0


@pytest.mark.parametrize("word", sorted(FINANCE_WORDS))
def test_a_finance_word_has_the_direction_of_its_valence(word: str) -> None:
    assert score(word).signed * FINANCE_WORDS[word] > 0


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=80) | st.lists(st.sampled_from(sorted(FINANCE_WORDS))).map(" ".join))
def test_a_score_is_three_probabilities(text: str) -> None:
    found = score(text)
    parts = (found.positive, found.negative, found.neutral)
    assert all(0.0 <= part <= 1.0 for part in parts)
    assert sum(parts) == pytest.approx(1.0)
    assert -1.0 <= found.signed <= 1.0


def test_the_same_text_always_scores_the_same() -> None:
    assert LexiconClassifier().classify([*GOOD, *BAD]) == [score(text) for text in [*GOOD, *BAD]]


def test_scores_come_in_the_order_of_the_texts() -> None:
    assert LEXICON.classify([*BAD, *GOOD]) == LEXICON.classify([*GOOD, *BAD])[4:] + (
        LEXICON.classify(GOOD)
    )


def test_no_texts_have_no_scores() -> None:
    assert LEXICON.classify([]) == []


def test_the_model_is_named_as_what_it_is() -> None:
    assert (LEXICON.model.backend, LEXICON.model.name) == ("lexicon", "vader-finance")
    assert LEXICON.model.revision.startswith("vader-")
