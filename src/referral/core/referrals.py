"""Who joined with whose code, and who may see that."""

from dataclasses import dataclass
from uuid import UUID

from referral.core.errors import InsufficientScope, NotFound
from referral.core.model import Caller, Joined, Page, ReferralStatus, Role, Scope, Visibility
from referral.core.ports import Database, Records


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
    ) -> tuple[Page[Joined], bool]:
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

    async def _sees_in_full(self, records: Records, caller: Caller, user_id: UUID) -> bool:
        if caller.user_id is None and Scope.REFERRALS_READ not in caller.scopes:
            raise InsufficientScope
        if caller.user_id == user_id:
            return True
        privileged = caller.user_id is None or await _is_admin(records, caller.user_id)
        seen = privileged or self.visibility is not Visibility.OWNER
        if not seen or await records.users.get(user_id) is None:
            raise NotFound
        return privileged or self.visibility is Visibility.OPEN


async def _is_admin(records: Records, user_id: UUID) -> bool:
    user = await records.users.get(user_id)
    return user is not None and user.role is Role.ADMIN
