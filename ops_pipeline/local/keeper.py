"""Keeps the background processes of one mode: starts each, and again whatever dies.

It is the only process that `up` starts; `down` ends it first, and it ends what it keeps.
"""

import argparse
import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from threading import Event

import psutil
import yaml

from ops_pipeline.domain.errors import BadConfiguration, OperatorError
from ops_pipeline.environment import child_environment, own
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.local.processes import RECORD_VARIABLE, ProcessTable
from ops_pipeline.local.ticks import (
    MAX_TICK_AGE_SECONDS,
    TickWatch,
    code_location,
    location_file,
    newest_ticks,
)
from ops_pipeline.private_files import replace_private
from ops_pipeline.settings import (
    ALERTS,
    CODE,
    DAEMON,
    KEEPER,
    PROJECT_DIR,
    SANDBOX,
    STREAM,
    WEB,
    Mode,
    Settings,
    alert_channels_of,
    load,
    read_object,
)

LOOK_SECONDS = 0.5
LONGEST_LOG = 10_000_000
# What the keeper has for ending the others one by one.
STOP_SECONDS = 60
# How long it waits before it starts what died again and again; lived so long, it counts as well.
FIRST_WAIT, LONGEST_WAIT, WELL_SECONDS = 0.5, 60.0, 120.0

LOCATION = "ops_pipeline"
# What a path may have as the address of a Unix socket, on Linux and on macOS.
LONGEST_SOCKET = 103

# Made from the settings, and another after the server had to take another port.
DERIVED = ("OPS_DAGSTER_", "OPS_DBT_", "OPS_DOTENV", RECORD_VARIABLE)

log = logging.getLogger("keeper")


@dataclass
class Kept:
    """One process that is to run: how often it died lately, and when it may start again."""

    name: str
    command: Sequence[str]
    deaths: int = 0
    not_before: float = 0.0
    was_started: bool = False


@dataclass(frozen=True)
class Keeper:
    """What it keeps, in the order in which it starts, and what each finds in its environment."""

    table: ProcessTable
    kept: Sequence[Kept]
    environment: Callable[[], Mapping[str, str]]
    log_dir: Path
    server: EmbeddedServer | None = None
    ticks: TickWatch | None = None
    ended: Event = field(default_factory=Event)

    def run(self) -> None:
        """Keep them until told to end, then end them, the last started first."""
        while not self.ended.wait(LOOK_SECONDS):
            self.look(time.monotonic())
        self._end_all()

    def look(self, now: float) -> None:
        """Start what does not run and may: the server first, without which nothing works."""
        _try(self._look_at_server)
        for one in self.kept:
            _try(partial(self._look_at, one, now))
        _try(partial(self._look_at_ticks, now))
        for log_file in self._log_files():
            _try(partial(_bound, log_file))

    def _look_at_server(self) -> None:
        if self.server is None or self.server.pid() is not None:
            return
        log.warning("PostgreSQL is gone, it starts again")
        before = self.environment()
        self.server.start()
        if self.environment() != before:
            log.warning("somebody took PostgreSQL's port: all start again, at its new one")
            self._end_all()

    def _look_at(self, one: Kept, now: float) -> None:
        if self.table.find(one.name):
            if now - one.not_before > WELL_SECONDS:
                one.deaths = 0
            return
        if one.was_started:
            one.was_started, one.deaths = False, one.deaths + 1
            wait = min(FIRST_WAIT * 2 ** min(one.deaths - 1, 10), LONGEST_WAIT)
            one.not_before = now + wait
            log.warning("%s is gone, it starts again in %g s", one.name, wait)
        if now >= one.not_before:
            one.was_started, one.not_before = True, now
            log_file = self.log_dir / f"{one.name}.log"
            self.table.start(one.name, [*one.command], self.environment(), log_file, PROJECT_DIR)

    def _look_at_ticks(self, now: float) -> None:
        """Restart a daemon that is alive and does not tick, and the code server that it asks."""
        late = self.ticks.late(now) if self.ticks else []
        if self.ticks and late:
            self.ticks.seen.clear()
            names = " and ".join(late)
            log.warning("%s: no tick for %g s; restarting", names, MAX_TICK_AGE_SECONDS)
            for name in (DAEMON, CODE):
                self.table.stop(name)

    def _log_files(self) -> list[Path]:
        own = [self.log_dir / f"{name}.log" for name in (KEEPER, *(one.name for one in self.kept))]
        return [*own, *([self.server.log_file] if self.server else [])]

    def _end_all(self) -> None:
        for one in reversed(self.kept):
            self.table.stop(one.name)


@dataclass(frozen=True)
class Asked:
    """How a mode is brought up: the UI's port, and the words of the sandbox."""

    port: int
    market: Sequence[str] = ()


def keeper_command(mode: Mode, asked: Asked) -> list[str]:
    """How the keeper of a mode is started."""
    words = ["--mode", mode.value, "--port", str(asked.port), "--", *asked.market]
    return [sys.executable, "-m", __name__, *words]


def start_keeper(settings: Settings, asked: Asked) -> None:
    """Start it in this process's environment, and keep how it was asked, for its next start.

    Raises:
        Unsafe: it is alive.
    """
    environment = child_environment(settings)
    location_file(settings).unlink(missing_ok=True)
    command, log_file = keeper_command(settings.mode, asked), log_dir(settings) / f"{KEEPER}.log"
    table_of(settings).start(KEEPER, command, environment, log_file, PROJECT_DIR)
    replace_private(_asked_file(settings), json.dumps(asdict(asked)))


def last_asked(settings: Settings) -> Asked:
    """How this mode was brought up last; where it never was, as `up` would without options."""
    path = _asked_file(settings)
    hint = "remove it, then run: ops-pipeline up --restart, with the options of then"
    kept = read_object(path, hint) or {}
    kinds = {"port": int, "market": list}
    if not all(isinstance(kept.get(name, kind()), kind) for name, kind in kinds.items()):
        raise BadConfiguration(f"{path} is damaged", hint)
    return Asked(kept.get("port", settings.web_port), kept.get("market", []))


def channels_not_running(settings: Settings) -> list[str]:
    """Return the alert channels that the running alert process does not have."""
    in_use = environment_in_use(settings)
    if not in_use or table_of(settings).find(ALERTS) is None:
        return []
    running = alert_channels_of(load(settings.mode.value, in_use))
    return [channel.name for channel in alert_channels_of(settings) if channel not in running]


def stop_kept(settings: Settings) -> list[str]:
    """End what runs of a mode, the keeper first, or it would start the others again.

    Returns:
        The names of those that ran.
    """
    table, (keeper, *kept) = table_of(settings), settings.mode.processes
    found = [process.name for process in table.all()]
    table.stop(keeper, STOP_SECONDS)
    for name in reversed(kept):
        table.stop(name)
    return found


def environment_in_use(settings: Settings) -> dict[str, str]:
    """Return the variables of this project that a running instance was started with."""
    keeper = table_of(settings).find(KEEPER)
    with contextlib.suppress(psutil.Error):
        return own(psutil.Process(keeper.pid).environ()) if keeper else {}
    return {}


def differing_names(settings: Settings) -> list[str]:
    """Return the variables whose value here is another than in the running instance."""
    in_use = environment_in_use(settings)
    if not in_use or settings.server is None:
        return []
    ours = own(child_environment(settings))
    names = {name for name in ours.keys() | in_use.keys() if not name.startswith(DERIVED)}
    return sorted(name for name in names if (ours.get(name) or "") != (in_use.get(name) or ""))


def table_of(settings: Settings) -> ProcessTable:
    """The background processes of a mode."""
    return ProcessTable(settings.mode_dir / "run")


def log_dir(settings: Settings) -> Path:
    """Where each of them writes what it says."""
    return settings.mode_dir / "logs"


def main(arguments: Sequence[str] | None = None) -> None:
    """Keep one mode's processes until terminated."""
    parser = argparse.ArgumentParser(prog=f"python -m {__name__}", description=__doc__)
    parser.add_argument("--mode", type=Mode, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("market", nargs="*", help="words of the sandbox, after --")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keeper = _keeper(load(options.mode.value), Asked(options.port, options.market))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: keeper.ended.set())
    keeper.run()


def _keeper(settings: Settings, asked: Asked) -> Keeper:
    words = _words(settings, asked)
    return Keeper(
        table_of(settings),
        [
            Kept(name, [sys.executable, "-m", *words[name]])
            for name in settings.mode.processes
            if name != KEEPER
        ],
        lambda: child_environment(load(settings.mode.value)),
        log_dir(settings),
        EmbeddedServer.in_folder(settings.var_dir) if settings.is_embedded else None,
        TickWatch(partial(_ticks, settings.mode)),
    )


def _ticks(mode: Mode) -> dict[str, datetime | None]:
    """Return the newest ticks; nothing while the code cannot be loaded, which says so itself."""
    settings = load(mode.value)
    is_broken = code_location(settings, table_of(settings)).error
    return {} if is_broken else newest_ticks(settings)


def _asked_file(settings: Settings) -> Path:
    return settings.mode_dir / "asked.json"


def _try(do: Callable[[], None]) -> None:
    """Whatever fails is tried again at the next look; the others have theirs."""
    try:
        do()
    except (OperatorError, OSError, psutil.Error) as error:
        log.warning("%s", error)


def _bound(log_file: Path) -> None:
    """Put a log that grew too long aside, in place of the one before; who writes it goes on.

    What is written within the same milliseconds is lost.
    """
    if log_file.exists() and log_file.stat().st_size > LONGEST_LOG:
        shutil.copy(log_file, log_file.with_suffix(".log.1"))
        os.truncate(log_file, 0)


def _words(settings: Settings, asked: Asked) -> dict[str, list[str]]:
    socket, port = _socket(settings), str(asked.port)
    workspace = _workspace(settings, socket)
    return {
        SANDBOX: ["ops_pipeline", "sandbox", "--port", str(settings.sandbox_port), *asked.market],
        CODE: [
            *("ops_pipeline.engine.code", "--module", "ops_pipeline.definitions"),
            *("--location", LOCATION, "--socket", socket),
            *("--state", str(location_file(settings))),
        ],
        DAEMON: ["ops_pipeline.engine.daemon", "-w", workspace],
        WEB: [
            *("ops_pipeline.engine.web", "--port", port, "-w", workspace),
            *("--token-file", str(settings.token_file)),
        ],
        STREAM: ["ops_pipeline", "trade-stream"],
        ALERTS: ["ops_pipeline", "alerts", "run", "--port", port],
    }


def _socket(settings: Settings) -> str:
    """Where the code server answers: in our folder, so that nobody else can ask it to run code."""
    folder = table_of(settings).run_dir
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    path = str(folder / "code.sock")
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        raise BadConfiguration(
            f"the path of the var folder is too long for a socket in it: {path}",
            "set OPS_VAR_DIR to a shorter one",
        )
    return path


def _workspace(settings: Settings, socket: str) -> str:
    """The file that sends daemon and web server to the one code server."""
    path = settings.mode_dir / "workspace.yaml"
    served = {"host": "localhost", "socket": socket, "location_name": LOCATION}
    replace_private(path, yaml.safe_dump({"load_from": [{"grpc_server": served}]}))
    return str(path)


if __name__ == "__main__":
    main()
