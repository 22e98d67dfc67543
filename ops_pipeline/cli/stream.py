"""The verb trade-stream: the one process that follows the account, until it is ended."""

import asyncio
import logging
import signal

from ops_pipeline import __version__
from ops_pipeline.cli.console import ModeOption, say
from ops_pipeline.clients.alpaca_books import AlpacaBooks
from ops_pipeline.clients.alpaca_stream import AlpacaStream
from ops_pipeline.clients.live import access_of
from ops_pipeline.dispatcher.stream import Follower
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.engine.logs import JsonLines
from ops_pipeline.settings import Settings, load
from ops_pipeline.storage.dispatch import ACCOUNT
from ops_pipeline.storage.engine import opened, reachable
from ops_pipeline.storage.knowledge import clock


def trade_stream(mode: ModeOption = None) -> None:
    """Follow the account at the broker in real time, as the only one; until Ctrl-C."""
    settings = load(mode.value if mode else None)
    if not settings.mode.is_followed:
        raise BadConfiguration(
            f"mode {settings.mode.value} has no account to follow",
            "use --mode alpaca-paper or --mode sandbox",
        )
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    access = access_of(settings)
    # Who, where and which code: what is wrong when it does not run.
    where = f"{settings.server.host}:{settings.server.port}" if settings.server else "nowhere"
    say(
        f"following {access.trading_url} with key {access.masked_key}, database"
        f" {settings.pipeline_database} at {where}, code {__version__}"
    )
    with reachable(settings):
        asyncio.run(_follow(settings))


async def _follow(settings: Settings) -> None:
    access = access_of(settings)
    with opened(settings) as engine:
        follower = Follower(
            engine,
            AlpacaBooks(access, clock),
            lambda hear, tell: AlpacaStream(access, hear, tell),
            ACCOUNT,
            __version__,
        )
        following = asyncio.create_task(follower.run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, following.cancel)
        try:
            await following
        except asyncio.CancelledError:
            say("ended")
