"""The minute partitions: one definition for all six data assets."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg

from ops_pipeline.domain.session import NEW_YORK, Calendar
from ops_pipeline.settings import Mode, PartitionWindow, Settings

KEY_FORMAT = "%Y-%m-%dT%H:%M%z"
# What a code location without days shows: one session, so that it loads and can be looked at.
NO_DAYS_YET = PartitionWindow(date(2026, 10, 14), date(2026, 10, 14))


def minute_partitions(settings: Settings) -> dg.TimeWindowPartitionsDefinition:
    """Market minutes between the days of the settings: 390 a day, or 1,440 round the clock.

    Half days and holidays keep their keys: leaving them out by hand would make the definition as
    long as the calendar. Their minutes have no rows.
    """
    if settings.window_fault:
        raise settings.window_fault
    window = settings.window or NO_DAYS_YET
    if settings.mode is Mode.SANDBOX:
        return dg.TimeWindowPartitionsDefinition(
            start=f"{window.first_day}T00:00+0000",
            end=_midnight_after(window),
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
        end=_end(window),
        fmt=KEY_FORMAT,
        timezone="America/New_York",
        cron_schedule="* 9-16 * * 1-5",
        exclusions=["0-29 9 * * *", "* 16 * * *"],
    )


def partition_key(minute: datetime, calendar: Calendar) -> str:
    """The key of a minute."""
    return minute.astimezone(calendar.zone).strftime(KEY_FORMAT)


def _end(window: PartitionWindow) -> datetime | None:
    """The close of the last day: after midnight, Dagster would step back over it each time."""
    day = window.last_day
    return None if day is None else datetime(day.year, day.month, day.day, 16, tzinfo=NEW_YORK)


def _midnight_after(window: PartitionWindow) -> datetime | None:
    day = window.last_day
    after = day + timedelta(days=1) if day else None
    return datetime(after.year, after.month, after.day, tzinfo=UTC) if after else None
