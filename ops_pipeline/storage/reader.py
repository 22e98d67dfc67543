"""Free statements, under the role that may only read."""

from typing import Any

import psycopg
from psycopg.errors import (
    InsufficientPrivilege,
    QueryCanceled,
    ReadOnlySqlTransaction,
)

from ops_pipeline.domain.errors import BadInput, TimedOut, Unsafe
from ops_pipeline.settings import Settings
from ops_pipeline.storage.engine import CONNECT_TIMEOUT_SECONDS, reachable, server_of


def select(settings: Settings, statement: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Columns and rows of one statement.

    Raises:
        NotRunning: the server does not answer.
        BadInput: it cannot be understood, or it is more than one statement.
        Unsafe: it would write, or read what the role may not.
        TimedOut: it took longer than the role's limit.
    """
    server = server_of(settings)
    with reachable(settings):
        opened = psycopg.connect(
            host=server.host,
            port=server.port,
            user=settings.reader,
            password=settings.reader_password,
            dbname=settings.pipeline_database,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            options="-c timezone=UTC",
        )
    with opened as connection:
        connection.read_only = True
        try:
            # A prepared statement is one statement: the server refuses a second one behind it.
            cursor = connection.execute(statement.encode(), prepare=True)
            rows = cursor.fetchall() if cursor.description else []
        except (ReadOnlySqlTransaction, InsufficientPrivilege) as error:
            raise Unsafe(f"refused: {error.diag.message_primary}") from error
        except QueryCanceled as error:
            raise TimedOut(f"stopped: {error.diag.message_primary}") from error
        except psycopg.Error as error:
            raise BadInput(f"not a statement to read with: {_first_line(error)}") from error
        if cursor.description is None:
            raise BadInput("the statement gives no rows")
        return [column.name for column in cursor.description], rows


def _first_line(error: psycopg.Error) -> str:
    return str(error.diag.message_primary or error).splitlines()[0]
