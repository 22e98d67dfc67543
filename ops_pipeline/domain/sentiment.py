"""From what a classifier says to three probabilities that add up to 1."""

from ops_pipeline.domain.values import Score

CONFIDENT_PROBABILITY = 0.65


def score_of_compound(compound: float) -> Score:
    """Probabilities of a lexicon's compound value in [-1, 1].

    The direction takes its strength and neutral takes the rest, so that the signed score is the
    compound value itself.
    """
    strength = min(abs(compound), 1.0)
    positive = strength if compound > 0 else 0.0
    negative = strength if compound < 0 else 0.0
    return Score(positive, negative, 1.0 - strength)
