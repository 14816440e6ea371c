"""Fixtures of the contract tests."""

from collections.abc import AsyncIterator

import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.pool import make_driver_pool
from referral.adapters.postgres.read_model import PostgresReadModel
from referral.core.ports.repositories import Database, ReadModel
from tests.support.fakes.database import FakeDatabase, FakeReadModel


@pytest.fixture(params=["fake", "postgres"])
def store(request: pytest.FixtureRequest) -> Database:
    """The fake database, then the real one, which the tests of a module share."""
    if request.param == "fake":
        return FakeDatabase()
    real: PostgresDatabase = request.getfixturevalue("database")
    return real


@pytest.fixture
async def read_model(store: Database, request: pytest.FixtureRequest) -> AsyncIterator[ReadModel]:
    """The read model of that database."""
    if isinstance(store, FakeDatabase):
        yield FakeReadModel(store)
        return
    async with make_driver_pool(request.getfixturevalue("database_url")) as pool:
        yield PostgresReadModel(pool)
