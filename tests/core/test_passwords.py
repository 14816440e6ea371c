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
from referral.core.use_cases.email_links import ResetPassword
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


async def test_reset_link_is_locked_for_a_minute(
    service: InMemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a request hashes; the link of a crashed process is usable again after that."""
    ann = await service.create_account("ann@example.com")
    use_password = await mail_link(service, ann)
    hash_password = service.password_hasher.hash

    async def hash_slowly(password: str) -> str:
        monkeypatch.setattr(service.password_hasher, "hash", hash_password)
        service.clock.advance(minutes=1, microseconds=-1)
        with pytest.raises(TokenUnusable) as raised:
            await use_password(RESET_TOKEN, "staple battery horse")
        assert raised.value.field == "token"
        service.clock.advance(microseconds=1)
        await use_password(RESET_TOKEN, "staple battery horse")
        return await hash_password(password)

    monkeypatch.setattr(service.password_hasher, "hash", hash_slowly)
    with pytest.raises(TokenUnusable):
        await use_password(RESET_TOKEN, "another password")
    assert await service.log_in(ann.email, "staple battery horse", CLIENT_IP)


async def test_weak_password_does_not_use_up_the_reset_link(service: InMemoryService) -> None:
    """Nor does it lock the link."""
    ann = await service.create_account("ann@example.com")
    use_password = await mail_link(service, ann)
    with pytest.raises(WeakPassword) as raised:
        await use_password(RESET_TOKEN, COMMON_PASSWORD)
    assert raised.value.field == "new_password"
    await use_password(RESET_TOKEN, "staple battery horse")


async def test_reset_ends_all_sessions(service: InMemoryService) -> None:
    """Those of whoever knew the old password included."""
    ann = await service.create_account("ann@example.com")
    tokens = await service.log_in(ann.email, PASSWORD, CLIENT_IP)
    await (await mail_link(service, ann))(RESET_TOKEN, "staple battery horse")
    with pytest.raises(InvalidGrant):
        await service.refresh(tokens.refresh_token)


async def test_password_change_ends_the_other_sessions(service: InMemoryService) -> None:
    """The caller's own session stays; reset links become unusable, confirmation links do not."""
    ann = await service.create_account("ann@example.com")
    bob = await service.create_account("bob@example.com")
    own, other = [await service.log_in(ann.email, PASSWORD, CLIENT_IP) for _ in range(2)]
    bobs = await service.log_in(bob.email, PASSWORD, CLIENT_IP)
    reset_token = await service.create_mail_token(ann, TokenPurpose.RESET)
    confirm_token = await service.create_mail_token(ann)
    session_id = service.access_tokens.verify(own.access_token).caller.session_id
    await service.change_password(ann.id, session_id, PASSWORD, "staple battery horse")
    assert await service.refresh(own.refresh_token)
    assert await service.refresh(bobs.refresh_token)
    with pytest.raises(InvalidGrant):
        await service.refresh(other.refresh_token)
    with pytest.raises(TokenUnusable):
        await service.reset_password(reset_token, "another password")
    await service.confirm_email(confirm_token, caller_id=ann.id, password=None, client_ip=CLIENT_IP)
    with pytest.raises(InvalidGrant):
        await service.log_in(ann.email, PASSWORD, CLIENT_IP)
    assert await service.log_in(ann.email, "staple battery horse", CLIENT_IP)


async def test_password_errors_name_their_field(service: InMemoryService) -> None:
    """The client can tell which of the two passwords to correct."""
    ann = await service.create_account("ann@example.com")
    with pytest.raises(WrongPassword) as wrong:
        await service.change_password(ann.id, None, "a guess", "staple battery horse")
    assert wrong.value.field == "current_password"
    with pytest.raises(WeakPassword) as weak:
        await service.change_password(ann.id, None, PASSWORD, COMMON_PASSWORD)
    assert weak.value.field == "new_password"
    with pytest.raises(WeakPassword) as weak:
        await service.create_account("bob@example.com", password=COMMON_PASSWORD)
    assert weak.value.field == "password"
    with pytest.raises(WrongPassword) as wrong:
        await service.erase_account(ann.id, "a guess")
    assert wrong.value.field == "password"


@pytest.mark.parametrize(
    ("use_password", "field"), [(use_as_current, "current_password"), (erase, "password")]
)
async def test_password_that_was_changed_meanwhile_is_wrong(
    service: InMemoryService,
    monkeypatch: pytest.MonkeyPatch,
    use_password: PasswordUse,
    field: str,
) -> None:
    """A change during the verification of the old password decides; the account stays."""
    ann = await service.create_account("ann@example.com")
    verify = service.password_hasher.verify

    async def verify_slowly(password: str, password_hash: str | None, *_: object) -> bool:
        matches = await verify(password, password_hash)
        monkeypatch.setattr(service.password_hasher, "verify", verify)
        await service.change_password(ann.id, None, PASSWORD, "changed meanwhile")
        return matches

    monkeypatch.setattr(service.password_hasher, "verify", verify_slowly)
    with pytest.raises(WrongPassword) as raised:
        await use_password(service, ann, PASSWORD)
    assert raised.value.field == field
    assert await service.log_in(ann.email, "changed meanwhile", CLIENT_IP)
