"""A half day, minute by minute around its ends, gives the rows of the same day as one range."""

import pytest

from ops_pipeline.settings import Settings
from ops_pipeline_tests.defs.plays import (
    HALF_DAY,
    as_minutes_at_both_ends_by_hand,
    require_equal_plays,
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_half_day_minute_by_minute_around_open_and_close_equals_one_range(
    template: Settings,
) -> None:
    require_equal_plays(template, HALF_DAY, as_minutes_at_both_ends_by_hand)
