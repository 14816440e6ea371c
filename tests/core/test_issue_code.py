"""Issuing codes."""

import asyncio
from datetime import timedelta

import pytest

from referral.core.entities.codes import Code, CodeStatus, Expiry
from referral.core.entities.idempotency import IdempotentRequest
from referral.core.entities.users import User
from referral.core.errors import ActiveCodeExists, CodeTaken, InvalidRequest, Unauthenticated
from referral.core.policies.idempotency import IdempotentReplay
from referral.core.use_cases.codes import NewCode
from tests.core.service import InMemoryService


@pytest.fixture
async def ann(service: InMemoryService) -> User:
    """A user."""
    return await service.create_account("ann@example.com")


async def statuses(service: InMemoryService, owner: User) -> list[CodeStatus]:
    """Return the statuses of a user's codes, newest first."""
    page, now = await service.list_codes(owner.id, status=None, after=None, limit=100)
    return [code.status(now) for code in page.items]


async def test_new_code_is_active(service: InMemoryService, ann: User) -> None:
    """By default, a code has a generated text, no maximum of uses, and is active at once."""
    code = await service.create_code(ann)
    assert (
        await service.show_active_code(ann.id) == code == await service.show_code(ann.id, code.id)
    )
    assert (code.user_id, code.text, code.uses, code.max_uses) == (ann.id, "MADE0001", 0, None)
    assert code.created_at == service.clock.now()
    assert code.expires_at == service.clock.now() + timedelta(hours=1)


async def test_code_with_a_custom_text(service: InMemoryService, ann: User) -> None:
    """Text, expiry and maximum are as requested."""
    expires_at = service.clock.now() + timedelta(days=2)
    code = await service.issue_code(
        ann.id, NewCode(Expiry(expires_at=expires_at), text="Ann-2026", max_uses=3)
    )
    assert (code.text, code.expires_at, code.max_uses) == ("Ann-2026", expires_at, 3)


async def test_code_needs_a_future_expiry(service: InMemoryService, ann: User) -> None:
    """A code without an expiry, or with a past one, is rejected."""
    for expiry in (Expiry(), Expiry(expires_at=service.clock.now())):
        with pytest.raises(InvalidRequest):
            await service.issue_code(ann.id, NewCode(expiry))
    assert await statuses(service, ann) == []


async def test_second_active_code_is_rejected(service: InMemoryService, ann: User) -> None:
    """The first code stays active."""
    code = await service.create_code(ann)
    with pytest.raises(ActiveCodeExists):
        await service.create_code(ann)
    assert await service.show_active_code(ann.id) == code
    assert await statuses(service, ann) == [CodeStatus.ACTIVE]


async def test_inactive_code_beside_the_active_one(service: InMemoryService, ann: User) -> None:
    """A code that is not activated leaves the active one."""
    active = await service.create_code(ann)
    await service.create_code(ann, activate=False)
    assert await service.show_active_code(ann.id) == active
    assert await statuses(service, ann) == [CodeStatus.INACTIVE, CodeStatus.ACTIVE]


async def test_replacing_retires_the_old_code(service: InMemoryService, ann: User) -> None:
    """With `replace` the new code is active and the old one inactive."""
    await service.create_code(ann)
    new = await service.create_code(ann, replace=True)
    assert await service.show_active_code(ann.id) == new
    assert await statuses(service, ann) == [CodeStatus.ACTIVE, CodeStatus.INACTIVE]


async def test_rejected_replacement_retires_nothing(service: InMemoryService, ann: User) -> None:
    """The old code stays active when the text of the new one is taken."""
    old = await service.create_code(ann, text="Ann-2026")
    with pytest.raises(CodeTaken):
        await service.create_code(ann, text="ANN-2026", replace=True)
    assert await service.show_active_code(ann.id) == old


async def test_replacing_without_activation_retires_nothing(
    service: InMemoryService, ann: User
) -> None:
    """A code that is not activated replaces no other."""
    old = await service.create_code(ann)
    await service.create_code(ann, activate=False, replace=True)
    assert await service.show_active_code(ann.id) == old


async def test_expired_code_allows_a_new_one(service: InMemoryService, ann: User) -> None:
    """The expired code is retired and stays so when it is renewed."""
    await service.create_code(ann)
    service.clock.advance(minutes=60)
    new = await service.create_code(ann)
    assert await service.show_active_code(ann.id) == new
    assert await statuses(service, ann) == [CodeStatus.ACTIVE, CodeStatus.EXPIRED]


async def test_exhausted_code_allows_a_new_one(service: InMemoryService, ann: User) -> None:
    """A code without uses left does not block a new one."""
    old = await service.create_code(ann, max_uses=1)
    await service.create_account("bob@example.com", referral_code=old.text)
    new = await service.create_code(ann)
    assert await service.show_active_code(ann.id) == new
    assert await statuses(service, ann) == [CodeStatus.ACTIVE, CodeStatus.EXHAUSTED]


async def test_users_have_independent_codes(service: InMemoryService, ann: User) -> None:
    """One user's active code does not block another's."""
    bob = await service.create_account("bob@example.com")
    codes = [await service.create_code(ann), await service.create_code(bob)]
    assert [await service.show_active_code(user.id) for user in (ann, bob)] == codes


@pytest.mark.parametrize("text", ["Ann-2026", "ANN-2026", "ann-2026"])
async def test_custom_text_is_unique(service: InMemoryService, ann: User, text: str) -> None:
    """A text that is taken in any case is rejected; no other text is generated instead."""
    bob = await service.create_account("bob@example.com")
    await service.create_code(ann, text="Ann-2026")
    with pytest.raises(CodeTaken) as raised:
        await service.create_code(bob, text=text)
    assert raised.value.field == "code"
    assert await statuses(service, bob) == []


async def test_text_of_a_deleted_code_stays_taken(service: InMemoryService, ann: User) -> None:
    """Its owner cannot use it again either."""
    code = await service.create_code(ann, text="Ann-2026")
    await service.delete_code(ann.id, code.id)
    with pytest.raises(CodeTaken):
        await service.create_code(ann, text="ann-2026")


async def test_generated_text_that_is_taken_is_replaced(
    service: InMemoryService, ann: User
) -> None:
    """Up to four collisions are retried."""
    await service.create_code(ann, text="TAKEN", activate=False)
    service.code_generator.scripted = ["TAKEN"] * 4 + ["FREE"]
    assert (await service.create_code(ann)).text == "FREE"
    assert len(await statuses(service, ann)) == 2


async def test_repeated_collisions_are_an_error(service: InMemoryService, ann: User) -> None:
    """After five collisions the generator counts as broken."""
    await service.create_code(ann, text="TAKEN", activate=False)
    service.code_generator.scripted = ["TAKEN"] * 6
    with pytest.raises(CodeTaken):
        await service.create_code(ann)
    assert len(service.code_generator.scripted) == 1


async def test_code_needs_an_existing_owner(service: InMemoryService) -> None:
    """A token that outlives its account creates no codes."""
    with pytest.raises(Unauthenticated):
        await service.issue_code(service.id_generator.new(), NewCode(Expiry(lifetime_minutes=60)))


async def test_concurrent_requests_create_one_active_code(
    service: InMemoryService, ann: User
) -> None:
    """Of twenty concurrent requests, one succeeds and nineteen are rejected."""
    requests = [service.create_code(ann) for _ in range(20)]
    results = await asyncio.gather(*requests, return_exceptions=True)
    assert sum(isinstance(result, Code) for result in results) == 1
    assert sum(isinstance(result, ActiveCodeExists) for result in results) == 19
    assert await statuses(service, ann) == [CodeStatus.ACTIVE]


@pytest.mark.parametrize(
    "new_code",
    [
        NewCode(Expiry(lifetime_minutes=10**7)),
        NewCode(Expiry(lifetime_minutes=60), text="x y\n"),
        NewCode(Expiry(lifetime_minutes=60), text=""),
        NewCode(Expiry(lifetime_minutes=60), max_uses=0),
    ],
)
async def test_invalid_code_is_rejected(
    service: InMemoryService, ann: User, new_code: NewCode
) -> None:
    """By the core itself, and nothing is stored."""
    with pytest.raises(InvalidRequest):
        await service.issue_code(ann.id, new_code)
    assert await statuses(service, ann) == []


async def test_repeated_request_is_not_validated_again(service: InMemoryService, ann: User) -> None:
    """Its expiry may be in the past by then; the stored response is returned all the same."""
    request: IdempotentRequest[Code] = IdempotentRequest(
        b"key", (b"body",), lambda code: {"body": code.text.encode()}
    )
    new_code = NewCode(Expiry(expires_at=service.clock.now() + timedelta(minutes=2)))
    code = await service.issue_code(ann.id, new_code, request)
    service.clock.advance(hours=1)
    with pytest.raises(IdempotentReplay) as repeated:
        await service.issue_code(ann.id, new_code, request)
    assert repeated.value.response["body"] == code.text.encode()
    assert await statuses(service, ann) == [CodeStatus.EXPIRED]
