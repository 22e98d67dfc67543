"""What the assets work with: one set for each mode, chosen by one setting."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from sqlalchemy import Connection, Engine

from ops_pipeline import __version__
from ops_pipeline.clients.alpaca_orders import AlpacaOrders
from ops_pipeline.clients.classifiers import classifier_of
from ops_pipeline.clients.live import access_of, live_bars, live_news, live_splits
from ops_pipeline.clients.protocols import BarSource, Classifier, NewsSource, SplitSource
from ops_pipeline.clients.replay import RecordedMarket
from ops_pipeline.dispatcher.brokers import Broker, PaperBroker, SimulatedBroker
from ops_pipeline.dispatcher.run import Desk
from ops_pipeline.domain.errors import Unsafe
from ops_pipeline.domain.session import MINUTE, Calendar, Timing
from ops_pipeline.domain.thresholds import (
    BarRules,
    DispatcherConfig,
    SignalRules,
    WatchlistRules,
)
from ops_pipeline.operations.config import config_of, settle
from ops_pipeline.settings import (
    BrokerName,
    Mode,
    Settings,
    require_consent,
)
from ops_pipeline.storage import knowledge
from ops_pipeline.storage.engine import open_engine
from ops_pipeline.storage.universe import universe

# How long after the fact recorded rows count as known; all of it within the settle time.
BAR_DELAY = timedelta(seconds=5)
NEWS_DELAY = timedelta(seconds=5)
SCORE_DELAY = timedelta(seconds=2)


@dataclass(frozen=True)
class Market:
    """Where bars and news come from, and whether they are the past or the present."""

    bars: BarSource
    splits: SplitSource
    news: NewsSource
    origin: str


class Pipeline:
    """The resource of all assets: settings, database, market, rules; opened when first used."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.mode = settings.mode
        self.calendar: Calendar = settings.mode.calendar
        self.timing = Timing(settle_seconds=0 if settings.mode is Mode.SANDBOX else 20)
        # Told of each finished piece of work, by name and as a share of it; a replay draws it.
        self.on_progress: Callable[[str, float], None] | None = None
        self.bar_rules = BarRules()
        self.watchlist_rules = WatchlistRules()
        self.signal_rules = SignalRules()

    @cached_property
    def engine(self) -> Engine:
        """The pipeline's database."""
        return open_engine(self.settings)

    @cached_property
    def market(self) -> Market:
        """The market of this mode."""
        return MARKETS[self.mode](self)

    @cached_property
    def classifier(self) -> Classifier:
        """The model that scores news: the one that is configured, and no other.

        Raises:
            BadConfiguration: it is not there, or not usable.
        """
        return classifier_of(self.settings)

    def now(self) -> datetime:
        """The present of this mode."""
        with self.engine.connect() as connection:
            return knowledge.read_now(connection, self.mode)

    def stamp(self, connection: Connection) -> datetime | None:
        """The instant of receipt for live rows; None for recorded ones, which carry their own."""
        return knowledge.stamp_now(connection, self.mode) if self.mode.is_live else None

    def progress(self, what: str, share: float = 1.0) -> None:
        """Tell whoever watches that a piece of work is done."""
        if self.on_progress:
            self.on_progress(what, share)

    def broker(self, config: DispatcherConfig | None = None) -> Broker:
        """Who executes in this mode; of a paper account, only the one that consent was given for.

        Raises:
            Unsafe: there is no consent for this account, or its broker has blocked it.
            OperatorError: the broker does not answer, or refuses the key.
        """
        if self.settings.broker is BrokerName.SIMULATED:
            return SimulatedBroker()
        gateway = AlpacaOrders(access_of(self.settings), knowledge.clock)
        account = gateway.account()
        require_consent(self.settings, account.number)
        if account.is_blocked:
            raise Unsafe("the broker has blocked the account", "look at it on Alpaca's own page")
        return PaperBroker(
            gateway,
            self.mode.value,
            needs_stream=self.mode.needs_stream,
            max_clock_skew_seconds=config.max_clock_skew_seconds if config else None,
        )

    def desk(self, orchestrator_run_id: str) -> Desk:
        """What the dispatcher works with.

        Raises:
            OperatorError: its settings cannot be used, or its broker must not be.
        """
        # Read anew for each run: what is wrong in it stops no other stage.
        version = settle(self.engine, self.settings, knowledge.clock())
        config = config_of(version, self.settings)
        return Desk(
            engine=self.engine,
            calendar=self.calendar,
            config=config,
            config_version=version.version,
            mode=self.mode,
            code_version=__version__,
            orchestrator_run_id=orchestrator_run_id,
            broker=self.broker(config),
        )


def bar_known_at(minute: datetime) -> datetime:
    """When a recorded bar counts as known."""
    return minute + MINUTE + BAR_DELAY


def _recorded(pipeline: Pipeline) -> Market:
    source = RecordedMarket(pipeline.settings.mode_dir / "market")
    return Market(source, source, source, "recorded")


def _live(pipeline: Pipeline) -> Market:
    with pipeline.engine.connect() as connection:
        tickers = [ticker.symbol for ticker in universe(connection)]
    settings, now = pipeline.settings, knowledge.clock
    return Market(
        live_bars(settings, now),
        live_splits(settings, now),
        live_news(settings, tickers, now),
        "live",
    )


MARKETS: dict[Mode, Callable[[Pipeline], Market]] = {
    Mode.REPLAY: _recorded,
    Mode.SANDBOX: _live,
    Mode.SIMULATED: _live,
    Mode.ALPACA_PAPER: _live,
}
