"""Fixtures of the core tests."""

import pytest

from tests.core.service import InMemoryService


@pytest.fixture
def service() -> InMemoryService:
    """A new service in memory."""
    return InMemoryService()
