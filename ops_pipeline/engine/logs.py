"""Events as JSON lines on stderr: one object each, as log collectors read them."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime


class JsonLines(logging.Formatter):
    """`timestamp`, `level`, `event`, and what the event tells of itself as `data`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; what JSON does not know is told as text."""
        document = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "event": record.getMessage(),
            "data": getattr(record, "data", {}),
        }
        if record.exc_info and record.exc_info[0]:
            document["error"] = record.exc_info[0].__name__
        return json.dumps(document, default=str)


@contextmanager
def told_events(logger_name: str) -> Iterator[None]:
    """Tell a logger's events, from INFO on, for as long as this lasts."""
    logger = logging.getLogger(logger_name)
    handler, level = logging.StreamHandler(sys.stderr), logger.level
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
