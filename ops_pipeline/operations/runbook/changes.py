"""What the sections change, each by the function that the verb of the same kind uses."""

import json
import shlex
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection

from ops_pipeline.clients.live import access_of
from ops_pipeline.dispatcher.turn import sweep
from ops_pipeline.domain.gates import HALTED
from ops_pipeline.domain.stages import DISPATCH, Stage
from ops_pipeline.local.keeper import (
    last_asked,
    log_dir,
    start_keeper,
    stop_kept,
    table_of,
)
from ops_pipeline.local.processes import wait_until
from ops_pipeline.operations import config
from ops_pipeline.operations.runbook.section import Change, Scene
from ops_pipeline.settings import KEEPER, Settings
from ops_pipeline.storage import dispatch, runbook
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.services import Switch, upsert_switch

START_SECONDS = 60
# What loosens a gate holds so long; a person decides whether it stays.
TEMPORARY = timedelta(hours=2)


def switch_on(scene: Scene, stage: Stage) -> Change:
    """Switch a service on; the dispatcher only while the ledger is sound."""
    command = f"ops-pipeline service enable {stage.service}"
    if stage is DISPATCH and not ledger_is_sound(scene):
        first = "ops-pipeline runbook diagnose duplicate-executions"
        return Change("leave the dispatcher off: the ledger is not sound", first)
    return Change(f"switch {stage.service} on", command, partial(_switch, scene, stage, is_on=True))


def switch_off(scene: Scene, stage: Stage, reason: str) -> Change:
    """Switch a service off, for good."""
    command = f'ops-pipeline service disable {stage.service} --reason "{reason}"'
    apply = partial(_switch, scene, stage, is_on=False, reason=reason)
    return Change(f"switch {stage.service} off", command, apply)


def start_stopped(scene: Scene, name: str) -> Change:
    """Let a schedule or a sensor run again."""
    command = f"the UI, Automation, the switch of {name}"
    return Change(f"start {name}", command, partial(scene.dagster.start, name))


def start_processes(scene: Scene) -> Change:
    """Start the keeper, which starts whatever does not run."""
    return Change("start what does not run", _up(scene.settings), partial(_start, scene.settings))


def restart(scene: Scene, name: str, is_done: Callable[[], bool] = lambda: True) -> Change:
    """End a kept process; its keeper starts it again, with its own environment and today's code.

    The keeper itself is ended with all that it keeps, and starts in this process's environment. A
    run that came of what is to end would be ended before anything starts: a person does it.

    Args:
        scene: where.
        name: the process.
        is_done: what holds once it is at work again; waited for.
    """
    command = anew(scene)
    if _would_end_us(scene.settings, name):
        return by_hand(f"restart {name}, which would end this run: from a terminal", command)
    return Change(f"restart {name}", command, partial(_restart, scene.settings, name, is_done))


def anew(scene: Scene) -> str:
    """How a person starts all of this mode anew, as it was started last."""
    return f"ops-pipeline down && {_up(scene.settings)}"


def sweep_queue(scene: Scene, what: str) -> Change:
    """Close what is too old to trade, and give back what a dead run holds."""

    def apply() -> None:
        sweep(scene.engine, scene.now)

    return Change(what, "each run of the dispatcher does it first", apply)


def halt(scene: Scene, reason: str) -> Change:
    """No order at all until a person resumes."""

    def apply() -> None:
        with scene.engine.begin() as connection:
            dispatch.set_trading_state(connection, HALTED, scene.who, reason)

    return Change("halt trading", f'ops-pipeline halt --reason "{reason}"', apply)


def set_config(
    scene: Scene, values: Mapping[str, Any], why: str, *, is_temporary: bool = False
) -> Change:
    """Set keys of the dispatcher's settings: a version with who and why, which returns by itself.

    Args:
        scene: where.
        values: what is set; every other key stays as it is.
        why: the reason that the version keeps.
        is_temporary: whether it holds for two hours only.
    """
    told = " ".join(f"{key}={json.dumps(value)}" for key, value in values.items())
    limit = " --for 2h" if is_temporary else ""

    def apply() -> None:
        now = scene.now
        until = now + TEMPORARY if is_temporary else None
        with scene.engine.begin() as connection:
            config.change(
                connection, scene.settings, values, who=scene.who, why=why, now=now, until=until
            )

    command = f'ops-pipeline config set {told}{limit} --reason "{why}"'
    return Change(f"set {told}" + (" for two hours" if limit else ""), command, apply)


def by_hand(what: str, command: str) -> Change:
    """A step that only a person can take."""
    return Change(what, command)


def mend(
    scene: Scene,
    what: str,
    command: str,
    work: Callable[[Connection], None],
    *,
    as_owner: bool = False,
) -> Change:
    """Something in the database that is put right in one transaction."""

    def apply() -> None:
        with opened(scene.settings, as_owner=as_owner) as engine, engine.begin() as connection:
            work(connection)

    return Change(what, command, apply)


def ledger_is_sound(scene: Scene) -> bool:
    """Whether nothing was executed twice, and nothing can be."""
    with scene.engine.connect() as connection:
        return (
            not runbook.duplicates(connection)
            and runbook.executions_are_unique(connection)
            and not runbook.guards_missing(connection)
        )


def _switch(scene: Scene, stage: Stage, *, is_on: bool, reason: str = "") -> None:
    with scene.engine.begin() as connection:
        upsert_switch(connection, Switch(stage, is_enabled=is_on, reason=reason))


def _start(settings: Settings) -> None:
    table = table_of(settings)
    if table.find(KEEPER) is None:
        # As `up` does, but for what it prepares: an installation that ran once has that.
        start_keeper(settings, last_asked(settings))
    wait_until(
        lambda: all(table.find(name) for name in settings.mode.processes),
        START_SECONDS,
        "not everything started",
        hint=f"look into {log_dir(settings)}",
    )


def _restart(settings: Settings, name: str, is_done: Callable[[], bool]) -> None:
    if name == KEEPER:
        # What would be refused at the start is refused before anything ends.
        access_of(settings)
        stop_kept(settings)
    else:
        table_of(settings).stop(name)
    _start(settings)
    wait_until(is_done, START_SECONDS, f"{name} did not come to work", f"ops-pipeline logs {name}")


def _would_end_us(settings: Settings, name: str) -> bool:
    ended = settings.mode.processes if name == KEEPER else (name,)
    return any(map(table_of(settings).would_end_us, ended))


def _up(settings: Settings) -> str:
    asked = last_asked(settings)
    words = ["--mode", settings.mode.value, "--port", str(asked.port), *asked.market]
    return f"ops-pipeline up {shlex.join(words)}"
