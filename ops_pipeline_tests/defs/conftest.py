from collections.abc import Iterator

import pytest

from ops_pipeline.settings import Settings
from ops_pipeline_tests.defs.world import World, open_world


@pytest.fixture
def world(template: Settings) -> Iterator[World]:
    """A replay of this test's own."""
    with open_world(template) as made:
        yield made
