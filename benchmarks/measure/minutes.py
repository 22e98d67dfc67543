"""What is asked of minutes that were played: which of a session are typical, how many rows."""

from collections.abc import Sequence
from datetime import datetime

from ops_pipeline.domain.session import MINUTE
from ops_pipeline.settings import Settings
from ops_pipeline.storage.engine import opened
from ops_pipeline.storage.knowledge import finished_rows


def middle(minutes: Sequence[datetime], count: int) -> list[datetime]:
    """So many minutes in a row, around the middle of a session, or all of them.

    A minute reads what came before it in its session, so that the middle costs what all cost on
    average.
    """
    begin = max(0, (len(minutes) - count) // 2)
    return list(minutes[begin : begin + count])


def rows_of(settings: Settings, minutes: Sequence[datetime]) -> int:
    """How many rows all stages have made for minutes that follow each other."""
    with opened(settings) as engine, engine.connect() as connection:
        return finished_rows(connection, minutes[0], minutes[-1] + MINUTE)
