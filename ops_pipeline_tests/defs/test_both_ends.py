"""A half day whose ends are played minute by minute gives the rows of one range over all of it."""

import pytest

from ops_pipeline.settings import Settings
from ops_pipeline_tests.defs.plays import (
    HALF_DAY,
    as_range_by_hand,
    by_minute_at_the_ends,
    hashes,
    require_rows,
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_open_and_close_minute_by_minute_equal_one_range_over_the_day(template: Settings) -> None:
    """The middle is one range; `ops-pipeline parity` plays every minute (.ci/run)."""
    ranged = hashes(template, HALF_DAY, as_range_by_hand, slice(None))
    pieces = hashes(template, HALF_DAY, by_minute_at_the_ends, slice(None))
    require_rows(ranged)
    assert pieces == ranged
