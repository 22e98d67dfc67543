"""What a service or a process has said lately: from Dagster's events, and from files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import ProgrammingError

from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.logs import Line, read_lines, without
from ops_pipeline.domain.stages import SERVICES, Stage, stage_of_service
from ops_pipeline.local.keeper import log_dir, table_of
from ops_pipeline.local.postgres import EmbeddedServer
from ops_pipeline.settings import STREAM, Settings
from ops_pipeline.storage.engine import opened, reachable
from ops_pipeline.storage.knowledge import newest_stage_minutes
from ops_pipeline.storage.migrate import migrated
from ops_pipeline.storage.runs import Told, steps_of, told
from ops_pipeline.storage.services import switches

TRADE_STREAM, POSTGRES = "trade-stream", "postgres"
AT_MOST = 2_000
# So much of the end of a file is read; the keeper lets none grow longer than five of these.
TAIL_BYTES = 2_000_000


@dataclass(frozen=True)
class Logs:
    """What was said, oldest first; whether there is more; and where nothing is, why.

    `is_quiet` where a process runs, and had nothing to say.
    """

    lines: tuple[Line, ...]
    is_cut: bool = False
    reason: str = ""
    is_quiet: bool = False


def names(settings: Settings) -> list[str]:
    """Whose logs there are: the runbook's services, and the processes of this mode."""
    own = [POSTGRES] if settings.is_embedded else []
    followed = [TRADE_STREAM] if settings.mode.is_followed else []
    kept = [name for name in settings.mode.processes if name != STREAM]
    return [*(stage.service for stage in SERVICES), *followed, *kept, *own]


def read(settings: Settings, name: str, since: datetime, until: datetime) -> Logs:
    """What one of them has said within [since, until]; no secret of these settings stands in it.

    Raises:
        BadInput: there is none of this name.
        NotRunning: a service's are asked for, and the database does not answer.
    """
    stage = stage_of_service(name)
    if stage:
        found = _of_service(settings, stage, since, until)
    elif name in (*names(settings), STREAM):
        found = _of_process(settings, STREAM if name == TRADE_STREAM else name, since)
    else:
        raise BadInput(f"there is no service {name!r}; there are {', '.join(names(settings))}")
    secrets = set(_secrets(settings))
    return Logs(
        tuple(without(secrets, line) for line in found.lines[-AT_MOST:]),
        found.is_cut or len(found.lines) > AT_MOST,
        found.reason,
        found.is_quiet,
    )


def _of_service(settings: Settings, stage: Stage, since: datetime, until: datetime) -> Logs:
    with reachable(settings), migrated(settings):
        spoken = _told(settings, stage, since, until)
        if not spoken.lines:
            return Logs((), reason=_why_nothing(settings, stage, until))
    runs = {line.run_id: None for line in spoken.lines}
    printed = [line for run_id in runs for line in _printed(settings, run_id)]
    lines = [*spoken.lines, *(line for line in printed if line.at and since <= line.at <= until)]
    return Logs(tuple(sorted(lines, key=_when)), spoken.is_cut)


def _told(settings: Settings, stage: Stage, since: datetime, until: datetime) -> Told:
    try:
        with opened(settings, settings.dagster_database) as dagster, dagster.connect() as events:
            return told(events, steps_of(stage), since, until, AT_MOST)
    except ProgrammingError:
        # Dagster makes its tables when it first starts.
        return Told((), is_cut=False)


def _why_nothing(settings: Settings, stage: Stage, now: datetime) -> str:
    with opened(settings) as engine, engine.connect() as connection:
        switch = next(one for one in switches(connection, now) if one.stage == stage)
        progress = newest_stage_minutes(connection).get(stage.name)
    written_at = progress.written_at if progress else None
    last = f"it last finished {written_at:%Y-%m-%d %H:%M} UTC" if written_at else ""
    until = f" until {switch.disabled_until:%Y-%m-%d %H:%M} UTC" if switch.disabled_until else ""
    why = f": {switch.reason}" if switch.reason else ""
    off = "" if switch.is_enabled else f"it is off{until}{why}"
    closed = "" if settings.mode.calendar.at(now) else "the market is closed"
    nobody = "" if table_of(settings).all() else "nothing runs here"
    return "; ".join(filter(None, (off, nobody, closed, last))) or "it never ran"


def _of_process(settings: Settings, name: str, since: datetime) -> Logs:
    path = _file_of(settings, name)
    lines = [
        line
        for file in (path.with_suffix(".log.1"), path)
        for line in _lines_of(file)
        if (line.at or _written_at(file)) >= since
    ]
    runs = _runs(settings, name)
    reason = "" if lines else _why_silent(path, runs=runs)
    return Logs(tuple(lines), reason=reason, is_quiet=runs and not lines)


def _runs(settings: Settings, name: str) -> bool:
    if name == POSTGRES:
        return EmbeddedServer.in_folder(settings.var_dir).pid() is not None
    return table_of(settings).find(name) is not None


def _why_silent(path: Path, *, runs: bool) -> str:
    state = "it runs" if runs else "it does not run"
    if not path.exists():
        return f"{state}, and never wrote {path}"
    return f"{state}, and last wrote {path} {_written_at(path):%Y-%m-%d %H:%M} UTC"


def _file_of(settings: Settings, name: str) -> Path:
    if name == POSTGRES:
        return EmbeddedServer.in_folder(settings.var_dir).log_file
    return log_dir(settings) / f"{name}.log"


def _printed(settings: Settings, run_id: str) -> Iterator[Line]:
    """What a run printed: Dagster keeps it beside its events, as files."""
    folder = settings.mode_dir / "dagster" / run_id / "compute_logs"
    for file in sorted(folder.glob("*.err")) + sorted(folder.glob("*.out")):
        yield from _lines_of(file, run_id)


def _lines_of(file: Path, run_id: str = "") -> Iterator[Line]:
    try:
        with file.open("rb") as opened_file:
            opened_file.seek(max(0, file.stat().st_size - TAIL_BYTES))
            text = opened_file.read(TAIL_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return
    zone = datetime.fromtimestamp(file.stat().st_mtime).astimezone().tzinfo or UTC
    yield from read_lines(text.splitlines(), zone, run_id)


def _written_at(file: Path) -> datetime:
    return datetime.fromtimestamp(file.stat().st_mtime, UTC)


def _when(line: Line) -> datetime:
    return line.at or datetime.min.replace(tzinfo=UTC)


def _secrets(value: Any) -> Iterator[str]:
    """What a record of settings does not show of itself."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _secrets(item)
    elif is_dataclass(value):
        for field in fields(value):
            found = getattr(value, field.name)
            if not field.repr or is_dataclass(found):
                yield from _secrets(found)
