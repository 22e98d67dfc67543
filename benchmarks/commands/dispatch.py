"""Benchmark dispatch: decisions a second, beside other queues."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.progress import Progress, TaskID

from benchmarks.measure.backlog import FRESH, Backlog, measure_backlog
from benchmarks.measure.peers import PEERS, need_peers, payload_bytes
from benchmarks.measure.throughput import (
    ONE_BY_ONE,
    OURS,
    Durability,
    Measured,
    Plan,
    System,
    measure,
)
from benchmarks.measure.workload import AT_MOST
from benchmarks.options import counts, within
from ops_pipeline.cli.console import (
    JsonOption,
    err,
    out,
    print_json,
    progress,
    say,
    table,
)
from ops_pipeline.cli.server import running_server
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.settings import Mode

MAX_WORKERS = 16
MAX_BATCH = 1_000
MAX_REPEATS = 20
MAX_BACKLOG = 5_000_000


def dispatch(
    recommendations: Annotated[
        int, typer.Option(help="For each measurement; 0 measures the backlog alone.")
    ] = 2_000,
    workers: Annotated[str, typer.Option(help="Numbers of processes; the first one tunes.")] = (
        "1,2,4"
    ),
    batches: Annotated[str, typer.Option(help="Sizes of a claim to try.")] = "10,100,1000",
    repeats: Annotated[int, typer.Option(help="Of each; the fastest counts.")] = 3,
    backlog: Annotated[
        int, typer.Option(help=f"Waiting rows, all but {FRESH:,} of them stale; 0 for none.")
    ] = 0,
    without_peers: Annotated[
        bool, typer.Option("--without-peers", help="Measure this dispatcher alone.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Work recommendations off, beside procrastinate and pgqueuer on the same server."""
    within("recommendations", recommendations, 0, AT_MOST)
    within("repeats", repeats, 1, MAX_REPEATS)
    if backlog:
        within("backlog", backlog, FRESH + 1, MAX_BACKLOG)
    if not recommendations and not backlog:
        raise BadInput("there is nothing to measure without --recommendations and --backlog")
    plan = Plan(
        recommendations,
        counts("batches", batches, MAX_BATCH),
        counts("workers", workers, MAX_WORKERS),
        repeats,
    )
    systems: list[System] = [ONE_BY_ONE, OURS]
    if recommendations and not without_peers:
        need_peers()
        systems += PEERS
    found, cleared = _measure_dispatch(systems, plan, backlog, quiet=as_json)
    if as_json:
        print_json(_document(systems, found, cleared))
        return
    if found:
        _show_found(systems, found)
    if cleared:
        _show_backlog(cleared)


def _measure_dispatch(
    systems: Sequence[System], plan: Plan, backlog: int, *, quiet: bool
) -> tuple[list[Measured], Backlog | None]:
    found: list[Measured] = []
    cleared = None
    # A live mode's databases wait for their commits; a replay's do not.
    with (
        running_server(Mode.SANDBOX) as settings,
        progress(quiet=quiet or not err.is_terminal) as bars,
    ):
        total = plan.measurements(systems) if plan.count else 0
        shown = bars.add_task("", total=total + bool(backlog))
        if plan.count:
            for one in measure(settings, systems, plan, lambda what: _tell(bars, shown, what)):
                found.append(one)
                bars.advance(shown)
        if backlog:
            _tell(bars, shown, f"a backlog of {backlog:,}")
            cleared = measure_backlog(settings, backlog)
            bars.advance(shown)
    return found, cleared


def _tell(bars: Progress, shown: TaskID, what: str) -> None:
    bars.update(shown, description=what)


def _ratios(found: Sequence[Measured]) -> list[float | None]:
    """Each one's rate over that of this dispatcher with as many workers, at its fastest."""
    ours: dict[int, float] = {}
    for one in found:
        if one.system == OURS.name:
            ours[one.workers] = max(one.per_second, ours.get(one.workers, 0.0))
    return [one.per_second / ours[one.workers] for one in found]


def _document(
    systems: Sequence[System], found: Sequence[Measured], cleared: Backlog | None
) -> dict[str, Any]:
    lines = [
        {
            **one.__dict__,
            "seconds": one.seconds,
            "per_second": one.per_second,
            "ratio_to_ours": ratio,
        }
        for one, ratio in zip(found, _ratios(found), strict=True)
    ]
    backlog = cleared and {
        **cleared.__dict__,
        "indexes": cleared.indexes,
        "reads_all": cleared.reads_all,
    }
    return {
        "payload_bytes": payload_bytes(),
        "does": {system.name: system.does for system in systems if found},
        "measured": lines,
        "backlog": backlog,
    }


def _show_found(systems: Sequence[System], found: Sequence[Measured]) -> None:
    columns = ["system", "workers", "batch", "at once", "seconds", "a second", "to ours"]
    rows = [
        [
            one.system,
            one.workers,
            one.batch,
            one.at_once,
            one.seconds,
            round(one.per_second),
            ratio,
        ]
        for one, ratio in zip(found, _ratios(found), strict=True)
    ]
    count = max(one.recommendations for one in found)
    repeats = len(found[0].all_seconds)
    title = f"{count:,} recommendations of {payload_bytes():,} bytes; the fastest of {repeats}"
    out.print(table(title, columns, rows))
    few = {one.system: one.recommendations for one in found if one.recommendations < count}
    for name, number in few.items():
        say(f"{name}: {number:,} recommendations, as more of them would take minutes")
    for system in systems:
        seen = {one.durability for one in found if one.system == system.name}
        waits = "; ".join(sorted(_commits(each) for each in seen))
        say(f"{system.name}: {system.does}; {waits}")
    say(
        "batch: jobs of one claim; at once: transactions that one worker may have open;"
        " to ours: rate over ours with as many workers"
    )


def _commits(seen: Durability) -> str:
    return ", ".join(f"{name} {value}" for name, value in seen.__dict__.items())


def _show_backlog(cleared: Backlog) -> None:
    worked = cleared.worked
    rows: list[list[object]] = [
        ["rows waiting", cleared.rows],
        ["of them fresh", cleared.fresh],
        ["size of the queue, MB", cleared.size_mb],
        ["loading them, s", cleared.load_seconds],
        ["until the stale are closed, s", worked.expiry_seconds],
        ["until the first fresh one is executed, s", worked.first_fresh_seconds],
        ["until all is done, s", worked.seconds],
        ["runs", worked.runs],
        ["memory at the start, MB", worked.start_mb],
        ["memory at the end, MB", worked.end_mb],
        ["memory at its peak, MB", worked.peak_mb],
        ["indexes of the first claim", ", ".join(cleared.indexes) or "none"],
        ["it reads the whole table", "yes" if cleared.reads_all else "no"],
    ]
    out.print(table("a backlog, and one dispatcher process", ["what", "measured"], rows))
    say(f"commits: {_commits(worked.durability)}; a batch of {cleared.batch}")
    say("the plan of the first claim:")
    for line in worked.plan:
        say(f"  {line}")
