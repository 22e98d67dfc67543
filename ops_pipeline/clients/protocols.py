"""What the pipeline asks of the outside world, whoever answers."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from ops_pipeline.domain.values import Bar, Model, NewsEntry, Score


class BarSource(Protocol):
    """A vendor of one-minute bars."""

    @property
    def feed(self) -> str:
        """The name of the vendor's feed, stored beside each bar."""

    def fetch_bars(self, tickers: Sequence[str], start: datetime, end: datetime) -> list[Bar]:
        """Complete bars of these tickers with start <= minute < end, by minute and ticker."""


class NewsSource(Protocol):
    """A set of news feeds."""

    def fetch_news(self, start: datetime, end: datetime) -> list[NewsEntry]:
        """Entries published in [start, end), oldest first."""


class Classifier(Protocol):
    """A model that says how a text sounds."""

    model: Model

    def classify(self, texts: Sequence[str]) -> list[Score]:
        """One score for each text, in order."""
