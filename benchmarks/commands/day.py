"""Benchmark day: one session as a replay plays it, beside minute by minute."""

from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.isolation import alone
from benchmarks.market import FIRST_DAY, FromOption, generated
from benchmarks.options import within
from ops_pipeline.cli import market as market_of
from ops_pipeline.cli.console import (
    JsonOption,
    err,
    out,
    plain,
    progress,
    say,
    show_result,
    table,
)
from ops_pipeline.cli.parity import difference_table
from ops_pipeline.cli.play import player_of
from ops_pipeline.cli.server import running_server
from ops_pipeline.domain.session import MINUTE, Session
from ops_pipeline.proofs.parity import Difference, compare
from ops_pipeline.proofs.scratch import entered, environment, scratch
from ops_pipeline.settings import Mode, Settings, save_window
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.fingerprint import TABLES, rows_of

if TYPE_CHECKING:
    from benchmarks.measure.day import Played

NAMES = ("bench_range", "bench_by_minute")
MAX_TICKERS = 1_000
MAX_SAMPLE = 390


def day(
    tickers: Annotated[int, typer.Option(help="Size of the universe.")] = 7,
    sample: Annotated[int, typer.Option(help="Minutes played one by one.")] = 30,
    first: FromOption = FIRST_DAY,
    as_json: JsonOption = False,
) -> None:
    """Play a session, data and dispatch, as one range and minute by minute.

    The minutes that both have played are compared; exit code 1 where their rows differ.
    """
    within("tickers", tickers, 1, MAX_TICKERS)
    within("sample", sample, 1, MAX_SAMPLE)
    request = generated(1, tickers, first)
    found, differences = _measured(request, sample, quiet=as_json)

    def show(_: object) -> None:
        _show(found, tickers)
        if differences:
            out.print(difference_table(differences))

    document = _document(found, differences) if as_json else None
    show_result(document, show, as_json=as_json, is_normal=not differences)


def _measured(
    request: market_of.Request, sample: int, *, quiet: bool
) -> "tuple[list[Played], list[Difference]]":
    from benchmarks.measure.minutes import middle

    (session,) = request.sessions
    minutes = middle(session.minutes(), sample)
    with (
        running_server(Mode.REPLAY) as settings,
        ExitStack() as stack,
        progress(quiet=quiet or not err.is_terminal) as bars,
    ):
        shown = bars.add_task("one range", total=2)
        made = [stack.enter_context(scratch(settings, name)) for name in NAMES]
        for each in made:
            market_of.put(each, request)
            save_window(each, request.window)
        variables = [environment(settings, name) for name in NAMES]
        ranged = alone(_as_range, variables[0], session)
        bars.update(shown, description=f"{len(minutes)} minutes", advance=1)
        single = alone(_by_minute, variables[1], session, minutes)
        bars.advance(shown)
        return [ranged, single], _differences(made, minutes)


def _as_range(variables: dict[str, str], session: Session) -> "Played":
    with entered(variables) as settings, player_of(settings) as player:
        from benchmarks.measure.day import as_range

        return as_range(player, settings, session)


def _by_minute(variables: dict[str, str], session: Session, minutes: list[datetime]) -> "Played":
    with entered(variables) as settings, player_of(settings) as player:
        from benchmarks.measure.day import by_minute

        return by_minute(player, settings, session, minutes)


def _differences(made: list[Settings], minutes: list[datetime]) -> list[Difference]:
    between = minutes[0], minutes[-1] + MINUTE
    with ExitStack() as stack:
        connections = [
            stack.enter_context(stack.enter_context(opened(each)).connect()) for each in made
        ]
        found: list[Difference] = []
        for each in TABLES:
            rows = {
                name: rows_of(connection, each, between)
                for name, connection in zip(NAMES, connections, strict=True)
            }
            found += compare(each.name, minutes, rows)[1]
    return found


def _document(found: "list[Played]", differences: list[Difference]) -> dict[str, Any]:
    ours, naive = found
    return {
        "ways": [
            {
                **plain(one),
                "seconds": one.seconds,
                "per_second": one.per_second,
                "seconds_of_session": one.seconds_of(ours.minutes),
            }
            for one in found
        ],
        "naive_to_ours": naive.seconds_of(ours.minutes) / ours.seconds,
        "differences": plain(differences),
    }


def _show(found: "list[Played]", tickers: int) -> None:
    from benchmarks.measure.day import DOES

    ours, naive = found
    scaled = naive.seconds_of(ours.minutes)
    rows: list[list[object]] = [
        ["minutes played", *(one.minutes for one in found), None],
        ["rows", *(one.rows for one in found), None],
        ["data, s", *(one.data_seconds for one in found), None],
        ["dispatch, s", *(one.dispatch_seconds for one in found), None],
        [f"{ours.minutes} minutes, s", ours.seconds, scaled, scaled / ours.seconds],
        ["rows a second", *(round(one.per_second) for one in found), _less(found, "per_second")],
        ["memory when loaded, MB", *(one.loaded_mb for one in found), _less(found, "loaded_mb")],
        ["memory at its peak, MB", *(one.peak_mb for one in found), _less(found, "peak_mb")],
    ]
    columns = ["", *(one.way for one in found), "naive / ours"]
    out.print(table(f"a session of {tickers} tickers", columns, rows))
    for one in found:
        say(f"{one.way}: {DOES[one.way]}")
    if naive.minutes < ours.minutes:
        say(
            f"{naive.way}: {naive.minutes} minutes around the middle of the session, after those"
            f" before them as a range, which is not counted; scaled to {ours.minutes}"
        )


def _less(found: "list[Played]", name: str) -> float:
    ours, naive = (getattr(one, name) for one in found)
    return float(naive / ours)
