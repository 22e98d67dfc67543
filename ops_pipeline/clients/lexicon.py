"""A word list that scores headlines; no model, and named as what it is."""

from collections.abc import Sequence
from importlib.metadata import version

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from ops_pipeline.domain.sentiment import score_of_compound
from ops_pipeline.domain.values import Model, Score

# What headlines mean by words that the general list does not know, on its scale of -4 to 4.
FINANCE_WORDS = {
    word: valence
    for valence, words in (
        (2.8, "soars"),
        (2.6, "surges"),
        (2.4, "beats surge"),
        (2.2, "beat rallies upgrade upgraded upgrades bullish"),
        (2.0, "tops rally jumps outperform"),
        (1.6, "climbs gains buyback approval"),
        (1.4, "rises record raises profit growth"),
        (1.2, "expands"),
        (1.0, "dividend"),
        (-1.2, "halts"),
        (-1.4, "cuts delays antitrust"),
        (-1.6, "falls drops slides probe investigation weak"),
        (-1.8, "lawsuit recall layoffs warning warns loss losses"),
        (-2.0, "sinks underperform"),
        (-2.2, "missed downgrade downgraded downgrades bearish"),
        (-2.4, "misses slumps tumbles default selloff"),
        (-2.6, "plunge"),
        (-2.8, "plunges"),
        (-3.0, "fraud"),
        (-3.2, "bankruptcy"),
    )
    for word in words.split()
}
# Words that the general list takes for feelings and the market does not.
NEUTRAL_WORDS = ("share", "shares", "stock", "stocks", "interest", "credit", "tech", "vice", "fed")


class LexiconClassifier:
    """vaderSentiment with a finance word list on top."""

    def __init__(self) -> None:
        self._analyzer = SentimentIntensityAnalyzer()
        self._analyzer.lexicon.update(FINANCE_WORDS)
        for word in NEUTRAL_WORDS:
            self._analyzer.lexicon.pop(word, None)
        revision = f"vader-{version('vaderSentiment')}+finance-1"
        self.model = Model("lexicon", "vader-finance", revision, "exact")

    def classify(self, texts: Sequence[str]) -> list[Score]:
        """One score for each text, in order; the same text always scores the same."""
        return [
            score_of_compound(self._analyzer.polarity_scores(text)["compound"]) for text in texts
        ]
