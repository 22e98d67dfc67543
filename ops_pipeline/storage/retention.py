"""What goes of the pipeline's own tables, one purge at a time, and how large tables are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine, text

from ops_pipeline.domain.errors import Unsafe
from ops_pipeline.domain.retention import TableSize
from ops_pipeline.storage.queries import query

# Held by the one that purges this mode's databases.
PURGE_LOCK = 7_310_004
# A batch is one transaction.
BATCH = 2_000
LONG_AGO = datetime(1, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class OldSignals:
    """Signals that were written before an instant and recommended nothing."""

    engine: Engine
    before: datetime

    def count(self) -> tuple[int, int]:
        """How many there are, and their bytes."""
        with self.engine.connect() as connection:
            found = connection.execute(query("retention", "count_signals"), self._before).one()
        return found.rows_count, int(found.bytes)

    def remove(self) -> Iterator[tuple[int, int]]:
        """Delete them batch by batch, each a transaction; yields what went with it."""
        since = LONG_AGO
        while True:
            parameters = {**self._before, "since": since, "batch": BATCH}
            with self.engine.begin() as connection:
                gone = connection.execute(query("retention", "remove_signals"), parameters).all()
            if not gone:
                return
            since = max(row.minute for row in gone)
            yield len(gone), sum(row.bytes for row in gone)

    @property
    def _before(self) -> dict[str, datetime]:
        return {"before": self.before}


@dataclass(frozen=True)
class OldFrames:
    """Frames of the trade stream from before an instant that were looked at; their events stay."""

    engine: Engine
    before: datetime

    def count(self) -> tuple[int, int]:
        """How many there are, and their bytes."""
        with self.engine.connect() as connection:
            found = connection.execute(
                query("retention", "count_frames"), {"before": self.before}
            ).one()
        return found.rows_count, int(found.bytes)

    def remove(self) -> Iterator[tuple[int, int]]:
        """Delete them batch by batch, each a transaction; yields what went with it."""
        while True:
            parameters = {"before": self.before, "batch": BATCH}
            with self.engine.begin() as connection:
                gone = connection.execute(query("retention", "remove_frames"), parameters).all()
            if not gone:
                return
            yield len(gone), sum(row.bytes for row in gone)


@dataclass(frozen=True)
class OldAlerts:
    """Alerts that were over before an instant; what was said of them, and to whom, goes along."""

    engine: Engine
    before: datetime

    def count(self) -> tuple[int, int]:
        """How many there are, and their bytes."""
        with self.engine.connect() as connection:
            found = connection.execute(
                query("retention", "count_alerts"), {"before": self.before}
            ).one()
        return found.rows_count, int(found.bytes)

    def remove(self) -> Iterator[tuple[int, int]]:
        """Delete them batch by batch, each a transaction; yields what went with it."""
        statements = (query("retention", "remove_alerts"), query("retention", "remove_messages"))
        parameters = {"before": self.before, "batch": BATCH}
        for statement in statements:
            while True:
                with self.engine.begin() as connection:
                    gone = connection.execute(statement, parameters).all()
                if not gone:
                    break
                yield len(gone), sum(row.bytes for row in gone)


@contextmanager
def sole_purge(engine: Engine) -> Iterator[None]:
    """Be the only one who purges this mode; the server lets go when the connection ends.

    Raises:
        Unsafe: another one does.
    """
    key = {"key": PURGE_LOCK}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if not connection.execute(text("select pg_try_advisory_lock(:key)"), key).scalar():
            raise Unsafe("another purge is at work here; nothing was removed", "wait for its end")
        try:
            yield
        finally:
            connection.execute(text("select pg_advisory_unlock(:key)"), key)


def database_bytes(engine: Engine) -> int:
    """The size of this engine's database on disk."""
    with engine.connect() as connection:
        size = connection.execute(text("select pg_database_size(current_database())"))
        return int(size.scalar_one())


def table_bytes(engine: Engine, tables: Sequence[str]) -> dict[str, int]:
    """The sizes of those tables that exist, with their indexes."""
    found = {table: _size(engine, table) for table in tables}
    return {table: size[0] for table, size in found.items() if size}


def vacuum(engine: Engine, before: dict[str, int]) -> list[TableSize]:
    """Vacuum and analyze tables whose sizes were these; one of another owner is left to them."""
    done = []
    for table, bytes_before in before.items():
        size = _size(engine, table)
        is_owned = bool(size and size[1])
        if is_owned:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text(f"vacuum (analyze) {table}"))
        after = _size(engine, table)
        done.append(TableSize(table, bytes_before, after[0] if after else 0, is_owned))
    return done


def _size(engine: Engine, table: str) -> tuple[int, bool] | None:
    with engine.connect() as connection:
        row = connection.execute(query("retention", "size_of_table"), {"table": table}).first()
    return (row.bytes, row.is_owned) if row else None
