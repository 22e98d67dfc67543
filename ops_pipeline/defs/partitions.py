"""The minute partitions: one definition for all six data assets."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from ops_pipeline.domain.session import NEW_YORK, Calendar, Session
from ops_pipeline.settings import Mode, PartitionWindow, Settings

KEY_FORMAT = "%Y-%m-%dT%H:%M%z"
# What a code location without days shows: one session, so that it loads and can be looked at.
NO_DAYS_YET = PartitionWindow(date(2026, 10, 14), date(2026, 10, 14))


def minute_partitions(settings: Settings) -> dg.TimeWindowPartitionsDefinition:
    """Market minutes between the days of the settings: 390 a day, or 1,440 round the clock.

    Half days and holidays keep their keys: leaving them out by hand would make the definition as
    long as the calendar. Their minutes have no rows.
    """
    window = settings.window or NO_DAYS_YET
    if settings.mode is Mode.SANDBOX:
        return dg.TimeWindowPartitionsDefinition(
            start=f"{window.first_day}T00:00+0000",
            end=_end(window, "UTC"),
            fmt=KEY_FORMAT,
            timezone="UTC",
            cron_schedule="* * * * *",
        )
    # The hour after the close belongs to the cron so that 15:59 ends at 16:00, not next morning.
    return dg.TimeWindowPartitionsDefinition(
        start=datetime(
            window.first_day.year,
            window.first_day.month,
            window.first_day.day,
            9,
            30,
            tzinfo=NEW_YORK,
        ),
        end=_end(window, "America/New_York"),
        fmt=KEY_FORMAT,
        timezone="America/New_York",
        cron_schedule="* 9-16 * * 1-5",
        exclusions=["0-29 9 * * *", "* 16 * * *"],
    )


def partition_key(minute: datetime, calendar: Calendar) -> str:
    """The key of a minute."""
    return minute.astimezone(calendar.zone).strftime(KEY_FORMAT)


def range_of(session: Session, calendar: Calendar) -> tuple[str, str]:
    """The first and the last key of a session."""
    minutes = session.minutes()
    return partition_key(minutes[0], calendar), partition_key(minutes[-1], calendar)


def _end(window: PartitionWindow, zone: str) -> datetime | None:
    if window.last_day is None:
        return None
    after = window.last_day + timedelta(days=1)
    return datetime(after.year, after.month, after.day, tzinfo=ZoneInfo(zone))
