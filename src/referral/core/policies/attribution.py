"""Attribution: crediting referrers, and confirming or rejecting pending referrals."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from referral.core.entities.codes import CODE_PATTERN, Code
from referral.core.entities.events import (
    EventContent,
    EventType,
    code_event,
    referral_event,
    registration_events,
)
from referral.core.entities.jobs import ReferralMailJob
from referral.core.entities.referrals import REFERRAL_COOLDOWN, Referral, ReferralStatus
from referral.core.entities.risk import HoldPolicy
from referral.core.entities.users import EmailConfirmationPolicy, User
from referral.core.errors import ReferralCodeUnusable
from referral.core.policies.email_fingerprints import email_fingerprints
from referral.core.policies.event_recording import RecordEvents
from referral.core.policies.risk_assessment import AssessRisk
from referral.core.ports.repositories import Repositories
from referral.core.ports.security import Fingerprinter
from referral.core.ports.system import Clock, IdGenerator

STATUS_EVENTS = {
    ReferralStatus.CONFIRMED: EventType.REFERRAL_CONFIRMED,
    ReferralStatus.REJECTED: EventType.REFERRAL_REJECTED,
}


@dataclass(frozen=True, slots=True)
class ResolveReferral:
    """Confirm or reject pending referrals. A rejection decrements the code's `uses`."""

    clock: Clock
    record_events: RecordEvents

    async def confirm(self, repositories: Repositories, user: User) -> list[User]:
        """Confirm the pending referral of a locked user; an overdue one is rejected instead.

        A held one stays pending.

        Returns the users whose cached lookups the caller invalidates after the commit.
        """
        referral = await repositories.referrals.lock_pending(user.id)
        if referral is None or referral.held:
            return []
        if referral.is_overdue(self.clock.now()):
            return await self.reject(repositories, referral)
        await self._set_status(repositories, referral, ReferralStatus.CONFIRMED)
        await repositories.jobs.enqueue(ReferralMailJob(referral.id))
        return []

    async def reject(self, repositories: Repositories, referral: Referral) -> list[User]:
        """Reject a locked referral.

        Returns the users whose cached lookups the caller invalidates after the commit: the code's
        owner if the code may have become active again.
        """
        await self._set_status(repositories, referral, ReferralStatus.REJECTED)
        return await self._revert_use(repositories, referral)

    async def decide(
        self, repositories: Repositories, referral: Referral, status: ReferralStatus, reason: str
    ) -> list[User]:
        """Store an admin's decision on a locked referral, whatever its status is.

        Returns the users whose cached lookups the caller invalidates after the commit.
        """
        now = self.clock.now()
        decided = replace(referral, status=status, reason=reason, decided_at=now, held=False)
        if status is not referral.status:
            event = referral_event(STATUS_EVENTS[status], decided, now, reason)
            await self.record_events(repositories, event)
        await repositories.referrals.save_decision(decided)
        if status is referral.status:
            return []
        if status is ReferralStatus.REJECTED:
            return await self._revert_use(repositories, referral)
        await repositories.jobs.enqueue(ReferralMailJob(referral.id))
        return await self._restore_use(repositories, referral)

    async def _revert_use(self, repositories: Repositories, referral: Referral) -> list[User]:
        if referral.code_id is None:
            return []
        code = await repositories.codes.revert_use(referral.code_id, self.clock.now())
        if code is None or code.max_uses is None:
            return []
        return await _find_owner(repositories, code)

    async def _restore_use(self, repositories: Repositories, referral: Referral) -> list[User]:
        """Count the use of a referral that was rejected, also beyond the code's maximum."""
        if referral.status is not ReferralStatus.REJECTED or referral.code_id is None:
            return []
        code = await repositories.codes.restore_use(referral.code_id)
        if code is None or not code.is_exhausted:
            return []
        now = self.clock.now()
        if replace(code, uses=code.uses - 1).is_active(now):
            exhausted = code_event(EventType.CODE_EXHAUSTED, code, now)
            await self.record_events(repositories, exhausted)
        return await _find_owner(repositories, code)

    async def _set_status(
        self, repositories: Repositories, referral: Referral, status: ReferralStatus
    ) -> None:
        decided = replace(referral, status=status)
        now = self.clock.now()
        event = referral_event(STATUS_EVENTS[status], decided, now)
        await self.record_events(repositories, event)
        await repositories.referrals.set_status(referral.id, status, now)


@dataclass(frozen=True, slots=True)
class CreditReferrer:
    """Count one use of a code, store the referral, and notify the referrer.

    The referral is pending, and the notification waits, until the referred user has confirmed the
    e-mail address. If the address was referred within the last year, the referral is rejected,
    and the use is not counted. A referral of high risk is held: it is pending until an admin
    decides.
    """

    assess_risk: AssessRisk
    clock: Clock
    fingerprinter: Fingerprinter
    hold_policy: HoldPolicy
    id_generator: IdGenerator
    confirmation_policy: EmailConfirmationPolicy
    record_events: RecordEvents

    async def __call__(
        self,
        repositories: Repositories,
        user: User,
        text: str,
        *,
        registers: bool,
        client_ip: str | None = None,
    ) -> list[User]:
        """Credit the code's owner; raises `ReferralCodeUnusable`, also for the user's own code.

        `registers` tells whether the user is new; the events of the registration are recorded too.
        `client_ip` is that of the user, if the request comes from the user.
        Returns the users whose cached lookups the caller invalidates after the commit: the code's
        owner if this was the last use.
        """
        is_valid = CODE_PATTERN.fullmatch(text)
        code = await repositories.codes.lock_enabled_by_text(text) if is_valid else None
        # Read the clock after the lock: waiting for it may take long, and the code may expire.
        now = self.clock.now()
        if code is None or code.user_id == user.id or not code.is_active(now):
            raise ReferralCodeUnusable(field="referral_code")
        status = await self._initial_status(repositories, user)
        signals = await self.assess_risk(repositories, user, code.user_id, client_ip)
        counts = status is not ReferralStatus.REJECTED
        held = counts and self.hold_policy.holds(signals)
        if counts and not await repositories.codes.count_use(code.id, now):
            raise ReferralCodeUnusable(field="referral_code")
        referral = Referral(
            id=self.id_generator.new(),
            referrer_id=code.user_id,
            referred_id=user.id,
            code_id=code.id,
            code=code.text,
            status=ReferralStatus.PENDING if held else status,
            joined_at=now,
            # A user who need not confirm in time, such as one of another service, may be late.
            expires=user.confirm_by is not None,
            held=held,
            risk_signals=signals,
        )
        events = registration_events(user, referral) if registers else []
        await self.record_events(repositories, *events, *_events(referral, code, now))
        await repositories.referrals.add(referral)
        if referral.status is ReferralStatus.CONFIRMED:
            await repositories.jobs.enqueue(ReferralMailJob(referral.id))
        return await _find_owner(repositories, code) if counts and _is_last_use(code) else []

    async def by_hand(
        self, repositories: Repositories, user: User, referrer_id: UUID, reason: str
    ) -> None:
        """Credit a referrer without a code, for an admin; raises `AlreadyReferred`.

        The referral of an address that was referred within the last year counts too. None is held.
        """
        signals = await self.assess_risk(repositories, user, referrer_id)
        now, is_confirmed = self.clock.now(), self.confirmation_policy.is_satisfied_by(user)
        referral = Referral(
            id=self.id_generator.new(),
            referrer_id=referrer_id,
            referred_id=user.id,
            code_id=None,
            code=None,
            status=ReferralStatus.CONFIRMED if is_confirmed else ReferralStatus.PENDING,
            joined_at=now,
            expires=user.confirm_by is not None,
            reason=reason,
            risk_signals=signals,
        )
        created = referral_event(EventType.REFERRAL_CREATED, referral, now, reason)
        await self.record_events(repositories, created)
        if is_confirmed:
            confirmed = referral_event(EventType.REFERRAL_CONFIRMED, referral, now, reason)
            await self.record_events(repositories, confirmed)
        await repositories.referrals.add(referral)
        if is_confirmed:
            await repositories.jobs.enqueue(ReferralMailJob(referral.id))

    async def _initial_status(self, repositories: Repositories, user: User) -> ReferralStatus:
        since = self.clock.now() - REFERRAL_COOLDOWN
        fingerprints = email_fingerprints(self.fingerprinter, user)
        if await repositories.referred_emails.contains(fingerprints, since):
            return ReferralStatus.REJECTED
        if self.confirmation_policy.is_satisfied_by(user):
            return ReferralStatus.CONFIRMED
        return ReferralStatus.PENDING


def _events(referral: Referral, code: Code, now: datetime) -> Iterator[EventContent]:
    """Yield the events of a new referral; `code` is as before the use."""
    if referral.status is not ReferralStatus.REJECTED:
        yield referral_event(EventType.REFERRAL_CREATED, referral, now)
    if referral.status is not ReferralStatus.PENDING:
        yield referral_event(STATUS_EVENTS[referral.status], referral, now)
    if referral.status is not ReferralStatus.REJECTED and _is_last_use(code):
        yield code_event(EventType.CODE_EXHAUSTED, replace(code, uses=code.uses + 1), now)


async def _find_owner(repositories: Repositories, code: Code) -> list[User]:
    owner = await repositories.users.find(code.user_id)
    return [] if owner is None else [owner]


def _is_last_use(code: Code) -> bool:
    return code.max_uses is not None and code.uses + 1 >= code.max_uses
