"""Fixtures of the core tests."""

import pytest

from tests.core.service import InMemoryService


@pytest.fixture
def world() -> InMemoryService:
    """A new service in memory."""
    return InMemoryService()
