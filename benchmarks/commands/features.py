"""Benchmark features: the feature layer by dbt, by pandas and by DuckDB, over the same bars."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks.features.agreement import TOLERANCE
from benchmarks.features.duck import need_duckdb
from benchmarks.market import generated
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
from ops_pipeline.cli.server import running_server
from ops_pipeline.environment import apply
from ops_pipeline.proofs.scratch import entered, environment, scratch
from ops_pipeline.settings import Mode

if TYPE_CHECKING:
    from benchmarks.measure.features import Measured

NAME = "bench_features"
MAX_TICKERS = 1_000
MAX_REPEATS = 20


def features(
    sessions: Annotated[int, typer.Option(help="Days of the range.")] = 5,
    tickers: Annotated[int, typer.Option(help="Size of the universe.")] = 7,
    repeats: Annotated[int, typer.Option(help="Of each way; the fastest counts.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Make the same features with dbt, pandas and DuckDB, from PostgreSQL back to PostgreSQL.

    Exit code 1 where the rows of one are not those of the others.
    """
    within("sessions", sessions, 1, market_of.MAX_SESSIONS)
    within("tickers", tickers, 1, MAX_TICKERS)
    within("repeats", repeats, 1, MAX_REPEATS)
    need_duckdb()
    found = _measured(sessions, tickers, repeats, quiet=as_json)
    is_equal = all(one.agreement.is_equal for one in found if one.agreement)
    title = f"{sessions} sessions of {tickers} tickers; the fastest of {repeats}"
    show_result(
        _document(found) if as_json else found,
        lambda _: _show(found, title),
        as_json=as_json,
        is_normal=is_equal,
    )


def _measured(sessions: int, tickers: int, repeats: int, *, quiet: bool) -> "list[Measured]":
    with (
        running_server(Mode.REPLAY) as settings,
        scratch(settings, NAME) as made,
        progress(quiet=quiet or not err.is_terminal) as bars,
    ):
        shown = bars.add_task("bars and news", total=3 * repeats + 1)
        request = generated(sessions, tickers)
        market_of.put(made, request)

        def on_way(name: str) -> None:
            bars.update(shown, description=name)
            bars.advance(shown)

        with entered(environment(settings, NAME)) as inside:
            apply(inside)
            from benchmarks.measure.features import measure

            return measure(inside, request.sessions, repeats, on_way)


def _ratios(found: "Sequence[Measured]") -> list[dict[str, float]]:
    """Seconds of each way over those of the first."""
    ours = found[0]
    return [
        {
            "range": one.seconds / ours.seconds,
            "minute": one.minute_seconds / ours.minute_seconds,
        }
        for one in found
    ]


def _document(found: "Sequence[Measured]") -> dict[str, Any]:
    ways = [
        {
            **plain(one),
            "per_second": one.per_second,
            "ratio_to_ours": ratio,
            "is_equal": one.agreement.is_equal if one.agreement else None,
        }
        for one, ratio in zip(found, _ratios(found), strict=True)
    ]
    return {"tolerance": TOLERANCE, "ways": ways}


def _show(found: "Sequence[Measured]", title: str) -> None:
    from benchmarks.measure.features import PHASES

    columns = ["way", "rows", "seconds", "a second", "to ours", *PHASES, "a minute, s", "to ours"]
    rows = [
        [
            one.way,
            one.rows,
            one.seconds,
            round(one.per_second),
            ratio["range"],
            *(one.phases.get(phase) for phase in PHASES),
            one.minute_seconds,
            ratio["minute"],
        ]
        for one, ratio in zip(found, _ratios(found), strict=True)
    ]
    out.print(table(title, columns, rows))
    for one in found:
        say(f"{one.way}: {one.does}")
    for one in found:
        if one.agreement:
            say(_compared(one.way, one.agreement))
    say("to ours: seconds over those of dbt; all of them include reading and writing PostgreSQL")


def _compared(way: str, seen: Any) -> str:
    largest = f"largest difference {seen.largest:.1e}, in {seen.column}"
    if seen.is_equal:
        flags = f", {seen.undecided} flags that hang on a last digit" if seen.undecided else ""
        return f"{way}: {seen.rows:,} rows as dbt's, within {TOLERANCE:.0e}; {largest}{flags}"
    told = [f"{count} of {column}" for column, count in seen.unequal.items()]
    if seen.missing or seen.added:
        told.insert(0, f"{seen.missing} rows missing, {seen.added} too many")
    return f"{way}: NOT the rows of dbt: {', '.join(told)}; {largest}"
