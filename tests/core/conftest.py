"""What the tests of the core share."""

import pytest

from tests.core.world import InMemoryService


@pytest.fixture
def world() -> InMemoryService:
    """A service in memory that nobody has used yet."""
    return InMemoryService()
