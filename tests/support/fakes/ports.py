"""Fakes of the ports; the contract tests hold them to the behaviour of the adapters."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

from referral.core.entities.clients import AccessTokenClaims, Caller, Scope
from referral.core.entities.codes import Code
from referral.core.entities.rate_limits import RateLimitGroup, RateLimitResult
from referral.core.entities.users import EmailAddress
from referral.core.errors import InvalidRequest, Unauthenticated, Unavailable


class FakeClock:
    """A clock that only `advance` moves."""

    def __init__(self) -> None:
        """Start at the current time: libraries check tokens against the real clock."""
        self._now = datetime.now(UTC)

    def now(self) -> datetime:
        return self._now

    def advance(self, **by: float) -> None:
        """Advance by the arguments of a timedelta, such as `minutes=5`."""
        self._now += timedelta(**by)


class FakeIdGenerator:
    """Sequential UUIDv7 ids."""

    def __init__(self) -> None:
        self._count = 0

    def new(self) -> UUID:
        self._count += 1
        version, variant = 0x7 << 76, 0b10 << 62
        return UUID(int=self._count << 80 | version | variant)


class FakeCodeGenerator:
    """The texts in `scripted`, then sequential ones."""

    def __init__(self) -> None:
        self.scripted: list[str] = []
        self._count = 0

    def new(self) -> str:
        if self.scripted:
            return self.scripted.pop(0)
        self._count += 1
        return f"MADE{self._count:04}"


class FakeTokenGenerator:
    """Sequential tokens with the real digest."""

    def __init__(self) -> None:
        self._count = 0

    def new(self) -> str:
        self._count += 1
        return f"secret-{self._count}"

    def digest(self, secret: str) -> bytes:
        return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()


class FakeFingerprinter:
    """Digests under keys that a test may change, newest first."""

    def __init__(self) -> None:
        self.keys = [b"key"]

    def compute(self, data: bytes) -> tuple[bytes, ...]:
        return tuple(hashlib.sha256(key + data).digest() for key in self.keys)


class FakeEmailParser:
    """Accepts any text with an at sign; the canonical form is lower-case."""

    def parse(self, text: str) -> EmailAddress:
        if "@" not in text:
            raise InvalidRequest("Send a valid e-mail address.", field="email")
        return EmailAddress(text, text.lower())


class FakePasswordHasher:
    """Fast hashes.

    `hash_count` counts them, `verified_hashes` records the arguments of `verify`,
    `outdated_hashes` need a rehash, and `error` makes `hash` fail.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.verified_hashes: list[str | None] = []
        self.outdated_hashes: set[str] = set()
        self.hash_count = 0

    async def hash(self, password: str) -> str:
        # Other tasks run here, as they do while the threads hash.
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.hash_count += 1
        return f"{self.hash_count}:{_sha256(password)}"

    def needs_rehash(self, password_hash: str) -> bool:
        return password_hash in self.outdated_hashes

    async def verify(self, password: str, password_hash: str | None) -> bool:
        # Here too.
        await asyncio.sleep(0)
        self.verified_hashes.append(password_hash)
        return password_hash is not None and password_hash.partition(":")[2] == _sha256(password)


class FakeAccessTokenIssuer:
    """Opaque tokens with their claims in a dict."""

    lifetime_seconds = 600

    def __init__(self) -> None:
        self._tokens: dict[str, AccessTokenClaims] = {}

    def issue(
        self, subject: str, client_id: str, scope: str, session_id: UUID | None = None
    ) -> str:
        token = f"access-{len(self._tokens) + 1}"
        scopes = frozenset(scope.split())
        user_id = UUID(subject) if Scope.ACCOUNT in scopes else None
        caller = Caller(client_id, scopes, user_id, session_id)
        self._tokens[token] = AccessTokenClaims(token, subject, caller, 0, self.lifetime_seconds)
        return token

    def verify(self, token: str) -> AccessTokenClaims:
        if token not in self._tokens:
            raise Unauthenticated
        return self._tokens[token]

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        return {"keys": []}


class FakeLookupCache:
    """Entries without an expiry; `invalidated` records the invalidated keys."""

    def __init__(self) -> None:
        self.invalidated: list[str] = []
        self.available = True
        self._entries: dict[str, Code | None] = {}

    async def get_or_load(
        self, email_key: str, load: Callable[[], Awaitable[Code | None]]
    ) -> Code | None:
        if email_key not in self._entries:
            self._entries[email_key] = await load()
        return self._entries[email_key]

    def find_cached(self, email_key: str) -> Code | None:
        return self._entries.get(email_key)

    async def invalidate(self, email_key: str) -> bool:
        if self.available:
            self.invalidated.append(email_key)
            self._entries.pop(email_key, None)
        return self.available


class FakeRateLimiter:
    """Counts per group and key; a group without an entry in `limits` is unlimited."""

    def __init__(self, limits: Mapping[RateLimitGroup, int] | None = None) -> None:
        self.limits = dict(limits or {})
        self._counts = Counter[tuple[str, str]]()

    async def hit(self, group: RateLimitGroup, key: str) -> RateLimitResult | None:
        limit = self.limits.get(group)
        if limit is None:
            return None
        self._counts[group, key] += 1
        remaining = limit - self._counts[group, key]
        return RateLimitResult(remaining >= 0, limit, 60, max(0, remaining), 60)


class FakeSecurityLog:
    """Records the security events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def warn(self, event: str, **details: str) -> None:  # noqa: ARG002 - events tell enough
        self.events.append(event)


class FakeHealthProbe:
    """A dependency that reports its status, or is unavailable without one."""

    def __init__(self, name: str, state: str | None) -> None:
        self.name = name
        self._state = state

    async def check(self) -> str:
        if self._state is None:
            raise Unavailable
        return self._state


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
