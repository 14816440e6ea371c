"""Decisions of admins on referrals, and referrals by hand."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from referral.core.entities.audit import OPERATOR
from referral.core.entities.clients import Caller, Scope
from referral.core.entities.codes import Code, CodeStatus
from referral.core.entities.jobs import ReferralMailJob
from referral.core.entities.referrals import Referral, ReferralStatus
from referral.core.entities.searches import CodeFilter, ReferralFilter
from referral.core.entities.users import Role, User
from referral.core.errors import (
    AlreadyReferred,
    InsufficientScope,
    InvalidRequest,
    NotFound,
    ReferralDecided,
)
from referral.core.use_cases.code_administration import DeactivateAnyCode, ListAllCodes
from referral.core.use_cases.referral_review import (
    EXPORT_BATCH_SIZE,
    DecideReferral,
    ExportReferrals,
    ListAllReferrals,
    SetReferrerByHand,
)
from tests.core.service import CLIENT_IP, PASSWORD, InMemoryService

CONFIRMED, PENDING, REJECTED = (
    ReferralStatus.CONFIRMED,
    ReferralStatus.PENDING,
    ReferralStatus.REJECTED,
)
REASON = "Checked by phone."
BOB = "bob@example.com"
SCOPE = Scope.REFERRALS_READ


@pytest.fixture
def service() -> InMemoryService:
    """A service that requires the confirmation of addresses."""
    return InMemoryService(email_verification="on")


@pytest.fixture
async def ann(service: InMemoryService) -> User:
    """The referrer."""
    return await service.create_account("ann@example.com")


@pytest.fixture
async def code(service: InMemoryService, ann: User) -> Code:
    """Ann's code, for two users."""
    return await service.create_code(ann, text="ANN", max_uses=2)


@pytest.fixture
async def bob(service: InMemoryService, code: Code) -> User:
    """A user who joined with the code, with an unconfirmed address."""
    bob = await service.create_account(BOB, referral_code=code.text)
    await service.events()
    return bob


async def referral_of(service: InMemoryService, user: User) -> Referral:
    """Return a user's referral."""
    async with service.database.read() as repositories:
        referral = await repositories.referrals.find_by_referred(user.id)
    assert referral is not None
    return referral


async def decide(service: InMemoryService, user: User, status: ReferralStatus) -> None:
    """Decide on a user's referral."""
    referral = await referral_of(service, user)
    record = await service.get(DecideReferral)(referral.id, status, OPERATOR, REASON)
    assert (record.status, record.reason, record.held) == (status, REASON, False)


async def confirm_email(service: InMemoryService, user: User) -> None:
    """Confirm a user's address by mail."""
    token = await service.create_mail_token(user)
    await service.confirm_email(token, caller_id=user.id, password=None, client_ip=CLIENT_IP)


async def uses(service: InMemoryService, code: Code) -> int:
    """Return the uses of a code."""
    async with service.database.read() as repositories:
        return repositories.tables.codes[code.id].uses


async def told(service: InMemoryService) -> list[str]:
    """Return the types of the new events."""
    return [event.type for event in await service.events()]


@pytest.mark.parametrize(
    ("first", "status", "uses_after", "events"),
    [
        (PENDING, CONFIRMED, 1, ["referral.confirmed"]),
        (PENDING, REJECTED, 0, ["referral.rejected"]),
        (CONFIRMED, CONFIRMED, 1, []),
        (CONFIRMED, REJECTED, 0, ["referral.rejected"]),
        (REJECTED, CONFIRMED, 1, ["referral.confirmed"]),
        (REJECTED, REJECTED, 0, []),
    ],
)
async def test_admin_decides_on_a_referral_of_any_status(
    service: InMemoryService,
    code: Code,
    bob: User,
    first: ReferralStatus,
    status: ReferralStatus,
    uses_after: int,
    events: list[str],
) -> None:
    """The code's uses follow, and so do the events; a second decision is refused."""
    if first is CONFIRMED:
        await confirm_email(service, bob)
    if first is REJECTED:
        service.clock.advance(days=8)
        await service.expire_unconfirmed()
    await service.events()
    await decide(service, bob, status)
    assert await uses(service, code) == uses_after
    stored = await service.events()
    assert [event.type for event in stored] == events
    assert all(event.data["reason"] == REASON for event in stored)
    assert (await referral_of(service, bob)).decided_at == service.clock.now()
    for other in (CONFIRMED, REJECTED):
        with pytest.raises(ReferralDecided):
            await decide(service, bob, other)
    assert await uses(service, code) == uses_after


@pytest.mark.parametrize(("first", "mails"), [(PENDING, 1), (CONFIRMED, 1), (REJECTED, 1)])
async def test_referrer_is_notified_once(
    service: InMemoryService, bob: User, first: ReferralStatus, mails: int
) -> None:
    """When the referral is confirmed by mail, or else by the admin."""
    if first is CONFIRMED:
        await confirm_email(service, bob)
    if first is REJECTED:
        service.clock.advance(days=8)
        await service.expire_unconfirmed()
    await decide(service, bob, CONFIRMED)
    queued = [job for job in await service.jobs() if isinstance(job, ReferralMailJob)]
    assert len(queued) == mails


@pytest.mark.parametrize("status", [CONFIRMED, REJECTED])
async def test_decision_stands_when_the_address_is_confirmed(
    service: InMemoryService, code: Code, bob: User, status: ReferralStatus
) -> None:
    """The confirmation changes nothing of the referral, and neither does its deadline."""
    await decide(service, bob, status)
    before = await referral_of(service, bob), await uses(service, code)
    await confirm_email(service, bob)
    service.clock.advance(days=8)
    await service.expire_unconfirmed()
    assert (await referral_of(service, bob), await uses(service, code)) == before


async def hold(service: InMemoryService, user: User) -> None:
    """Hold a user's pending referral."""
    async with service.database.begin() as repositories:
        referral = await repositories.referrals.find_by_referred(user.id)
        assert referral is not None
        repositories.tables.referrals[referral.id] = replace(referral, held=True)


async def test_held_referral_waits_for_an_admin(service: InMemoryService, bob: User) -> None:
    """Neither the confirmed address nor the deadline decides; afterwards it is not held."""
    await hold(service, bob)
    await confirm_email(service, bob)
    service.clock.advance(days=8)
    await service.expire_unconfirmed()
    held = await referral_of(service, bob)
    assert (held.status, held.held) == (PENDING, True)
    await decide(service, bob, CONFIRMED)
    assert (await referral_of(service, bob)).status is CONFIRMED


async def test_confirmed_rejection_counts_beyond_the_maximum(
    service: InMemoryService, ann: User
) -> None:
    """The use that the code got back was used meanwhile; it was exhausted already."""
    code = await service.create_code(ann, text="ANN-2", max_uses=1, minutes=60 * 24 * 30)
    bob = await service.create_account(BOB, referral_code=code.text)
    service.clock.advance(days=8)
    await service.expire_unconfirmed()
    await service.create_account("cleo@example.com", referral_code=code.text)
    await service.events()
    await decide(service, bob, CONFIRMED)
    assert await uses(service, code) == 2
    assert await told(service) == ["referral.confirmed"]


async def test_confirmation_that_uses_the_code_up_is_an_event(
    service: InMemoryService, ann: User
) -> None:
    """The code was active until then."""
    code = await service.create_code(ann, text="ANN-2", max_uses=1, minutes=60 * 24 * 30)
    bob = await service.create_account(BOB, referral_code=code.text)
    service.clock.advance(days=8)
    await service.expire_unconfirmed()
    await service.events()
    await decide(service, bob, CONFIRMED)
    assert await told(service) == ["referral.confirmed", "code.exhausted"]


async def test_rejection_gives_the_code_its_use_back(service: InMemoryService, ann: User) -> None:
    """A code that was used up is active again, and found."""
    code = await service.create_code(ann, text="ANN-2", max_uses=1)
    bob = await service.create_account(BOB, referral_code=code.text)
    assert await service.check_code("ANN-2") is None
    service.cache.invalidated.clear()
    await decide(service, bob, REJECTED)
    assert await service.check_code("ANN-2") is not None
    assert service.cache.invalidated == [ann.email_key]


async def test_erased_users_referral_is_not_confirmed(
    service: InMemoryService, code: Code, bob: User
) -> None:
    """The erasure rejected it, and the address may be referred again."""
    await service.erase_account(bob.id, PASSWORD)
    with pytest.raises(NotFound, match="erased"):
        await decide(service, bob, CONFIRMED)
    assert await uses(service, code) == 0
    await decide(service, bob, REJECTED)


async def test_erased_users_confirmed_referral_can_be_rejected(
    service: InMemoryService, code: Code, bob: User
) -> None:
    """Otherwise a fraudulent user would keep the credit by an erasure."""
    await confirm_email(service, bob)
    await service.erase_account(bob.id, PASSWORD)
    await decide(service, bob, REJECTED)
    assert await uses(service, code) == 0


async def test_unknown_referral_is_not_found(service: InMemoryService) -> None:
    """The reason is validated before."""
    use = service.get(DecideReferral)
    with pytest.raises(NotFound):
        await use(UUID(int=1), REJECTED, OPERATOR, REASON)
    with pytest.raises(InvalidRequest):
        await use(UUID(int=1), REJECTED, OPERATOR, "see bob@example.com")


async def test_referral_by_hand_has_no_code(service: InMemoryService, ann: User) -> None:
    """It is pending until the address is confirmed, and counts."""
    service.clock.advance(days=20)
    cleo = await service.create_account("cleo@example.com")
    await service.events()
    await service.get(SetReferrerByHand)(cleo.id, ann.id, OPERATOR, REASON)
    referral = await referral_of(service, cleo)
    assert (referral.status, referral.code_id, referral.code) == (PENDING, None, None)
    assert (referral.reason, referral.decided_at) == (REASON, None)
    account = await service.show_account(ann.id)
    assert account.referral_count == 1
    [event] = await service.events()
    assert (event.type, event.data["reason"]) == ("referral.created", REASON)
    await confirm_email(service, cleo)
    assert await told(service) == ["user.verified", "referral.confirmed"]
    await decide(service, cleo, REJECTED)
    assert (await service.show_account(ann.id)).referral_count == 0


async def test_referral_by_hand_is_confirmed_where_no_confirmation_is_required(
    service: InMemoryService, ann: User
) -> None:
    """At once, with a mail to the referrer."""
    service.configure(email_verification="off")
    cleo = await service.create_account("cleo@example.com")
    await service.events()
    await service.get(SetReferrerByHand)(cleo.id, ann.id, OPERATOR, REASON)
    assert (await referral_of(service, cleo)).status is CONFIRMED
    assert await told(service) == ["referral.created", "referral.confirmed"]
    assert any(isinstance(job, ReferralMailJob) for job in await service.jobs())


async def test_referrer_is_set_once(service: InMemoryService, ann: User, bob: User) -> None:
    """And to another user who exists."""
    use = service.get(SetReferrerByHand)
    cleo = await service.create_account("cleo@example.com")
    with pytest.raises(AlreadyReferred) as raised:
        await use(bob.id, cleo.id, OPERATOR, REASON)
    assert "The user has" in raised.value.detail
    for referrer_id in (UUID(int=1), cleo.id):
        with pytest.raises(InvalidRequest) as invalid:
            await use(cleo.id, referrer_id, OPERATOR, REASON)
        assert invalid.value.field == "referrer_id"
    with pytest.raises(NotFound):
        await use(UUID(int=1), ann.id, OPERATOR, REASON)
    with pytest.raises(InvalidRequest):
        await use(cleo.id, ann.id, OPERATOR, "@")


@pytest.mark.usefixtures("bob")
@pytest.mark.parametrize("text", ["a code", "x", "\0\0\0"])
async def test_text_that_no_code_can_have_finds_nothing(
    service: InMemoryService, text: str
) -> None:
    """Without a query."""
    codes, _ = await service.get(ListAllCodes)(CodeFilter(code=text), after=None, limit=5)
    found = await service.get(ListAllReferrals)(ReferralFilter(code=text), after=None, limit=5)
    assert (codes.items, found.items) == ([], [])


async def test_admin_deactivates_a_code(service: InMemoryService, ann: User, code: Code) -> None:
    """Also of a blocked user; a second time changes nothing. It is not found any more."""
    await service.events()
    await service.block_account(ann.email)
    await service.events()
    use = service.get(DeactivateAnyCode)
    for events in (["code.deactivated"], []):
        inactive, now = await use(code.id, OPERATOR, REASON)
        assert inactive.status(now) is CodeStatus.INACTIVE
        assert await told(service) == events
    await service.block_account(ann.email, undo=True)
    assert await service.check_code("ANN") is None
    await service.delete_code(ann.id, code.id)
    for code_id in (code.id, UUID(int=1)):
        with pytest.raises(NotFound):
            await use(code_id, OPERATOR, REASON)


@pytest.fixture
async def many(service: InMemoryService, bob: User) -> list[Referral]:
    """Referrals for two full batches of an export and one more, and Bob's, newest first."""
    referral = await referral_of(service, bob)
    copies = [
        replace(
            referral,
            id=service.id_generator.new(),
            joined_at=referral.joined_at - timedelta(seconds=1 + number),
            status=CONFIRMED,
        )
        for number in range(2 * EXPORT_BATCH_SIZE)
    ]
    async with service.database.begin() as repositories:
        for number, copy in enumerate(copies):
            user = replace(bob, id=UUID(int=number + 1), email_key=f"{number}@example.com")
            await repositories.users.add(user)
            await repositories.referrals.add(replace(copy, referred_id=user.id))
    return [referral, *copies]


async def test_export_has_all_referrals_in_batches(
    service: InMemoryService, many: list[Referral]
) -> None:
    """In the order of the list, each once; filters apply."""
    admin = await admin_caller(service)
    export = service.get(ExportReferrals)
    batches = [batch async for batch in export(ReferralFilter(), admin, SCOPE)]
    assert [len(batch) for batch in batches] == [EXPORT_BATCH_SIZE] * 2 + [1]
    listed = [record.referral_id for batch in batches for record in batch]
    assert listed == [each.id for each in many]
    pending = [batch async for batch in export(ReferralFilter(status=PENDING), admin, SCOPE)]
    assert [[record.status for record in batch] for batch in pending] == [[PENDING]]
    nothing = [batch async for batch in export(ReferralFilter(code="?"), admin, SCOPE)]
    assert nothing == [[]]


async def test_export_ends_with_the_rights_of_the_admin(
    service: InMemoryService, many: list[Referral]
) -> None:
    """An admin who loses the role gets the batch that was read, and no other."""
    admin = await admin_caller(service)
    batches = service.get(ExportReferrals)(ReferralFilter(), admin, SCOPE)
    assert len(await anext(batches)) == EXPORT_BATCH_SIZE < len(many)
    assert admin.user_id is not None
    async with service.database.begin() as repositories:
        user = await repositories.users.lock(admin.user_id)
        assert user is not None
        await repositories.users.save(replace(user, role=Role.MEMBER))
    with pytest.raises(InsufficientScope):
        await anext(batches)


async def admin_caller(service: InMemoryService) -> Caller:
    """Return the caller of an admin who is logged in."""
    root = await service.create_admin("root@example.com")
    tokens = await service.log_in(root.email, PASSWORD, CLIENT_IP)
    return service.access_tokens.verify(tokens.access_token).caller
