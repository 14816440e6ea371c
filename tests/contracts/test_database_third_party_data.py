"""The repositories of profiles, verification results and referred e-mail addresses."""

from dataclasses import replace
from datetime import timedelta

import pytest
from asyncpg import IntegrityConstraintViolationError

from referral.core.entities.deliverability import Deliverability
from referral.core.entities.users import Profile
from referral.core.ports.repositories import Database, ReadModel
from tests.contracts.rows import HOUR, ID_GENERATOR, NOW, store_user

FULL = Profile("Ann Example", "Head", "Example", "example.com", "Finland", "https://a.example/b")
VALID, INVALID = Deliverability.VALID, Deliverability.INVALID


def make_fingerprint() -> bytes:
    """Return a new fingerprint."""
    return ID_GENERATOR.new().bytes * 2


async def test_stored_profile_is_found(store: Database, read_model: ReadModel) -> None:
    """The last one that was saved; the account view includes it."""
    ann, bob = await store_user(store), await store_user(store)
    for profile in (FULL, Profile(name="Ann")):
        async with store.begin() as repositories:
            await repositories.profiles.save(ann.id, profile, NOW)
        async with store.read() as repositories:
            assert await repositories.profiles.find(ann.id) == profile
            assert await repositories.profiles.find(bob.id) is None
        account = await read_model.find_account(ann.id, 10, NOW)
        assert account is not None
        assert account.profile == profile


async def test_deleted_profile_is_gone(store: Database, read_model: ReadModel) -> None:
    """Deletion is idempotent."""
    ann = await store_user(store)
    async with store.begin() as repositories:
        await repositories.profiles.save(ann.id, FULL, NOW)
        await repositories.profiles.delete(ann.id)
        await repositories.profiles.delete(ann.id)
        assert await repositories.profiles.find(ann.id) is None
    account = await read_model.find_account(ann.id, 10, NOW)
    assert account is not None
    assert account.profile is None


async def test_profile_needs_an_account(store: Database) -> None:
    """A profile of an unknown user is rejected."""
    with pytest.raises(IntegrityConstraintViolationError):
        async with store.begin() as repositories:
            await repositories.profiles.save(ID_GENERATOR.new(), FULL, NOW)


@pytest.mark.parametrize("result", Deliverability)
async def test_deliverability_of_an_account_is_stored(
    store: Database, result: Deliverability
) -> None:
    """By adding and by saving the account."""
    ann, bob = await store_user(store, deliverability=result), await store_user(store)
    async with store.begin() as repositories:
        assert await repositories.users.lock(ann.id) == ann
        await repositories.users.save(replace(bob, deliverability=result))
        assert await repositories.users.find(bob.id) == replace(bob, deliverability=result)


async def test_verification_result_is_found(store: Database) -> None:
    """By any of the fingerprints; the newest result counts, an outdated one does not."""
    old, new, other = make_fingerprint(), make_fingerprint(), make_fingerprint()
    async with store.begin() as repositories:
        results = repositories.verification_results
        assert await results.find((new, old), NOW) is None
        await results.save(old, VALID, NOW)
        await results.save(other, VALID, NOW)
        assert await results.find((new, old), NOW) is VALID
        assert await results.find((new, old), NOW + timedelta(microseconds=1)) is None
        await results.save(new, INVALID, NOW + HOUR)
        assert await results.find((new, old), NOW) is INVALID
        await results.save(old, Deliverability.WEBMAIL, NOW + 2 * HOUR)
        assert await results.find((new, old), NOW) is Deliverability.WEBMAIL
        await results.delete((new, old))
        assert await results.find((new, old), NOW) is None
        assert await results.find((other,), NOW) is VALID


async def test_old_verification_results_are_pruned(store: Database) -> None:
    """Current results stay."""
    fingerprint = make_fingerprint()
    async with store.begin() as repositories:
        await repositories.verification_results.save(fingerprint, VALID, NOW)
        assert await repositories.verification_results.prune(NOW) is False
        assert await repositories.verification_results.find((fingerprint,), NOW) is VALID
        await repositories.verification_results.prune(NOW + HOUR)
        assert await repositories.verification_results.find((fingerprint,), NOW) is None


async def test_referred_email_is_found(store: Database) -> None:
    """By any of its fingerprints, for the period asked for, until it is pruned."""
    old, new, other = make_fingerprint(), make_fingerprint(), make_fingerprint()
    async with store.begin() as repositories:
        referred = repositories.referred_emails
        assert not await referred.contains((new, old), NOW)
        await referred.add(old, NOW)
        assert await referred.contains((new, old), NOW - HOUR)
        assert not await referred.contains((new, old), NOW)
        assert not await referred.contains((other,), NOW - HOUR)
        await referred.add(old, NOW + 2 * HOUR)
        assert await referred.contains((old,), NOW)
        assert await referred.prune(NOW + 2 * HOUR) is False
        assert await referred.contains((old,), NOW)
        await referred.prune(NOW + 3 * HOUR)
        assert not await referred.contains((old,), NOW)
