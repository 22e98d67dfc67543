"""The market of the modes that live in the present: Alpaca's bars and news feeds."""

from collections.abc import Callable, Sequence
from datetime import datetime

from ops_pipeline import __version__
from ops_pipeline.clients.alpaca_bars import AlpacaBars
from ops_pipeline.clients.alpaca_splits import AlpacaSplits
from ops_pipeline.clients.rss import RssFeeds
from ops_pipeline.clients.universe import universe_file
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.domain.values import Feed
from ops_pipeline.settings import AlpacaAccess, Mode, Settings

Now = Callable[[], datetime]


def access_of(settings: Settings) -> AlpacaAccess:
    """The keys, and where they go.

    Raises:
        BadConfiguration: there are none.
    """
    if settings.alpaca is None:
        raise BadConfiguration(
            f"mode {settings.mode.value} needs the keys of an Alpaca account",
            "set ALPACA_API_KEY and ALPACA_API_SECRET",
        )
    return settings.alpaca


def live_bars(settings: Settings, now: Now) -> AlpacaBars:
    """Bars of this mode's Alpaca.

    Raises:
        BadConfiguration: there are no keys.
    """
    return AlpacaBars(access_of(settings), now)


def live_splits(settings: Settings, now: Now) -> AlpacaSplits:
    """Splits as this mode's Alpaca announces them.

    Raises:
        BadConfiguration: there are no keys.
    """
    return AlpacaSplits(access_of(settings), now)


def live_news(settings: Settings, tickers: Sequence[str], now: Now) -> RssFeeds:
    """The feeds of this mode: those of the sandbox, or of the universe file.

    Raises:
        BadConfiguration: the universe file cannot be used.
    """
    is_sandbox = settings.mode is Mode.SANDBOX
    feeds = (
        sandbox_feeds(settings.sandbox_url, tickers)
        if is_sandbox
        else universe_file(settings.universe_file).feeds_for(tickers)
    )
    return RssFeeds(
        feeds,
        now,
        user_agent=f"ops-pipeline/{__version__}",
        contact=settings.contact,
        allows_private=is_sandbox or settings.allows_private_feeds,
    )


def sandbox_feeds(url: str, tickers: Sequence[str]) -> list[Feed]:
    """The feeds that the sandbox serves."""
    own = [Feed(f"sandbox/{ticker}", f"{url}/feeds/{ticker}.rss", ticker) for ticker in tickers]
    return [Feed("sandbox/markets", f"{url}/feeds/markets.rss"), *own]
