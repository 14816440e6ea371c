"""What the tests of the core share."""

import pytest

from tests.core.service import InMemoryService


@pytest.fixture
def world() -> InMemoryService:
    """A service in memory that nobody has used yet."""
    return InMemoryService()
