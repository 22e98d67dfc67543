"""The verb purge: removes what is kept for some days only, while everything runs."""

from typing import Annotated

import typer
from rich.progress import Progress, TaskID

from ops_pipeline.cli.console import JsonOption, ModeOption, err, out, print_json, progress, say
from ops_pipeline.cli.console import table as shown_table
from ops_pipeline.cli.server import existing_server
from ops_pipeline.domain.retention import Purge
from ops_pipeline.storage.knowledge import clock

MB = 1_000_000


def purge(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would go; remove nothing.")
    ] = False,
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove old ticks, runs, logs, check results, signals; asset history and ledgers stay."""
    with (
        existing_server(mode) as settings,
        progress(quiet=as_json or not err.is_terminal) as bars,
    ):
        from ops_pipeline.defs.retention import purge as purge_mode

        shown: dict[str, TaskID] = {}
        done = purge_mode(
            settings,
            clock(),
            is_dry_run=dry_run,
            on_progress=lambda kind, rows, total: _tell(bars, shown, kind, rows, total),
        )
    if as_json:
        print_json(done)
    else:
        _print(settings.mode.value, done)


def _tell(bars: Progress, shown: dict[str, TaskID], kind: str, rows: int, total: int) -> None:
    if kind not in shown:
        shown[kind] = bars.add_task(kind, total=total)
    bars.update(shown[kind], completed=rows)


def _print(mode: str, done: Purge) -> None:
    verb = "would go" if done.is_dry_run else "went"
    rows = [[one.kind, one.days, one.rows, one.bytes / MB] for one in done.removed]
    columns = ["kind", "days kept", f"{verb}, rows or files", f"{verb}, MB"]
    out.print(shown_table(f"mode {mode}", columns, rows))
    if done.tables:
        sizes = [
            [t.table, t.bytes_before / MB, t.bytes_after / MB, "yes" if t.is_vacuumed else "no"]
            for t in done.tables
        ]
        out.print(shown_table("", ["table", "MB before", "MB after", "vacuumed"], sizes))
    if any(not size.is_vacuumed for size in done.tables):
        say("not vacuumed: tables of another owner, who has to do it")
    before, after = done.database_bytes_before / MB, done.database_bytes_after / MB
    say(f"both databases: {before:,.1f} MB before, {after:,.1f} MB after")
