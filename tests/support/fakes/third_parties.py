"""Fakes of the third parties, and of the repositories of what they return."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from referral.core.entities.deliverability import Deliverability
from referral.core.entities.users import Profile
from referral.core.errors import Unavailable
from tests.support.fakes.tables import Tables


@dataclass(frozen=True)
class FakeProfileRepository:
    """Profiles in a dict."""

    tables: Tables

    async def save(self, user_id: UUID, profile: Profile, now: datetime) -> None:
        self.tables.require(is_satisfied=user_id in self.tables.users, constraint="user_id")
        self.tables.profiles[user_id] = profile
        self.tables.profile_times[user_id] = now

    async def find(self, user_id: UUID) -> Profile | None:
        return self.tables.profiles.get(user_id)

    async def delete(self, user_id: UUID) -> None:
        self.tables.profiles.pop(user_id, None)


@dataclass(frozen=True)
class FakeVerificationResultRepository:
    """Verification results in a dict."""

    tables: Tables

    async def find(self, fingerprints: tuple[bytes, ...], since: datetime) -> Deliverability | None:
        results = (
            self.tables.verification_results.get(fingerprint) for fingerprint in fingerprints
        )
        recent = [one for one in results if one is not None and one[0] >= since]
        return max(recent)[1] if recent else None

    async def save(self, fingerprint: bytes, result: Deliverability, now: datetime) -> None:
        self.tables.verification_results[fingerprint] = (now, result)

    async def delete(self, fingerprints: tuple[bytes, ...]) -> None:
        for fingerprint in fingerprints:
            self.tables.verification_results.pop(fingerprint, None)

    async def prune(self, before: datetime) -> bool:
        for fingerprint, (at, _) in list(self.tables.verification_results.items()):
            if at < before:
                del self.tables.verification_results[fingerprint]
        return False


@dataclass(frozen=True)
class FakeReferredEmailRepository:
    """Fingerprints of referred e-mail addresses in a dict."""

    tables: Tables

    async def contains(self, fingerprints: tuple[bytes, ...], since: datetime) -> bool:
        known = (self.tables.referred_emails.get(fingerprint) for fingerprint in fingerprints)
        return any(at is not None and at > since for at in known)

    async def add(self, fingerprint: bytes, referred_at: datetime) -> None:
        self.tables.referred_emails[fingerprint] = referred_at

    async def prune(self, before: datetime) -> bool:
        remaining = {one: at for one, at in self.tables.referred_emails.items() if at >= before}
        self.tables.referred_emails = remaining
        return False


async def _do_nothing() -> None:
    """Do nothing."""


@dataclass
class FakeEmailVerifier:
    """Returns `result`, or is unavailable without one, and records its `calls`."""

    result: Deliverability | None = Deliverability.VALID
    supports_recheck: bool = True
    calls: list[tuple[str, timedelta]] = field(default_factory=list)
    during_call: Callable[[], Awaitable[None]] = _do_nothing

    async def verify(self, email: str, time_limit: timedelta) -> Deliverability:
        self.calls.append((email, time_limit))
        await self.during_call()
        if self.result is None:
            raise Unavailable
        return self.result


@dataclass
class FakeEnrichment:
    """Returns `profile`, or is unavailable if `available` is false, and records its `calls`."""

    profile: Profile | None = None
    available: bool = True
    calls: list[str] = field(default_factory=list)
    time_limits: list[timedelta] = field(default_factory=list)
    during_call: Callable[[], Awaitable[None]] = _do_nothing

    async def find(self, email: str, time_limit: timedelta) -> Profile | None:
        self.calls.append(email)
        self.time_limits.append(time_limit)
        await self.during_call()
        if not self.available:
            raise Unavailable
        return self.profile
