"""What the tests of the core share."""

import pytest

from tests.core.world import World


@pytest.fixture
def world() -> World:
    """A service in memory that nobody has used yet."""
    return World()
