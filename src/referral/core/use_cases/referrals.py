"""Who joined with whose code, and who may see that."""

from dataclasses import dataclass
from uuid import UUID

from referral.core.entities.clients import Caller, Scope
from referral.core.entities.pagination import Page
from referral.core.entities.referrals import (
    CLAIM_WINDOW,
    ReferralListItem,
    ReferralStatus,
    Visibility,
)
from referral.core.entities.users import Role
from referral.core.errors import (
    AlreadyReferred,
    ClaimWindowClosed,
    InsufficientScope,
    NotFound,
    Unauthenticated,
)
from referral.core.policies.attribution import CreditReferrer
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.policies.reauthentication import lock_account
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.system import Clock


@dataclass(frozen=True, slots=True)
class ListReferrals:
    """List those who joined with a user's codes, newest first."""

    database: Database
    visibility: Visibility

    async def __call__(
        self,
        caller: Caller,
        user_id: UUID,
        *,
        status: ReferralStatus | None,
        after: UUID | None,
        limit: int,
    ) -> tuple[Page[ReferralListItem], bool]:
        """Return a page, and whether addresses and codes are to be shown.

        Raises `NotFound` for a user who does not exist or may not be seen, `InsufficientScope`
        for a client without `referrals:read`.
        """
        async with self.database.read() as records:
            in_full = await self._sees_in_full(records, caller, user_id)
            found = await records.referrals.newest(
                user_id, status=status, after=after, limit=limit + 1
            )
        return Page.cut(found, limit, lambda joined: joined.referral_id), in_full

    async def _sees_in_full(self, records: Repositories, caller: Caller, user_id: UUID) -> bool:
        if caller.user_id is None and Scope.REFERRALS_READ not in caller.scopes:
            raise InsufficientScope
        privileged = caller.user_id is None or await _is_admin(records, caller.user_id)
        if caller.user_id == user_id:
            return True
        seen = privileged or self.visibility is not Visibility.OWNER
        if not seen or await records.users.get(user_id) is None:
            raise NotFound
        return privileged or self.visibility is Visibility.OPEN


async def _is_admin(records: Repositories, user_id: UUID) -> bool:
    """Tell whether the caller is an admin; raises `Unauthenticated` for an erased account."""
    user = await records.users.get(user_id)
    if user is None:
        raise Unauthenticated
    return user.role is Role.ADMIN and user.blocked_at is None


@dataclass(frozen=True, slots=True)
class ClaimReferrer:
    """Name one's referrer after joining: once, and soon."""

    clear: InvalidateLookup
    clock: Clock
    credit: CreditReferrer
    database: Database

    async def __call__(self, user_id: UUID, code: str) -> None:
        """Credit the referrer; raises `AlreadyReferred`, `ClaimWindowClosed`,
        `ReferralCodeUnusable`, `AccountBlocked` or `Unauthenticated`.
        """
        async with self.database.begin() as records:
            user = await lock_account(records, user_id)
            if await records.referrals.of(user_id) is not None:
                raise AlreadyReferred
            if self.clock.now() - user.created_at > CLAIM_WINDOW:
                raise ClaimWindowClosed
            spent = await self.credit(records, user, code)
        if spent is not None:
            await self.clear(spent)
