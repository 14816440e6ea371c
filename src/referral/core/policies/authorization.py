"""Authorization of routes for admins and for clients with a scope."""

from dataclasses import dataclass
from uuid import UUID

from referral.core.entities.clients import Caller, Scope
from referral.core.entities.users import Role, User
from referral.core.errors import InsufficientScope, Unauthenticated
from referral.core.ports.repositories import Database


@dataclass(frozen=True, slots=True)
class Authorize:
    """Allow clients with a scope, and users who are admins now.

    An admin needs a session of their own: a token that a client obtained for a user has none.
    """

    database: Database

    async def __call__(self, caller: Caller, scope: Scope) -> None:
        """Raise `InsufficientScope`, or `Unauthenticated` if the admin's session has ended."""
        if caller.is_client_with(scope):
            return
        if caller.user_id is None or caller.session_id is None:
            raise InsufficientScope
        await self._require_admin(caller.user_id, caller.session_id)

    async def _require_admin(self, user_id: UUID, session_id: UUID) -> None:
        async with self.database.read() as repositories:
            user = await repositories.users.find(user_id)
            if user is None or user.role is not Role.ADMIN or user.blocked_at is not None:
                raise InsufficientScope
            if await repositories.sessions.find(session_id) is None:
                raise Unauthenticated("This session has ended. Log in again.")


def check_may_manage(caller: Caller, user: User) -> None:
    """Raise `InsufficientScope` if an admin's account is managed by a client without `admin`.

    With `users:write` alone a client could give the account an address of its own, and then set
    a password by that mailbox.
    """
    is_admin = caller.user_id is not None or caller.is_client_with(Scope.ADMIN)
    if user.role is Role.ADMIN and not is_admin:
        raise InsufficientScope("Changing the account of an admin requires the scope 'admin'.")
