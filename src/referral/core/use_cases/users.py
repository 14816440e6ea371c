"""Users, as admins and clients see and erase them."""

from dataclasses import dataclass, replace
from uuid import UUID

from referral.core.entities.account_view import UserDetails, UserFilter
from referral.core.entities.audit import OPERATOR
from referral.core.entities.clients import Caller
from referral.core.entities.external_ids import is_external_id
from referral.core.entities.page import Page
from referral.core.errors import NotFound
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.authorization import check_may_manage
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.repositories import Database


@dataclass(frozen=True, slots=True)
class ShowUser:
    """Return a user by its id or its external id."""

    database: Database

    async def __call__(self, user_id: UUID) -> UserDetails:
        """Return the user, or raise `NotFound`."""
        async with self.database.read() as repositories:
            return _require(await repositories.user_directory.find(user_id))

    async def by_external_id(self, external_id: str) -> UserDetails:
        """Return the user with an external id, or raise `NotFound`."""
        if not is_external_id(external_id):
            raise NotFound
        async with self.database.read() as repositories:
            return _require(await repositories.user_directory.find_by_external_id(external_id))


@dataclass(frozen=True, slots=True)
class ListUsers:
    """List users, newest first."""

    database: Database
    email_parser: EmailParser

    async def __call__(
        self, user_filter: UserFilter, email: str | None, *, after: UUID | None, limit: int
    ) -> Page[UserDetails]:
        """Return a page of the users that match; raises `InvalidRequest` for an invalid address."""
        if email is not None:
            user_filter = replace(user_filter, email_key=self.email_parser.parse(email).email_key)
        async with self.database.read() as repositories:
            rows = await repositories.user_directory.list_page(
                user_filter, after=after, limit=limit + 1
            )
        return Page.from_rows(rows, limit, lambda details: details.user.id)


@dataclass(frozen=True, slots=True)
class EraseUser:
    """Erase a user's account at the request of an admin, a client or the operator."""

    database: Database
    invalidate_lookup: InvalidateLookup
    remove_account: RemoveAccount

    async def __call__(self, caller: Caller | None, user_id: UUID) -> None:
        """Erase the account; without a caller, for the operator.

        Raises `NotFound`, and without the scope `admin` `InsufficientScope` for an admin's account,
        `AccountBlocked` for a blocked one.
        """
        async with self.database.begin() as repositories:
            user = await repositories.users.lock(user_id)
            if user is None:
                raise NotFound
            if caller is not None:
                check_may_manage(caller, user)
            actor = OPERATOR if caller is None else caller.actor
            owners = await self.remove_account(repositories, user, actor)
        await self.invalidate_lookup(*owners)


def _require(details: UserDetails | None) -> UserDetails:
    if details is None:
        raise NotFound
    return details
