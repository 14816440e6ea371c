"""Passwords on their way in: how long they may be, and what they cost."""

import asyncio
import unicodedata
from collections.abc import Awaitable, Callable

import pytest

from referral.core.entities.email_links import OneTimeToken, Purpose
from referral.core.entities.passwords import MAX_PASSWORD_BYTES, normal_password
from referral.core.entities.users import Locale, User
from referral.core.errors import (
    InvalidGrant,
    TokenUnusable,
    Unavailable,
    WeakPassword,
    WrongPassword,
)
from referral.core.policies.reauthentication import Reauthenticate
from referral.core.use_cases.accounts import NewAccount
from referral.core.use_cases.email_links import CLAIM, ResetPassword
from referral.core.use_cases.passwords import ChangePassword
from tests.core.world import ADDRESS, COMMON, LIFETIME, PASSWORD, World
from tests.support.fakes import FakeTokenGenerator

Use = Callable[[World, User, str], Awaitable[object]]

LINK = "the token of a reset mail"
HOSTILE = "\u0315" * 15_900 + "\u0327" * 15_900
"""Marks in the wrong order, which the normalisation sorts one by one: 63 KB, seconds."""


@pytest.fixture
def normalised(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each normalisation was given."""
    lengths: list[int] = []
    normalize = unicodedata.normalize

    def note(form: str, text: str) -> str:
        lengths.append(len(text.encode(errors="surrogatepass")))
        return normalize(form, text)  # type: ignore[arg-type]

    monkeypatch.setattr(unicodedata, "normalize", note)
    return lengths


@pytest.mark.parametrize("password", [HOSTILE, "x" * 1025, "\u0436" * 513, "\ud800" * 342])
def test_a_long_password_is_refused_before_it_is_normalised(
    normalised: list[int], password: str
) -> None:
    """More bytes than a password may have are never handed on."""
    with pytest.raises(WeakPassword, match="at most 1024 bytes"):
        normal_password(password)
    assert normalised == []


@pytest.mark.parametrize("password", ["x" * 1024, "\u0436" * 512, "\U0001f40e" * 256])
def test_the_longest_password_is_normalised(normalised: list[int], password: str) -> None:
    """Up to 1,024 bytes, whatever the characters."""
    assert normal_password(password) == password
    assert normalised == [MAX_PASSWORD_BYTES]


async def register(world: World, _: User, password: str) -> None:
    """Join with a password."""
    await world.register(NewAccount("bob@example.com", password, None, Locale.EN))


async def log_in(world: World, ann: User, password: str) -> None:
    """Log in with a password."""
    await world.log_in(ann.email, password, ADDRESS)


def change_of(world: World) -> ChangePassword:
    """Wire the change of a password."""
    prove = Reauthenticate(world.database, world.passwords)
    return ChangePassword({COMMON}, world.database, world.passwords, prove)


async def prove_by(world: World, ann: User, password: str) -> None:
    """Send it as the current password."""
    await change_of(world)(ann.id, None, password, "staple battery horse")


async def change_to(world: World, ann: User, password: str) -> None:
    """Send it as the new password."""
    await change_of(world)(ann.id, None, PASSWORD, password)


async def erase(world: World, ann: User, password: str) -> None:
    """Leave with a password."""
    await world.erase_account(ann.id, password)


async def mail_link(world: World, ann: User) -> ResetPassword:
    """Store what a reset mail's link proves, and wire its use."""
    digest, until = FakeTokenGenerator().digest(LINK), world.clock.now() + LIFETIME
    async with world.database.begin() as records:
        await records.one_time_tokens.add(OneTimeToken(digest, ann.id, Purpose.RESET, until))
    return world.reset_password


async def reset(world: World, ann: User, password: str) -> None:
    """Set it by a link."""
    await (await mail_link(world, ann))(LINK, password)


@pytest.mark.parametrize(
    ("use", "refusal"),
    [
        (register, WeakPassword),
        (log_in, InvalidGrant),
        (prove_by, WrongPassword),
        (change_to, WeakPassword),
        (erase, WrongPassword),
        (reset, WeakPassword),
    ],
)
async def test_whoever_takes_passwords_takes_no_long_ones(
    world: World, normalised: list[int], use: Use, refusal: type[Exception]
) -> None:
    """Nothing longer than a password may be is normalised or hashed, wherever it comes in."""
    ann = await world.join("ann@example.com")
    hashed = world.passwords.hashed
    with pytest.raises(refusal):
        await use(world, ann, HOSTILE)
    assert max(normalised) <= MAX_PASSWORD_BYTES
    assert world.passwords.hashed == hashed


async def test_a_link_that_many_use_at_once_costs_one_hash(world: World) -> None:
    """Of 300 resets one sets the password, and the others find the link unusable, unhashed."""
    ann = await world.join("ann@example.com")
    use = await mail_link(world, ann)
    hashed = world.passwords.hashed
    resets = [use(LINK, f"staple battery {number}") for number in range(300)]
    answers = await asyncio.gather(*resets, return_exceptions=True)
    assert answers.count(None) == 1
    assert sum(isinstance(answer, TokenUnusable) for answer in answers) == 299
    assert world.passwords.hashed == hashed + 1


@pytest.mark.parametrize("fault", [Unavailable(), MemoryError(), asyncio.CancelledError()])
async def test_a_link_is_good_again_when_no_hash_was_made(
    world: World, fault: BaseException
) -> None:
    """A full queue, a bug and a caller who leaves use no link up."""
    ann = await world.join("ann@example.com")
    use = await mail_link(world, ann)
    world.passwords.fault = fault
    with pytest.raises(type(fault)):
        await use(LINK, "staple battery horse")
    world.passwords.fault = None
    await use(LINK, "staple battery horse")
    assert await world.log_in(ann.email, "staple battery horse", ADDRESS)


async def test_a_link_is_good_again_when_its_process_died(world: World) -> None:
    """A minute later, as nobody is there to say so."""
    ann = await world.join("ann@example.com")
    use = await mail_link(world, ann)
    now = world.clock.now()
    digest = FakeTokenGenerator().digest(LINK)
    async with world.database.begin() as records:
        assert await records.one_time_tokens.claim(digest, Purpose.RESET, now, now + CLAIM)
    with pytest.raises(TokenUnusable):
        await use(LINK, "staple battery horse")
    world.clock.advance(seconds=CLAIM.total_seconds())
    await use(LINK, "staple battery horse")


async def test_a_weak_password_uses_no_link_up(world: World) -> None:
    """Nor is the link held up for the next try."""
    ann = await world.join("ann@example.com")
    use = await mail_link(world, ann)
    with pytest.raises(WeakPassword):
        await use(LINK, COMMON)
    await use(LINK, "staple battery horse")
