"""The port `ReadModel`, in memory and in PostgreSQL."""

import asyncio
from dataclasses import replace

import asyncpg
from sqlalchemy.engine import make_url

from referral.adapters.postgres.pool import make_driver_pool
from referral.adapters.postgres.read_model import PostgresReadModel
from referral.core.entities.referrals import Referral, ReferralStatus
from referral.core.entities.users import Referrer
from referral.core.ports.repositories import Database, ReadModel
from tests.contracts.rows import ID_GENERATOR, NOW, store_code, store_referral, store_user


async def test_account_view_is_complete(store: Database, read_model: ReadModel) -> None:
    """User, referrer, count, newest referrals and code, each as stored."""
    ann, bob, eve = [await store_user(store) for _ in range(3)]
    code = await store_code(store, ann)
    joined = []
    async with store.begin() as repositories:
        for user in (bob, eve):
            referral = Referral(
                ID_GENERATOR.new(),
                ann.id,
                user.id,
                code.id,
                code.text,
                ReferralStatus.CONFIRMED,
                NOW,
            )
            await repositories.referrals.add(referral)
            await repositories.codes.count_use(code.id, NOW)
            joined.append(referral.referred_id)
    account = await read_model.find_account(ann.id, 10, NOW)
    assert account is not None
    assert (account.user, account.referrer, account.as_of) == (ann, None, NOW)
    assert account.active_code == replace(code, uses=2)
    assert account.referral_count == 2
    assert [each.id for each in account.recent_referrals] == [eve.id, bob.id]
    async with store.read() as repositories:
        newest = await repositories.referrals.list_page(ann.id, status=None, after=None, limit=10)
    assert account.recent_referrals == newest
    referred = await read_model.find_account(bob.id, 10, NOW)
    assert referred is not None
    assert referred.referrer == Referrer(ann.id, ann.email)
    assert referred.active_code is None
    assert (referred.referral_count, referred.recent_referrals) == (0, [])


async def test_account_view_limits_its_referrals(store: Database, read_model: ReadModel) -> None:
    """To the newest ones."""
    ann = await store_user(store)
    code = await store_code(store, ann)
    for _ in range(3):
        await store_referral(store, code)
    account = await read_model.find_account(ann.id, 2, NOW)
    assert account is not None
    assert len(account.recent_referrals) == 2


async def test_unknown_user_has_no_account_view(read_model: ReadModel) -> None:
    """An unknown id is not an error."""
    assert await read_model.find_account(ID_GENERATOR.new(), 10, NOW) is None


async def test_concurrent_lookups_get_their_own_codes(
    store: Database, read_model: ReadModel
) -> None:
    """Look-ups that share a statement do not mix results; cancelled ones do not affect others."""
    owners = [await store_user(store) for _ in range(10)]
    codes = [await store_code(store, owner) for owner in owners]
    nobody = "nobody@example.com"
    keys = [*(owner.email_key for owner in owners), nobody] * 30
    expected = [*codes, None] * 30
    tasks = [asyncio.create_task(read_model.find_code(key, confirmed_only=False)) for key in keys]
    for task in tasks[::7]:
        asyncio.get_running_loop().call_soon(task.cancel)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for number, (result, code) in enumerate(zip(results, expected, strict=True)):
        assert result == code or (number % 7 == 0 and isinstance(result, asyncio.CancelledError))


async def test_lookup_can_require_a_confirmed_email(store: Database, read_model: ReadModel) -> None:
    """Each look-up follows its own rule, also within a shared statement."""
    confirmed = await store_user(store, email_verified=True)
    unconfirmed = await store_user(store)
    codes = {owner.id: await store_code(store, owner) for owner in (confirmed, unconfirmed)}
    lookups = [
        read_model.find_code(owner.email_key, confirmed_only=only)
        for only in (True, False)
        for owner in (confirmed, unconfirmed)
    ]
    first, second = codes[confirmed.id], codes[unconfirmed.id]
    assert await asyncio.gather(*lookups) == [first, None, first, second]


async def test_rejected_lookup_fails_alone(database: Database, database_url: str) -> None:
    """Other look-ups of the same statement get their codes."""
    owner = await store_user(database)
    code = await store_code(database, owner)
    async with make_driver_pool(database_url) as pool, asyncio.timeout(10):
        read_model = PostgresReadModel(pool)
        keys = [owner.email_key, "no\0text@example.com", owner.email_key]
        lookups = (read_model.find_code(key, confirmed_only=False) for key in keys)
        first, rejected, last = await asyncio.gather(*lookups, return_exceptions=True)
    assert first == last == code
    assert isinstance(rejected, asyncpg.DataError)


async def test_lookups_fail_without_the_schema(database_url: str) -> None:
    """Before the first migration, all look-ups of a statement fail, and none hangs."""
    empty = make_url(database_url).set(database="postgres").render_as_string(hide_password=False)
    async with make_driver_pool(empty) as pool, asyncio.timeout(10):
        read_model = PostgresReadModel(pool)
        for _ in range(2):
            lookups = (
                read_model.find_code(key, confirmed_only=False)
                for key in ("ann@example.com", "bob@example.com")
            )
            for result in await asyncio.gather(*lookups, return_exceptions=True):
                assert isinstance(result, asyncpg.UndefinedTableError)
