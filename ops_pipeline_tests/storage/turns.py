"""Minutes as a run leaves them behind: which stages were done, and how long after the close."""

from datetime import datetime, timedelta

from sqlalchemy import Connection

from ops_pipeline_tests.storage.rows import insert

IN_TIME = {"bars": 22.0, "features": 25.0, "signals": 27.0}


def closes(minute: datetime, seconds: float) -> datetime:
    """So many seconds after a minute's bar has closed."""
    return minute + timedelta(seconds=60 + seconds)


def take(connection: Connection, *minutes: datetime, run_id: str = "", **seconds: float) -> None:
    """Minutes that one run has taken, its stages done so long after the last of them has closed."""
    for minute in minutes:
        for stage, late in (seconds or IN_TIME).items():
            insert(
                connection,
                "stage_minutes",
                stage=stage,
                minute=minute,
                session_date=minute.date(),
                rows_count=1,
                run_id=run_id or f"run of {minutes[-1]}",
                first_written_at=closes(minutes[-1], late),
            )
