"""The verb sandbox: a market on this machine that speaks Alpaca's protocols and RSS."""

from pathlib import Path
from typing import Annotated

import typer

from ops_pipeline.cli.console import say, say_aside
from ops_pipeline.cli.market import (
    BarsOption,
    MapOption,
    NewsOption,
    ZoneOption,
    parse_day,
    show_import,
)
from ops_pipeline.clients.bar_formats import BarFormat
from ops_pipeline.clients.replay import bars_of, days_of, load_bars, read_news
from ops_pipeline.clients.universe import universe_file
from ops_pipeline.domain.errors import BadConfiguration, BadInput
from ops_pipeline.local.ports import port_is_free
from ops_pipeline.sandbox.live import LiveMarket, RestampedMarket, UnfoldingMarket
from ops_pipeline.sandbox.server import serve
from ops_pipeline.sandbox.world import SandboxWorld
from ops_pipeline.settings import Mode, Settings, load
from ops_pipeline.storage.knowledge import clock


def sandbox(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Its port. [env: OPS_SANDBOX_PORT]")
    ] = None,
    bars: BarsOption = None,
    news: NewsOption = None,
    day: Annotated[
        str | None, typer.Option("--day", help="Which day of --bars; the last without it.")
    ] = None,
    columns: MapOption = None,
    zone: ZoneOption = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the generated market. [env: OPS_SEED]")
    ] = None,
) -> None:
    """Serve a generated market, or one recorded day over and over, at the present; until Ctrl-C."""
    settings = load(Mode.SANDBOX.value)
    port = port or settings.sandbox_port
    if (news or day) and not bars:
        raise BadInput("--news and --day belong to a recording", "name it with --bars FILE")
    form = BarFormat.parse(columns, zone)
    market = _recorded(bars, news, day, form) if bars else _generated(settings, seed)
    if not port_is_free(port):
        raise BadConfiguration(
            f"port {port} is taken by another program",
            f"try: ops-pipeline sandbox --port {port + 1}",
        )
    say(f"sandbox at http://127.0.0.1:{port}, {len(market.tickers)} tickers; stop it with Ctrl-C")
    world = SandboxWorld(market, clock, seed=settings.seed if seed is None else seed)
    serve(world, port, settings.token_file)


def _generated(settings: Settings, seed: int | None) -> LiveMarket:
    tickers = list(universe_file(settings.universe_file).tickers)
    return UnfoldingMarket(clock, tickers, settings.seed if seed is None else seed)


def _recorded(bars: Path, news: Path | None, text: str | None, form: BarFormat) -> LiveMarket:
    calendar = Mode.REPLAY.calendar
    found = load_bars(bars, form)
    table = found.bars
    days = days_of(table, calendar)
    wanted = parse_day(text)[0] if text else days[-1] if days else None
    if wanted is None or wanted not in days:
        raise BadInput(f"{bars} has no bars of a session on {wanted or 'any day'}")
    session = calendar.on(wanted)
    assert session is not None  # noqa: S101 - days_of gives sessions only
    of_day = table[table["minute"].between(session.opens_at, session.closes_at, "left")]
    entries = [
        entry
        for entry in (read_news(news, say_aside, sorted(table["ticker"].unique())) if news else [])
        if entry.published_at and calendar.day(entry.published_at) == wanted
    ]
    show_import(bars, found, calendar)
    return RestampedMarket(list(bars_of(of_day)), clock, entries)
