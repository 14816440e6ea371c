"""The port `MailReservations`, in memory and in PostgreSQL."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.pool import make_driver_pool
from referral.adapters.postgres.repositories.mail_reservations import PostgresMailReservations
from referral.core.entities.email_links import OneTimeToken, TokenPurpose
from referral.core.entities.mail import MailReservation, MailReservationRequest
from referral.core.entities.users import User
from referral.core.ports.delivery import MailReservations
from referral.core.ports.repositories import Database
from tests.contracts.rows import HOUR, ID_GENERATOR, NOW, store_user
from tests.support.fakes.database import FakeDatabase, FakeMailReservations
from tests.support.fakes.security import FakeFingerprinter
from tests.support.waiting import wait_for_value


@pytest.fixture
async def mail_reservations(
    store: Database, request: pytest.FixtureRequest
) -> AsyncIterator[MailReservations]:
    """Mail reservations in the database under test."""
    if isinstance(store, FakeDatabase):
        yield FakeMailReservations(store)
        return
    async with make_driver_pool(request.getfixturevalue("database_url")) as pool:
        yield PostgresMailReservations(pool, FakeFingerprinter())


def make_request(
    user: User, *, slots: int | None = 3, token: OneTimeToken | None = None
) -> MailReservationRequest:
    """Return a request for a new mail."""
    return MailReservationRequest(ID_GENERATOR.new(), user.id, NOW, slots, HOUR, token)


def make_token(user: User, purpose: TokenPurpose = TokenPurpose.CONFIRM) -> OneTimeToken:
    """Return a new one-time token."""
    return OneTimeToken(ID_GENERATOR.new().bytes * 2, user.id, purpose, NOW + HOUR)


async def is_stored(store: Database, token: OneTimeToken) -> bool:
    """Return whether a token is stored and valid."""
    async with store.read() as repositories:
        found = await repositories.one_time_tokens.find_user_id(token.digest, token.purpose, NOW)
    return found == token.user_id


async def test_reservation_returns_the_user_and_takes_a_slot(
    store: Database, mail_reservations: MailReservations
) -> None:
    """A mail takes one slot, however often it is retried, and other mails count it."""
    ann = await store_user(store)
    first = make_request(ann)
    for _ in range(5):
        assert await mail_reservations.reserve(first) == MailReservation(ann, None)
    async with store.begin() as repositories:
        for expected in (None, None, NOW + HOUR):
            retry_at = await repositories.mail_quota.reserve_slot(
                ID_GENERATOR.new(), ann.email_key, NOW, slots=3, window=HOUR
            )
            assert retry_at == expected
    assert await mail_reservations.reserve(make_request(ann)) == MailReservation(ann, NOW + HOUR)
    later = replace(make_request(ann), requested_at=NOW + HOUR + timedelta(seconds=1))
    assert await mail_reservations.reserve(later) == MailReservation(ann, None)


async def test_mail_without_a_quota_takes_no_slot(
    store: Database, mail_reservations: MailReservations
) -> None:
    """It is never delayed."""
    ann = await store_user(store)
    for _ in range(5):
        assert await mail_reservations.reserve(make_request(ann, slots=None)) == MailReservation(
            ann, None
        )
    assert await mail_reservations.reserve(make_request(ann, slots=1)) == MailReservation(ann, None)


async def test_token_is_stored_if_the_mail_may_be_sent(
    store: Database, mail_reservations: MailReservations
) -> None:
    """A delayed mail gets another token when it is retried."""
    ann = await store_user(store)
    first, second = make_token(ann), make_token(ann)
    assert await mail_reservations.reserve(
        make_request(ann, slots=1, token=first)
    ) == MailReservation(ann, None)
    assert await mail_reservations.reserve(
        make_request(ann, slots=1, token=second)
    ) == MailReservation(ann, NOW + HOUR)
    assert await is_stored(store, first)
    assert not await is_stored(store, second)


async def test_confirmed_email_gets_no_confirmation_mail(
    store: Database, mail_reservations: MailReservations
) -> None:
    """It takes no slot; other mails are sent."""
    ann = await store_user(store)
    async with store.begin() as repositories:
        await repositories.users.save(replace(ann, email_verified=True))
    assert (
        await mail_reservations.reserve(make_request(ann, slots=1, token=make_token(ann))) is None
    )
    reset = make_token(ann, TokenPurpose.RESET)
    reservation = await mail_reservations.reserve(make_request(ann, slots=1, token=reset))
    assert reservation is not None
    assert reservation.retry_at is None
    assert await is_stored(store, reset)


async def test_deleted_user_gets_no_mail(
    store: Database, mail_reservations: MailReservations
) -> None:
    """Neither an unknown id nor an erased account."""
    ann = await store_user(store)
    assert (
        await mail_reservations.reserve(replace(make_request(ann), user_id=ID_GENERATOR.new()))
        is None
    )
    async with store.begin() as repositories:
        await repositories.users.erase(ann.id, NOW)
    assert await mail_reservations.reserve(make_request(ann)) is None


async def test_quotas_are_stored_under_keyed_digests(
    database: PostgresDatabase, database_url: str
) -> None:
    """A dump does not reveal addresses; a key rotation resets the quota; both adapters agree."""
    ann, fingerprints = await store_user(database), FakeFingerprinter()
    plain_digest = hashlib.sha256(ann.email_key.encode()).hexdigest()
    async with make_driver_pool(database_url) as pool:
        mail_reservations = PostgresMailReservations(pool, fingerprints)
        assert await mail_reservations.reserve(make_request(ann, slots=1)) == MailReservation(
            ann, None
        )
        assert await mail_reservations.reserve(make_request(ann, slots=1)) == MailReservation(
            ann, NOW + HOUR
        )
        fingerprints.keys.insert(0, b"the next key")
        assert await mail_reservations.reserve(make_request(ann, slots=1)) == MailReservation(
            ann, None
        )
    async with database.begin() as repositories:
        dump = str(await repositories.connection.driver.fetch("SELECT mails::text FROM mails"))
        retry_at = await repositories.mail_quota.reserve_slot(
            ID_GENERATOR.new(), ann.email_key, NOW, slots=1, window=HOUR
        )
    assert plain_digest not in dump
    assert retry_at == NOW + HOUR


async def test_concurrent_mails_share_two_statements(
    database: PostgresDatabase, database_url: str
) -> None:
    """However many they are; mails without a quota share one."""
    users = [await store_user(database) for _ in range(20)]
    requests: list[str] = []

    class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg is untyped
        async def fetch(self, query: str, *args: object, **options: object) -> object:
            requests.append(query)
            return await super().fetch(query, *args, **options)

    async with make_driver_pool(database_url, Connection) as pool:
        mail_reservations = PostgresMailReservations(pool, FakeFingerprinter())
        for slots, statements in ((3, 2), (None, 1)):
            requests.clear()
            mails = [make_request(user, slots=slots) for user in users for _ in range(3)]
            reservations = await asyncio.gather(*map(mail_reservations.reserve, mails))
            assert all(each is not None and each.retry_at is None for each in reservations)
            assert len(requests) == statements


async def test_concurrent_mails_do_not_exceed_the_quota(
    store: Database, mail_reservations: MailReservations
) -> None:
    """Batched and single reservations share a recipient's slots, and each gets its own result."""
    users = [await store_user(store) for _ in range(4)]
    requests = [make_request(user) for _ in range(10) for user in users]

    async def reserve_single() -> bool:
        key = users[0].email_key
        async with store.begin() as repositories:
            retry_at = await repositories.mail_quota.reserve_slot(
                ID_GENERATOR.new(), key, NOW, slots=3, window=HOUR
            )
        return retry_at is None

    results, single = await asyncio.gather(
        asyncio.gather(*map(mail_reservations.reserve, requests)),
        asyncio.gather(reserve_single(), reserve_single()),
    )
    granted = [each.user for each in results if each is not None and each.retry_at is None]
    assert [each and each.user.id for each in results] == [each.user_id for each in requests]
    assert [granted.count(user) for user in users[1:]] == [3, 3, 3]
    assert granted.count(users[0]) + sum(single) == 3


async def test_changed_address_takes_the_token_with_it(
    database: PostgresDatabase, database_url: str
) -> None:
    """A change of the address waits for a mail that is being reserved, and deletes its token."""
    ann = await store_user(database)
    token = make_token(ann)
    watcher = await asyncpg.connect(database_url)

    async def change_email() -> None:
        async with database.begin() as repositories:
            key = f"new-{ann.email_key}"
            await repositories.users.save(replace(ann, email=key, email_key=key))
            await repositories.one_time_tokens.delete(ann.id)

    async with make_driver_pool(database_url) as pool:
        mail_reservations = PostgresMailReservations(pool, FakeFingerprinter())
        async with database.begin() as other_mail:
            await other_mail.mail_quota.reserve_slot(
                ID_GENERATOR.new(), ann.email_key, NOW, slots=3, window=HOUR
            )
            request = make_request(ann, token=token)
            reserving = asyncio.create_task(mail_reservations.reserve(request))
            await wait_for_value(lambda: count_waiting(watcher))
            changing = asyncio.create_task(change_email())

            async def is_decided() -> bool:
                return changing.done() or await count_waiting(watcher) == 2

            await wait_for_value(is_decided)
            assert not changing.done()
        assert await reserving == MailReservation(ann, None)
        await changing
    await watcher.close()
    assert not await is_stored(database, token)


async def count_waiting(connection: asyncpg.Connection) -> int:
    """Return how many connections wait for a lock."""
    count: int = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return count


@pytest.fixture
async def other_mail_reservations(
    store: Database, mail_reservations: MailReservations, request: pytest.FixtureRequest
) -> AsyncIterator[MailReservations]:
    """Mail reservations of another process."""
    if isinstance(store, FakeDatabase):
        yield mail_reservations
        return
    async with make_driver_pool(request.getfixturevalue("database_url")) as pool:
        yield PostgresMailReservations(pool, FakeFingerprinter())


async def test_concurrent_batches_do_not_deadlock(
    store: Database, mail_reservations: MailReservations, other_mail_reservations: MailReservations
) -> None:
    """Each reserves many recipients at once, one batch in the reverse order."""
    users = [await store_user(store) for _ in range(30)]
    for _ in range(10):
        requests = [mail_reservations.reserve(make_request(user, slots=99)) for user in users]
        requests += [
            other_mail_reservations.reserve(make_request(user, slots=99))
            for user in reversed(users)
        ]
        results = await asyncio.gather(*requests)
        assert all(each is not None and each.retry_at is None for each in results)
