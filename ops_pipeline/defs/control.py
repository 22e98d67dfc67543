"""What operators control, as Dagster sees it: the dispatcher's settings, the switches."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from ops_pipeline.defs.resources import Pipeline
from ops_pipeline.domain.errors import OperatorError
from ops_pipeline.domain.markdown import markdown_table
from ops_pipeline.operations.config import in_force, settle
from ops_pipeline.storage.config import ConfigVersion, read_state
from ops_pipeline.storage.knowledge import clock
from ops_pipeline.storage.services import Switch, switches

CONFIG, SERVICES = "dispatcher_config", "services"

control_assets = [
    dg.AssetSpec(
        CONFIG,
        group_name="control",
        description=(
            "The dispatcher's settings. Materialised with each version; its data version is the"
            " hash that stands beside each dispatcher run and each execution."
        ),
    ),
    dg.AssetSpec(
        SERVICES,
        group_name="control",
        description=(
            "The switches of the seven services. Materialised when one is moved or comes back; one"
            " that is off is left out of the tick."
        ),
    ),
]


def look(pipeline: Pipeline, cursor: str | None) -> tuple[list[dg.AssetMaterialization], str, str]:
    """Find what was changed, and tell what is new since a cursor.

    Returns:
        What is to be told, the next cursor, and in one line how things are.
    """
    said = "settings and switches are as they were"
    now = clock()
    try:
        settle(pipeline.engine, pipeline.settings, now)
    except OperatorError as error:
        said = f"the dispatcher stands: {error}"
    with pipeline.engine.connect() as connection:
        version = in_force(connection, pipeline.settings, now)
        invalid = read_state(connection).invalid
        found = switches(connection, now)
    seen = {CONFIG: f"{version.version} {invalid}", SERVICES: _table(found)}
    before = json.loads(cursor) if cursor else {}
    told = {CONFIG: _config(version, invalid), SERVICES: _services(found)}
    news = [told[name] for name in told if before.get(name) != seen[name]]
    return news, json.dumps(seen), said


def _config(version: ConfigVersion, invalid: str) -> dg.AssetMaterialization:
    changes = [[key, *map(json.dumps, both)] for key, both in version.changes.items()]
    metadata: Mapping[str, Any] = {
        "version": version.version,
        "hash": version.config_hash,
        "source": version.source.value,
        "changed_by": version.changed_by,
        "reason": version.reason,
        "changes": dg.MetadataValue.md(markdown_table(["setting", "before", "after"], changes)),
        "settings": dict(version.effective),
        **({"refused": invalid} if invalid else {}),
    }
    tags = {"dagster/data_version": version.config_hash}
    return dg.AssetMaterialization(CONFIG, metadata=metadata, tags=tags)


def _services(found: Sequence[Switch]) -> dg.AssetMaterialization:
    off = sum(not switch.is_enabled for switch in found)
    metadata: Mapping[str, Any] = {"off": off, "switches": dg.MetadataValue.md(_table(found))}
    return dg.AssetMaterialization(SERVICES, metadata=metadata)


def _table(found: Sequence[Switch]) -> str:
    rows = [
        [
            switch.stage.service,
            "on" if switch.is_enabled else "off",
            f"{switch.disabled_until:%Y-%m-%d %H:%M} UTC" if switch.disabled_until else "",
            switch.changed_by,
            switch.reason,
        ]
        for switch in found
    ]
    return markdown_table(["service", "switch", "until", "by", "reason"], rows)
