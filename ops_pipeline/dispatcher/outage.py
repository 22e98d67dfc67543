"""What an error says: that the database was away, or that it refused something."""

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ops_pipeline.storage.dispatch import FenceLost


def is_outage(error: Exception) -> bool:
    """Whether the database was not there, or not now: what a row is never to blame for."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, OperationalError | InterfaceError | PoolTimeout | FenceLost | OSError)
