"""Three probabilities that add up to 1, from what a classifier says; and whether all is scored."""

from datetime import timedelta

from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.values import Model, Score

CONFIDENT_PROBABILITY = 0.65
# A text that could not be scored so often, or ended the process, is given up.
MOST_ATTEMPTS = 3
SCORED, FOR_PRODUCTION = "news_are_scored", "sentiment_is_by_a_model"
# Stories of the last day count, but for those that came in a moment ago.
COVERED, SCORED_WITHIN, LEAST_SCORED = timedelta(days=1), timedelta(minutes=3), 0.95


def score_of_compound(compound: float) -> Score:
    """Probabilities of a lexicon's compound value in [-1, 1].

    The direction takes its strength and neutral takes the rest, so that the signed score is the
    compound value itself.
    """
    strength = min(abs(compound), 1.0)
    positive = strength if compound > 0 else 0.0
    negative = strength if compound < 0 else 0.0
    return Score(positive, negative, 1.0 - strength)


def scored_verdict(stories: int, scored: int, linked: int, waiting: int, given_up: int) -> Verdict:
    """Whether the stories of the last day are scored, and nothing was given up."""
    observed = {
        "stories": stories,
        "scored": scored,
        "linked": linked,
        "waiting": waiting,
        "given_up": given_up,
    }
    expected = f">= {LEAST_SCORED:.0%} of the stories of the last day, none given up"
    found = f"{scored} of {stories} scored, {linked} name a ticker, {waiting} wait"
    if given_up:
        found += f", {given_up} given up"
    is_normal = scored >= LEAST_SCORED * stories and not given_up
    return Verdict(SCORED, Level.NORMAL if is_normal else Level.PROBLEM, found, observed, expected)


def model_verdict(model: Model, *, is_production: bool) -> Verdict:
    """In production, a word list must not decide; where orders are play, it may."""
    is_list = model.backend == "lexicon"
    found = f"{model.name}{', a word list' if is_list else ''}"
    is_normal = not (is_list and is_production)
    level = Level.NORMAL if is_normal else Level.CRITICAL
    return Verdict(FOR_PRODUCTION, level, found, {"backend": model.backend}, "no word list")
