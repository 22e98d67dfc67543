"""A session minute by minute, from its open to its close, gives the rows of one range over it."""

import pytest

from ops_pipeline.settings import Settings
from ops_pipeline_tests.defs.plays import (
    HALF_DAY,
    as_minutes_by_hand,
    as_range_by_hand,
    hashes,
    require_rows,
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whole_session_minute_by_minute_equals_one_range(template: Settings) -> None:
    ranged = hashes(template, HALF_DAY, as_range_by_hand, slice(None))
    single = hashes(template, HALF_DAY, as_minutes_by_hand, slice(None))
    require_rows(ranged)
    assert single == ranged
