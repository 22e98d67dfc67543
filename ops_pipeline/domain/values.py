"""The records that cross floors: frozen, times aware and UTC, ratios between 0 and 1."""

from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any


@dataclass(frozen=True)
class Ticker:
    """A tracked symbol and the names by which news call it."""

    symbol: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bar:
    """One minute of trading; `minute` is its start, volume is in shares.

    A recording may tell when the bar was known, in `available_at`.
    """

    ticker: str
    minute: datetime
    open: float
    high: float
    low: float
    close: float
    volume: int
    available_at: datetime | None = None


@dataclass(frozen=True)
class NewsEntry:
    """One entry as a feed gave it; `tickers` are those that the feed itself names."""

    feed: str
    entry_id: str
    title: str
    summary: str
    link: str
    published_at: datetime | None
    tickers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Feed:
    """A feed to follow; a ticker feed tells of one ticker."""

    name: str
    url: str
    ticker: str | None = None


@dataclass(frozen=True)
class FeedState:
    """What is remembered of a feed between two fetches."""

    feed: str
    etag: str = ""
    last_modified: str = ""
    failures: int = 0
    retry_at: datetime | None = None


class FeedStatus(StrEnum):
    """How one fetch of a feed went."""

    OK = "ok"
    NOT_MODIFIED = "not_modified"
    BACKING_OFF = "backing_off"
    FAILED = "failed"

    @property
    def is_answer(self) -> bool:
        """Whether the feed was reached, and told what it holds or that nothing changed."""
        return self in (FeedStatus.OK, FeedStatus.NOT_MODIFIED)


@dataclass(frozen=True)
class FeedOutcome:
    """One fetch of a feed; `reason` is one line without secrets, empty unless it failed."""

    feed: str
    status: FeedStatus
    reason: str = ""
    entries: int = 0
    bytes: int = 0
    etag: str = ""
    last_modified: str = ""
    retry_after_seconds: float | None = None


@dataclass(frozen=True)
class Score:
    """What a model says of one text; the three probabilities add up to 1."""

    positive: float
    negative: float
    neutral: float
    # Whether the model could read only the beginning of the text.
    is_truncated: bool = False

    @property
    def label(self) -> str:
        """The most probable of positive, negative and neutral."""
        return max(("neutral", "positive", "negative"), key=lambda name: float(getattr(self, name)))

    @property
    def probability(self) -> float:
        """The probability of the label."""
        return float(getattr(self, self.label))

    @property
    def signed(self) -> float:
        """Direction and strength in [-1, 1]: p(positive) - p(negative)."""
        return self.positive - self.negative


@dataclass(frozen=True)
class Model:
    """Which model scored a text; `weights` is the SHA-256 of its weights, where it has any."""

    backend: str
    name: str
    revision: str
    precision: str
    weights: str = ""


@dataclass(frozen=True)
class FeatureRow:
    """One row of features_1m, as far as rules read it; None means unknown."""

    ticker: str
    minute: datetime
    bar_at: datetime
    close: float | None
    sma20: float | None
    sma50: float | None
    distance_sma20: float | None
    distance_sma50: float | None
    trend_state: int | None
    recent_vol: float | None
    vol_ratio: float | None
    volume_ratio: float | None
    volume_surge: bool | None
    news_count_30: int = 0
    news_count_60: int = 0
    sentiment_60: float | None = None
    news_age_seconds_60: float | None = None
    confident_count_30: int = 0
    confident_sentiment_30: float | None = None
    positive_count_30: int = 0
    negative_count_30: int = 0
    neutral_count_30: int = 0


@dataclass(frozen=True)
class WatchlistEntry:
    """One ticker in one decision of the watchlist."""

    ticker: str
    minute: datetime
    score: float
    rank: int
    in_watchlist: bool
    reason: str
    entered_at: datetime | None
    components: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Signal:
    """What the rules say of one ticker in one minute; action HOLD carries its code in `rule`."""

    ticker: str
    minute: datetime
    action: str
    rule: str
    confidence: float
    reason: dict[str, Any]


@dataclass(frozen=True)
class Recommendation:
    """A claimed row of dispatch_recommendations."""

    id: int
    ts: datetime
    ticker: str
    minute: datetime
    action: str
    instrument_type: str
    intent: str
    confidence: float
    expires_at: datetime
    claim_epoch: int
    reason: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fill:
    """One execution of the ledger; quantities are signed: bought is positive, sold is negative.

    `quantity` has been filled; `working` is what a broker may still fill, at about this price.
    Of a split, `quantity` is what it added, and `split_ratio` what one share became.
    """

    ticker: str
    at: datetime
    session_date: date
    quantity: int
    price: float
    intent: str
    stop_price: float | None = None
    target_price: float | None = None
    max_hold_minutes: int | None = None
    working: int = 0
    split_ratio: float | None = None


@dataclass(frozen=True)
class Position:
    """What is held of one ticker; quantity is signed, the price is the average paid."""

    ticker: str
    quantity: int
    average_price: float
    opened_at: datetime
    session_date: date
    stop_price: float | None
    target_price: float | None
    max_hold_minutes: int | None

    @property
    def notional(self) -> float:
        """What the position cost, without sign."""
        return abs(self.quantity) * self.average_price
