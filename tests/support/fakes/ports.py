"""Stand-ins for the ports, as strict as the real ones; the contract tests hold them to it."""

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
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        """Begin at the present, so that tokens, which the real clock checks, are good."""
        self._now = datetime.now(UTC)

    def now(self) -> datetime:
        """See the port."""
        return self._now

    def advance(self, **by: float) -> None:
        """Move on by so many days, hours, minutes or seconds."""
        self._now += timedelta(**by)


class FakeIdGenerator:
    """UUIDv7 ids that count up."""

    def __init__(self) -> None:
        self._count = 0

    def new(self) -> UUID:
        self._count += 1
        version, variant = 0x7 << 76, 0b10 << 62
        return UUID(int=self._count << 80 | version | variant)


class FakeCodeGenerator:
    """Texts that a test has put in `script`, and then counted ones."""

    def __init__(self) -> None:
        self.scripted: list[str] = []
        self._count = 0

    def new(self) -> str:
        if self.scripted:
            return self.scripted.pop(0)
        self._count += 1
        return f"MADE{self._count:04}"


class FakeTokenGenerator:
    """Secrets that count up, under the digest of the real ones."""

    def __init__(self) -> None:
        self._count = 0

    def new(self) -> str:
        self._count += 1
        return f"secret-{self._count}"

    def digest(self, secret: str) -> bytes:
        return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()


class FakeFingerprinter:
    """Digests by keys that a test may change, the newest first."""

    def __init__(self) -> None:
        self.keys = [b"key"]

    def compute(self, data: bytes) -> tuple[bytes, ...]:
        return tuple(hashlib.sha256(key + data).digest() for key in self.keys)


class FakeEmailParser:
    """Addresses are whatever has an @-sign; case is their only other spelling."""

    def parse(self, text: str) -> EmailAddress:
        if "@" not in text:
            raise InvalidRequest("This is no e-mail address.", field="email")
        return EmailAddress(text, text.lower())


class FakePasswordHasher:
    """Hashes that take no time; `hashed` tells how many were made, `compared` what passwords were
    compared with, `outdated` which were made before the parameters changed; while there is a
    `fault`, no hash is made.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.verified_hashes: list[str | None] = []
        self.outdated_hashes: set[str] = set()
        self.hash_count = 0

    async def hash(self, password: str) -> str:
        # Here others come between, as they do while the threads hash.
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.hash_count += 1
        return f"{self.hash_count}:{_sha256(password)}"

    def needs_rehash(self, password_hash: str) -> bool:
        return password_hash in self.outdated_hashes

    async def verify(self, password: str, password_hash: str | None) -> bool:
        # Here as well.
        await asyncio.sleep(0)
        self.verified_hashes.append(password_hash)
        return password_hash is not None and password_hash.partition(":")[2] == _sha256(password)


class FakeAccessTokenIssuer:
    """Tokens that mean what this object remembers of them."""

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
    """Remembers for ever; `cleared` tells which addresses were to be forgotten."""

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
    """Counts by group and caller against `limits`; a group that is not there is off."""

    def __init__(self, limits: Mapping[RateLimitGroup, int] | None = None) -> None:
        self.limits = dict(limits or {})
        self._counts = Counter[tuple[str, str]]()

    async def hit(self, group: RateLimitGroup, key: str) -> RateLimitResult | None:
        limit = self.limits.get(group)
        if limit is None:
            return None
        self._counts[group, key] += 1
        left = limit - self._counts[group, key]
        return RateLimitResult(left >= 0, limit, 60, max(0, left), 60)


class FakeSecurityLog:
    """Remembers what an operator would hear of."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def warn(self, event: str, **facts: str) -> None:  # noqa: ARG002 - events tell enough
        self.events.append(event)


class FakeHealthProbe:
    """A part of the service that answers with its state, or not at all without one."""

    def __init__(self, name: str, state: str | None) -> None:
        self.name = name
        self._state = state

    async def check(self) -> str:
        if self._state is None:
            raise Unavailable
        return self._state


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
