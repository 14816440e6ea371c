"""Visibility of referrals."""

from uuid import UUID

import pytest

from referral.core.entities.clients import Caller, Scope
from referral.core.entities.referrals import ReferralListItem, ReferralStatus, ReferralVisibility
from referral.core.entities.users import User
from referral.core.errors import InsufficientScope, NotFound, Unauthenticated
from referral.core.use_cases.referrals import ListReferrals
from tests.core.service import InMemoryService, client_caller, user_caller


@pytest.fixture
async def ann(service: InMemoryService) -> User:
    """A user with three referrals."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann)
    for name in ("bob", "cid", "dan"):
        await service.create_account(f"{name}@example.com", referral_code=code.text)
    return ann


async def listed(
    service: InMemoryService, visibility: ReferralVisibility, caller: Caller, user_id: UUID
) -> tuple[list[ReferralListItem], bool]:
    """Return the first page, and whether it shows details."""
    service.configure(referrals_visibility=visibility)
    list_referrals = service.get(ListReferrals)
    page, shows_details = await list_referrals(caller, user_id, status=None, after=None, limit=10)
    return page.items, shows_details


@pytest.mark.parametrize("visibility", ReferralVisibility)
async def test_referrer_sees_own_referrals_in_full(
    service: InMemoryService, ann: User, visibility: ReferralVisibility
) -> None:
    """With e-mail addresses under every setting, newest first."""
    items, shows_details = await listed(service, visibility, user_caller(ann), ann.id)
    assert [(joined.email or "").partition("@")[0] for joined in items] == ["dan", "cid", "bob"]
    assert shows_details


@pytest.mark.parametrize(
    ("visibility", "expected"),
    [(ReferralVisibility.OPEN, True), (ReferralVisibility.REDACTED, False)],
)
async def test_visibility_decides_what_a_stranger_sees(
    service: InMemoryService, ann: User, visibility: ReferralVisibility, *, expected: bool
) -> None:
    """Everything under `open`, no e-mail addresses under `redacted`."""
    stranger = await service.create_account("eve@example.com")
    items, shows_details = await listed(service, visibility, user_caller(stranger), ann.id)
    assert (len(items), shows_details) == (3, expected)


async def test_stranger_sees_nothing_with_owner_visibility(
    service: InMemoryService, ann: User
) -> None:
    """A hidden user gives the same error as an unknown one."""
    stranger = user_caller(await service.create_account("eve@example.com"))
    errors = []
    for user_id in (ann.id, service.id_generator.new()):
        with pytest.raises(NotFound) as raised:
            await listed(service, ReferralVisibility.OWNER, stranger, user_id)
        errors.append((type(raised.value), raised.value.detail))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("visibility", ReferralVisibility)
async def test_admin_sees_everything(
    service: InMemoryService, ann: User, visibility: ReferralVisibility
) -> None:
    """With e-mail addresses under every setting."""
    admin = user_caller(await service.create_admin("root@example.com"))
    items, shows_details = await listed(service, visibility, admin, ann.id)
    assert (len(items), shows_details) == (3, True)


@pytest.mark.parametrize("visibility", ReferralVisibility)
async def test_client_with_the_scope_sees_everything(
    service: InMemoryService, ann: User, visibility: ReferralVisibility
) -> None:
    """`referrals:read` is sufficient under every setting."""
    items, shows_details = await listed(
        service, visibility, client_caller(Scope.REFERRALS_READ), ann.id
    )
    assert (len(items), shows_details) == (3, True)


@pytest.mark.parametrize("visibility", ReferralVisibility)
@pytest.mark.parametrize("scopes", [(), (Scope.CODES_READ, Scope.USERS_READ)])
async def test_client_without_the_scope_sees_nothing(
    service: InMemoryService, ann: User, visibility: ReferralVisibility, scopes: tuple[Scope, ...]
) -> None:
    """The error does not reveal whether the user exists."""
    for user_id in (ann.id, service.id_generator.new()):
        with pytest.raises(InsufficientScope):
            await listed(service, visibility, client_caller(*scopes), user_id)


@pytest.mark.parametrize("visibility", ReferralVisibility)
async def test_unknown_user_is_not_found(
    service: InMemoryService, ann: User, visibility: ReferralVisibility
) -> None:
    """For users, administrators and clients alike."""
    admin = await service.create_admin("root@example.com")
    for caller in (user_caller(ann), user_caller(admin), client_caller(Scope.REFERRALS_READ)):
        with pytest.raises(NotFound):
            await listed(service, visibility, caller, service.id_generator.new())


async def test_caller_without_an_account_is_rejected(service: InMemoryService, ann: User) -> None:
    """A token that outlives its account reads nothing, not even its user's own referrals."""
    gone = Caller("first-party", frozenset({Scope.ACCOUNT}), service.id_generator.new())
    for user_id in (ann.id, gone.user_id):
        with pytest.raises(Unauthenticated):
            await listed(service, ReferralVisibility.OPEN, gone, user_id or ann.id)


async def test_pagination_and_filters(service: InMemoryService, ann: User) -> None:
    """A page has its limit, the next one begins after it, and a filter selects one status."""
    list_referrals = service.get(ListReferrals)
    caller = user_caller(ann)
    first, _ = await list_referrals(caller, ann.id, status=None, after=None, limit=2)
    assert first.next_after == first.items[-1].referral_id
    rest, _ = await list_referrals(caller, ann.id, status=None, after=first.next_after, limit=2)
    emails = [(joined.email or "").partition("@")[0] for joined in first.items + rest.items]
    assert (emails, rest.next_after) == (["dan", "cid", "bob"], None)
    for status, count in ((ReferralStatus.CONFIRMED, 3), (ReferralStatus.PENDING, 0)):
        page, _ = await list_referrals(caller, ann.id, status=status, after=None, limit=10)
        assert len(page.items) == count
