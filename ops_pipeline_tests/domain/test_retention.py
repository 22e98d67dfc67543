from datetime import UTC, datetime, timedelta

from ops_pipeline.domain.retention import (
    CHECK_RESULTS,
    OUTPUT_FILES,
    RUN_EVENTS,
    RUNS,
    SIGNALS,
    TICKS,
    Purge,
    Removed,
    Retention,
)

NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)


def test_each_kind_has_days_of_its_own_and_what_runs_and_checks_said_the_same() -> None:
    kept = Retention(ticks_days=1, logs_days=2, runs_days=4, signals_days=3)
    kinds = (TICKS, RUN_EVENTS, CHECK_RESULTS, OUTPUT_FILES, SIGNALS, RUNS)
    days = [1, 2, 2, 2, 3, 4]
    assert [kept.days(kind) for kind in kinds] == days
    assert [(NOW - kept.before(kind, NOW)) / timedelta(days=1) for kind in kinds] == days


def test_a_purge_sums_what_it_removed() -> None:
    removed = [Removed(TICKS, 14, 3, 40), Removed(SIGNALS, 90, 5, 60)]
    done = Purge(
        is_dry_run=False,
        removed=removed,
        tables=[],
        database_bytes_before=0,
        database_bytes_after=0,
    )
    assert (done.rows, done.bytes) == (8, 100)
