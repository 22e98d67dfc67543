"""A full day minute by minute gives the rows of the same day as one range."""

import pytest

from ops_pipeline.settings import Settings
from ops_pipeline_tests.defs.plays import DAY, as_minutes_by_hand, require_equal_plays


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_full_day_minute_by_minute_equals_one_range(template: Settings) -> None:
    require_equal_plays(template, DAY, as_minutes_by_hand)
