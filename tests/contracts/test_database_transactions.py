"""Transactions of the port `Database`."""

from contextlib import suppress

import pytest
from sqlalchemy.exc import InvalidRequestError

from referral.core.errors import EmailTaken, Unavailable
from referral.core.ports.repositories import Database
from tests.contracts.rows import make_code, make_user, store_user


class OddError(Exception):
    """An error that is unrelated to the database."""


async def test_end_of_the_block_commits(store: Database) -> None:
    """The next transaction sees everything that this one stored."""
    user = make_user()
    code = make_code(user)
    async with store.begin() as repositories:
        await repositories.users.add(user)
        await repositories.codes.add(code)
    async with store.begin() as repositories:
        assert await repositories.users.find(user.id) == user
        assert await repositories.codes.find(user.id, code.id) == code


async def test_error_rolls_the_block_back(store: Database) -> None:
    """Nothing of the transaction is stored, and the error is raised unchanged."""
    user = make_user()

    async def fail() -> None:
        async with store.begin() as repositories:
            await repositories.users.add(user)
            raise OddError

    with pytest.raises(OddError):
        await fail()
    async with store.read() as repositories:
        assert await repositories.users.find(user.id) is None
    await store_user(store, email_key=user.email_key)


@pytest.mark.parametrize("error", [OSError, TimeoutError, InvalidRequestError, ValueError])
@pytest.mark.parametrize("block", ["begin", "read"])
async def test_error_of_the_caller_is_not_an_outage(
    store: Database, block: str, error: type[Exception]
) -> None:
    """Only the database's own calls raise `Unavailable`."""
    user = await store_user(store)

    async def fail() -> None:
        async with store.begin() if block == "begin" else store.read() as repositories:
            await repositories.users.find(user.id)
            raise error

    with pytest.raises(error):
        await fail()
    async with store.read() as repositories:
        assert await repositories.users.find(user.id) == user


async def test_uncommitted_writes_are_isolated(store: Database) -> None:
    """Others see them after the commit, also in a read that is still open."""
    user = make_user()
    async with store.read() as reading:
        async with store.begin() as writing:
            await writing.users.add(user)
            assert await writing.users.find(user.id) == user
            assert await reading.users.find(user.id) is None
        assert await reading.users.find(user.id) == user


async def test_failed_statement_rolls_back_earlier_ones(store: Database) -> None:
    """Even if the error is suppressed, the transaction has failed."""
    user, other = await store_user(store), make_user()
    async with store.begin() as repositories:
        await repositories.users.add(other)
        with suppress(EmailTaken):
            await repositories.users.add(make_user(email_key=user.email_key))
    async with store.read() as repositories:
        assert await repositories.users.find(other.id) is None


async def test_no_statement_follows_a_failed_one(store: Database) -> None:
    """A failed transaction raises `Unavailable` for every further query."""
    user = await store_user(store)

    async def continue_block() -> None:
        async with store.begin() as repositories:
            with suppress(EmailTaken):
                await repositories.users.add(make_user(email_key=user.email_key))
            await repositories.users.find(user.id)

    with pytest.raises(Unavailable):
        await continue_block()
