"""Showing, renewing, activating, deactivating and deleting codes."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest

from referral.core.entities.codes import Code, CodeStatus, Expiry
from referral.core.entities.users import User
from referral.core.errors import (
    CodeExhausted,
    CodeExpired,
    InvalidRequest,
    NoActiveCode,
    NotFound,
    Unauthenticated,
)
from referral.core.use_cases.codes import CodeRenewal
from tests.core.service import InMemoryService
from tests.support.fakes.repositories import FakeCodeRepository

RENEW_FOR_HOUR = CodeRenewal(expiry=Expiry(lifetime_minutes=60))


@pytest.fixture
async def ann(service: InMemoryService) -> User:
    """A user."""
    return await service.create_account("ann@example.com")


@pytest.fixture
async def code(service: InMemoryService, ann: User) -> Code:
    """A code of Ann's, active for an hour, with two uses."""
    return await service.create_code(ann, max_uses=2)


async def status(service: InMemoryService, code: Code) -> CodeStatus:
    """Return the current status of a code."""
    return (await service.show_code(code.user_id, code.id)).status(service.clock.now())


async def test_codes_are_listed_newest_first(service: InMemoryService, ann: User) -> None:
    """Pages follow each other without a gap, and the last one has no cursor."""
    created = [await service.create_code(ann, activate=False) for _ in range(5)]
    listed: list[Code] = []
    after: UUID | None = None
    sizes = []
    while after is not None or not listed:
        page, _ = await service.list_codes(ann.id, status=None, after=after, limit=2)
        listed, after = listed + page.items, page.next_after
        sizes.append(len(page.items))
    assert (listed, sizes) == (created[::-1], [2, 2, 1])


async def test_list_is_filtered_by_status(service: InMemoryService, ann: User, code: Code) -> None:
    """By the status at the time of the request."""
    later = await service.create_code(ann, activate=False, minutes=120)
    service.clock.advance(minutes=60)
    expected = {CodeStatus.EXPIRED: [code], CodeStatus.INACTIVE: [later], CodeStatus.ACTIVE: []}
    for status_filter, codes in expected.items():
        page, now = await service.list_codes(ann.id, status=status_filter, after=None, limit=10)
        assert (page.items, page.next_after, now) == (codes, None, service.clock.now())


async def test_codes_of_another_user_are_not_found(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """Another user can neither list, show nor change them."""
    bob = await service.create_account("bob@example.com")
    page, _ = await service.list_codes(bob.id, status=None, after=None, limit=10)
    assert page.items == []
    for operation in (
        service.show_code(bob.id, code.id),
        service.renew_code(bob.id, code.id, RENEW_FOR_HOUR),
        service.activate_code(bob.id, code.id),
        service.deactivate_code(bob.id, code.id),
        service.delete_code(bob.id, code.id),
    ):
        with pytest.raises(NotFound):
            await operation
    assert await service.show_code(ann.id, code.id) == code


async def test_active_code_expires_by_the_clock(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """It is shown until the instant of its expiry."""
    service.clock.advance(minutes=60, seconds=-0.000001)
    assert await service.show_active_code(ann.id) == code
    service.clock.advance(seconds=0.000001)
    with pytest.raises(NoActiveCode):
        await service.show_active_code(ann.id)


async def test_renewal_changes_the_expiry(service: InMemoryService, ann: User, code: Code) -> None:
    """Fields that are not named stay unchanged."""
    service.clock.advance(minutes=30)
    renewed = await service.renew_code(ann.id, code.id, RENEW_FOR_HOUR)
    assert renewed.expires_at == service.clock.now() + timedelta(hours=1)
    assert renewed.max_uses == 2
    assert await service.show_code(ann.id, code.id) == renewed


async def test_empty_renewal_changes_nothing(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """A renewal without fields leaves the code unchanged."""
    assert await service.renew_code(ann.id, code.id, CodeRenewal()) == code
    assert await service.show_code(ann.id, code.id) == code


async def test_renewal_changes_or_removes_the_maximum(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """A number replaces the maximum; `unlimited` removes it."""
    assert (await service.renew_code(ann.id, code.id, CodeRenewal(max_uses=5))).max_uses == 5
    assert (await service.renew_code(ann.id, code.id, RENEW_FOR_HOUR)).max_uses == 5
    assert (await service.renew_code(ann.id, code.id, CodeRenewal(unlimited=True))).max_uses is None
    assert (await service.show_code(ann.id, code.id)).max_uses is None


async def test_higher_maximum_reactivates_an_exhausted_code(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """The counted uses stay."""
    for name in ("bob", "cid"):
        await service.create_account(f"{name}@example.com", referral_code=code.text)
    assert await status(service, code) is CodeStatus.EXHAUSTED
    renewed = await service.renew_code(ann.id, code.id, CodeRenewal(max_uses=3))
    assert (renewed.uses, await status(service, code)) == (2, CodeStatus.ACTIVE)


async def test_renewal_with_a_past_expiry_is_rejected(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """The code stays unchanged."""
    with pytest.raises(InvalidRequest):
        await service.renew_code(
            ann.id, code.id, CodeRenewal(expiry=Expiry(expires_at=code.created_at))
        )
    assert await service.show_code(ann.id, code.id) == code


async def test_renewal_reactivates_an_expired_code(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """Unless the code was deactivated or retired."""
    service.clock.advance(days=1)
    renewed = await service.renew_code(ann.id, code.id, RENEW_FOR_HOUR)
    assert await service.show_active_code(ann.id) == renewed


async def test_renewal_does_not_activate_a_deactivated_code(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """Its owner has to activate it explicitly."""
    await service.deactivate_code(ann.id, code.id)
    service.clock.advance(days=1)
    await service.renew_code(ann.id, code.id, RENEW_FOR_HOUR)
    assert await status(service, code) is CodeStatus.INACTIVE


@pytest.mark.parametrize("days", [0, 1])
async def test_renewal_does_not_activate_a_retired_code(
    service: InMemoryService, ann: User, code: Code, days: int
) -> None:
    """A code that was replaced, before or after its expiry, stays inactive."""
    service.clock.advance(days=days)
    new = await service.create_code(ann, replace=not days)
    await service.renew_code(ann.id, code.id, RENEW_FOR_HOUR)
    assert await status(service, code) is CodeStatus.INACTIVE
    assert await service.show_active_code(ann.id) == new


async def test_activation_deactivates_the_other_code(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """The activated code is the only active one."""
    later = await service.create_code(ann, activate=False)
    activated = await service.activate_code(ann.id, later.id)
    assert await service.show_active_code(ann.id) == activated
    assert activated.id == later.id
    assert await status(service, code) is CodeStatus.INACTIVE


async def test_activation_of_the_active_code_changes_nothing(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """Activation is idempotent."""
    assert await service.activate_code(ann.id, code.id) == code
    assert await service.show_active_code(ann.id) == code


async def test_activation_retires_an_expired_code(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """An expired code does not block the activation of another."""
    later = await service.create_code(ann, activate=False, minutes=120)
    service.clock.advance(minutes=60)
    await service.activate_code(ann.id, later.id)
    await service.renew_code(ann.id, code.id, RENEW_FOR_HOUR)
    assert await status(service, code) is CodeStatus.INACTIVE
    assert (await service.show_active_code(ann.id)).id == later.id


async def test_expired_or_exhausted_code_is_not_activated(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """Each has its own error, and the active code stays."""
    await service.renew_code(ann.id, code.id, CodeRenewal(max_uses=1))
    await service.create_account("bob@example.com", referral_code=code.text)
    short = await service.create_code(ann, activate=False, minutes=1)
    active = await service.create_code(ann)
    service.clock.advance(minutes=1)
    with pytest.raises(CodeExpired):
        await service.activate_code(ann.id, short.id)
    with pytest.raises(CodeExhausted):
        await service.activate_code(ann.id, code.id)
    assert await service.show_active_code(ann.id) == active


async def test_deactivation_and_reactivation(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """Deactivation is idempotent, and activation reverses it."""
    for _ in range(2):
        assert not (await service.deactivate_code(ann.id, code.id)).enabled
        with pytest.raises(NoActiveCode):
            await service.show_active_code(ann.id)
    await service.activate_code(ann.id, code.id)
    assert await service.show_active_code(ann.id) == code


async def test_deleted_code_is_gone(service: InMemoryService, ann: User, code: Code) -> None:
    """It is neither shown nor listed, cannot be deleted again, and does not block a new code."""
    await service.delete_code(ann.id, code.id)
    for operation in (service.show_code, service.activate_code, service.delete_code):
        with pytest.raises(NotFound):
            await operation(ann.id, code.id)
    page, _ = await service.list_codes(ann.id, status=None, after=None, limit=10)
    assert page.items == []
    assert await service.create_code(ann) == await service.show_active_code(ann.id)


async def test_deletion_keeps_the_referrals(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """They stay counted and listed with the code's text."""
    await service.create_account("bob@example.com", referral_code=code.text)
    await service.delete_code(ann.id, code.id)
    account = await service.show_account(ann.id)
    assert account.referral_count == 1
    assert [joined.code for joined in account.recent_referrals] == [code.text]


@pytest.mark.parametrize(
    "renewal",
    [
        CodeRenewal(expiry=Expiry(lifetime_minutes=10**7)),
        CodeRenewal(max_uses=0),
        CodeRenewal(max_uses=2**31),
    ],
)
async def test_invalid_renewal_is_rejected(
    service: InMemoryService, code: Code, renewal: CodeRenewal
) -> None:
    """The code stays unchanged."""
    with pytest.raises(InvalidRequest):
        await service.renew_code(code.user_id, code.id, renewal)
    assert await service.show_code(code.user_id, code.id) == code


async def test_codes_of_an_erased_user_are_unauthenticated(
    service: InMemoryService, ann: User
) -> None:
    """A token that outlives its account gets an error, a user without codes an empty page."""
    page, _ = await service.list_codes(ann.id, status=None, after=None, limit=1)
    assert page.items == []
    with pytest.raises(Unauthenticated):
        await service.list_codes(UUID(int=1), status=None, after=None, limit=1)


async def test_deletion_is_stored_with_its_time(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """The row stays, as its text is never reused."""
    service.clock.advance(minutes=1)
    await service.delete_code(ann.id, code.id)
    async with service.database.read() as repositories:
        assert repositories.tables.deleted_codes == {code.id: service.clock.now()}


async def test_page_reads_one_row_more_than_it_shows(
    service: InMemoryService, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page costs the same however long the list is."""
    read_page, limits = FakeCodeRepository.list_page, []

    async def record_limit(
        repository: FakeCodeRepository,
        user_id: UUID,
        now: datetime,
        *,
        status: CodeStatus | None,
        after: UUID | None,
        limit: int,
    ) -> list[Code]:
        limits.append(limit)
        return await read_page(repository, user_id, now, status=status, after=after, limit=limit)

    monkeypatch.setattr(FakeCodeRepository, "list_page", record_limit)
    await service.list_codes(ann.id, status=None, after=None, limit=20)
    assert limits == [21]
