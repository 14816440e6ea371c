"""Registration, and the view of the own account."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from referral.core.entities.referrals import ReferralStatus, ReferralVisibility
from referral.core.entities.users import Locale, Referrer, Role, User
from referral.core.errors import (
    EmailTaken,
    InvalidRequest,
    NotFound,
    ReferralCodeUnusable,
    Unauthenticated,
    WeakPassword,
)
from referral.core.use_cases.accounts import AccountUpdate, NewAccount, UpdateAccount
from tests.core.service import COMMON_PASSWORD, PASSWORD, InMemoryService


async def find_stored(service: InMemoryService, email_key: str) -> User | None:
    """Return the stored account with an e-mail address."""
    async with service.database.read() as repositories:
        return await repositories.users.find_by_email(email_key)


async def test_registration_creates_an_account(service: InMemoryService) -> None:
    """The e-mail address is stored as typed and found by its canonical form."""
    ann = await service.register(NewAccount("Ann@Example.com", PASSWORD, None, Locale.RU))
    assert await find_stored(service, "ann@example.com") == ann
    assert (ann.email, ann.role, ann.locale) == ("Ann@Example.com", Role.MEMBER, Locale.RU)
    assert (ann.email_verified, ann.notify_on_referral) == (False, True)
    assert ann.created_at == service.clock.now()
    assert PASSWORD not in ann.password_hash


async def test_registration_rejects_a_taken_email(service: InMemoryService) -> None:
    """Another spelling of a taken address is rejected, and the first account stays unchanged."""
    ann = await service.create_account("ann@example.com")
    with pytest.raises(EmailTaken):
        await service.create_account("ANN@example.com", password="another one entirely")  # noqa: S106
    assert await find_stored(service, "ann@example.com") == ann


async def test_registration_rejects_an_invalid_email(service: InMemoryService) -> None:
    """An account needs a valid e-mail address."""
    with pytest.raises(InvalidRequest):
        await service.create_account("ann")


@pytest.mark.parametrize(
    "password", ["short", COMMON_PASSWORD, COMMON_PASSWORD.upper(), "Charlotte", "x" * 1025]
)
async def test_registration_rejects_a_weak_password(
    service: InMemoryService, password: str
) -> None:
    """A password that breaks the password rules creates no account."""
    with pytest.raises(WeakPassword):
        await service.create_account("charlotte@example.com", password=password)
    assert await find_stored(service, "charlotte@example.com") is None


async def test_password_length_is_counted_after_normalization(service: InMemoryService) -> None:
    """Eight code points that compose four letters count as four characters."""
    with pytest.raises(WeakPassword):
        await service.create_account("ann@example.com", password="e\u0301" * 4)


async def test_registration_with_a_code_credits_its_owner(service: InMemoryService) -> None:
    """The referral stores the code's original text, and the use is counted."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann, text="Ann-2026")
    service.clock.advance(minutes=1)
    bob = await service.create_account("Bob@example.com", referral_code="aNN-2026")
    account = await service.show_account(ann.id)
    (joined,) = account.recent_referrals
    assert (joined.id, joined.email, joined.code) == (bob.id, "Bob@example.com", "Ann-2026")
    assert (joined.status, joined.joined_at) == (ReferralStatus.CONFIRMED, service.clock.now())
    assert account.referral_count == 1
    assert (await service.show_code(ann.id, code.id)).uses == 1
    assert (await service.show_account(bob.id)).referrer == Referrer(ann.id, None)


@pytest.mark.parametrize(
    ("visibility", "email"),
    [
        (ReferralVisibility.OPEN, "Ann@example.com"),
        (ReferralVisibility.REDACTED, None),
        (ReferralVisibility.OWNER, None),
    ],
)
async def test_referrer_email_is_shown_only_with_open_visibility(
    service: InMemoryService, visibility: ReferralVisibility, email: str | None
) -> None:
    """A publicly posted code does not reveal its owner's e-mail address."""
    ann = await service.create_account("Ann@example.com")
    bob = await service.create_account(
        "bob@example.com", referral_code=(await service.create_code(ann)).text
    )
    service.configure(referrals_visibility=visibility)
    assert (await service.show_account(bob.id)).referrer == Referrer(ann.id, email)


async def make_unknown(_: InMemoryService, __: User) -> str:
    """Return a code that does not exist."""
    return "NEVER-MADE"


async def make_impossible(_: InMemoryService, __: User) -> str:
    """Return a malformed code."""
    return "no code\0"


async def make_expired(service: InMemoryService, owner: User) -> str:
    """Issue a code, and advance the clock to the instant of its expiry."""
    code = await service.create_code(owner)
    service.clock.advance(minutes=60)
    return code.text


async def make_exhausted(service: InMemoryService, owner: User) -> str:
    """Issue a code for one use, and use it."""
    code = await service.create_code(owner, max_uses=1)
    await service.create_account("first@example.com", referral_code=code.text)
    return code.text


async def make_inactive(service: InMemoryService, owner: User) -> str:
    """Issue an inactive code."""
    return (await service.create_code(owner, activate=False)).text


async def make_deactivated(service: InMemoryService, owner: User) -> str:
    """Issue a code and deactivate it."""
    code = await service.create_code(owner)
    await service.deactivate_code(owner.id, code.id)
    return code.text


async def make_replaced(service: InMemoryService, owner: User) -> str:
    """Issue a code and replace it."""
    code = await service.create_code(owner)
    await service.create_code(owner, replace=True)
    return code.text


async def make_deleted(service: InMemoryService, owner: User) -> str:
    """Issue a code and delete it."""
    code = await service.create_code(owner)
    await service.delete_code(owner.id, code.id)
    return code.text


MakeUnusable = Callable[[InMemoryService, User], Awaitable[str]]
UNUSABLE: list[MakeUnusable] = [
    make_unknown,
    make_impossible,
    make_expired,
    make_exhausted,
    make_inactive,
    make_deactivated,
    make_replaced,
    make_deleted,
]


@pytest.mark.parametrize("make", UNUSABLE, ids=lambda make: make.__name__)
async def test_registration_with_an_unusable_code_is_rejected(
    service: InMemoryService, make: MakeUnusable
) -> None:
    """Every kind of unusable code gives the same error, and nothing is stored."""
    ann = await service.create_account("ann@example.com")
    text = await make(service, ann)
    before = (await service.show_account(ann.id)).referral_count
    with pytest.raises(ReferralCodeUnusable) as raised:
        await service.create_account("bob@example.com", referral_code=text)
    assert (raised.value.detail, raised.value.field) == (
        ReferralCodeUnusable.default_detail,
        "referral_code",
    )
    assert await find_stored(service, "bob@example.com") is None
    account = await service.show_account(ann.id)
    assert account.referral_count == before == len(account.recent_referrals)


async def test_rejected_registration_counts_no_use(service: InMemoryService) -> None:
    """A registration that is rejected for its e-mail address leaves the code unchanged."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann, max_uses=1)
    with pytest.raises(EmailTaken):
        await service.create_account("ann@example.com", referral_code=code.text)
    assert await service.show_code(ann.id, code.id) == code


async def test_concurrent_registrations_share_the_last_use(service: InMemoryService) -> None:
    """Of ten concurrent registrations with a code that has one use left, one succeeds."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann, max_uses=1)
    registrations = [
        service.create_account(f"u{n}@example.com", referral_code=code.text) for n in range(10)
    ]
    results = await asyncio.gather(*registrations, return_exceptions=True)
    assert sum(isinstance(result, User) for result in results) == 1
    assert sum(isinstance(result, ReferralCodeUnusable) for result in results) == 9
    assert (await service.show_account(ann.id)).referral_count == 1


async def test_account_lists_the_ten_newest_referrals(service: InMemoryService) -> None:
    """All referrals are counted; the ten newest are listed, newest first."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann)
    joined = [
        await service.create_account(f"u{n}@example.com", referral_code=code.text)
        for n in range(12)
    ]
    account = await service.show_account(ann.id)
    assert account.referral_count == 12
    newest = [user.id for user in reversed(joined)][:10]
    assert [each.id for each in account.recent_referrals] == newest


async def test_account_shows_the_active_code(service: InMemoryService) -> None:
    """The active code is shown until it expires."""
    ann = await service.create_account("ann@example.com")
    assert (await service.show_account(ann.id)).active_code is None
    code = await service.create_code(ann)
    account = await service.show_account(ann.id)
    assert (account.user, account.active_code, account.referrer) == (ann, code, None)
    assert account.as_of == service.clock.now()
    service.clock.advance(minutes=60)
    assert (await service.show_account(ann.id)).active_code is None


async def test_deleted_account_is_unauthenticated(service: InMemoryService) -> None:
    """A token that outlives its account gets `Unauthenticated`."""
    with pytest.raises(Unauthenticated):
        await service.show_account(service.id_generator.new())


@pytest.mark.parametrize(
    ("update", "locale", "notified"),
    [
        (AccountUpdate(None, None), Locale.RU, True),
        (AccountUpdate(Locale.EN, None), Locale.EN, True),
        (AccountUpdate(None, notify_on_referral=False), Locale.RU, False),
        (AccountUpdate(Locale.EN, notify_on_referral=False), Locale.EN, False),
    ],
)
async def test_update_changes_the_named_fields(
    service: InMemoryService, update: AccountUpdate, locale: Locale, *, notified: bool
) -> None:
    """Other fields and other accounts stay unchanged."""
    ann = await service.create_account("ann@example.com", locale=Locale.RU)
    await service.get(UpdateAccount)(ann.id, update)
    assert await find_stored(service, ann.email_key) == replace(
        ann, locale=locale, notify_on_referral=notified
    )


async def test_only_an_existing_account_is_blocked(service: InMemoryService) -> None:
    """The error is for the operator, who may have mistyped the address."""
    with pytest.raises(NotFound) as raised:
        await service.block_account("nobody@example.com")
    assert raised.value.detail == "No user has this e-mail address or id."
    ann = await service.create_account("ann@example.com")
    blocked = await service.block_account("ANN@example.com")
    assert blocked == replace(ann, blocked_at=service.clock.now())
    assert await find_stored(service, ann.email_key) == blocked


async def test_admins_address_is_confirmed_by_the_operator(service: InMemoryService) -> None:
    """An admin has no confirmation deadline; a member has 30 days where it is required."""
    service.configure(email_verification="on")
    admin = await service.register(NewAccount("root@example.com", PASSWORD, role=Role.ADMIN))
    member = await service.create_account("ann@example.com")
    assert (admin.role, admin.email_verified, admin.confirm_by) == (Role.ADMIN, True, None)
    deadline = service.clock.now() + timedelta(days=30)
    assert (member.email_verified, member.confirm_by) == (False, deadline)
