"""What every table holds, minute by minute, as text that two databases can be compared by."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, text

# What may differ between two equal plays: identities that are drawn, the server's clock, and what
# only a crash adds (a second claim of a row, a release).
VOLATILE = (
    "id",
    "run_id",
    "recommendation_id",
    "execution_id",
    "dispatcher_run_id",
    "config_version",
    "orchestrator_run_id",
    "written_at",
    "first_written_at",
    "created_at",
    "claimed_at",
    "lease_until",
    "claim_epoch",
    "released_count",
)


@dataclass(frozen=True)
class Table:
    """A table, and how the minute and the name of one of its rows `t` are told."""

    name: str
    minute: str
    key: str
    where: str = "true"


_ROWS = """
select {minute}, {key}, cast(to_jsonb(t) - cast(:volatile as text[]) as text)
from {name} as t
where
    {where}
    and (cast(:start as timestamptz) is null or {minute} >= :start)
    and (cast(:end as timestamptz) is null or {minute} < :end)"""
_KNOWN = "date_trunc('minute', t.available_at)"
# A run starts 20 seconds after the minute that it decides has ended.
_DECIDED = "date_trunc('minute', t.{}) - interval '1 minute'"

TABLES = (
    Table("minute_cutoffs", "t.minute", "''"),
    Table("stage_minutes", "t.minute", "t.stage"),
    Table("bars_1m", "t.minute", "t.ticker"),
    Table(
        "bar_revisions",
        "t.minute",
        "concat_ws(' ', t.ticker, t.open, t.high, t.low, t.close, t.volume)",
    ),
    Table("quarantines", _KNOWN, "t.ticker || ' ' || t.cause"),
    Table("news_items", _KNOWN, "t.news_id"),
    Table("news_provenance", _KNOWN, "t.feed || ' ' || t.entry_key"),
    Table("news_tickers", _KNOWN, "t.news_id || ' ' || t.ticker"),
    Table("news_sentiments", _KNOWN, "t.text_hash || ' ' || t.model || ' ' || t.revision"),
    Table("features.features_1m", "t.minute", "t.ticker"),
    Table("watchlist_entries", "t.minute", "t.ticker"),
    Table("signals", "t.minute", "t.ticker"),
    Table("dispatch_recommendations", "t.minute", "t.ticker || ' ' || t.intent"),
    # A killed driver leaves a run behind that did nothing; those that did something are compared.
    Table(
        "dispatcher_runs",
        _DECIDED.format("started_at"),
        "'run ' || row_number() over (partition by t.started_at order by t.written_at)",
        "t.pulled_count > 0 and t.outcome = 'FINISHED'",
    ),
    Table("dispatch_executions", _DECIDED.format("decision_ts"), "t.ticker || ' ' || t.intent"),
)


@dataclass(frozen=True)
class Row:
    """One row as it is compared; the document is canonical JSON."""

    minute: datetime
    key: str
    document: str


def rows_of(
    connection: Connection,
    table: Table,
    between: tuple[datetime, datetime] | None = None,
    *,
    without: Sequence[str] = (),
) -> list[Row]:
    """The rows of a table without what may differ, in the order of minute, key and document.

    Args:
        connection: to one of the databases.
        table: one of TABLES.
        between: only minutes in [first, second); all of them where it is None.
        without: columns that are left out besides.
    """
    start, end = between or (None, None)
    statement = text(_ROWS.format(**table.__dict__))
    found = connection.execute(
        statement, {"volatile": [*VOLATILE, *without], "start": start, "end": end}
    )
    rows = (Row(row[0].astimezone(UTC), row[1], row[2]) for row in found)
    return sorted(rows, key=lambda row: (row.minute, row.key, row.document))
