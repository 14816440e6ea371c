"""Transactions: the port `Database`."""

from contextlib import suppress

import pytest
from sqlalchemy.exc import InvalidRequestError

from referral.core.errors import EmailTaken, Unavailable
from referral.core.ports.repositories import Database
from tests.contracts.rows import make_code, make_user, store_user


class OddError(Exception):
    """An error that the database knows nothing of."""


async def test_the_end_of_a_block_commits(store: Database) -> None:
    """What one transaction stored the next one sees, all of it."""
    user = make_user()
    code = make_code(user)
    async with store.begin() as records:
        await records.users.add(user)
        await records.codes.add(code)
    async with store.begin() as records:
        assert await records.users.find(user.id) == user
        assert await records.codes.find(user.id, code.id) == code


async def test_an_error_undoes_the_block(store: Database) -> None:
    """Nothing of a transaction that failed is left, and the error goes on as it is."""
    user = make_user()

    async def fail() -> None:
        async with store.begin() as records:
            await records.users.add(user)
            raise OddError

    with pytest.raises(OddError):
        await fail()
    async with store.read() as records:
        assert await records.users.find(user.id) is None
    await store_user(store, email_key=user.email_key)


@pytest.mark.parametrize("error", [OSError, TimeoutError, InvalidRequestError, ValueError])
@pytest.mark.parametrize("block", ["begin", "read"])
async def test_an_error_of_the_code_in_the_block_is_no_outage(
    store: Database, block: str, error: type[Exception]
) -> None:
    """Only the database's own calls raise `Unavailable`; a file that is missing stays that."""
    user = await store_user(store)

    async def fail() -> None:
        async with store.begin() if block == "begin" else store.read() as records:
            await records.users.find(user.id)
            raise error

    with pytest.raises(error):
        await fail()
    async with store.read() as records:
        assert await records.users.find(user.id) == user


async def test_a_transaction_sees_its_own_writes_alone(store: Database) -> None:
    """Before the commit others do not see them, afterwards they do, in a read that goes on."""
    user = make_user()
    async with store.read() as reading:
        async with store.begin() as writing:
            await writing.users.add(user)
            assert await writing.users.find(user.id) == user
            assert await reading.users.find(user.id) is None
        assert await reading.users.find(user.id) == user


async def test_a_refused_statement_undoes_what_came_before(store: Database) -> None:
    """Even when the refusal is passed over, the transaction has failed."""
    user, other = await store_user(store), make_user()
    async with store.begin() as records:
        await records.users.add(other)
        with suppress(EmailTaken):
            await records.users.add(make_user(email_key=user.email_key))
    async with store.read() as records:
        assert await records.users.find(other.id) is None


async def test_nothing_follows_a_refused_statement(store: Database) -> None:
    """A transaction that has failed answers no further question."""
    user = await store_user(store)

    async def go_on() -> None:
        async with store.begin() as records:
            with suppress(EmailTaken):
                await records.users.add(make_user(email_key=user.email_key))
            await records.users.find(user.id)

    with pytest.raises(Unavailable):
        await go_on()
