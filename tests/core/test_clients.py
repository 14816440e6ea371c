"""OAuth clients: creation, authentication, access tokens and introspection."""

from dataclasses import dataclass, replace

import pytest

from referral.core.entities.audit import OPERATOR
from referral.core.entities.clients import Caller, Client, Scope
from referral.core.entities.users import User
from referral.core.errors import Conflict, Invalid, InvalidClient, InvalidScope, NotFound
from referral.core.policies.session_tokens import TokenPair
from referral.core.use_cases.clients import (
    AuthenticateClient,
    ClientCredentials,
    ClientToken,
    CreateClient,
    IntrospectionResult,
    IntrospectToken,
    IssueClientToken,
    ListClients,
    RemoveClient,
    RotateClientSecret,
)
from tests.core.service import CLIENT_IP, PASSWORD, SESSION_LIFETIME, InMemoryService
from tests.support.fakes.token_repositories import FakeClientRepository


@dataclass(frozen=True)
class Shop:
    """A client and its credentials."""

    client: Client
    credentials: ClientCredentials


async def create_shop(service: InMemoryService, *scopes: Scope) -> Shop:
    """Create a client with a name of its own."""
    name = f"shop {service.id_generator.new()}"
    client, secret = await service.get(CreateClient)(name, scopes, OPERATOR)
    return Shop(client, ClientCredentials(str(client.id), secret))


@pytest.fixture
async def shop(service: InMemoryService) -> Shop:
    """A client that may see e-mail addresses."""
    return await create_shop(service, Scope.USERS_READ, Scope.CODES_READ)


@pytest.fixture
async def ann(service: InMemoryService) -> User:
    """A user."""
    return await service.create_account("Ann@example.com")


@pytest.fixture
async def tokens(service: InMemoryService, ann: User) -> TokenPair:
    """The tokens of Ann's login."""
    return await service.log_in(ann.email, PASSWORD, CLIENT_IP)


async def test_new_client_is_stored_with_a_digest_of_its_secret(service: InMemoryService) -> None:
    """The secret is shown once, and cannot be read again."""
    scopes = [Scope.USERS_READ, Scope.CODES_READ]
    client, secret = await service.get(CreateClient)("shop", scopes, OPERATOR)
    digest = service.token_generator.digest(secret)
    assert client == Client(client.id, "shop", digest, frozenset(scopes), service.clock.now())
    async with service.database.read() as repositories:
        assert await repositories.clients.find(client.id) == client


@pytest.mark.parametrize("scopes", [[], [Scope.ACCOUNT], [Scope.ACCOUNT, Scope.CODES_READ]])
async def test_client_needs_scopes_that_a_client_may_have(
    service: InMemoryService, scopes: list[Scope]
) -> None:
    """At least one, and never `account`, which is for users; otherwise no client is created."""
    with pytest.raises(InvalidScope):
        await service.get(CreateClient)("shop", scopes, OPERATOR)
    async with service.database.read() as repositories:
        assert not repositories.tables.clients


@pytest.mark.parametrize("name", ["", "  ", "x" * 101, "two\nlines", "\x1b[1m"])
async def test_client_needs_a_printable_name(service: InMemoryService, name: str) -> None:
    """An operator tells clients apart by their names; otherwise no client is created."""
    with pytest.raises(Invalid, match="1 to 100 printable characters") as raised:
        await service.get(CreateClient)(name, [Scope.CODES_READ], OPERATOR)
    assert raised.value.field == "name"
    assert await service.get(ListClients)() == []


async def test_name_of_a_client_is_unique(service: InMemoryService) -> None:
    """Spaces around it do not count. A removed client's name is free again."""
    create = service.get(CreateClient)
    client, _ = await create(f" {'x' * 100} ", [Scope.CODES_READ], OPERATOR)
    assert client.name == "x" * 100
    with pytest.raises(Conflict):
        await create(f"{client.name} ", [Scope.USERS_READ], OPERATOR)
    assert await service.get(ListClients)() == [client]
    await service.get(RemoveClient)(client.name, OPERATOR)
    await create(client.name, [Scope.USERS_READ], OPERATOR)


async def test_clients_are_listed_by_name(service: InMemoryService) -> None:
    """Not by age."""
    for name in ("b", "a", "c"):
        await service.get(CreateClient)(name, [Scope.CODES_READ], OPERATOR)
    assert [client.name for client in await service.get(ListClients)()] == ["a", "b", "c"]


@pytest.mark.parametrize("key", ["id", "name"])
async def test_rotation_replaces_the_secret(service: InMemoryService, shop: Shop, key: str) -> None:
    """The old secret is invalid at once; id, name and scopes stay."""
    rotate, authenticate = service.get(RotateClientSecret), service.get(AuthenticateClient)
    rotated, secret = await rotate(str(getattr(shop.client, key)), OPERATOR)
    assert rotated == replace(shop.client, secret_digest=service.token_generator.digest(secret))
    assert await authenticate(replace(shop.credentials, secret=secret)) == rotated
    with pytest.raises(InvalidClient):
        await authenticate(shop.credentials)


@pytest.mark.parametrize("key", ["id", "name"])
async def test_removal_ends_a_client_and_its_tokens(
    service: InMemoryService, shop: Shop, key: str
) -> None:
    """It gets no token, and introspection by another client finds its last one inactive."""
    token = service.get(IssueClientToken)
    other = await create_shop(service, Scope.CODES_READ)
    issued = await token(shop.client, "")
    introspect = service.get(IntrospectToken)
    assert await introspect(other.client, issued.access_token) is not None
    assert await service.get(RemoveClient)(str(getattr(shop.client, key)), OPERATOR) == shop.client
    assert await introspect(other.client, issued.access_token) is None
    with pytest.raises(InvalidClient):
        await service.get(AuthenticateClient)(shop.credentials)
    assert await service.get(ListClients)() == [other.client]


@pytest.mark.parametrize("use_case", [RotateClientSecret, RemoveClient])
async def test_unknown_client_is_named_in_the_error(
    service: InMemoryService, shop: Shop, use_case: type[RotateClientSecret | RemoveClient]
) -> None:
    """And no other client is changed."""
    with pytest.raises(NotFound, match="No client has the id or the name 'shopp'"):
        await service.get(use_case)("shopp", OPERATOR)
    assert await service.get(ListClients)() == [shop.client]


@pytest.mark.parametrize(
    ("use_case", "statement"), [(RotateClientSecret, "replace_secret"), (RemoveClient, "remove")]
)
async def test_client_that_is_removed_meanwhile_is_named_in_the_error(
    service: InMemoryService,
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    use_case: type[RotateClientSecret | RemoveClient],
    statement: str,
) -> None:
    """The statement decides, not the read before it."""

    async def find_no_row(*_: object) -> bool:
        return False

    monkeypatch.setattr(FakeClientRepository, statement, find_no_row)
    with pytest.raises(NotFound, match=f"No client has the id or the name '{shop.client.name}'"):
        await service.get(use_case)(shop.client.name, OPERATOR)


async def test_client_may_have_all_other_scopes(service: InMemoryService) -> None:
    """Reading codes, referrals and users."""
    scopes = {Scope.CODES_READ, Scope.REFERRALS_READ, Scope.USERS_READ}
    assert (await create_shop(service, *scopes)).client.scopes == scopes


async def test_client_authenticates_by_its_id_and_secret(
    service: InMemoryService, shop: Shop
) -> None:
    """A request without credentials comes from no client."""
    authenticate = service.get(AuthenticateClient)
    assert await authenticate(shop.credentials) == shop.client
    assert await authenticate(None) is None


async def test_invalid_client_credentials_are_rejected(
    service: InMemoryService, shop: Shop
) -> None:
    """A wrong secret, the secret of another client, an unknown id and one that is no UUID."""
    other = await create_shop(service, Scope.CODES_READ)
    invalid = [
        ClientCredentials(shop.credentials.client_id, "a guess"),
        replace(shop.credentials, secret=other.credentials.secret),
        replace(shop.credentials, client_id=str(service.id_generator.new())),
        replace(shop.credentials, client_id="shop"),
    ]
    for credentials in invalid:
        with pytest.raises(InvalidClient):
            await service.get(AuthenticateClient)(credentials)


@pytest.mark.parametrize(
    ("requested", "granted"),
    [
        ("", "codes:read users:read"),
        ("users:read", "users:read"),
        ("users:read codes:read", "codes:read users:read"),
    ],
)
async def test_client_token_has_the_requested_or_all_scopes(
    service: InMemoryService, shop: Shop, requested: str, granted: str
) -> None:
    """The scopes are sorted; the token names the client and neither a user nor a session."""
    token = await service.get(IssueClientToken)(shop.client, requested)
    assert token == ClientToken(token.access_token, service.access_tokens.lifetime_seconds, granted)
    claims = service.access_tokens.verify(token.access_token)
    client_id = str(shop.client.id)
    assert claims.subject == client_id
    assert claims.caller == Caller(client_id, frozenset(granted.split()), None)


@pytest.mark.parametrize("scope", ["referrals:read", "users:read account", "anything"])
async def test_client_token_cannot_exceed_the_scopes_of_its_client(
    service: InMemoryService, shop: Shop, scope: str
) -> None:
    """One scope that the client does not have rejects the whole request."""
    with pytest.raises(InvalidScope):
        await service.get(IssueClientToken)(shop.client, scope)


async def test_admin_client_may_request_every_scope_of_a_client(service: InMemoryService) -> None:
    """But not the scope of users."""
    operator = await create_shop(service, Scope.ADMIN)
    issue = service.get(IssueClientToken)
    assert (await issue(operator.client, "webhooks users:act")).scope == "users:act webhooks"
    assert (await issue(operator.client, "")).scope == "admin"
    with pytest.raises(InvalidScope):
        await issue(operator.client, "account")


async def test_introspection_describes_an_access_token(
    service: InMemoryService, shop: Shop, ann: User, tokens: TokenPair
) -> None:
    """With its claims, and the user's address for a client with `users:read`."""
    claims = service.access_tokens.verify(tokens.access_token)
    assert await service.get(IntrospectToken)(
        shop.client, tokens.access_token
    ) == IntrospectionResult(
        "first-party",
        str(ann.id),
        "account",
        claims.expires_at,
        claims,
        "Ann@example.com",
        email_verified=False,
    )


async def test_introspection_describes_a_refresh_token(
    service: InMemoryService, shop: Shop, ann: User, tokens: TokenPair
) -> None:
    """With the end of its session, and without claims, which it does not have."""
    ends_at = service.clock.now() + SESSION_LIFETIME
    assert await service.get(IntrospectToken)(
        shop.client, tokens.refresh_token
    ) == IntrospectionResult(
        "first-party",
        str(ann.id),
        "account",
        int(ends_at.timestamp()),
        None,
        "Ann@example.com",
        email_verified=False,
    )


async def test_introspection_describes_the_token_of_a_client(
    service: InMemoryService, shop: Shop
) -> None:
    """It has no user; it is inactive once its client does not exist."""
    other = await create_shop(service, Scope.USERS_READ, Scope.CODES_READ)
    token = (await service.get(IssueClientToken)(other.client, "")).access_token
    introspect, client_id = service.get(IntrospectToken), str(other.client.id)
    claims = service.access_tokens.verify(token)
    assert await introspect(shop.client, token) == IntrospectionResult(
        client_id, client_id, "codes:read users:read", claims.expires_at, claims
    )
    async with service.database.begin() as repositories:
        del repositories.tables.clients[other.client.id]
    assert await introspect(shop.client, token) is None


async def test_introspection_hides_the_email_without_the_scope(
    service: InMemoryService, shop: Shop, tokens: TokenPair
) -> None:
    """A client without `users:read` gets everything else."""
    blind = await create_shop(service, Scope.CODES_READ)
    introspect = service.get(IntrospectToken)
    for token in (tokens.access_token, tokens.refresh_token):
        seen = await introspect(shop.client, token)
        assert seen is not None
        assert await introspect(blind.client, token) == replace(seen, email=None)


async def test_tokens_of_an_ended_session_are_inactive(
    service: InMemoryService, shop: Shop, ann: User, tokens: TokenPair
) -> None:
    """Although the signature of the access token stays valid for some minutes."""
    introspect = service.get(IntrospectToken)
    async with service.database.begin() as repositories:
        await repositories.sessions.revoke_all(ann.id)
    for token in (tokens.access_token, tokens.refresh_token, "made up"):
        assert await introspect(shop.client, token) is None


async def test_user_token_without_a_session_is_inactive(
    service: InMemoryService, shop: Shop, ann: User
) -> None:
    """Every login has one."""
    token = service.access_tokens.issue(str(ann.id), "first-party", Scope.ACCOUNT)
    assert await service.get(IntrospectToken)(shop.client, token) is None


async def test_tokens_of_a_blocked_or_erased_user_are_inactive(
    service: InMemoryService, shop: Shop, ann: User, tokens: TokenPair
) -> None:
    """Also while a session of the user still exists."""
    introspect, now = service.get(IntrospectToken), service.clock.now()
    async with service.database.begin() as repositories:
        await repositories.users.save(replace(ann, blocked_at=now))
    for token in (tokens.access_token, tokens.refresh_token):
        assert await introspect(shop.client, token) is None
    async with service.database.begin() as repositories:
        await repositories.users.save(ann)
        await repositories.users.erase(ann.id, now)
    for token in (tokens.access_token, tokens.refresh_token):
        assert await introspect(shop.client, token) is None


async def test_refresh_token_is_inactive_from_the_end_of_its_session(
    service: InMemoryService, shop: Shop, tokens: TokenPair
) -> None:
    """Thirty days after the login, to the second."""
    introspect = service.get(IntrospectToken)
    service.clock.advance(days=30, seconds=-1)
    assert await introspect(shop.client, tokens.refresh_token) is not None
    service.clock.advance(seconds=1)
    assert await introspect(shop.client, tokens.refresh_token) is None
