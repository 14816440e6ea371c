"""Routes for admins and for clients with a scope."""

from dataclasses import replace
from uuid import UUID

import pytest

from referral.core.entities.audit import OPERATOR
from referral.core.entities.clients import GRANTABLE_SCOPES, Caller, Scope
from referral.core.entities.sessions import Session
from referral.core.entities.users import Role, User
from referral.core.errors import AccountBlocked, InsufficientScope, Unauthenticated
from referral.core.policies.authorization import Authorize, CheckActingClient
from referral.core.policies.client_identification import BUILT_IN_CLIENT_IDS
from referral.core.use_cases.clients import CreateClient, RemoveClient
from tests.core.service import InMemoryService, client_caller, user_caller


@pytest.fixture
async def admin(service: InMemoryService) -> User:
    """An admin without a session."""
    return await service.create_admin("admin@example.com")


async def begin_session(service: InMemoryService, user: User) -> UUID:
    """Store a session of a user and return its id."""
    now = service.clock.now()
    session = Session(service.id_generator.new(), user.id, "first-party", "account", now, now)
    async with service.database.begin() as repositories:
        await repositories.sessions.add(session)
    return session.id


async def stored_client(service: InMemoryService, *scopes: Scope) -> Caller:
    """Create a client; return the caller of its token."""
    client, _ = await service.get(CreateClient)("shop", scopes, OPERATOR)
    return Caller(str(client.id), frozenset(scopes), None)


@pytest.mark.parametrize("granted", [Scope.WEBHOOKS, Scope.ADMIN])
async def test_client_with_the_scope_is_allowed(service: InMemoryService, granted: Scope) -> None:
    """The scope itself, or `admin`."""
    await service.get(Authorize)(await stored_client(service, granted), Scope.WEBHOOKS)


@pytest.mark.parametrize("granted", [Scope.WEBHOOKS, Scope.ADMIN])
async def test_deleted_client_is_refused(service: InMemoryService, granted: Scope) -> None:
    """Its older access tokens create no new client."""
    caller = await stored_client(service, granted)
    await service.get(RemoveClient)("shop", OPERATOR)
    with pytest.raises(Unauthenticated, match=r"^This client was deleted\.$"):
        await service.get(Authorize)(caller, Scope.WEBHOOKS)


@pytest.mark.parametrize("granted", sorted(GRANTABLE_SCOPES - {Scope.WEBHOOKS, Scope.ADMIN}))
async def test_client_without_the_scope_is_refused(
    service: InMemoryService, granted: Scope
) -> None:
    """No other scope includes it."""
    with pytest.raises(InsufficientScope):
        await service.get(Authorize)(client_caller(granted), Scope.WEBHOOKS)


async def test_scope_of_users_is_not_included_in_admin(service: InMemoryService) -> None:
    """A client never acts as a user."""
    with pytest.raises(InsufficientScope):
        await service.get(Authorize)(client_caller(Scope.ADMIN), Scope.ACCOUNT)


async def test_admin_is_allowed_while_the_session_lasts(
    service: InMemoryService, admin: User
) -> None:
    """The end of the session ends the access token for these routes at once."""
    session_id = await begin_session(service, admin)
    await service.get(Authorize)(user_caller(admin, session_id), Scope.ADMIN)
    async with service.database.begin() as repositories:
        await repositories.sessions.revoke(session_id)
    with pytest.raises(Unauthenticated, match=r"^This session has ended\. Log in again\.$"):
        await service.get(Authorize)(user_caller(admin, session_id), Scope.ADMIN)


async def test_admin_without_a_session_is_refused(service: InMemoryService, admin: User) -> None:
    """A token that a client obtained for the admin does not carry the admin's rights."""
    with pytest.raises(InsufficientScope):
        await service.get(Authorize)(user_caller(admin), Scope.ADMIN)


@pytest.mark.parametrize("client_id", sorted(BUILT_IN_CLIENT_IDS))
async def test_admin_uses_the_clients_of_the_service(
    service: InMemoryService, admin: User, client_id: str
) -> None:
    """The password grant and the documentation page."""
    caller = user_caller(admin, await begin_session(service, admin))
    await service.get(Authorize)(replace(caller, client_id=client_id), Scope.ADMIN)


async def test_application_does_not_get_the_rights_of_an_admin(
    service: InMemoryService, admin: User
) -> None:
    """Whoever signs in to it, whatever scopes the application has itself."""
    caller = user_caller(admin, await begin_session(service, admin))
    application = (await stored_client(service, Scope.ADMIN)).client_id
    with pytest.raises(InsufficientScope):
        await service.get(Authorize)(replace(caller, client_id=application), Scope.ADMIN)


async def test_acting_client_changes_something_while_both_are_there(
    service: InMemoryService, admin: User
) -> None:
    """The client is not deleted, and the user is neither blocked nor erased."""
    check, shop = service.get(CheckActingClient), await stored_client(service, Scope.USERS_ACT)
    ann = await service.create_account("ann@example.com")
    await check(shop.client_id, ann.id)
    await service.block_account(ann.email)
    with pytest.raises(AccountBlocked):
        await check(shop.client_id, ann.id)
    with pytest.raises(Unauthenticated):
        await check(shop.client_id, service.id_generator.new())
    await service.get(RemoveClient)("shop", OPERATOR)
    with pytest.raises(Unauthenticated):
        await check(shop.client_id, admin.id)


@pytest.mark.parametrize("change", ["demoted", "blocked", "erased"])
async def test_former_admin_is_refused(service: InMemoryService, admin: User, change: str) -> None:
    """The role is read for each request: the token does not tell it."""
    caller = user_caller(admin, await begin_session(service, admin))
    now = service.clock.now()
    async with service.database.begin() as repositories:
        if change == "demoted":
            await repositories.users.save(replace(admin, role=Role.MEMBER))
        elif change == "blocked":
            await repositories.users.save(replace(admin, blocked_at=now))
        else:
            await repositories.users.erase(admin.id, now)
    with pytest.raises(InsufficientScope):
        await service.get(Authorize)(caller, Scope.ADMIN)
