"""Tell whether the settings differ from those that the running processes were started with.

Only keyed digests are kept: a setting may be a secret.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from ops_pipeline.domain.errors import BadConfiguration
from ops_pipeline.settings import Settings, alert_channels_of

# What a setting is called where it is set; any other is OPS_ and the name of its field.
VARIABLES = {
    "alpaca": "ALPACA_*",
    "allows_private_feeds": "OPS_ALLOW_PRIVATE_FEEDS",
    "dispatcher_overrides": "OPS_DISPATCHER_CONFIG",
    "dispatcher_overrides_file": "OPS_DISPATCHER_CONFIG_FILE",
    "slo_overrides": "OPS_SLO",
    "price_overrides": "OPS_PRICES",
    "aws_region": "AWS_REGION",
    "retention": "OPS_KEEP_*_DAYS",
}
# Another way of saying where the installation is, or written by the processes themselves.
LEFT_OUT = ("mode", "var_dir", "server", "reader_password", "window", "window_fault")
CHANNEL = "channel "


def digests(settings: Settings) -> dict[str, str]:
    """Return a digest of every setting and alert channel, and the key that they were made with."""
    return {"key": (key := secrets.token_hex(16)), **_digests(settings, key)}


def differing(kept: Mapping[str, str], settings: Settings) -> list[str]:
    """Return the names of the settings that differ from those that were kept."""
    return [name for name in _changed(kept, settings) if not name.startswith(CHANNEL)]


def unknown_channels(kept: Mapping[str, str], settings: Settings) -> list[str]:
    """Return the names of the alert channels that are new, or lead elsewhere than what was kept."""
    found = [name for name in _changed(kept, settings) if name.startswith(CHANNEL)]
    return [name.removeprefix(CHANNEL) for name in found]


def _changed(kept: Mapping[str, str], settings: Settings) -> list[str]:
    """Without digests, as of an earlier version, nothing is known to differ."""
    now = _digests(settings, kept["key"]) if "key" in kept else {}
    return [name for name, digest in now.items() if kept.get(name) != digest]


def _digests(settings: Settings, key: str) -> dict[str, str]:
    values: dict[str, Any] = {
        VARIABLES.get(each.name, f"OPS_{each.name.upper()}"): getattr(settings, each.name)
        for each in fields(settings)
        if each.name not in LEFT_OUT
    }
    with suppress(BadConfiguration):
        values |= {f"{CHANNEL}{one.name}": one for one in alert_channels_of(settings)}
    return {name: _digest(value, key) for name, value in values.items()}


def _digest(value: Any, key: str) -> str:
    plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    text = json.dumps(plain, default=str, sort_keys=True)
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()
