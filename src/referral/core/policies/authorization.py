"""Authorization of routes for admins and for clients with a scope."""

from dataclasses import dataclass
from uuid import UUID

from referral.core.entities.clients import Caller, Scope
from referral.core.entities.users import Role, User
from referral.core.errors import AccountBlocked, InsufficientScope, Unauthenticated
from referral.core.policies.client_identification import BUILT_IN_CLIENT_IDS, client_exists
from referral.core.policies.reauthentication import require_active_account
from referral.core.ports.repositories import Database, Repositories


@dataclass(frozen=True, slots=True)
class Authorize:
    """Allow clients with a scope, and users who are admins now."""

    database: Database

    async def __call__(self, caller: Caller, scope: Scope) -> None:
        """Raise `InsufficientScope`, or `Unauthenticated` if session or client have ended."""
        async with self.database.read() as repositories:
            try:
                if caller.user_id is None:
                    await require_client(repositories, caller, scope)
                else:
                    await require_admin(repositories, caller)
            except InsufficientScope:
                raise InsufficientScope(scope=scope) from None


@dataclass(frozen=True, slots=True)
class CheckActingClient:
    """Reject changes and exports by a client that acts for a user, once either of them is gone."""

    database: Database

    async def __call__(self, client_id: str, user_id: UUID) -> None:
        """Raise `Unauthenticated`, or `AccountBlocked` if the user is blocked."""
        async with self.database.read() as repositories:
            await _require_existing_client(repositories, client_id)
            require_active_account(await repositories.users.find(user_id))


async def require_client(repositories: Repositories, caller: Caller, scope: Scope) -> None:
    """Raise `InsufficientScope` unless a client has a scope, and `Unauthenticated` if removed."""
    if not caller.is_client_with(scope):
        raise InsufficientScope
    await _require_existing_client(repositories, caller.client_id)


async def require_admin(repositories: Repositories, caller: Caller) -> None:
    """Raise `InsufficientScope` unless a user is an admin, and `Unauthenticated` without session.

    The token must be one of the service's own clients: an application that an admin signs in to,
    or a client that acts for an admin, does not get the rights of an admin.
    """
    if caller.user_id is None or caller.session_id is None:
        raise InsufficientScope
    if caller.client_id not in BUILT_IN_CLIENT_IDS or caller.acting_client is not None:
        raise InsufficientScope
    user = await repositories.users.find(caller.user_id)
    if user is None or user.role is not Role.ADMIN or user.blocked_at is not None:
        raise InsufficientScope
    if await repositories.sessions.find(caller.session_id) is None:
        raise Unauthenticated("This session has ended. Log in again.")


async def _require_existing_client(repositories: Repositories, client_id: str) -> None:
    if not await client_exists(repositories, client_id):
        raise Unauthenticated("This client was deleted.")


def check_may_manage(caller: Caller, user: User) -> None:
    """Allow admins and clients with `admin` to manage any account, other clients most accounts.

    Raises `InsufficientScope` for an admin's account: with `users:write` alone a client could give
    it an address of its own, and then set a password by that mailbox. Raises `AccountBlocked` for
    a blocked account: its address would be free for another one.
    """
    if caller.user_id is not None or caller.is_client_with(Scope.ADMIN):
        return
    if user.role is Role.ADMIN:
        raise InsufficientScope("Changing the account of an admin requires the scope 'admin'.")
    if user.blocked_at is not None:
        detail = "This account is blocked: changing it requires the scope 'admin'."
        raise AccountBlocked(detail)
