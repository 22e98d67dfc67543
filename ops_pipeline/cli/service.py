"""The verb service: the seven switches."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

import typer

from ops_pipeline.cli.console import (
    JsonOption,
    ModeOption,
    ReasonOption,
    out,
    print_json,
    say,
    table,
)
from ops_pipeline.cli.server import connected
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.stages import SERVICES, TRADE_STREAM, Stage, stage_of_service
from ops_pipeline.operations.operator import operator
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.services import (
    Switch,
    SwitchChange,
    switch_changes,
    switches,
    upsert_switch,
)

app = typer.Typer(help="Switch services on and off; one that is off is left out of the tick.")

CHANGES = 10
Name = Annotated[str, typer.Argument(help="A service's name, as the runbook has it.")]


@app.command("list")
def list_switches(mode: ModeOption = None, as_json: JsonOption = False) -> None:
    """The seven services and their switches."""
    with connected(mode) as (_, connection):
        # A switch is a matter of the operator's time, also while a replay shows the past.
        found = switches(connection, clock())
        moved = switch_changes(connection, CHANGES)
    if as_json:
        print_json(found)
        return
    rows = [
        [s.stage.service, s.stage.name, _word(s), _brief(s.disabled_until), s.changed_by, s.reason]
        for s in found
    ]
    out.print(table("", ["service", "stage", "switch", "until (UTC)", "by", "reason"], rows))
    if moved:
        shown = [
            [
                _brief(m.written_at),
                m.service,
                _word(m),
                _brief(m.disabled_until),
                m.changed_by,
                m.reason,
            ]
            for m in moved
        ]
        columns = ["at", "service", "switch", "until", "by", "reason"]
        out.print(table("newest changes (UTC)", columns, shown))


@app.command()
def enable(
    name: Name,
    reason: ReasonOption = "",
    mode: ModeOption = None,
) -> None:
    """Switch a service on."""
    stage = _stage(name)
    _switch(mode, Switch(stage, is_enabled=True, reason=reason), "on")


@app.command()
def disable(
    name: Name,
    until: Annotated[
        str | None, typer.Option(help="When it comes back: ISO time with zone.")
    ] = None,
    reason: ReasonOption = "",
    mode: ModeOption = None,
) -> None:
    """Switch a service off, for good or until a time."""
    stage, back_at = _stage(name), _until(until)
    until = f" until {back_at:%Y-%m-%d %H:%M} UTC" if back_at else ""
    switch = Switch(stage, is_enabled=False, disabled_until=back_at, reason=reason)
    _switch(mode, switch, f"off{until}")


def _switch(mode: ModeOption, switch: Switch, told: str) -> None:
    with connected(mode) as (settings, connection):
        upsert_switch(connection, replace(switch, changed_by=operator(settings)))
    say(f"mode {settings.mode.value}: {switch.stage.service} is {told}")


def _stage(name: str) -> Stage:
    stage = stage_of_service(name)
    if name == TRADE_STREAM:
        raise BadInput(
            f"{name} has no switch: it is a process, and what needs it begins nothing without it",
            "to stop trading: ops-pipeline halt; how it is: ops-pipeline doctor",
        )
    if stage is None:
        known = ", ".join(stage.service for stage in SERVICES)
        raise BadInput(f"there is no service {name!r}; there are {known}")
    return stage


def _word(moved: Switch | SwitchChange) -> str:
    return "on" if moved.is_enabled else "off"


def _brief(at: datetime | None) -> str | None:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}" if at else None


def _until(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        until = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"--until must be a time like 2026-10-14T15:00Z, not {text!r}") from None
    if until.tzinfo is None:
        raise BadInput(f"--until {text} has no time zone")
    if until <= clock():
        raise BadInput(f"--until {text} is over already")
    return until.astimezone(UTC)
