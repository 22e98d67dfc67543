"""The pages that are generated; a stale one fails a test, `make docs` writes it anew."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ops_pipeline.domain.checks import CHECKS, Check
from ops_pipeline.domain.gates import GATES
from ops_pipeline.domain.stages import DISPATCH, SERVICES, Stage
from ops_pipeline.domain.thresholds import PROFILES, TIERS, DispatcherConfig, SloRules
from ops_pipeline.operations.runbook.commands import COMMANDS
from ops_pipeline.operations.runbook.section import Section
from ops_pipeline.operations.runbook.sections import SECTIONS

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
        f"- Where it is not normal: `ops-pipeline {check.next_step}`.",
    ]


def runbook_page() -> str:
    """Every section of the runbook: what it looks for, finds, mends, and is verified by."""
    lines = [
        _RUNBOOK,
        "| section | job | codes |",
        "|---|---|---|",
        *(
            f"| [{s.name}](#{s.name}) | `{s.job_name}` "
            f"| {' '.join(f'`{c.code}`' for c in s.causes)} |"
            for s in SECTIONS
        ),
        "",
        _AT_ONCE,
        "| runbook name | stage | due |",
        "|---|---|---|",
        *(f"| {one.service} | {one.name} | {_due(one)} |" for one in SERVICES),
        *(line for section in SECTIONS for line in _runbook_section(section)),
        "",
        _COMMANDS,
        "| runbook command | ours |",
        "|---|---|",
        *(f"| `{_cell(one.runbook)}` | `{_cell(one.text)}` |" for one in COMMANDS),
    ]
    return "\n".join(lines) + "\n"


_RUNBOOK = """\
# Runbook

Generated from `ops_pipeline/operations/runbook/` by `make docs`. Each section of the operators'
runbook by its own heading, and the job of the same name in Dagster:

```
ops-pipeline runbook diagnose NAME        # a code, and what shows it; exit code 1 is a problem
ops-pipeline runbook fix NAME [--apply]   # what it would change; with --apply, changes it
ops-pipeline runbook verify NAME          # the section's own checks; exit code 1 is not normal
```

Jobs are dry runs, too, unless the launchpad says `apply: true`. `UNEXPLAINED` is a check that is
not normal for none of the causes that are known; `NOT_IN_REPLAY` a section that means nothing where
the past is played. How bad a code is are the words of the escalation: critical now, high within a
day, medium within a week, low to be watched; normal is an answer, and no problem.

Why a row was skipped or traded, and how fast the loop is: [minute-loop.md](minute-loop.md). The
checks of the catalogue, and where their numbers come from: [ranges.md](ranges.md).
"""
_AT_ONCE = """\
Trading stops at once by `ops-pipeline halt --reason TEXT` (nothing at all), `reduce` (only closing)
or `flatten --apply` (close all); `resume` trades again. No fix ever resumes, none removes a row of
the ledger, and none switches the dispatcher on while the ledger is not sound.

## Services

`ops-pipeline service disable NAME --until TIME` makes a maintenance window: the tick leaves the
service out, its checks are silent, and it comes back by itself, or by `enable NAME` before.
"""
_COMMANDS = """\
## Commands

What answers each command that the operators' runbook prints; `ops-pipeline runbook list --commands`
says the same. Its queries also run word for word, `ops-pipeline sql "SELECT ..."`, where `NOW()`
is the server's clock.
"""


def _due(stage: Stage) -> str:
    if stage is DISPATCH:
        return "when rows wait, and once a minute"
    return "each minute" if stage.minutes == 1 else f"each {stage.minutes} minutes"


def _runbook_section(section: Section) -> list[str]:
    normal = {check.name: check for check in CHECKS}
    checks = [
        f"| [`{name}`](ranges.md#{name}) | {_cell(normal[name].normal)} "
        f"| {normal[name].level.value} |"
        for name in section.checks
    ]
    own = [f"| `{one.name}` | {_cell(one.normal)} | that of its code |" for one in section.own]
    causes = [
        f"| `{c.code}` | {c.level.value} | {_cell(c.meaning)} | {_cell(c.remedy)} |"
        for c in section.causes
    ]
    replay = [] if section.in_replay else ["", "Not in a replay."]
    return [
        "",
        f"## {section.name}",
        "",
        f"{section.heading}. {section.symptom}",
        *replay,
        "",
        "| code | how bad | means | the fix |",
        "|---|---|---|---|",
        *causes,
        "",
        "| verified by | normal | at worst |",
        "|---|---|---|",
        *checks,
        *own,
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


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
    (DOCS / "runbook.md").write_text(runbook_page(), encoding="utf-8")
