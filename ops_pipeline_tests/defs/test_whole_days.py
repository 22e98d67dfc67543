"""A whole day minute by minute gives the rows of the same day as one range."""

from datetime import date

import pytest

from ops_pipeline.settings import Settings
from ops_pipeline_tests.defs.plays import (
    DAY,
    HALF_DAY,
    as_minutes_by_hand,
    as_range_by_hand,
    hashes,
    require_rows,
)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("day", [HALF_DAY, DAY], ids=["half day", "full day"])
def test_day_minute_by_minute_equals_one_range(template: Settings, day: date) -> None:
    ranged = hashes(template, day, as_range_by_hand, slice(None))
    single = hashes(template, day, as_minutes_by_hand, slice(None))
    require_rows(ranged)
    assert single == ranged
