"""What third parties know, and those parties themselves, in memory."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from referral.core.entities.deliverability import Deliverability
from referral.core.entities.users import Profile
from referral.core.errors import Unavailable
from tests.support.fake_tables import Tables


@dataclass(frozen=True)
class FakeProfiles:
    """Profiles in a dict."""

    tables: Tables

    async def save(
        self,
        user_id: UUID,
        profile: Profile,
        now: datetime,  # noqa: ARG002 - nobody reads it
    ) -> None:
        self.tables.require(holds=user_id in self.tables.users, constraint="user_id")
        self.tables.profiles[user_id] = profile

    async def of(self, user_id: UUID) -> Profile | None:
        return self.tables.profiles.get(user_id)

    async def delete(self, user_id: UUID) -> None:
        self.tables.profiles.pop(user_id, None)


@dataclass(frozen=True)
class FakeVerdicts:
    """Verdicts in a dict."""

    tables: Tables

    async def find(self, fingerprints: tuple[bytes, ...], since: datetime) -> Deliverability | None:
        given = (self.tables.verdicts.get(fingerprint) for fingerprint in fingerprints)
        recent = [one for one in given if one is not None and one[0] >= since]
        return max(recent)[1] if recent else None

    async def keep(self, fingerprint: bytes, verdict: Deliverability, now: datetime) -> None:
        self.tables.verdicts[fingerprint] = (now, verdict)

    async def forget(self, fingerprints: tuple[bytes, ...]) -> None:
        for fingerprint in fingerprints:
            self.tables.verdicts.pop(fingerprint, None)

    async def prune(self, before: datetime) -> bool:
        for fingerprint, (at, _) in list(self.tables.verdicts.items()):
            if at < before:
                del self.tables.verdicts[fingerprint]
        return False


@dataclass(frozen=True)
class FakeReferredEmails:
    """Addresses that were referred, in a dict."""

    tables: Tables

    async def includes(self, fingerprints: tuple[bytes, ...], since: datetime) -> bool:
        known = (self.tables.referred_emails.get(fingerprint) for fingerprint in fingerprints)
        return any(at is not None and at > since for at in known)

    async def add(self, fingerprint: bytes, referred_at: datetime) -> None:
        self.tables.referred_emails[fingerprint] = referred_at

    async def prune(self, before: datetime) -> bool:
        kept = {one: at for one, at in self.tables.referred_emails.items() if at >= before}
        self.tables.referred_emails = kept
        return False


async def _nothing() -> None:
    """Do nothing."""


@dataclass
class FakeVerifier:
    """Says what it was told to, or does not answer without; `asked` tells about whom."""

    verdict: Deliverability | None = Deliverability.VALID
    may_learn: bool = True
    asked: list[tuple[str, timedelta]] = field(default_factory=list)
    meanwhile: Callable[[], Awaitable[None]] = _nothing

    async def verify(self, mailbox: str, within: timedelta) -> Deliverability:
        self.asked.append((mailbox, within))
        await self.meanwhile()
        if self.verdict is None:
            raise Unavailable
        return self.verdict


@dataclass
class FakeEnrichment:
    """Knows one profile, or none; does not answer when it is told so."""

    profile: Profile | None = None
    answers: bool = True
    asked: list[str] = field(default_factory=list)
    meanwhile: Callable[[], Awaitable[None]] = _nothing

    async def find(
        self,
        mailbox: str,
        within: timedelta,  # noqa: ARG002 - at once
    ) -> Profile | None:
        self.asked.append(mailbox)
        await self.meanwhile()
        if not self.answers:
            raise Unavailable
        return self.profile
