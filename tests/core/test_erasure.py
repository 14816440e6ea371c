"""Erasure: what is deleted with an account, and what stays."""

import pytest

from referral.core.entities.idempotency import IdempotentRequest
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.users import Profile, User
from referral.core.errors import CodeTaken
from referral.core.use_cases.accounts import NewAccount
from tests.core.service import CLIENT_IP, PASSWORD, InMemoryService
from tests.support.fakes.tables import Tables


async def create_full_account(service: InMemoryService, name: str) -> User:
    """Create an account with a row of each kind that may hold data of the user."""
    request: IdempotentRequest[User] = IdempotentRequest(
        name.encode(), (b"body",), lambda user: {"id": user.id}
    )
    user = await service.register(NewAccount(f"{name}@example.com", PASSWORD), request)
    await service.create_code(user, text=f"{name}-2026")
    await service.log_in(user.email, PASSWORD, CLIENT_IP)
    await service.create_mail_token(user)
    async with service.database.begin() as repositories:
        await repositories.profiles.save(user.id, Profile(name=name), service.clock.now())
    return user


def owners(tables: Tables) -> dict[str, set[object]]:
    """Return the owners of the rows of each kind."""
    return {
        "sessions": {row.user_id for row in tables.sessions.values()},
        "tokens": {row.user_id for row in tables.one_time_tokens.values()},
        "responses": {row.user_id for row in tables.idempotent_responses.values()},
        "profiles": set(tables.profiles),
    }


async def test_erasure_deletes_the_data_of_one_user(service: InMemoryService) -> None:
    """Sessions, links, stored responses and profile; those of others stay."""
    ann, bob = await create_full_account(service, "ann"), await create_full_account(service, "bob")
    async with service.database.read() as repositories:
        before = owners(repositories.tables)
    assert set(map(frozenset, before.values())) == {frozenset({ann.id, bob.id})}
    service.clock.advance(minutes=1)
    await service.erase_account(ann.id, PASSWORD)
    async with service.database.read() as repositories:
        tables = repositories.tables
    assert set(map(frozenset, owners(tables).values())) == {frozenset({bob.id})}
    assert tables.erased_users == {ann.id: service.clock.now()}
    [ann_code, _] = tables.codes.values()
    assert tables.deleted_codes == {ann_code.id: service.clock.now()}
    assert (await service.show_active_code(bob.id)).text == "bob-2026"


async def test_texts_of_erased_codes_stay_taken(service: InMemoryService) -> None:
    """A published code never belongs to somebody else."""
    ann, bob = await create_full_account(service, "ann"), await service.create_account("b@b")
    await service.erase_account(ann.id, PASSWORD)
    assert await service.check_code("ann-2026") is None
    with pytest.raises(CodeTaken):
        await service.create_code(bob, text="ANN-2026")


async def test_referral_is_rejected_after_the_erasure_of_its_referrer(
    service: InMemoryService,
) -> None:
    """The use returns to the code, which stays deleted; no look-up of its owner is left."""
    service.configure(email_verification="on")
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann, max_uses=1)
    bob = await service.create_account("bob@example.com", referral_code=code.text)
    await service.erase_account(ann.id, PASSWORD)
    service.cache.invalidated.clear()
    await service.erase_account(bob.id, PASSWORD)
    assert service.cache.invalidated == ["bob@example.com"]
    async with service.database.read() as repositories:
        referral = await repositories.referrals.find_by_referred(bob.id)
        assert repositories.tables.codes[code.id].uses == 0
    assert referral is not None
    assert referral.status is ReferralStatus.REJECTED
    assert await service.check_code(code.text) is None
