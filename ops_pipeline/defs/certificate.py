"""The certificate of the dispatcher as an asset; the verb chaos makes it."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

KEY = "exactly_once_certificate"

exactly_once_certificate = dg.AssetSpec(
    KEY,
    group_name="dispatch",
    description=(
        "That the dispatcher executes exactly once, proved by hurting it at every boundary:"
        " ops-pipeline chaos."
    ),
)


def report(certificate: Mapping[str, Any]) -> None:
    """Keep a certificate in Dagster's history; numbers are metadata that the UI draws."""
    counts, code = certificate["counts"], certificate["code"]
    with dg.DagsterInstance.get() as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                KEY,
                description=f"exactly once at commit {code['commit']}",
                metadata={
                    "commit": code["commit"],
                    "trials": certificate["trials"],
                    "effective": certificate["effective"],
                    "recoveries": certificate["recoveries"],
                    "duplicates": counts["duplicates"],
                    "lost": counts["lost"],
                    "seconds": certificate["seconds"],
                    "faults": dg.MetadataValue.json(certificate["by_fault"]),
                    "points": dg.MetadataValue.json(certificate["by_point"]),
                    "planted_defects": dg.MetadataValue.json(certificate["caught"]),
                },
            )
        )
