"""Users as admins and clients see them."""

from typing import Protocol
from uuid import UUID

from referral.core.entities.account_view import UserDetails, UserFilter


class UserDirectory(Protocol):
    """Reads accounts with their referrer and referral count. Erased accounts are not found."""

    async def find(self, user_id: UUID) -> UserDetails | None: ...

    async def find_by_external_id(self, external_id: str) -> UserDetails | None: ...

    async def list_page(
        self, user_filter: UserFilter, *, after: UUID | None, limit: int
    ) -> list[UserDetails]:
        """Return the users that match every part of the filter, newest first."""
        ...
