"""The fake of users as admins and clients see them."""

from dataclasses import dataclass
from uuid import UUID

from referral.core.entities.account_view import UserDetails, UserFilter
from referral.core.entities.users import Referrer, User
from tests.support.fakes.searches import count_referrals
from tests.support.fakes.tables import Tables


@dataclass(frozen=True)
class FakeUserDirectory:
    """Details composed of the tables."""

    tables: Tables

    async def find(self, user_id: UUID) -> UserDetails | None:
        return next((self._details(user) for user in self._users() if user.id == user_id), None)

    async def find_by_external_id(self, external_id: str) -> UserDetails | None:
        matching = (user for user in self._users() if user.external_id == external_id)
        return next(map(self._details, matching), None)

    async def list_page(
        self, user_filter: UserFilter, *, after: UUID | None, limit: int
    ) -> list[UserDetails]:
        matching = [
            user
            for user in self._users()
            if user_filter.email_key in {None, user.email_key}
            and user_filter.role in {None, user.role}
            and user_filter.blocked in {None, user.blocked_at is not None}
            and user_filter.verified in {None, user.email_verified}
            and (after is None or user.id < after)
        ]
        newest = sorted(matching, key=lambda user: user.id, reverse=True)[:limit]
        return [self._details(user) for user in newest]

    def _users(self) -> list[User]:
        return [each for each in self.tables.users.values() if each.id not in self._erased]

    @property
    def _erased(self) -> set[UUID]:
        return set(self.tables.erased_users)

    def _details(self, user: User) -> UserDetails:
        referrers = {row.referred_id: row.referrer_id for row in self.tables.referrals.values()}
        referrer = next((each for each in self._users() if each.id == referrers.get(user.id)), None)
        return UserDetails(
            user,
            Referrer(referrer.id, referrer.email) if referrer else None,
            count_referrals(self.tables, user.id),
        )
