"""The referrals of all users, for admins and clients."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from uuid import UUID

from referral.core.entities.audit import Actor, AuditAction, validated_reason
from referral.core.entities.clients import Caller, Scope
from referral.core.entities.codes import CODE_PATTERN
from referral.core.entities.page import Page
from referral.core.entities.referrals import Referral, ReferralStatus
from referral.core.entities.searches import ReferralFilter, ReferralRecord
from referral.core.errors import AlreadyReferred, InvalidRequest, NotFound, ReferralDecided
from referral.core.policies.attribution import CreditReferrer, ResolveReferral
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.authorization import Authorize
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.ports.repositories import Database, Repositories

EXPORT_BATCH_SIZE = 500
"""Referrals that are read and encoded at a time: some milliseconds, in which nothing else runs."""

EXPORT_SUBJECT = "referrals"
"""The subject of an export in the audit log."""

DECISION_ACTIONS = {
    ReferralStatus.CONFIRMED: AuditAction.REFERRAL_CONFIRMED,
    ReferralStatus.REJECTED: AuditAction.REFERRAL_REJECTED,
}


@dataclass(frozen=True, slots=True)
class ListAllReferrals:
    """List the referrals of all users by the time of joining, newest first."""

    database: Database

    async def __call__(
        self, wanted: ReferralFilter, *, after: UUID | None, limit: int
    ) -> Page[ReferralRecord]:
        """Return a page."""
        if wanted.code is not None and not CODE_PATTERN.fullmatch(wanted.code):
            return Page([], None)
        async with self.database.read() as repositories:
            rows = await repositories.referral_search.list_page(
                wanted, after=after, limit=limit + 1
            )
        return Page.from_rows(rows, limit, lambda referral: referral.referral_id)


@dataclass(frozen=True, slots=True)
class ExportReferrals:
    """Export the referrals of all users by the time of joining, newest first."""

    authorize: Authorize
    database: Database
    list_referrals: ListAllReferrals
    record_audit: RecordAudit

    async def __call__(
        self, wanted: ReferralFilter, caller: Caller, scope: Scope
    ) -> AsyncGenerator[list[ReferralRecord], None]:
        """Record the export, then yield the referrals in batches; the first one may be empty.

        No connection is held between two batches. Raises `InsufficientScope` or `Unauthenticated`
        as soon as the caller may not do what requires the scope any more.
        """
        action = AuditAction.REFERRALS_EXPORTED
        async with self.database.begin() as repositories:
            await self.record_audit(repositories, caller.actor, action, EXPORT_SUBJECT)
        page = await self.list_referrals(wanted, after=None, limit=EXPORT_BATCH_SIZE)
        yield page.items
        while page.next_after is not None:
            await self.authorize(caller, scope)
            page = await self.list_referrals(wanted, after=page.next_after, limit=EXPORT_BATCH_SIZE)
            yield page.items


@dataclass(frozen=True, slots=True)
class DecideReferral:
    """Confirm or reject a referral, whatever its status is. An admin decides only once.

    A rejection decrements the code's `uses`; confirming a rejected referral increments them.
    """

    database: Database
    invalidate_lookup: InvalidateLookup
    record_audit: RecordAudit
    resolve_referral: ResolveReferral

    async def __call__(
        self, referral_id: UUID, status: ReferralStatus, actor: Actor, reason: str
    ) -> ReferralRecord:
        """Return the referral; raises `InvalidRequest`, `NotFound` or `ReferralDecided`."""
        reason = validated_reason(reason)
        async with self.database.begin() as repositories:
            referral = await self._lock(repositories, referral_id, status)
            action = DECISION_ACTIONS[status]
            await self.record_audit(repositories, actor, action, referral_id, reason)
            owners = await self.resolve_referral.decide(repositories, referral, status, reason)
            record = await repositories.referral_search.find(referral_id)
        await self.invalidate_lookup(*owners)
        if record is None:
            raise NotFound
        return record

    @staticmethod
    async def _lock(
        repositories: Repositories, referral_id: UUID, status: ReferralStatus
    ) -> Referral:
        """Lock a referral on which an admin may decide.

        The erasure of the referred user rejected a pending referral; it is not confirmed later,
        because the address is not known any more, and could be referred again.
        """
        referral = await repositories.referrals.lock(referral_id)
        if referral is None:
            raise NotFound
        if referral.decided_at is not None:
            raise ReferralDecided
        is_restored = referral.status is ReferralStatus.REJECTED is not status
        if is_restored and await repositories.users.find(referral.referred_id) is None:
            raise NotFound("The account of the referred user was erased.")
        return referral


@dataclass(frozen=True, slots=True)
class SetReferrerByHand:
    """Set the referrer of a user without a code, at any time after registration."""

    credit_referrer: CreditReferrer
    database: Database
    record_audit: RecordAudit

    async def __call__(self, user_id: UUID, referrer_id: UUID, actor: Actor, reason: str) -> None:
        """Store the referral; raises `AlreadyReferred`, `InvalidRequest` or `NotFound`."""
        reason = validated_reason(reason)
        async with self.database.begin() as repositories:
            user = await repositories.users.lock(user_id)
            if user is None:
                raise NotFound
            if await repositories.referrals.find_by_referred(user_id) is not None:
                raise AlreadyReferred("The user has a referrer already. It cannot be changed.")
            is_known = await repositories.users.find(referrer_id) is not None
            if not is_known or referrer_id == user_id:
                detail = "Send the id of another user, whose account is not erased."
                raise InvalidRequest(detail, field="referrer_id")
            action = AuditAction.USER_REFERRER_SET
            await self.record_audit(repositories, actor, action, user_id, reason)
            await self.credit_referrer.by_hand(repositories, user, referrer_id, reason)
