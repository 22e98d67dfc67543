"""The operator's layer of settings: what is set for good, what for a time, and what returns."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any


class Source(StrEnum):
    """Where a version of the settings came from."""

    INIT = "init"
    CLI = "cli"
    SSM = "ssm"
    ROLLBACK = "rollback"
    EXPIRY = "expiry"
    ENVIRONMENT = "env"
    CODE = "code"


@dataclass(frozen=True)
class Temporary:
    """How long a key is set, and what the operator's layer says of it then.

    `back_to` is None where the layer says nothing; no legal value is None.
    """

    until: datetime
    back_to: Any = None


@dataclass(frozen=True)
class Overrides:
    """The operator's layer: keys with their values, and those among them that return."""

    values: Mapping[str, Any] = field(default_factory=dict)
    temporary: Mapping[str, Temporary] = field(default_factory=dict)

    def changed(self, changes: Mapping[str, Any], until: datetime | None = None) -> "Overrides":
        """The layer with these keys set, for good or until then; all others are as they were.

        A key that is set for a time while it is returns to what it was before the first time.
        """
        temporary = {k: when for k, when in self.temporary.items() if k not in changes}
        if until:
            for key in changes:
                known = self.temporary.get(key)
                back_to = known.back_to if known else self.values.get(key)
                temporary[key] = Temporary(until, back_to)
        return Overrides({**self.values, **changes}, temporary)

    def without(self, keys: Collection[str]) -> "Overrides":
        """The layer that says nothing of these keys, now or later; all others are as they were."""
        values = {key: value for key, value in self.values.items() if key not in keys}
        return Overrides(values, {k: w for k, w in self.temporary.items() if k not in keys})

    def returned(self, now: datetime) -> "Overrides":
        """The layer with all that was set until now or earlier as it was before."""
        due = {key: when for key, when in self.temporary.items() if when.until <= now}
        kept = {key: value for key, value in self.values.items() if key not in due}
        again = {key: when.back_to for key, when in due.items() if when.back_to is not None}
        left = {key: when for key, when in self.temporary.items() if key not in due}
        return replace(self, values={**kept, **again}, temporary=left)


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The keys whose values differ, each with what it was and what it is, in order."""
    keys = sorted(before.keys() | after.keys())
    return {k: [before.get(k), after.get(k)] for k in keys if before.get(k) != after.get(k)}
