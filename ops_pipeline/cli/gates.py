"""The verb gates: the thirteen gates, and what other settings would have changed."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ops_pipeline.cli.config import parse_changes
from ops_pipeline.cli.console import JsonOption, ModeOption, out, print_json, say, table, working
from ops_pipeline.cli.market import parse_days
from ops_pipeline.cli.server import connected, existing_server, settings_of
from ops_pipeline.domain.errors import BadInput, NotRunning
from ops_pipeline.domain.gates import GATES
from ops_pipeline.operations.config import config_of, in_force
from ops_pipeline.operations.what_if import Flip, Totals, WhatIf, what_if
from ops_pipeline.settings import Settings, dispatcher_config, dispatcher_overrides
from ops_pipeline.storage.config import ConfigVersion
from ops_pipeline.storage.databases import has_database
from ops_pipeline.storage.knowledge import clock

app = typer.Typer(help="The thirteen gates, and what other settings would have traded.")

USAGE = "try: ops-pipeline gates what-if --set confidence_min=0.60"


@dataclass(frozen=True)
class ListedGate:
    """A gate, and what it is set to in a mode."""

    number: int
    name: str
    for_closing: bool
    settings: dict[str, Any]


@app.callback(invoke_without_command=True)
def gates(context: typer.Context, mode: ModeOption = None, as_json: JsonOption = False) -> None:
    """The thirteen gates in order, with their settings in this mode."""
    if context.invoked_subcommand is None:
        list_gates(mode, as_json=as_json)
    elif mode or as_json:
        raise BadInput(f"options of {context.invoked_subcommand} come after it", USAGE)


@app.command("list")
def list_gates(mode: ModeOption = None, as_json: JsonOption = False) -> None:
    """The thirteen gates in order, with their settings in this mode."""
    settings = settings_of(mode)
    version = _in_force(settings)
    values = config_of(version, settings).document() if version else _without_store(settings)
    found = [
        ListedGate(number, gate.name, gate.for_closing, {name: values[name] for name in gate.reads})
        for number, gate in enumerate(GATES, start=1)
    ]
    if as_json:
        print_json(found)
        return
    rows = [
        [
            gate.number,
            gate.name,
            "asked" if gate.for_closing else "not asked",
            ", ".join(f"{name} {_shown(value)}" for name, value in gate.settings.items()) or None,
        ]
        for gate in found
    ]
    columns = ["#", "gate", "closing orders", "settings"]
    out.print(table(f"the gates in mode {settings.mode.value}", columns, rows))
    if version is None:
        say("the database does not run: what ops-pipeline config set has set is not in here")
    say(f"every other setting sizes, prices or closes; {USAGE}")


@app.command("what-if")
def ask_what_if(
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SETTING=VALUE", help="A setting to change; repeatable."),
    ] = None,
    first: Annotated[str | None, typer.Option("--from", help="First day, YYYY-MM-DD.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day, YYYY-MM-DD.")] = None,
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Play the ledger of decisions again, as it was and under changed settings."""
    wanted, days = parse_changes(changes or (), "--set"), parse_days(first, last)
    with existing_server(mode) as settings:
        if not has_database(settings):
            name = settings.mode.value
            raise BadInput(
                f"mode {name} has no database yet", f"run: ops-pipeline up --mode {name}"
            )
    with connected(mode) as (settings, connection), working("playing again", quiet=as_json):
        found = what_if(connection, settings.mode, days, wanted)
    if as_json:
        print_json(found)
    else:
        _print(found, settings.mode.value)


def _in_force(settings: Settings) -> ConfigVersion | None:
    """The version that the dispatcher trades under; None where no database tells it."""
    try:
        with connected(settings.mode) as (found, connection):
            return in_force(connection, found, clock())
    except NotRunning:
        return None


def _without_store(settings: Settings) -> dict[str, Any]:
    return dispatcher_config(settings.mode, dispatcher_overrides(settings)).document()


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(value)
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _print(found: WhatIf, mode: str) -> None:
    days = str(found.first) if found.first == found.last else f"{found.first} to {found.last}"
    say(f"mode {mode}, {days}: {_reproduction(found)}")
    for change in found.changes:
        before = " / ".join(_shown(value) for value in change.before)
        say(f"{change.setting}: {before} -> {_shown(change.after)}")
    columns = ["", "as it was", "what if"] if found.changes else ["", "as it was"]
    rows = [row[: len(columns)] for row in _total_rows(found.before, found.after)]
    out.print(table(f"{found.sessions} sessions", columns, rows))
    if found.flips:
        columns = ["ticker", "recommendations", "count", "first gate that refuses"]
        out.print(table("flips by ticker", columns, _flip_rows(found.flips)))
    elif found.changes:
        say("no recommendation is traded now that was not, or no longer traded")


def _reproduction(found: WhatIf) -> str:
    counted = f"{found.equal:,} of {found.decisions:,} decisions equal"
    if found.is_reproduced:
        return f"the ledger is reproduced: {counted}"
    added = f", {found.added:,} are new" if found.added else ""
    return f"the ledger is not reproduced: {counted}{added}; these totals are approximate"


def _total_rows(before: Totals, after: Totals) -> list[list[object]]:
    names = {
        "recommendations": "recommendations",
        "executed": "executed",
        "entries": "- entries",
        "exits": "- exits",
        "realised_usd": "realised P&L USD",
        "positions_left": "positions left",
        "waiting": "still waiting",
        "failed": "failed",
        "skipped": "skipped",
    }
    rows: list[list[object]] = [
        [shown, getattr(before, name), getattr(after, name)] for name, shown in names.items()
    ]
    skips = [*before.skips_by_gate, *(set(after.skips_by_gate) - set(before.skips_by_gate))]
    for gate in skips:
        counts = (totals.skips_by_gate.get(gate, 0) for totals in (before, after))
        rows.append([f"- {gate}", *counts])
    return rows


def _flip_rows(flips: Sequence[Flip]) -> list[list[object]]:
    counts = Counter((flip.ticker, flip.is_traded, flip.gate) for flip in flips)
    return [
        [ticker, "now traded" if is_traded else "no longer traded", number, gate]
        for (ticker, is_traded, gate), number in sorted(
            counts.items(), key=lambda item: (item[0][0], not item[0][1], -item[1], item[0][2])
        )
    ]
