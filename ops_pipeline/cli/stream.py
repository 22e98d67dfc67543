"""The verb trade-stream: the one process that follows the account; its report, and accept."""

import asyncio
import logging
import signal
from typing import Annotated

import typer

from ops_pipeline import __version__
from ops_pipeline.cli.console import (
    JsonOption,
    ModeOption,
    ReasonOption,
    out,
    say,
    show_result,
    table,
)
from ops_pipeline.cli.server import connected, settings_of
from ops_pipeline.clients.alpaca_books import AlpacaBooks
from ops_pipeline.clients.alpaca_stream import AlpacaStream
from ops_pipeline.clients.live import access_of
from ops_pipeline.dispatcher.stream import Follower
from ops_pipeline.domain.adjustments import said
from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.domain.session import both_zones
from ops_pipeline.engine.logs import JsonLines
from ops_pipeline.local.memory import share_one_arena
from ops_pipeline.operations.operator import operator
from ops_pipeline.operations.stream import StreamReport, report
from ops_pipeline.operations.stream import accept as accept_difference
from ops_pipeline.settings import Settings
from ops_pipeline.storage.dispatch import ACCOUNT
from ops_pipeline.storage.engine import opened, reachable
from ops_pipeline.storage.knowledge import clock

app = typer.Typer(invoke_without_command=True)


@app.callback()
def trade_stream(
    context: typer.Context,
    as_report: Annotated[
        bool, typer.Option("--report", help="Show both sides of the account, and follow nothing.")
    ] = False,
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow the account at the broker in real time, as the only one; until Ctrl-C.

    With --report: who follows it, what frames told, what every ticker comes to; exit code 1 if
    nobody follows it or it does not add up.
    """
    if context.invoked_subcommand:
        return
    settings = _followed(mode)
    if as_report or as_json:
        with connected(mode) as (_, connection):
            found = report(connection, ACCOUNT, clock())
        show_result(found, _print, as_json=as_json, is_normal=found.is_normal)
        return
    share_one_arena()
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


@app.command()
def accept(
    ticker: Annotated[str, typer.Argument(help="The ticker, as the report writes it.")],
    reason: ReasonOption,
    split: Annotated[
        bool | None,
        typer.Option(
            "--split/--no-split",
            help="Scale the lot, its stop and its target (default: if the broker's cost per share"
            " changed like a split's).",
        ),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Apply the change (default: dry run).")
    ] = False,
    mode: ModeOption = None,
) -> None:
    """Accept what the account holds of TICKER, where its orders come to something else.

    The adjustment is a row of its own: who, why, when, and the difference. Exit code 6 while an
    order of the ticker is at work, or if there is nothing to accept.
    """
    settings, symbol = _followed(mode), ticker.upper().replace("/", "")
    who, now = operator(settings), clock()
    with connected(settings.mode) as (_, connection):
        made = accept_difference(
            connection, ACCOUNT, symbol, now, who=who, reason=reason, is_split=split
        )
        for line in said(made):
            say(line)
        if not apply:
            connection.rollback()
    if apply:
        say(f"accepted by {who}; account_adds_up counts it from the next look on")
    else:
        say("a dry run: nothing was changed; add --apply to do it")


def _followed(mode: ModeOption) -> Settings:
    settings = settings_of(mode)
    if not settings.mode.is_followed:
        raise BadConfiguration(
            f"mode {settings.mode.value} has no account to follow",
            "use --mode alpaca-paper or --mode sandbox",
        )
    return settings


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


def _print(found: StreamReport) -> None:
    health = found.health
    say(f"{both_zones(found.at)}: {found.said}")
    if health:
        since = both_zones(health.connected_at) if health.connected_at else "not connected"
        asked = both_zones(health.passed_at) if health.passed_at else "never"
        say(f"{health.holder}, code {health.code_version}, connected {since}, asked {asked}")
    frames = ", ".join(f"{name} {n}" for name, n in found.frames_last_hour.items())
    lag = f"{frames}; 95 % within {found.lag_p95_seconds} s" if frames else "none"
    say(f"frames of the last hour: {lag}")
    say(f"fills of which a request told first: {found.gaps_last_hour}")
    columns = [
        *("ticker", "before", "ours", "others", "adjusted", "broker", "difference", "explanation")
    ]
    rows = [list(one.__dict__.values()) for one in found.tickers]
    out.print(table("shares", columns, rows))
    if found.open_orders:
        columns = ["order", "ticker", "side", "qty", "broker", "filled", "we", "filled"]
        rows = [list(one.__dict__.values()) for one in found.open_orders]
        out.print(table("open orders", columns, rows))
    if found.gaps:
        columns = ["fill at (UTC)", "ticker", "order", "filled", "healed after s"]
        rows = [
            [
                f"{gap.at:%H:%M:%S}",
                gap.ticker,
                gap.broker_order_id[:8],
                gap.filled_qty,
                round((gap.healed_at - gap.at).total_seconds(), 1),
            ]
            for gap in found.gaps
        ]
        out.print(table("told by a request first", columns, rows))
    _print_looks(found)


def _print_looks(found: StreamReport) -> None:
    columns = [
        "look (UTC)",
        "why",
        "outcome",
        "ms",
        "orders",
        "fills",
        "healed",
        "differ",
        "reason",
    ]
    rows = [[f"{one.looked_at:%H:%M:%S}", *list(one.__dict__.values())[1:]] for one in found.looks]
    out.print(table("looks at the whole account", columns, rows))
