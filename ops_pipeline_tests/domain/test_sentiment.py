import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops_pipeline.domain.sentiment import linked_verdict, score_of_compound, scored_verdict
from ops_pipeline.domain.values import Score


@settings(deadline=None, max_examples=40)
@given(st.floats(-1, 1))
def test_probabilities_add_up_to_one(compound: float) -> None:
    score = score_of_compound(compound)
    assert score.positive + score.negative + score.neutral == pytest.approx(1.0)


@settings(deadline=None, max_examples=40)
@given(st.floats(-10, 10))
def test_probabilities_never_leave_the_unit_interval(compound: float) -> None:
    score = score_of_compound(compound)
    assert all(0 <= p <= 1 for p in (score.positive, score.negative, score.neutral))


@settings(deadline=None, max_examples=40)
@given(st.floats(-1, 1))
def test_the_signed_score_is_the_compound_itself(compound: float) -> None:
    assert score_of_compound(compound).signed == compound


@pytest.mark.parametrize(
    ("compound", "label", "probability"),
    [
        (0.8, "positive", 0.8),
        (-0.8, "negative", 0.8),
        (0.0, "neutral", 1.0),
        (0.25, "neutral", 0.75),
        (0.5, "neutral", 0.5),
        (-0.5, "neutral", 0.5),
        (1.5, "positive", 1.0),
    ],
)
def test_the_label_is_the_most_probable(compound: float, label: str, probability: float) -> None:
    score = score_of_compound(compound)
    assert (score.label, score.probability) == (label, probability)


def test_the_label_when_good_and_bad_are_even_then_positive_comes_first() -> None:
    assert Score(0.4, 0.4, 0.2).label == "positive"


@pytest.mark.parametrize(
    ("stories", "scored", "given_up", "is_normal"),
    [
        (0, 0, 0, True),
        (100, 100, 0, True),
        (100, 95, 0, True),
        (100, 94, 0, False),
        (1, 0, 0, False),
        (100, 100, 1, False),
    ],
)
def test_stories_are_scored_when_nearly_all_are_and_none_is_given_up(
    stories: int,
    scored: int,
    given_up: int,
    is_normal: bool,  # noqa: FBT001
) -> None:
    verdict = scored_verdict(stories, scored, waiting=0, given_up=given_up)
    assert verdict.is_normal == is_normal


@pytest.mark.parametrize(
    ("stories", "linked", "is_normal"),
    [(0, 0, True), (19, 0, True), (20, 0, False), (301, 0, False), (100, 5, True), (100, 4, False)],
)
def test_stories_that_speak_of_nothing_in_the_universe_are_a_problem(
    stories: int,
    linked: int,
    is_normal: bool,  # noqa: FBT001
) -> None:
    verdict = linked_verdict(stories, linked)
    assert verdict.is_normal == is_normal
    known = f"{linked} of {stories} name a ticker"
    assert verdict.finding == (known if stories else "not measured yet: no story of the last day")
