"""What the pipeline asks of the outside world, whoever answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from math import inf
from typing import Protocol

from ops_pipeline.domain.errors import OperatorError
from ops_pipeline.domain.orders import BrokerAccount, OrderReport, OrderTicket
from ops_pipeline.domain.values import Bar, FeedOutcome, FeedState, Model, NewsEntry, Score


@dataclass(frozen=True)
class FetchedBars:
    """What a vendor answered, and for which tickers it gave no answer, and why."""

    bars: list[Bar]
    unanswered: dict[str, str] = field(default_factory=dict)
    requests: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class FetchedNews:
    """What feeds told, oldest first, and how each of them was reached."""

    entries: list[NewsEntry]
    feeds: list[FeedOutcome] = field(default_factory=list)


class BarSource(Protocol):
    """A vendor of one-minute bars."""

    @property
    def feed(self) -> str:
        """The name of the vendor's feed, stored beside each bar."""

    def fetch_bars(
        self,
        tickers: Sequence[str],
        start: datetime,
        end: datetime,
        within_seconds: float = inf,
    ) -> FetchedBars:
        """Complete bars of these tickers with start <= minute < end; those that come in time."""


class SplitSource(Protocol):
    """Who knows of splits."""

    def fetch_splits(self, tickers: Sequence[str], day: date) -> dict[str, float]:
        """How many shares one share becomes on a day, for those of these that are split."""


class NewsSource(Protocol):
    """A set of news feeds."""

    def fetch_news(
        self,
        start: datetime,
        end: datetime,
        states: Mapping[str, FeedState],
        within_seconds: float = inf,
    ) -> FetchedNews:
        """Entries published in [start, end), and undated ones; states are of the last fetch.

        A feed that does not tell them in time has failed.
        """


class Unscorable(OperatorError):
    """The model has no number for some of the texts; `scores` has None in their places."""

    def __init__(self, scores: Sequence[Score | None]) -> None:
        self.scores = list(scores)
        count = self.scores.count(None)
        super().__init__(f"the model gave no number for {count} of {len(self.scores)} texts")


class Classifier(Protocol):
    """A model that says how a text sounds; what only asks for its name does not load it."""

    model: Model

    def classify(self, texts: Sequence[str]) -> list[Score]:
        """One score for each text, in order; any text has one, the empty one included.

        Raises:
            Unscorable: the model has no number for some; it carries all other scores.
            OperatorError: the model cannot be loaded.
        """


class OrderGateway(Protocol):
    """A broker that takes orders; none of its calls is repeated behind the caller's back."""

    def account(self) -> BrokerAccount:
        """The account that orders go to.

        Raises:
            OperatorError: the broker does not answer, or refuses the key.
        """

    def submit(self, ticket: OrderTicket) -> OrderReport:
        """Hand over an order, in one request.

        Raises:
            OrderRefused: the broker has said no, and why.
            OrderUnknown: the answer was lost, late or unreadable, or the id is taken already.
        """

    def find(self, client_order_id: str) -> OrderReport | None:
        """The order that carries this id; None where the broker says that there is none.

        Raises:
            OrderUnknown: the broker gave no usable answer.
        """
