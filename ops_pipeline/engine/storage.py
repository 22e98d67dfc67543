"""Dagster's storage on PostgreSQL: connections are kept, a range run's events go in few inserts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa
from dagster import DagsterEventType, EventLogEntry
from dagster._core.storage.event_log import SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.storage import DagsterPostgresStorage
from dagster_postgres.utils import (
    create_pg_engine,
    get_token_provider_from_config,
    pg_url_from_config,
)

if TYPE_CHECKING:
    from dagster_postgres.auth import PgTokenProvider

# An instance is one process's, and works on one thing at a time.
KEPT_CONNECTIONS = 1
WRITTEN_TOGETHER = frozenset(
    {
        DagsterEventType.ASSET_MATERIALIZATION,
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        DagsterEventType.ASSET_OBSERVATION,
    }
)


class BatchedPostgresEventLogStorage(PostgresEventLogStorage):
    """An event log that writes a batch of asset events in one insert, whatever it is mixed with.

    Dagster hands over batches only where DAGSTER_EVENT_BATCH_SIZE is set.
    """

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """A storage of this class: the parent would answer with its own."""
        return cls(**_arguments(config_value), inst_data=inst_data)

    def dispose(self) -> None:
        """Close what watches the log, and the connections that nobody uses."""
        super().dispose()
        self._engine.dispose()

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store every event; of the asset events either all are stored or none.

        The all or nothing matters because Dagster answers a failed batch by storing each of its
        events again.
        """
        together = [event for event in events if event.dagster_event_type in WRITTEN_TOGETHER]
        others = [event for event in events if event.dagster_event_type not in WRITTEN_TOGETHER]
        if together:
            self._store_together(together)
        if others:
            super().store_event_batch(others)

    def _store_together(self, events: Sequence[EventLogEntry]) -> None:
        with self.index_transaction() as conn:
            event_ids = self._insert(conn, events)
            self._store_asset_event_tags(conn, events, event_ids)
            for event, event_id in _last_of_each_asset(zip(events, event_ids, strict=True)):
                self._store_asset_event(conn, event, event_id)

    def _insert(self, conn: sa.Connection, events: Sequence[EventLogEntry]) -> list[int]:
        # Only with the sort does SQLAlchemy promise ids in the order of the events.
        statement = SqlEventLogStorageTable.insert().returning(
            SqlEventLogStorageTable.c.id, sort_by_parameter_order=True
        )
        rows = [self._event_to_row(event) for event in events]
        return list(conn.execute(statement, rows).scalars())


class BatchedPostgresStorage(DagsterPostgresStorage):
    """The stock PostgreSQL storage around the batched event log, on one pool of connections."""

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,  # noqa: FBT001, FBT002
        inst_data: ConfigurableClassData | None = None,
        token_provider: "PgTokenProvider | None" = None,
    ) -> None:
        super().__init__(postgres_url, should_autocreate_tables, inst_data, token_provider)
        self._event_log_storage = BatchedPostgresEventLogStorage(
            postgres_url, should_autocreate_tables, token_provider=token_provider
        )
        # The stock storage connects anew for every statement: a run of seven assets does so a
        # hundred times, and each connection costs both sides 8 ms of password hashing.
        engine = create_pg_engine(
            postgres_url,
            token_provider,
            isolation_level="AUTOCOMMIT",
            pool_size=KEPT_CONNECTIONS,
            max_overflow=-1,
            pool_pre_ping=True,
        )
        for storage in (self._run_storage, self._event_log_storage, self._schedule_storage):
            storage._engine = engine  # noqa: SLF001 - as its own optimize_for_webserver does

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """A storage of this class: the parent would answer with its own."""
        return cls(**_arguments(config_value), inst_data=inst_data)


def _arguments(config_value: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "postgres_url": pg_url_from_config(config_value),
        "should_autocreate_tables": config_value.get("should_autocreate_tables", True),
        "token_provider": get_token_provider_from_config(config_value),
    }


def _last_of_each_asset(
    stored: Iterable[tuple[EventLogEntry, int]],
) -> list[tuple[EventLogEntry, int]]:
    """The newest event of each kind per asset, in an order that is the same for every writer.

    Two runs that begin at once update the same asset entries: another order could deadlock.
    """
    last = {
        (event.get_dagster_event().asset_key, event.dagster_event_type): (event, event_id)
        for event, event_id in stored
    }
    return sorted(last.values(), key=_asset_name)


def _asset_name(stored: tuple[EventLogEntry, int]) -> str:
    asset_key = stored[0].get_dagster_event().asset_key
    return asset_key.to_string() if asset_key else ""
