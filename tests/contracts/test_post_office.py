"""What mails begin with: the port `MailReservations`, in memory and in PostgreSQL."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.pool import make_pool
from referral.adapters.postgres.repositories.mail_reservations import PostgresMailReservations
from referral.core.entities.email_links import OneTimeToken, Purpose
from referral.core.entities.mail import MailReservation, MailReservationRequest
from referral.core.entities.users import User
from referral.core.ports.delivery import MailReservations
from referral.core.ports.repositories import Database
from tests.contracts.rows import HOUR, IDS, NOW, store_user
from tests.support.fake_database import FakeDatabase, FakeMailReservations
from tests.support.fakes import FakeFingerprints


@pytest.fixture
async def office(
    store: Database, request: pytest.FixtureRequest
) -> AsyncIterator[MailReservations]:
    """The post office of that database."""
    if isinstance(store, FakeDatabase):
        yield FakeMailReservations(store)
        return
    async with make_pool(request.getfixturevalue("database_url")) as pool:
        yield PostgresMailReservations(pool, FakeFingerprints())


def postage(
    user: User, *, places: int | None = 3, token: OneTimeToken | None = None
) -> MailReservationRequest:
    """Ask for a place for a new mail."""
    return MailReservationRequest(IDS.new(), user.id, NOW, places, HOUR, token)


def make_token(user: User, purpose: Purpose = Purpose.CONFIRM) -> OneTimeToken:
    """Make up a token."""
    return OneTimeToken(IDS.new().bytes * 2, user.id, purpose, NOW + HOUR)


async def is_kept(store: Database, token: OneTimeToken) -> bool:
    """Tell whether a token is good for something."""
    async with store.read() as records:
        found = await records.one_time_tokens.find(token.digest, token.purpose, NOW)
    return found == token.user_id


async def test_a_mail_gets_its_user_and_a_place(store: Database, office: MailReservations) -> None:
    """The same mail takes one place, however often it is tried, and the others count it."""
    ann = await store_user(store)
    first = postage(ann)
    for _ in range(5):
        assert await office.take(first) == MailReservation(ann, None)
    async with store.begin() as records:
        for expected in (None, None, NOW + HOUR):
            free_at = await records.mails.take_place(
                IDS.new(), ann.email_key, NOW, mails=3, within=HOUR
            )
            assert free_at == expected
    assert await office.take(postage(ann)) == MailReservation(ann, NOW + HOUR)
    later = replace(postage(ann), at=NOW + HOUR + timedelta(seconds=1))
    assert await office.take(later) == MailReservation(ann, None)


async def test_a_mail_that_takes_no_place_always_finds_one(
    store: Database, office: MailReservations
) -> None:
    """And leaves those that there are."""
    ann = await store_user(store)
    for _ in range(5):
        assert await office.take(postage(ann, places=None)) == MailReservation(ann, None)
    assert await office.take(postage(ann, places=1)) == MailReservation(ann, None)


async def test_the_token_is_kept_if_the_mail_may_go(
    store: Database, office: MailReservations
) -> None:
    """One that has to wait gets another when it is written."""
    ann = await store_user(store)
    first, second = make_token(ann), make_token(ann)
    assert await office.take(postage(ann, places=1, token=first)) == MailReservation(ann, None)
    assert await office.take(postage(ann, places=1, token=second)) == MailReservation(
        ann, NOW + HOUR
    )
    assert await is_kept(store, first)
    assert not await is_kept(store, second)


async def test_a_confirmed_address_is_sent_nothing_to_confirm(
    store: Database, office: MailReservations
) -> None:
    """It takes no place; what else it is sent, it gets."""
    ann = await store_user(store)
    async with store.begin() as records:
        await records.users.save(replace(ann, email_verified=True))
    assert await office.take(postage(ann, places=1, token=make_token(ann))) is None
    reset = make_token(ann, Purpose.RESET)
    taken = await office.take(postage(ann, places=1, token=reset))
    assert taken is not None
    assert taken.free_at is None
    assert await is_kept(store, reset)


async def test_nobody_is_mailed_who_is_gone(store: Database, office: MailReservations) -> None:
    """Neither an unknown id nor an erased account."""
    ann = await store_user(store)
    assert await office.take(replace(postage(ann), user_id=IDS.new())) is None
    async with store.begin() as records:
        await records.users.erase(ann.id, NOW)
    assert await office.take(postage(ann)) is None


async def test_addresses_are_stored_under_digests_with_a_key(
    database: PostgresDatabase, database_url: str
) -> None:
    """A dump cannot be searched for an address without it; after a rotation the count begins anew,
    and both ways to count a mail have the same digests.
    """
    ann, fingerprints = await store_user(database), FakeFingerprints()
    plain = hashlib.sha256(ann.email_key.encode()).hexdigest()
    async with make_pool(database_url) as pool:
        office = PostgresMailReservations(pool, fingerprints)
        assert await office.take(postage(ann, places=1)) == MailReservation(ann, None)
        assert await office.take(postage(ann, places=1)) == MailReservation(ann, NOW + HOUR)
        fingerprints.keys.insert(0, b"the next key")
        assert await office.take(postage(ann, places=1)) == MailReservation(ann, None)
    async with database.begin() as records:
        dumped = str(await records.session.driver.fetch("SELECT mails::text FROM mails"))
        free_at = await records.mails.take_place(
            IDS.new(), ann.email_key, NOW, mails=1, within=HOUR
        )
    assert plain not in dumped
    assert free_at == NOW + HOUR


async def test_mails_at_once_share_two_statements(
    database: PostgresDatabase, database_url: str
) -> None:
    """However many they are; those that take no place share one."""
    users = [await store_user(database) for _ in range(20)]
    asked: list[str] = []

    class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
        async def fetch(self, query: str, *args: object, **options: object) -> object:
            asked.append(query)
            return await super().fetch(query, *args, **options)

    async with make_pool(database_url, Connection) as pool:
        office = PostgresMailReservations(pool, FakeFingerprints())
        for places, statements in ((3, 2), (None, 1)):
            asked.clear()
            mails = [postage(user, places=places) for user in users for _ in range(3)]
            found = await asyncio.gather(*map(office.take, mails))
            assert [taken and taken.free_at for taken in found] == [None] * len(mails)
            assert len(asked) == statements


async def test_of_many_mails_at_once_as_many_get_a_place_as_there_are(
    store: Database, office: MailReservations
) -> None:
    """Those to one address share its places, also with single ones; each gets its own answer."""
    users = [await store_user(store) for _ in range(4)]
    asked = [postage(user) for _ in range(10) for user in users]

    async def take_alone() -> bool:
        key = users[0].email_key
        async with store.begin() as records:
            free_at = await records.mails.take_place(IDS.new(), key, NOW, mails=3, within=HOUR)
        return free_at is None

    answers, alone = await asyncio.gather(
        asyncio.gather(*map(office.take, asked)), asyncio.gather(take_alone(), take_alone())
    )
    free = [taken.user for taken in answers if taken is not None and taken.free_at is None]
    assert [taken and taken.user.id for taken in answers] == [one.user_id for one in asked]
    assert [free.count(user) for user in users[1:]] == [3, 3, 3]
    assert free.count(users[0]) + sum(alone) == 3


@pytest.fixture
async def other_office(
    store: Database, office: MailReservations, request: pytest.FixtureRequest
) -> AsyncIterator[MailReservations]:
    """Another process of the same service."""
    if isinstance(store, FakeDatabase):
        yield office
        return
    async with make_pool(request.getfixturevalue("database_url")) as pool:
        yield PostgresMailReservations(pool, FakeFingerprints())


async def test_offices_that_serve_the_same_addresses_wait_in_no_circle(
    store: Database, office: MailReservations, other_office: MailReservations
) -> None:
    """Each takes many addresses at once, one of them in the other order."""
    users = [await store_user(store) for _ in range(30)]
    for _ in range(10):
        asked = [office.take(postage(user, places=99)) for user in users]
        asked += [other_office.take(postage(user, places=99)) for user in reversed(users)]
        answers = await asyncio.gather(*asked)
        assert all(taken is not None and taken.free_at is None for taken in answers)
