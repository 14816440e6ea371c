"""Lists of referrals, their visibility, and referrers that are set after registration."""

from dataclasses import replace
from uuid import UUID

import pytest

from referral.core.entities.audit import OPERATOR
from referral.core.entities.clients import Caller, Scope
from referral.core.entities.referrals import ReferralListItem, ReferralStatus, ReferralVisibility
from referral.core.entities.users import Referrer, User
from referral.core.errors import (
    AlreadyReferred,
    ClaimWindowClosed,
    InsufficientScope,
    NotFound,
    ReferralCodeUnusable,
    Unauthenticated,
)
from referral.core.use_cases.clients import RemoveClient
from referral.core.use_cases.referrals import ListReferrals, SetReferrer
from tests.core.service import InMemoryService, client_caller, user_caller
from tests.core.test_authorization import begin_session, stored_client
from tests.support.fakes.repositories import FakeReferralRepository


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
    root = await service.create_admin("root@example.com")
    admin = user_caller(root, await begin_session(service, root))
    items, shows_details = await listed(service, visibility, admin, ann.id)
    assert (len(items), shows_details) == (3, True)


@pytest.mark.parametrize("lacking", ["session", "own client"])
async def test_admin_without_the_rights_of_one_is_a_stranger(
    service: InMemoryService, ann: User, lacking: str
) -> None:
    """After the end of the session, and in an application that the admin signed in to."""
    root = await service.create_admin("root@example.com")
    session_id = await begin_session(service, root)
    caller = user_caller(root, session_id)
    if lacking == "session":
        async with service.database.begin() as repositories:
            await repositories.sessions.revoke(session_id)
    else:
        caller = replace(caller, client_id=str(UUID(int=9)))
    with pytest.raises(NotFound):
        await listed(service, ReferralVisibility.OWNER, caller, ann.id)
    _, shows_details = await listed(service, ReferralVisibility.REDACTED, caller, ann.id)
    assert not shows_details


@pytest.mark.parametrize("visibility", ReferralVisibility)
async def test_client_with_the_scope_sees_everything(
    service: InMemoryService, ann: User, visibility: ReferralVisibility
) -> None:
    """`referrals:read` is sufficient under every setting."""
    shop = await stored_client(service, Scope.REFERRALS_READ)
    items, shows_details = await listed(service, visibility, shop, ann.id)
    assert (len(items), shows_details) == (3, True)
    await service.get(RemoveClient)("shop", OPERATOR)
    with pytest.raises(Unauthenticated):
        await listed(service, visibility, shop, ann.id)


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
    root = await service.create_admin("root@example.com")
    admin = user_caller(root, await begin_session(service, root))
    shop = await stored_client(service, Scope.REFERRALS_READ)
    for caller in (user_caller(ann), admin, shop):
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


async def test_page_reads_one_row_more_than_it_shows(
    service: InMemoryService, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page costs the same however long the list is."""
    read_page, limits = FakeReferralRepository.list_page, []

    async def record_limit(
        repository: FakeReferralRepository,
        user_id: UUID,
        *,
        status: ReferralStatus | None,
        after: UUID | None,
        limit: int,
    ) -> list[ReferralListItem]:
        limits.append(limit)
        return await read_page(repository, user_id, status=status, after=after, limit=limit)

    monkeypatch.setattr(FakeReferralRepository, "list_page", record_limit)
    list_referrals = service.get(ListReferrals)
    await list_referrals(user_caller(ann), ann.id, status=None, after=None, limit=20)
    assert limits == [21]


async def test_referrer_can_be_set_within_seven_days(service: InMemoryService, ann: User) -> None:
    """To the last instant; the code's use is counted, and the last use invalidates its look-up."""
    early, late = [await service.create_account(f"{name}@example.com") for name in ("eve", "fay")]
    await service.deactivate_code(ann.id, (await service.show_active_code(ann.id)).id)
    code = await service.create_code(ann, minutes=20_000, max_uses=1)
    service.clock.advance(days=7)
    service.cache.invalidated.clear()
    await service.get(SetReferrer)(early.id, code.text)
    assert service.cache.invalidated == ["ann@example.com"]
    account = await service.show_account(early.id)
    assert account.referrer == Referrer(ann.id, None)
    service.clock.advance(microseconds=1)
    with pytest.raises(ClaimWindowClosed):
        await service.get(SetReferrer)(late.id, code.text)


async def test_referrer_is_set_once(service: InMemoryService, ann: User) -> None:
    """The error says so even if the code could not be used, or the seven days are over."""
    bob_id = (await service.show_account(ann.id)).recent_referrals[-1].id
    eve = await service.create_account("eve@example.com")
    code = await service.create_code(eve)
    for text in (code.text, "NO-CODE"):
        with pytest.raises(AlreadyReferred):
            await service.get(SetReferrer)(bob_id, text)
    service.clock.advance(days=8)
    with pytest.raises(AlreadyReferred):
        await service.get(SetReferrer)(bob_id, code.text)
    assert (await service.show_account(eve.id)).referral_count == 0


async def test_own_code_gives_no_referrer(service: InMemoryService, ann: User) -> None:
    """Nobody refers oneself; an erased user has no referrer to set."""
    code = await service.show_active_code(ann.id)
    with pytest.raises(ReferralCodeUnusable) as raised:
        await service.get(SetReferrer)(ann.id, code.text)
    assert raised.value.field == "referral_code"
    with pytest.raises(Unauthenticated):
        await service.get(SetReferrer)(UUID(int=1), code.text)
