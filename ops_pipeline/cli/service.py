"""The verb service: the seven switches."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from ops_pipeline.cli.console import JsonOption, ModeOption, out, print_json, say, table
from ops_pipeline.cli.server import connected
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.stages import SERVICES, Stage, stage_of_service
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.services import Switch, switches, upsert_switch

app = typer.Typer(help="Switch services on and off; one that is off is left out of the tick.")

Name = Annotated[str, typer.Argument(help="A service's name, as the runbook has it.")]


@app.command("list")
def list_switches(mode: ModeOption = None, as_json: JsonOption = False) -> None:
    """The seven services and their switches."""
    with connected(mode) as (_, connection):
        # A switch is a matter of the operator's time, also while a replay shows the past.
        found = switches(connection, clock())
    if as_json:
        print_json(found)
        return
    rows = [
        [s.stage.service, s.stage.name, "on" if s.is_enabled else "off", s.disabled_until, s.reason]
        for s in found
    ]
    out.print(table("", ["service", "stage", "switch", "until", "reason"], rows))


@app.command()
def enable(name: Name, mode: ModeOption = None) -> None:
    """Switch a service on."""
    _switch(mode, Switch(_stage(name), is_enabled=True))
    say(f"{_stage(name).service} is on")


@app.command()
def disable(
    name: Name,
    until: Annotated[
        str | None, typer.Option(help="When it comes back: ISO time with zone.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks next.")] = "",
    mode: ModeOption = None,
) -> None:
    """Switch a service off, for good or until a time."""
    stage, back_at = _stage(name), _until(until)
    _switch(mode, Switch(stage, is_enabled=False, disabled_until=back_at, reason=reason))
    say(f"{stage.service} is off" + (f" until {back_at:%Y-%m-%d %H:%M} UTC" if back_at else ""))


def _switch(mode: ModeOption, switch: Switch) -> None:
    with connected(mode) as (_, connection):
        upsert_switch(connection, switch)


def _stage(name: str) -> Stage:
    stage = stage_of_service(name)
    if stage is None:
        known = ", ".join(stage.service for stage in SERVICES)
        raise BadInput(f"there is no service {name!r}; there are {known}")
    return stage


def _until(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        until = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"--until must be a time like 2026-10-14T15:00Z, not {text!r}") from None
    if until.tzinfo is None:
        raise BadInput(f"--until {text} has no time zone")
    return until.astimezone(UTC)
