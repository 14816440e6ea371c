"""Joining, and one's own account."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from referral.core.entities.referrals import ReferralStatus, ReferralVisibility
from referral.core.entities.users import Locale, Referrer, Role, User
from referral.core.errors import (
    EmailTaken,
    InvalidRequest,
    ReferralCodeUnusable,
    Unauthenticated,
    WeakPassword,
)
from referral.core.use_cases.accounts import NewAccount
from tests.core.service import COMMON_PASSWORD, PASSWORD, InMemoryService


async def stored(world: InMemoryService, email_key: str) -> User | None:
    """Return the account with an address."""
    async with world.database.read() as records:
        return await records.users.find_by_email(email_key)


async def test_an_account_is_made(world: InMemoryService) -> None:
    """The address is stored as typed and found by its canonical form; the password is hashed."""
    ann = await world.register(NewAccount("Ann@Example.com", PASSWORD, None, Locale.RU))
    assert await stored(world, "ann@example.com") == ann
    assert (ann.email, ann.role, ann.locale) == ("Ann@Example.com", Role.MEMBER, Locale.RU)
    assert (ann.email_verified, ann.notify_on_referral) == (False, True)
    assert ann.created_at == world.clock.now()
    assert PASSWORD not in ann.password_hash


async def test_an_address_has_one_account(world: InMemoryService) -> None:
    """Another spelling of an address that is taken is refused, and changes nothing."""
    ann = await world.create_account("ann@example.com")
    with pytest.raises(EmailTaken):
        await world.create_account("ANN@example.com", password="another one entirely")  # noqa: S106
    assert await stored(world, "ann@example.com") == ann


async def test_what_is_no_address_is_refused(world: InMemoryService) -> None:
    """An account needs an e-mail address."""
    with pytest.raises(InvalidRequest):
        await world.create_account("ann")


@pytest.mark.parametrize(
    "password", ["short", COMMON_PASSWORD, COMMON_PASSWORD.upper(), "Charlotte", "x" * 1025]
)
async def test_a_weak_password_makes_no_account(world: InMemoryService, password: str) -> None:
    """The rules for passwords hold at the door."""
    with pytest.raises(WeakPassword):
        await world.create_account("charlotte@example.com", password=password)
    assert await stored(world, "charlotte@example.com") is None


async def test_a_password_counts_in_its_composed_form(world: InMemoryService) -> None:
    """Eight code points that make up four letters are four characters."""
    with pytest.raises(WeakPassword):
        await world.create_account("ann@example.com", password="e\u0301" * 4)


async def test_joining_with_a_code_credits_its_owner(world: InMemoryService) -> None:
    """The referral holds the code's own wording, however it was typed, and the use is counted."""
    ann = await world.create_account("ann@example.com")
    code = await world.create_code(ann, text="Ann-2026")
    world.clock.advance(minutes=1)
    bob = await world.create_account("Bob@example.com", referral_code="aNN-2026")
    account = await world.show_account(ann.id)
    (joined,) = account.recent_referrals
    assert (joined.id, joined.email, joined.code) == (bob.id, "Bob@example.com", "Ann-2026")
    assert (joined.status, joined.joined_at) == (ReferralStatus.CONFIRMED, world.clock.now())
    assert account.referral_count == 1
    assert (await world.show_code(ann.id, code.id)).uses == 1
    assert (await world.show_account(bob.id)).referrer == Referrer(ann.id, None)


@pytest.mark.parametrize(
    ("visibility", "email"),
    [
        (ReferralVisibility.OPEN, "Ann@example.com"),
        (ReferralVisibility.REDACTED, None),
        (ReferralVisibility.OWNER, None),
    ],
)
async def test_a_code_tells_its_owners_address_only_where_all_is_open(
    world: InMemoryService, visibility: ReferralVisibility, email: str | None
) -> None:
    """A code that was posted in public is no way to learn who posted it."""
    ann = await world.create_account("Ann@example.com")
    bob = await world.create_account(
        "bob@example.com", referral_code=(await world.create_code(ann)).text
    )
    show = replace(world.show_account, visibility=visibility)
    assert (await show(bob.id)).referrer == Referrer(ann.id, email)


async def make_unknown(_: InMemoryService, __: User) -> str:
    """Name a code that was never given out."""
    return "NEVER-MADE"


async def make_impossible(_: InMemoryService, __: User) -> str:
    """Name what no code can be called."""
    return "no code\0"


async def make_expired(world: InMemoryService, owner: User) -> str:
    """Make a code and let its time run out, to the instant."""
    code = await world.create_code(owner)
    world.clock.advance(minutes=60)
    return code.text


async def make_exhausted(world: InMemoryService, owner: User) -> str:
    """Make a code for one and let someone use it."""
    code = await world.create_code(owner, max_uses=1)
    await world.create_account("first@example.com", referral_code=code.text)
    return code.text


async def make_inactive(world: InMemoryService, owner: User) -> str:
    """Make a code for later."""
    return (await world.create_code(owner, activate=False)).text


async def make_deactivated(world: InMemoryService, owner: User) -> str:
    """Make a code and take it out of force."""
    code = await world.create_code(owner)
    await world.deactivate_code(owner.id, code.id)
    return code.text


async def make_replaced(world: InMemoryService, owner: User) -> str:
    """Make a code and then another in its place."""
    code = await world.create_code(owner)
    await world.create_code(owner, replace=True)
    return code.text


async def make_deleted(world: InMemoryService, owner: User) -> str:
    """Make a code and delete it."""
    code = await world.create_code(owner)
    await world.delete_code(owner.id, code.id)
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
async def test_an_unusable_code_makes_no_account(
    world: InMemoryService, make: MakeUnusable
) -> None:
    """Whatever is wrong with the code, the refusal looks the same and nothing is stored."""
    ann = await world.create_account("ann@example.com")
    text = await make(world, ann)
    before = (await world.show_account(ann.id)).referral_count
    with pytest.raises(ReferralCodeUnusable) as refused:
        await world.create_account("bob@example.com", referral_code=text)
    assert (refused.value.detail, refused.value.field) == (
        ReferralCodeUnusable.default_detail,
        "referral_code",
    )
    assert await stored(world, "bob@example.com") is None
    account = await world.show_account(ann.id)
    assert account.referral_count == before == len(account.recent_referrals)


async def test_a_taken_address_uses_up_no_code(world: InMemoryService) -> None:
    """A registration that is refused for its address leaves the code as it was."""
    ann = await world.create_account("ann@example.com")
    code = await world.create_code(ann, max_uses=1)
    with pytest.raises(EmailTaken):
        await world.create_account("ann@example.com", referral_code=code.text)
    assert await world.show_code(ann.id, code.id) == code


async def test_the_last_use_of_a_code_goes_to_one(world: InMemoryService) -> None:
    """Of ten who join at once with one use left, one gets in."""
    ann = await world.create_account("ann@example.com")
    code = await world.create_code(ann, max_uses=1)
    joining = [
        world.create_account(f"u{n}@example.com", referral_code=code.text) for n in range(10)
    ]
    answers = await asyncio.gather(*joining, return_exceptions=True)
    assert sum(isinstance(answer, User) for answer in answers) == 1
    assert sum(isinstance(answer, ReferralCodeUnusable) for answer in answers) == 9
    assert (await world.show_account(ann.id)).referral_count == 1


async def test_an_account_shows_the_newest_ten(world: InMemoryService) -> None:
    """All are counted, the newest ten are listed, the newest first."""
    ann = await world.create_account("ann@example.com")
    code = await world.create_code(ann)
    joined = [
        await world.create_account(f"u{n}@example.com", referral_code=code.text) for n in range(12)
    ]
    account = await world.show_account(ann.id)
    assert account.referral_count == 12
    newest = [user.id for user in reversed(joined)][:10]
    assert [each.id for each in account.recent_referrals] == newest


async def test_an_account_shows_the_code_in_force(world: InMemoryService) -> None:
    """The active code is there until its end, by the clock."""
    ann = await world.create_account("ann@example.com")
    assert (await world.show_account(ann.id)).active_code is None
    code = await world.create_code(ann)
    account = await world.show_account(ann.id)
    assert (account.user, account.active_code, account.referrer) == (ann, code, None)
    assert account.as_of == world.clock.now()
    world.clock.advance(minutes=60)
    assert (await world.show_account(ann.id)).active_code is None


async def test_an_account_that_is_gone(world: InMemoryService) -> None:
    """A token outlives its account by some minutes and then shows nothing."""
    with pytest.raises(Unauthenticated):
        await world.show_account(world.id_generator.new())
