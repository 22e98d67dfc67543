"""The dispatcher's settings as versions: changed, found changed, taken back; each with who and why.

The layers, each above the one before: defaults, the mode's profile, file, environment, and the
operator's own, which is kept here and, where one is named, in a parameter of SSM as well.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine

from ops_pipeline.clients.aws import SsmParameter, parameter_of
from ops_pipeline.domain.config import Overrides, Source, difference
from ops_pipeline.domain.errors import BadConfiguration, BadInput, NotRunning
from ops_pipeline.domain.thresholds import PROFILES, DispatcherConfig, read_overrides
from ops_pipeline.operations.operator import machine_user
from ops_pipeline.settings import Settings, dispatcher_config, dispatcher_overrides
from ops_pipeline.storage import config as storage
from ops_pipeline.storage.config import ConfigVersion

PIPELINE = "ops-pipeline"
ABSENT = "absent"
DEFAULT = "default"
CORRECT = "correct it where it was set; ops-pipeline config log tells what was found, and when"
LOG = "run: ops-pipeline config log"
SEE_KEYS = "docs/thresholds.md has every key"


def in_force(connection: Connection, settings: Settings, now: datetime) -> ConfigVersion:
    """The version in force; before the first what it would be. Nothing is looked for or written.

    Raises:
        BadConfiguration: there is none yet, and what file or environment say cannot be used.
    """
    found = storage.newest_version(connection)
    return found or _unversioned(settings, dispatcher_overrides(settings), now)


def config_of(version: ConfigVersion, settings: Settings) -> DispatcherConfig:
    """The settings of a version, as the dispatcher takes them.

    Raises:
        BadConfiguration: this code refuses what another has written.
    """
    return dispatcher_config(settings.mode, version.effective)


@dataclass(frozen=True)
class Setting:
    """One key: its value, the default, which layer the value comes from, and when that ends."""

    key: str
    value: Any
    default: Any
    layer: str
    until: datetime | None


def layers(version: ConfigVersion, settings: Settings) -> list[Setting]:
    """Every key of a version with where its value comes from."""
    usual, temporary = DispatcherConfig().document(), version.overrides.temporary
    above = (
        ("operator", version.overrides.values),
        ("environment or file", version.base),
        (f"mode {settings.mode.value}", PROFILES.get(settings.mode.value, {})),
    )
    return [
        Setting(
            key=key,
            value=value,
            default=usual.get(key),
            layer=next((name for name, values in above if key in values), DEFAULT),
            until=temporary[key].until if key in temporary else None,
        )
        for key, value in version.effective.items()
    ]


def settle(engine: Engine, settings: Settings, now: datetime) -> ConfigVersion:
    """Find what was changed elsewhere, end what is over, and tell the version that is in force.

    Each finding is a version of its own. While SSM does not answer, what is known already holds.

    Raises:
        BadConfiguration: something that is present cannot be used; what was found is kept.
        NotRunning: SSM does not answer, and what it holds was never read.
    """
    parameter = parameter_of(settings)
    text, unread, unusable = None, "", ""
    try:
        text, unread = _read(parameter)
    except BadConfiguration as error:
        unusable = str(error)
    with engine.begin() as connection:
        storage.lock_config(connection)
        look = _Look(connection, settings, now, parameter)
        look.state = replace(look.state, invalid="", unread=unread)
        look.at_layers()
        if unusable:
            look.refuse(Source.SSM, unusable, machine_user())
        elif not unread:
            look.at_parameter(text)
        look.at_ends()
        look.keep()
    if look.state.invalid:
        raise BadConfiguration(look.state.invalid, CORRECT)
    if look.state.unread and parameter and not look.state.seen:
        raise NotRunning(
            look.state.unread, f"{parameter.name} was never read, and may say anything"
        )
    return look.version


def change(
    connection: Connection,
    settings: Settings,
    changes: Mapping[str, Any],
    *,
    who: str,
    why: str,
    now: datetime,
    until: datetime | None = None,
) -> ConfigVersion:
    """Set keys of the operator's layer, for good or until a time; all others stay as they are.

    Returns:
        The new version, or the one in force where nothing changes.

    Raises:
        BadInput: a key or a value is refused; the message has the key and what is allowed.
        NotRunning: SSM does not answer; nothing is changed.
    """
    look = _looked(connection, settings, now)
    wanted = _changed(settings, look.version, changes, until, now)
    return look.publish(wanted, Source.CLI, who, why)


def preview(
    connection: Connection,
    settings: Settings,
    changes: Mapping[str, Any],
    now: datetime,
    until: datetime | None = None,
) -> dict[str, list[Any]]:
    """What a change would come to, key by key; nothing is looked for or written.

    Raises:
        BadInput: a key or a value is refused.
    """
    known = in_force(connection, settings, now)
    wanted = _changed(settings, known, changes, until, now)
    after = _effective(settings, known.base, wanted.values).document()
    return difference(known.effective, after)


def unset(
    connection: Connection,
    settings: Settings,
    keys: Collection[str],
    *,
    who: str,
    why: str,
    now: datetime,
) -> ConfigVersion:
    """Take keys out of the operator's layer: what the layers below say of them holds again.

    Returns:
        The new version, or the one in force where the layer says nothing of them.

    Raises:
        BadInput: there is no such key, or the others cannot be without it.
        NotRunning: SSM does not answer; nothing is changed.
    """
    look = _looked(connection, settings, now)
    return look.publish(_unset(settings, look.version, keys), Source.CLI, who, why)


def preview_unset(
    connection: Connection, settings: Settings, keys: Collection[str], now: datetime
) -> dict[str, list[Any]]:
    """What taking keys back would come to, key by key; nothing is looked for or written.

    Raises:
        BadInput: there is no such key, or the others cannot be without it.
    """
    known = in_force(connection, settings, now)
    wanted = _unset(settings, known, keys)
    after = _effective(settings, known.base, wanted.values).document()
    return difference(known.effective, after)


def rollback(
    connection: Connection, settings: Settings, number: int, *, who: str, why: str, now: datetime
) -> ConfigVersion:
    """Have every value as it was in a version, whatever the layers below say now.

    What that version had set for a time holds for good.

    Raises:
        BadInput: there is no such version, it never was in force, or is refused today.
        NotRunning: SSM does not answer; nothing is changed.
    """
    look = _looked(connection, settings, now)
    target = storage.version_of(connection, number)
    if target is None:
        raise BadInput(f"there is no version {number}", LOG)
    if target.refusal:
        raise BadInput(f"version {number} never was in force: {target.refusal}", LOG)
    values = target.overrides.values
    try:
        made = _effective(settings, look.version.base, values).document()
    except BadConfiguration:
        # Beside what the layers below say now it needs every value of its own.
        made = {}
    pinned = {key: both[1] for key, both in difference(made, target.effective).items()}
    return look.publish(Overrides({**values, **pinned}), Source.ROLLBACK, who, why)


def _changed(
    settings: Settings,
    known: ConfigVersion,
    changes: Mapping[str, Any],
    until: datetime | None,
    now: datetime,
) -> Overrides:
    """The operator's layer after a change: legal now, and whenever something of it returns."""
    if until and until <= now:
        raise BadInput(f"{until:%Y-%m-%d %H:%M} UTC is over already")
    wanted = known.overrides.changed(changes, until)
    _require_legal(settings, known, wanted)
    return wanted


def _unset(settings: Settings, known: ConfigVersion, keys: Collection[str]) -> Overrides:
    """The operator's layer without some keys."""
    # Of a key that is none, the refusal names those that are like it.
    unknown = dict.fromkeys(key for key in keys if key not in known.effective)
    wanted = known.overrides.without(keys)
    _require_legal(settings, known, replace(wanted, values={**wanted.values, **unknown}))
    return wanted


def _require_legal(settings: Settings, known: ConfigVersion, wanted: Overrides) -> None:
    """Refuse a layer that is not legal now, or whenever something of it returns."""
    try:
        _effective(settings, known.base, wanted.values)
        for end in sorted({when.until for when in wanted.temporary.values()}):
            _effective(settings, known.base, wanted.returned(end).values)
    except BadConfiguration as error:
        raise BadInput(str(error), SEE_KEYS) from None


def _looked(connection: Connection, settings: Settings, now: datetime) -> "_Look":
    """What is in force, with what was set by hand in SSM, for one who changes it."""
    storage.lock_config(connection)
    parameter = parameter_of(settings)
    text, unread = _read(parameter)
    if unread:
        raise NotRunning(unread, "nothing was changed")
    look = _Look(connection, settings, now, parameter)
    look.at_parameter(text)
    look.at_ends()
    return look


def _read(parameter: SsmParameter | None) -> tuple[str | None, str]:
    """What a parameter holds, or why that is not known.

    Raises:
        BadConfiguration: it cannot be asked at all.
    """
    try:
        return (parameter.read() if parameter else None), ""
    except NotRunning as error:
        return None, str(error)


def _effective(
    settings: Settings, base: Mapping[str, Any], values: Mapping[str, Any]
) -> DispatcherConfig:
    return dispatcher_config(settings.mode, {**base, **values})


def _unversioned(settings: Settings, base: Mapping[str, Any], now: datetime) -> ConfigVersion:
    """What holds where nobody has changed anything."""
    config = _effective(settings, base, {})
    return ConfigVersion(
        version=0,
        source=Source.INIT,
        base=base,
        overrides=Overrides(),
        effective=config.document(),
        config_hash=config.fingerprint(),
        changes={},
        changed_by=PIPELINE,
        reason=f"as delivered, for mode {settings.mode.value}",
        changed_at=now,
    )


class _Look:
    """One look at the settings, under the lock: the version in force, and how the look went."""

    def __init__(
        self,
        connection: Connection,
        settings: Settings,
        now: datetime,
        parameter: SsmParameter | None,
    ) -> None:
        self._connection, self._settings, self._now = connection, settings, now
        self._parameter = parameter
        self._before = self.state = storage.read_state(connection)
        newest = storage.newest_version(connection)
        self.version = newest or storage.insert_version(connection, _unversioned(settings, {}, now))
        if newest is None:
            self.at_layers()

    def at_layers(self) -> None:
        """Whether file, environment or code say something else than they did."""
        known = self.version
        try:
            base = dispatcher_overrides(self._settings)
            config = _effective(self._settings, base, known.overrides.values)
        except BadConfiguration as error:
            self.refuse(Source.ENVIRONMENT, str(error), machine_user())
            return
        if base != known.base:
            why = "file or environment say something else"
            self._add(Source.ENVIRONMENT, known.overrides, machine_user(), why, base)
        elif config.fingerprint() != known.config_hash:
            self._add(Source.CODE, known.overrides, PIPELINE, "this version has other defaults")

    def at_parameter(self, text: str | None) -> None:
        """Whether the parameter says something else than was seen or written last."""
        if self._parameter is None:
            return
        digest = _digest(text) if text is not None else self.state.seen or ABSENT
        if text is None or digest == self.state.seen:
            self.state = replace(self.state, seen=digest)
            return
        known = self.version.overrides
        try:
            # A key that says what it said is not changed: what is set for a time still returns.
            said = read_overrides(text)
            wanted = known.changed({k: v for k, v in said.items() if known.values.get(k) != v})
            _effective(self._settings, self.version.base, wanted.values)
        except ValueError as error:
            self.refuse(Source.SSM, f"{self._parameter.name} {error}", self._parameter.changed_by())
            return
        except BadConfiguration as error:
            self.refuse(
                Source.SSM, f"{self._parameter.name}: {error}", self._parameter.changed_by()
            )
            return
        self.state = replace(self.state, seen=digest)
        if wanted != known:
            self._add(Source.SSM, wanted, self._parameter.changed_by(), "changed in SSM by hand")

    def at_ends(self) -> None:
        """Whether something that was set for a time is over."""
        known = self.version.overrides
        wanted = known.returned(self._now)
        if wanted == known:
            return
        over = ", ".join(sorted(known.temporary.keys() - wanted.temporary.keys()))
        try:
            self._add(Source.EXPIRY, wanted, PIPELINE, f"was set for a time: {over}")
        except BadConfiguration as error:
            self.refuse(Source.EXPIRY, str(error), PIPELINE)
            return
        try:
            self._write()
        except NotRunning as error:
            self.state = replace(self.state, unread=f"not written: {error}")

    def refuse(self, source: Source, refusal: str, who: str) -> None:
        """Keep that something cannot be used, once; the dispatcher stands until it is put right."""
        if not self.state.invalid:
            self.state = replace(self.state, invalid=refusal)
        if refusal != self._before.invalid:
            refused = replace(
                self.version,
                source=source,
                changes={},
                refusal=refusal,
                changed_by=who,
                reason="it cannot be used",
                changed_at=self._now,
            )
            storage.insert_version(self._connection, refused)

    def publish(self, wanted: Overrides, source: Source, who: str, why: str) -> ConfigVersion:
        """Make this the operator's layer; in SSM last, so that a refusal there changes nothing."""
        if wanted != self.version.overrides:
            try:
                self._add(source, wanted, who, why)
            except BadConfiguration as error:
                raise BadInput(str(error), SEE_KEYS) from None
            self._write()
        self.keep()
        return self.version

    def keep(self) -> None:
        """Keep how the look went."""
        if self.state != self._before:
            storage.update_state(self._connection, self.state, self._now)

    def _write(self) -> None:
        if self._parameter:
            text = json.dumps(dict(self.version.overrides.values), sort_keys=True)
            self._parameter.write(text)
            self.state = replace(self.state, seen=_digest(text))

    def _add(
        self,
        source: Source,
        overrides: Overrides,
        who: str,
        why: str,
        base: Mapping[str, Any] | None = None,
    ) -> None:
        known = self.version
        below = known.base if base is None else base
        config = _effective(self._settings, below, overrides.values)
        made = replace(
            known,
            source=source,
            base=below,
            overrides=overrides,
            effective=config.document(),
            config_hash=config.fingerprint(),
            changes=difference(known.effective, config.document()),
            changed_by=who,
            reason=why,
            changed_at=self._now,
        )
        self.version = storage.insert_version(self._connection, made)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
