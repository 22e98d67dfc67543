"""The verb config: the dispatcher's settings, who changed them and why, and the way back."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from ops_pipeline.cli.console import (
    JsonOption,
    ModeOption,
    ReasonOption,
    out,
    print_json,
    read_length,
    say,
    table,
)
from ops_pipeline.cli.server import connected, existing_server
from ops_pipeline.domain.config import difference
from ops_pipeline.domain.errors import BadInput
from ops_pipeline.domain.markdown import markdown_table
from ops_pipeline.domain.thresholds import read_overrides, visible
from ops_pipeline.operations import config
from ops_pipeline.operations.operator import operator
from ops_pipeline.settings import Mode, Settings
from ops_pipeline.storage import config as storage
from ops_pipeline.storage.config import ConfigVersion
from ops_pipeline.storage.databases import has_database
from ops_pipeline.storage.knowledge import clock

app = typer.Typer(help="The dispatcher's settings: look, change, take back; each with who and why.")

USAGE = "try: ops-pipeline config set confidence_min=0.60 --reason '...'"
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")]
Number = Annotated[int | None, typer.Argument(help="A version's number.")]


@dataclass(frozen=True)
class Shown:
    """What is in force, and what was wrong at the last look; times are UTC."""

    mode: Mode
    version: ConfigVersion
    settings: list[config.Setting]
    parameter: str
    invalid: str
    unread: str


@dataclass(frozen=True)
class Difference:
    """The keys that two versions differ in, each with both values."""

    before: int
    after: int
    changes: dict[str, list[Any]]


@app.command()
def show(
    effective: Annotated[
        bool, typer.Option("--effective", help="Every key, not only what is not as by default.")
    ] = False,
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The settings in force, and which layer each value comes from."""
    with _store(mode) as (settings, connection):
        version = config.in_force(connection, settings, clock())
        state = storage.read_state(connection)
    every = config.layers(version, settings)
    chosen = [each for each in every if effective or each.layer != config.DEFAULT]
    found = Shown(
        settings.mode, version, chosen, settings.ssm_parameter, state.invalid, state.unread
    )
    if as_json:
        print_json(found)
        return
    title = f"mode {settings.mode.value}: {_headline(version)}"
    rows = [[s.key, _text(s.value), _text(s.default), s.layer, _time(s.until)] for s in chosen]
    out.print(table(title, ["setting", "value", "default", "from", "until (UTC)"], rows))
    if state.invalid:
        say(f"the dispatcher stands: {state.invalid}")
    if state.unread:
        say(f"{settings.ssm_parameter}: {state.unread}; what is known already holds")
    if not effective:
        say("all others are as by default: ops-pipeline config show --effective")


@app.command("set")
def set_keys(
    changes: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="Or one JSON object with keys.")
    ],
    reason: ReasonOption,
    lasting: Annotated[
        str | None, typer.Option("--for", help="How long, as 30m, 2h or 1d; for good without.")
    ] = None,
    dry_run: DryRun = False,
    mode: ModeOption = None,
) -> None:
    """Change some keys from the next run of the dispatcher on; all others stay."""
    wanted = parse_changes(changes, "a change")
    now = clock()
    until = now + read_length("--for", lasting) if lasting else None
    with _store(mode) as (settings, connection):
        if dry_run:
            _print_changes(config.preview(connection, settings, wanted, now, until))
            say("nothing was changed")
            return
        who = operator(settings)
        made = config.change(
            connection, settings, wanted, who=who, why=reason, now=now, until=until
        )
    _print_made(made)


@app.command("unset")
def unset_keys(
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="As config show has them.")],
    reason: ReasonOption,
    dry_run: DryRun = False,
    mode: ModeOption = None,
) -> None:
    """Take keys back: again they are as default, mode, file and environment say; others stay."""
    now = clock()
    with _store(mode) as (settings, connection):
        if dry_run:
            _print_changes(config.preview_unset(connection, settings, keys, now))
            say("nothing was changed")
            return
        who = operator(settings)
        made = config.unset(connection, settings, keys, who=who, why=reason, now=now)
    _print_made(made)


@app.command()
def diff(
    a: Number = None, b: Number = None, mode: ModeOption = None, as_json: JsonOption = False
) -> None:
    """What differs between two versions: the newest two, one and the newest, or any two."""
    with _store(mode) as (_, connection):
        before, after = _pair(connection, a, b)
    found = Difference(before.version, after.version, difference(before.effective, after.effective))
    if as_json:
        print_json(found)
        return
    say(f"from version {before.version} to {after.version}")
    _print_changes(found.changes)


@app.command()
def log(
    markdown: Annotated[bool, typer.Option("--markdown", help="The change log as a page.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many, from the newest on.")] = 50,
    mode: ModeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Every change: when, by whom, why, and what differs."""
    with _store(mode) as (settings, connection):
        found = storage.versions(connection, None if markdown else limit)
    if as_json:
        print_json(found)
    elif markdown:
        say(_page(found, settings.mode))
    else:
        rows = [
            [v.version, _time(v.changed_at), v.source.value, v.changed_by, _what(v), v.reason]
            for v in found
        ]
        columns = ["version", "at (UTC)", "source", "by", "changes", "reason"]
        out.print(table(f"mode {settings.mode.value}", columns, rows))


@app.command()
def rollback(
    number: Annotated[int, typer.Argument(help="The version whose values are to hold again.")],
    reason: ReasonOption,
    mode: ModeOption = None,
) -> None:
    """Have every value as it was in a version; that is a version of its own."""
    with _store(mode) as (settings, connection):
        who = operator(settings)
        made = config.rollback(connection, settings, number, who=who, why=reason, now=clock())
    _print_made(made)


def parse_changes(texts: Sequence[str], called: str) -> dict[str, Any]:
    """Settings with their new values, as JSON gives them; what is no JSON is text.

    Raises:
        BadInput: one is neither KEY=VALUE nor a JSON object, or a setting is given twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        for name, value in _pairs(text, called):
            if name in found:
                raise BadInput(f"{called} of {visible(name)} is given twice")
            found[name] = value
    return found


def _pairs(text: str, called: str) -> list[tuple[str, Any]]:
    if text.lstrip().startswith("{"):
        try:
            return list(read_overrides(text).items())
        except ValueError as error:
            raise BadInput(f"{called} {error}", USAGE) from None
    name, equals, value = text.partition("=")
    if not (name.strip() and equals and value.strip()):
        raise BadInput(f"{called} must be KEY=VALUE, not {visible(text)!r}", USAGE)
    return [(name.strip(), _value(value.strip()))]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


@contextmanager
def _store(mode: Mode | None) -> Iterator[tuple[Settings, Connection]]:
    """One transaction on a database that is there already."""
    with existing_server(mode) as settings:
        if not has_database(settings):
            name = settings.mode.value
            raise BadInput(
                f"mode {name} has no database yet", f"run: ops-pipeline up --mode {name}"
            )
    with connected(mode) as (settings, connection):
        yield settings, connection


def _pair(
    connection: Connection, a: int | None, b: int | None
) -> tuple[ConfigVersion, ConfigVersion]:
    known = [version for version in storage.versions(connection) if not version.refusal]
    if not known:
        raise BadInput("there is no version yet", USAGE)
    before = _numbered(known, a) if a is not None else known[min(1, len(known) - 1)]
    return before, _numbered(known, b) if b is not None else known[0]


def _numbered(known: Sequence[ConfigVersion], number: int) -> ConfigVersion:
    for version in known:
        if version.version == number:
            return version
    raise BadInput(f"there is no version {number} that was in force", config.LOG)


def _headline(version: ConfigVersion) -> str:
    if not version.version:
        return f"no version yet, hash {version.config_hash}"
    why = f": {version.reason}" if version.reason else ""
    return (
        f"version {version.version}, hash {version.config_hash}, {_time(version.changed_at)} UTC"
        f" by {version.changed_by}{why}"
    )


def _print_made(made: ConfigVersion) -> None:
    if made.changed_at < clock() - timedelta(minutes=1) or not made.changes:
        say(f"nothing changes: version {made.version} says the same")
    else:
        _print_changes(made.changes)
    for key, when in made.overrides.temporary.items():
        say(f"{key} returns by itself at {_time(when.until)} UTC")
    say(f"version {made.version}, hash {made.config_hash}; the way back: ops-pipeline config log")


def _print_changes(changes: Mapping[str, list[Any]]) -> None:
    for key, (before, after) in changes.items():
        say(f"{key}: {_text(before)} -> {_text(after)}")
    if not changes:
        say("no value differs")


def _what(version: ConfigVersion) -> str:
    if version.refusal:
        return f"REFUSED: {version.refusal}"
    told = [f"{key}: {_text(a)} -> {_text(b)}" for key, (a, b) in version.changes.items()]
    told += [f"{k} until {_time(t.until)}" for k, t in version.overrides.temporary.items()]
    return "; ".join(told) or "no value differs"


def _page(found: Sequence[ConfigVersion], mode: Mode) -> str:
    rows = [
        (
            v.version,
            _time(v.changed_at) or "",
            v.changed_by,
            v.source.value,
            visible(_what(v), 1_000),
            visible(v.reason, 1_000),
        )
        for v in found
    ]
    return (
        f"# Changes of the dispatcher's settings, mode {mode.value}\n\n"
        "Written by `ops-pipeline config log --markdown`, newest first; times are UTC.\n\n"
        + markdown_table(("version", "at", "by", "source", "changes", "reason"), rows)
    )


def _time(at: datetime | None) -> str | None:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if at else None


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(each) for each in value) or "none"
    return value if isinstance(value, str) else json.dumps(value)
