"""What the contract tests share."""

import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.core.ports import Database
from tests.fake_database import FakeDatabase


@pytest.fixture(params=["fake", "postgres"])
def store(request: pytest.FixtureRequest) -> Database:
    """A database: the one in memory, then the real one, which a module's tests share."""
    if request.param == "fake":
        return FakeDatabase()
    real: PostgresDatabase = request.getfixturevalue("database")
    return real
