"""Passwords in requests: their length limits and the cost of hashing."""

import asyncio
import unicodedata
from collections.abc import Awaitable, Callable

import pytest

from referral.core.entities.email_links import OneTimeToken, TokenPurpose
from referral.core.entities.passwords import MAX_PASSWORD_BYTES, normalize_password
from referral.core.entities.users import Locale, User
from referral.core.errors import (
    InvalidGrant,
    TokenUnusable,
    Unavailable,
    WeakPassword,
    WrongPassword,
)
from referral.core.use_cases.accounts import NewAccount
from referral.core.use_cases.email_links import LINK_LOCK_TIMEOUT, ResetPassword
from tests.core.service import (
    CLIENT_IP,
    COMMON_PASSWORD,
    PASSWORD,
    SESSION_LIFETIME,
    InMemoryService,
)
from tests.support.fakes.security import FakeTokenGenerator

PasswordUse = Callable[[InMemoryService, User, str], Awaitable[object]]

RESET_TOKEN = "the token of a reset mail"
SLOW_TO_NORMALIZE = "\u0315" * 15_900 + "\u0327" * 15_900
"""Combining marks in the wrong order: normalizing these 63 KB takes seconds."""


@pytest.fixture
def normalized_lengths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The length in bytes of each normalized text."""
    lengths: list[int] = []
    normalize = unicodedata.normalize

    def record_length(form: str, text: str) -> str:
        lengths.append(len(text.encode(errors="surrogatepass")))
        return normalize(form, text)  # type: ignore[arg-type]

    monkeypatch.setattr(unicodedata, "normalize", record_length)
    return lengths


@pytest.mark.parametrize(
    "password", [SLOW_TO_NORMALIZE, "x" * 1025, "\u0436" * 513, "\ud800" * 342]
)
def test_long_password_is_rejected_before_normalization(
    normalized_lengths: list[int], password: str
) -> None:
    """Normalization of long texts is quadratic."""
    with pytest.raises(WeakPassword, match="at most 1024 bytes"):
        normalize_password(password)
    assert normalized_lengths == []


@pytest.mark.parametrize("password", ["x" * 1024, "\u0436" * 512, "\U0001f40e" * 256])
def test_longest_password_is_normalized(normalized_lengths: list[int], password: str) -> None:
    """Up to 1,024 bytes of any characters."""
    assert normalize_password(password) == password
    assert normalized_lengths == [MAX_PASSWORD_BYTES]


async def register(service: InMemoryService, _: User, password: str) -> None:
    """Register with a password."""
    await service.register(NewAccount("bob@example.com", password, None, Locale.EN))


async def log_in(service: InMemoryService, ann: User, password: str) -> None:
    """Log in with a password."""
    await service.log_in(ann.email, password, CLIENT_IP)


async def use_as_current(service: InMemoryService, ann: User, password: str) -> None:
    """Use it as the current password."""
    await service.change_password(ann.id, None, password, "staple battery horse")


async def use_as_new(service: InMemoryService, ann: User, password: str) -> None:
    """Use it as the new password."""
    await service.change_password(ann.id, None, PASSWORD, password)


async def erase(service: InMemoryService, ann: User, password: str) -> None:
    """Delete the account with a password."""
    await service.erase_account(ann.id, password)


async def mail_link(service: InMemoryService, ann: User) -> ResetPassword:
    """Store the token of a reset mail, and return the use case."""
    digest, until = FakeTokenGenerator().digest(RESET_TOKEN), service.clock.now() + SESSION_LIFETIME
    async with service.database.begin() as repositories:
        await repositories.one_time_tokens.add(
            OneTimeToken(digest, ann.id, TokenPurpose.RESET, until)
        )
    return service.reset_password


async def reset(service: InMemoryService, ann: User, password: str) -> None:
    """Set it by a reset link."""
    await (await mail_link(service, ann))(RESET_TOKEN, password)


@pytest.mark.parametrize(
    ("use_password", "error_type"),
    [
        (register, WeakPassword),
        (log_in, InvalidGrant),
        (use_as_current, WrongPassword),
        (use_as_new, WeakPassword),
        (erase, WrongPassword),
        (reset, WeakPassword),
    ],
)
async def test_every_use_case_rejects_long_passwords(
    service: InMemoryService,
    normalized_lengths: list[int],
    use_password: PasswordUse,
    error_type: type[Exception],
) -> None:
    """No password over the maximum length is normalized or hashed."""
    ann = await service.create_account("ann@example.com")
    hashed = service.password_hasher.hash_count
    with pytest.raises(error_type):
        await use_password(service, ann, SLOW_TO_NORMALIZE)
    assert max(normalized_lengths) <= MAX_PASSWORD_BYTES
    assert service.password_hasher.hash_count == hashed


async def test_concurrent_resets_with_one_link_cost_one_hash(service: InMemoryService) -> None:
    """Of 300 resets one sets the password; the others are rejected without hashing."""
    ann = await service.create_account("ann@example.com")
    use_password = await mail_link(service, ann)
    hashed = service.password_hasher.hash_count
    resets = [use_password(RESET_TOKEN, f"staple battery {number}") for number in range(300)]
    results = await asyncio.gather(*resets, return_exceptions=True)
    assert results.count(None) == 1
    assert sum(isinstance(result, TokenUnusable) for result in results) == 299
    assert service.password_hasher.hash_count == hashed + 1


@pytest.mark.parametrize("error", [Unavailable(), MemoryError(), asyncio.CancelledError()])
async def test_reset_link_is_released_when_hashing_fails(
    service: InMemoryService, error: BaseException
) -> None:
    """A full queue, a bug and a cancelled request do not use up the link."""
    ann = await service.create_account("ann@example.com")
    use_password = await mail_link(service, ann)
    service.password_hasher.error = error
    with pytest.raises(type(error)):
        await use_password(RESET_TOKEN, "staple battery horse")
    service.password_hasher.error = None
    await use_password(RESET_TOKEN, "staple battery horse")
    assert await service.log_in(ann.email, "staple battery horse", CLIENT_IP)


async def test_reset_link_lock_times_out(service: InMemoryService) -> None:
    """The link of a crashed process is usable again after a minute."""
    ann = await service.create_account("ann@example.com")
    use_password = await mail_link(service, ann)
    now = service.clock.now()
    digest = FakeTokenGenerator().digest(RESET_TOKEN)
    async with service.database.begin() as repositories:
        assert await repositories.one_time_tokens.acquire(
            digest, TokenPurpose.RESET, now, now + LINK_LOCK_TIMEOUT
        )
    with pytest.raises(TokenUnusable):
        await use_password(RESET_TOKEN, "staple battery horse")
    service.clock.advance(seconds=LINK_LOCK_TIMEOUT.total_seconds())
    await use_password(RESET_TOKEN, "staple battery horse")


async def test_weak_password_does_not_use_up_the_reset_link(service: InMemoryService) -> None:
    """Nor does it lock the link."""
    ann = await service.create_account("ann@example.com")
    use_password = await mail_link(service, ann)
    with pytest.raises(WeakPassword):
        await use_password(RESET_TOKEN, COMMON_PASSWORD)
    await use_password(RESET_TOKEN, "staple battery horse")
