"""Referrals: their visibility, and setting a referrer after registration."""

from dataclasses import dataclass
from uuid import UUID

from referral.core.entities.clients import Caller, Scope
from referral.core.entities.page import Page
from referral.core.entities.referrals import (
    SET_REFERRER_WINDOW,
    ReferralListItem,
    ReferralStatus,
    ReferralVisibility,
)
from referral.core.errors import (
    AlreadyReferred,
    ClaimWindowClosed,
    InsufficientScope,
    NotFound,
    Unauthenticated,
)
from referral.core.policies.attribution import CreditReferrer
from referral.core.policies.authorization import require_admin, require_client
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.policies.reauthentication import lock_account
from referral.core.policies.risk_assessment import RecordNetwork
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.system import Clock


@dataclass(frozen=True, slots=True)
class ListReferrals:
    """List a user's referrals, newest first."""

    database: Database
    visibility: ReferralVisibility

    async def __call__(
        self,
        caller: Caller,
        user_id: UUID,
        *,
        status: ReferralStatus | None,
        after: UUID | None,
        limit: int,
    ) -> tuple[Page[ReferralListItem], bool]:
        """Return a page, and whether the caller may see e-mail addresses and codes.

        Raises `NotFound` if the user does not exist or is not visible to the caller, and
        `InsufficientScope` for a client without `referrals:read`; `Unauthenticated` for callers
        that are gone.
        """
        async with self.database.read() as repositories:
            shows_details = await self._shows_details(repositories, caller, user_id)
            rows = await repositories.referrals.list_page(
                user_id, status=status, after=after, limit=limit + 1
            )
        return Page.from_rows(rows, limit, lambda referral: referral.referral_id), shows_details

    async def _shows_details(
        self, repositories: Repositories, caller: Caller, user_id: UUID
    ) -> bool:
        if caller.user_id is None:
            await require_client(repositories, caller, Scope.REFERRALS_READ)
        is_privileged = caller.user_id is None or await _is_admin(repositories, caller)
        if caller.user_id == user_id:
            return True
        is_visible = is_privileged or self.visibility is not ReferralVisibility.OWNER
        if not is_visible or await repositories.users.find(user_id) is None:
            raise NotFound
        return is_privileged or self.visibility is ReferralVisibility.OPEN


async def _is_admin(repositories: Repositories, caller: Caller) -> bool:
    """Return whether the caller is an admin now; raises `Unauthenticated` for an erased account.

    An admin whose session has ended is a member, who reads until the token expires.
    """
    if caller.user_id is None or await repositories.users.find(caller.user_id) is None:
        raise Unauthenticated
    try:
        await require_admin(repositories, caller)
    except (InsufficientScope, Unauthenticated):
        return False
    return True


@dataclass(frozen=True, slots=True)
class SetReferrer:
    """Set the caller's referrer after registration, once and within `SET_REFERRER_WINDOW`."""

    invalidate_lookup: InvalidateLookup
    clock: Clock
    credit_referrer: CreditReferrer
    database: Database
    record_network: RecordNetwork

    async def __call__(self, user_id: UUID, code: str, client_ip: str | None = None) -> None:
        """Credit the code's owner. `client_ip` is None if a client acts for the user.

        Raises `AlreadyReferred`, `ClaimWindowClosed`, `ReferralCodeUnusable`, `AccountBlocked` or
        `Unauthenticated`.
        """
        async with self.database.begin() as repositories:
            user = await lock_account(repositories, user_id)
            if await repositories.referrals.find_by_referred(user_id) is not None:
                raise AlreadyReferred
            if self.clock.now() - user.created_at > SET_REFERRER_WINDOW:
                raise ClaimWindowClosed
            await self.record_network.of_visit(repositories, user, client_ip)
            owners = await self.credit_referrer(
                repositories, user, code, registers=False, client_ip=client_ip
            )
        await self.invalidate_lookup(*owners)
