"""Three probabilities that add up to 1, from what a classifier says; and whether all is scored."""

from datetime import timedelta

from ops_pipeline.domain.acceptance import Level, Verdict
from ops_pipeline.domain.values import Model, Score

CONFIDENT_PROBABILITY = 0.65
# A text that could not be scored so often, or ended the process, is given up.
MOST_ATTEMPTS = 3
SCORED, LINKED = "news_are_scored", "news_name_tickers"
FOR_PRODUCTION = "sentiment_is_by_a_model"
# Stories of the last day count, but for those that came in a moment ago.
COVERED, SCORED_WITHIN, LEAST_SCORED = timedelta(days=1), timedelta(minutes=3), 0.95
# A feed about anything else, or names that are not the universe's, link nothing. Fewer stories
# than this say nothing.
LEAST_LINKED, FEW_STORIES = 0.05, 20


def score_of_compound(compound: float) -> Score:
    """Probabilities of a lexicon's compound value in [-1, 1].

    The direction takes its strength and neutral takes the rest, so that the signed score is the
    compound value itself.
    """
    strength = min(abs(compound), 1.0)
    positive = strength if compound > 0 else 0.0
    negative = strength if compound < 0 else 0.0
    return Score(positive, negative, 1.0 - strength)


def scored_verdict(stories: int, scored: int, waiting: int, given_up: int) -> Verdict:
    """Whether the stories of the last day are scored, and nothing was given up."""
    observed = {
        "stories": stories,
        "scored": scored,
        "waiting": waiting,
        "given_up": given_up,
    }
    expected = f">= {LEAST_SCORED:.0%} of the stories of the last day, none given up"
    if not stories:
        return _no_stories(SCORED, observed, expected)
    found = f"{scored} of {stories} scored, {waiting} wait"
    if given_up:
        found += f", {given_up} given up"
    is_normal = scored >= LEAST_SCORED * stories and not given_up
    return Verdict(SCORED, Level.NORMAL if is_normal else Level.MEDIUM, found, observed, expected)


def linked_verdict(stories: int, linked: int) -> Verdict:
    """Whether the stories of the last day speak of the universe at all."""
    observed = {"stories": stories, "linked": linked}
    expected = (
        f">= {LEAST_LINKED:.0%} of the stories of the last day, from {FEW_STORIES} stories on"
    )
    if not stories:
        return _no_stories(LINKED, observed, expected)
    is_normal = stories < FEW_STORIES or linked >= LEAST_LINKED * stories
    level = Level.NORMAL if is_normal else Level.MEDIUM
    return Verdict(LINKED, level, f"{linked} of {stories} name a ticker", observed, expected)


def _no_stories(name: str, observed: dict[str, int], expected: str) -> Verdict:
    found = "not measured yet: no story of the last day"
    return Verdict(name, Level.UNMEASURED, found, dict(observed), expected)


def model_verdict(model: Model, *, is_production: bool) -> Verdict:
    """In production, a word list must not decide; where orders are play, it may."""
    is_list = model.backend == "lexicon"
    found = f"{model.name}{', a word list' if is_list else ''}"
    is_normal = not (is_list and is_production)
    level = Level.NORMAL if is_normal else Level.HIGH
    return Verdict(FOR_PRODUCTION, level, found, {"backend": model.backend}, "no word list")
