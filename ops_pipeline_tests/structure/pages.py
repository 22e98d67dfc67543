"""The pages that are generated; a stale one fails a test, `make docs` writes it anew."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ops_pipeline.domain.checks import CHECKS, Check
from ops_pipeline.domain.gates import GATES
from ops_pipeline.domain.thresholds import PROFILES, TIERS, DispatcherConfig, SloRules

DOCS = Path(__file__).resolve().parents[2] / "docs"


def thresholds_page() -> str:
    """Every setting of the dispatcher, the tiers, the gates and the loop's limits, as a page."""
    tiers = [
        f"| {name} | {'-' if name == 'large' else f'{tier.max_equity_usd:,.0f}'} "
        f"| {tier.risk_per_trade} | {tier.confidence_floor} |"
        for name, tier in TIERS.items()
    ]
    gates = [
        f"| {number} | `{gate.name}` | {'yes' if gate.for_closing else 'no'} |"
        for number, gate in enumerate(GATES, start=1)
    ]
    profiles = [f"- `{mode}`: {changes}" for mode, changes in PROFILES.items()]
    lines = [
        "# Thresholds",
        "",
        "Generated from `ops_pipeline/domain/thresholds.py` and `gates.py` by `make docs`.",
        "",
        "| setting | default | range | effect |",
        "|---|---|---|---|",
        *_settings(DispatcherConfig),
        "",
        "Modes that change a default:",
        "",
        *profiles,
        "",
        "| tier | up to USD | risk per trade | confidence floor |",
        "|---|---|---|---|",
        *tiers,
        "",
        "A signal trades from max(`confidence_min`, the tier's floor) on.",
        "",
        "| # | gate | closing orders have to pass |",
        "|---|---|---|",
        *gates,
        "",
        "Limits of the minute loop, held by the checks of `pipeline_slo`; `OPS_SLO` overrides:",
        "",
        "| limit | default | range | why |",
        "|---|---|---|---|",
        *_settings(SloRules),
    ]
    return "\n".join(lines) + "\n"


def ranges_page() -> str:
    """Every check of the catalogue: what is normal, what is not, and what the runbook said."""
    lines = [
        "# Ranges",
        "",
        "Generated from `ops_pipeline/domain/checks.py` and `ranges.py` by `make docs`. Queries:",
        "`ops_pipeline/storage/sql/acceptance.sql`. `ops-pipeline check [NAME]` asks them of the",
        "pipeline's present, Dagster every five minutes and after each run of the dispatcher.",
        "Everything is counted in sessions of the exchange; while it is closed, nothing is due.",
        "",
        "| check | of | normal | problem | at worst | grows with |",
        "|---|---|---|---|---|---|",
        *(
            f"| [`{c.name}`](#{c.name}) | `{c.asset}` | {c.normal} | {c.problem} "
            f"| {c.level.value} | {c.scales} |"
            for c in CHECKS
        ),
        *(line for check in CHECKS for line in _ranges_of(check)),
    ]
    return "\n".join(lines) + "\n"


def _ranges_of(check: Check) -> list[str]:
    off = ", ".join(stage.service for stage in check.services)
    silent = [f"Silent while {off} is switched off."] if off else []
    replay = [] if check.is_for_replay else ["Not run in a replay."]
    return [
        "",
        f"## {check.name}",
        "",
        " ".join([check.says, *silent, *replay]),
        "",
        f"- Runbook, {check.section}: {check.runbook}.",
        f"- {check.kept.value.capitalize()}: {check.why}",
    ]


def _settings(rules: type[BaseModel]) -> list[str]:
    return [
        f"| `{name}` | {_default(entry)} | {_range(entry)} | {entry['description']} |"
        for name, entry in rules.model_json_schema()["properties"].items()
    ]


def _default(entry: dict[str, Any]) -> str:
    value = entry["default"]
    return ", ".join(value) if isinstance(value, list | tuple) else str(value)


def _range(entry: dict[str, Any]) -> str:
    if "enum" in entry:
        return ", ".join(entry["enum"])
    low = entry.get("minimum", entry.get("exclusiveMinimum"))
    high = entry.get("maximum", entry.get("exclusiveMaximum"))
    return "-" if low is None else f"{low} to {high:g}"


if __name__ == "__main__":
    (DOCS / "thresholds.md").write_text(thresholds_page(), encoding="utf-8")
    (DOCS / "ranges.md").write_text(ranges_page(), encoding="utf-8")
