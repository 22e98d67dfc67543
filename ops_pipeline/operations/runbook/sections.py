"""All sections, in the order of the runbook."""

from difflib import get_close_matches

from ops_pipeline.domain.errors import BadInput
from ops_pipeline.operations.runbook import (
    database,
    freshness,
    health,
    ledger,
    queue,
    services,
    skips,
    stream,
)
from ops_pipeline.operations.runbook.section import Section

# The headings of the runbook that are a section each, word for word and in its order.
HEADINGS = (
    "Quick Health Check (30 seconds)",
    "Check If Service Executed Recently",
    "Check RDS Connectivity",
    "Issue: No Logs Generated",
    "Issue: Backlog Growing (PENDING Accumulating)",
    "Issue: No Trades Happening (Signals SKIPPED)",
    "Issue: Trade-Stream WebSocket Not Running",
    "Issue: Stuck PROCESSING Rows",
    "Issue: No Executions (All SKIPPED)",
    "Issue: Duplicate Executions (CRITICAL)",
    "Issue: Data Freshness Violations",
    "Issue: Service Won't Start",
    "Issue: RDS Connection Timeout",
)
_ALL = (
    *health.SECTIONS,
    *database.SECTIONS,
    *services.SECTIONS,
    *queue.SECTIONS,
    *skips.SECTIONS,
    *stream.SECTIONS,
    *ledger.SECTIONS,
    *freshness.SECTIONS,
)
SECTIONS: tuple[Section, ...] = tuple(
    sorted(_ALL, key=lambda section: HEADINGS.index(section.heading))
)


def section_of(name: str) -> Section:
    """The section of this name.

    Raises:
        BadInput: there is none; the message has the nearest.
    """
    found = {section.name: section for section in SECTIONS}
    if name in found:
        return found[name]
    near = get_close_matches(name, found, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    raise BadInput(f"there is no section {name!r}{meant}", "run: ops-pipeline runbook list")
