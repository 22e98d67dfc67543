"""The verb doctor: what the pipeline depends on, one line each."""

import typer
from rich.text import Text

from ops_pipeline.cli.console import JsonOption, ModeOption, out, print_json, say
from ops_pipeline.cli.server import settings_of
from ops_pipeline.operations.doctor import Finding, Health, examine
from ops_pipeline.storage.knowledge import clock

STYLES = {Health.OK: "green", Health.FAILED: "bold red", Health.UNUSED: "dim"}


def doctor(mode: ModeOption = None, as_json: JsonOption = False) -> None:
    """Look at each dependency: database, Alpaca, clocks, feeds, model, disk, processes."""
    settings = settings_of(mode)
    if not as_json:
        say(f"mode {settings.mode.value}")
    found = []
    for finding in examine(settings, clock):
        found.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        print_json(found)
    if any(finding.health is Health.FAILED for finding in found):
        raise typer.Exit(1)


def _print(finding: Finding) -> None:
    hint = f" ({finding.hint})" if finding.hint else ""
    line = Text(f"{finding.dependency:22} ")
    line.append(f"{finding.health.value:7}", STYLES[finding.health])
    line.append(f" {finding.found}{hint}")
    out.print(line, soft_wrap=True)
