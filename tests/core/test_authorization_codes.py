"""Authorization codes, and the login sessions that they are issued to."""

import asyncio
from dataclasses import replace

import pytest

from referral.core.entities.audit import OPERATOR
from referral.core.entities.authorization_codes import (
    AuthorizationRequest,
    make_code_challenge,
)
from referral.core.entities.clients import Client, Scope
from referral.core.entities.email_links import TokenPurpose
from referral.core.entities.users import User
from referral.core.errors import Conflict, Invalid, InvalidClient, InvalidGrant, InvalidScope
from referral.core.policies.client_identification import (
    DOCS_CLIENT_ID,
    FindClient,
    IdentifyPublicClient,
)
from referral.core.policies.session_tokens import TokenPair
from referral.core.use_cases.authorization_codes import (
    ExchangeAuthorizationCode,
    IssueAuthorizationCode,
)
from referral.core.use_cases.clients import (
    CreateClient,
    CreatePublicClient,
    IntrospectToken,
    RemoveClient,
    RotateClientSecret,
)
from referral.core.use_cases.login_sessions import (
    BeginLoginSession,
    EndLoginSession,
    FindLoginSession,
)
from referral.core.use_cases.retention import Prune
from tests.core.service import CLIENT_IP, PASSWORD, InMemoryService

REDIRECT_URI = "https://app.example.com/callback"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
NEW_PASSWORD = "staple battery horse"


@pytest.fixture
async def ann(service: InMemoryService) -> User:
    """A user."""
    return await service.create_account("ann@example.com")


@pytest.fixture
async def app(service: InMemoryService) -> Client:
    """A public client."""
    return await service.get(CreatePublicClient)("app", [REDIRECT_URI], OPERATOR)


async def log_in(service: InMemoryService, *, replaced_token: str | None = None) -> str:
    """Log Ann's browser in; return the token of its cookie."""
    begin = service.get(BeginLoginSession)
    return await begin("ann@example.com", PASSWORD, CLIENT_IP, replaced_token)


async def issue(service: InMemoryService, client: Client) -> str:
    """Log in and return a code for the client."""
    request = AuthorizationRequest(client.id, REDIRECT_URI, CHALLENGE)
    code = await service.get(IssueAuthorizationCode)(await log_in(service), request)
    assert code is not None
    return code


async def exchange(
    service: InMemoryService,
    client: Client,
    code: str,
    redirect_uri: str = REDIRECT_URI,
    verifier: str = VERIFIER,
) -> TokenPair:
    """Exchange a code."""
    return await service.get(ExchangeAuthorizationCode)(client, code, redirect_uri, verifier)


def test_challenge_is_that_of_rfc_7636() -> None:
    """Appendix B of the RFC has this example."""
    assert make_code_challenge(VERIFIER) == CHALLENGE


async def test_code_is_exchanged_for_a_session(
    service: InMemoryService, ann: User, app: Client
) -> None:
    """Its tokens are Ann's, and belong to the client."""
    tokens = await exchange(service, app, await issue(service, app))
    claims = service.access_tokens.verify(tokens.access_token)
    assert (claims.caller.user_id, claims.caller.client_id) == (ann.id, str(app.id))
    assert tokens.scope == " ".join(claims.caller.scopes) == Scope.ACCOUNT
    refreshed = await service.refresh(tokens.refresh_token, str(app.id))
    assert service.access_tokens.verify(refreshed.access_token).caller.client_id == str(app.id)


async def test_refresh_token_belongs_to_its_client(
    service: InMemoryService, ann: User, app: Client
) -> None:
    """Nobody else can use it, and nothing ends if somebody tries."""
    assert ann
    other = await service.get(CreatePublicClient)("other", [REDIRECT_URI], OPERATOR)
    of_app = (await exchange(service, app, await issue(service, app))).refresh_token
    first_party = (await service.log_in("ann@example.com", PASSWORD, CLIENT_IP)).refresh_token
    for token, client_id in ((of_app, str(other.id)), (first_party, str(app.id))):
        with pytest.raises(InvalidGrant):
            await service.refresh(token, client_id)
    with pytest.raises(InvalidGrant):
        await service.refresh(of_app)
    assert await service.refresh(of_app, str(app.id))
    assert await service.refresh(first_party)


async def test_second_use_ends_the_session_of_the_first(
    service: InMemoryService, ann: User, app: Client
) -> None:
    """Even long afterwards, or with another verifier; the event is logged."""
    for verifier in (VERIFIER, "x" * 43, "short"):
        code = await issue(service, app)
        tokens = await exchange(service, app, code)
        service.clock.advance(minutes=2)
        await service.get(Prune)()
        with pytest.raises(InvalidGrant):
            await exchange(service, app, code, verifier=verifier)
        with pytest.raises(InvalidGrant):
            await service.refresh(tokens.refresh_token, str(app.id))
    assert service.security_log.events == ["authorization code reused"] * 3
    assert service.security_log.facts[-1] == {"user_id": str(ann.id)}


async def test_one_of_fifty_exchanges_wins(
    service: InMemoryService, ann: User, app: Client
) -> None:
    """The others end its session."""
    assert ann
    code = await issue(service, app)
    results = await asyncio.gather(
        *(exchange(service, app, code) for _ in range(50)), return_exceptions=True
    )
    [tokens] = [result for result in results if isinstance(result, TokenPair)]
    assert sum(isinstance(result, InvalidGrant) for result in results) == 49
    with pytest.raises(InvalidGrant):
        await service.refresh(tokens.refresh_token, str(app.id))


async def test_code_is_bound_to_its_request(
    service: InMemoryService, ann: User, app: Client
) -> None:
    """Another client, redirect URI or verifier is refused, and the code stays good."""
    assert ann
    other = await service.get(CreatePublicClient)("other", [REDIRECT_URI], OPERATOR)
    code = await issue(service, app)
    for client, uri, verifier in (
        (other, REDIRECT_URI, VERIFIER),
        (app, REDIRECT_URI + "/", VERIFIER),
        (app, REDIRECT_URI, VERIFIER[:-1] + "l"),
        (app, REDIRECT_URI, CHALLENGE),
        (app, REDIRECT_URI, ""),
    ):
        with pytest.raises(InvalidGrant):
            await exchange(service, client, code, uri, verifier)
    assert await exchange(service, app, code)


async def test_short_verifier_is_refused(service: InMemoryService, ann: User, app: Client) -> None:
    """A verifier has 43 characters at least (RFC 7636, section 4.1), also if its digest fits."""
    assert ann
    short = AuthorizationRequest(app.id, REDIRECT_URI, make_code_challenge("short"))
    code = await service.get(IssueAuthorizationCode)(await log_in(service), short)
    with pytest.raises(InvalidGrant):
        await exchange(service, app, code or "", verifier="short")


async def test_code_lives_for_a_minute(service: InMemoryService, ann: User, app: Client) -> None:
    """It is refused from then on, and pruned."""
    assert ann
    code, late = await issue(service, app), await issue(service, app)
    service.clock.advance(seconds=59)
    assert await exchange(service, app, code)
    service.clock.advance(seconds=1)
    with pytest.raises(InvalidGrant):
        await exchange(service, app, late)
    await service.get(Prune)()
    async with service.database.read() as repositories:
        left = repositories.tables.authorization_codes
    assert list(left) == [service.token_generator.digest(code)]


@pytest.mark.parametrize("end", ["password", "reset", "block", "erase"])
async def test_codes_and_login_sessions_end(
    service: InMemoryService, ann: User, app: Client, end: str
) -> None:
    """With a new password, a reset, a block and an erasure."""
    token, code = await log_in(service), await issue(service, app)
    if end == "password":
        await service.change_password(ann.id, None, PASSWORD, NEW_PASSWORD)
    elif end == "reset":
        link = await service.create_mail_token(ann, TokenPurpose.RESET)
        await service.reset_password(link, NEW_PASSWORD)
    elif end == "block":
        await service.block_account("ann@example.com")
    else:
        await service.erase_account(ann.id, PASSWORD)
    with pytest.raises(InvalidGrant):
        await exchange(service, app, code)
    assert await service.get(FindLoginSession)(token) is None
    request = AuthorizationRequest(app.id, REDIRECT_URI, CHALLENGE)
    assert await service.get(IssueAuthorizationCode)(token, request) is None
    async with service.database.read() as repositories:
        assert not repositories.tables.authorization_codes
        assert not repositories.tables.login_sessions


async def test_blocked_user_gets_no_code(service: InMemoryService, ann: User, app: Client) -> None:
    """Not even with a login session that the previous release left."""
    token = await log_in(service)
    async with service.database.begin() as repositories:
        await repositories.users.save(replace(ann, blocked_at=service.clock.now()))
    request = AuthorizationRequest(app.id, REDIRECT_URI, CHALLENGE)
    assert await service.get(IssueAuthorizationCode)(token, request) is None


async def test_login_session_ends(service: InMemoryService, ann: User) -> None:
    """By its expiry, a log-out, or a new login of the same browser; others go on."""
    find, end = service.get(FindLoginSession), service.get(EndLoginSession)
    first, other = await log_in(service), await log_in(service)
    second = await log_in(service, replaced_token=first)
    assert await find(first) is None
    found = await find(second)
    assert found is not None
    assert found.user_id == ann.id
    await end(second)
    await end(second)
    assert await find(second) is None
    service.clock.advance(hours=23, minutes=59)
    assert await find(other) is not None
    service.clock.advance(minutes=1)
    assert await find(other) is None
    await service.get(Prune)()
    async with service.database.read() as repositories:
        assert not repositories.tables.login_sessions


async def test_tokens_are_not_taken_for_one_another(
    service: InMemoryService, ann: User, app: Client
) -> None:
    """Each of refresh token, code and cookie is good for its own purpose only."""
    assert ann
    cookie, code = await log_in(service), await issue(service, app)
    tokens = await exchange(service, app, await issue(service, app))
    secrets = {cookie, code, tokens.refresh_token, tokens.access_token}
    for secret in secrets - {cookie}:
        assert await service.get(FindLoginSession)(secret) is None
    for secret in secrets - {code}:
        with pytest.raises(InvalidGrant):
            await exchange(service, app, secret)
    for secret in secrets - {tokens.refresh_token}:
        for client_id in ("first-party", str(app.id)):
            with pytest.raises(InvalidGrant):
                await service.refresh(secret, client_id)


async def test_public_client_is_identified(service: InMemoryService, app: Client) -> None:
    """By its id; a client with a secret must authenticate, and unknown ones are refused."""
    identify = service.get(IdentifyPublicClient)
    assert await identify(str(app.id)) == app
    assert (await identify(str(DOCS_CLIENT_ID))).redirect_uris == (
        "http://127.0.0.1:8000/docs/oauth2-redirect",
    )
    shop, _ = await service.get(CreateClient)("shop", [], OPERATOR, [REDIRECT_URI])
    assert await service.get(FindClient)(str(shop.id)) == shop
    for client_id in (str(shop.id), str(service.id_generator.new()), "first-party", ""):
        with pytest.raises(InvalidClient):
            await identify(client_id)


async def test_public_client_has_no_secret(service: InMemoryService, app: Client) -> None:
    """None can be made for it."""
    assert app.is_public
    with pytest.raises(Invalid, match="public"):
        await service.get(RotateClientSecret)("app", OPERATOR)


async def test_client_is_checked(service: InMemoryService, app: Client) -> None:
    """A public client needs a redirect URI, a client with a secret a scope or a redirect URI."""
    assert app
    create, create_public = service.get(CreateClient), service.get(CreatePublicClient)
    for name, uris in (("new", []), (" ", [REDIRECT_URI]), ("new", ["javascript:x"])):
        with pytest.raises(Invalid):
            await create_public(name, uris, OPERATOR)
    with pytest.raises(Invalid, match="20"):
        await create_public("new", [f"{REDIRECT_URI}/{number}" for number in range(21)], OPERATOR)
    with pytest.raises(Conflict):
        await create_public("app", [REDIRECT_URI], OPERATOR)
    with pytest.raises(InvalidScope):
        await create("new", [], OPERATOR)
    shop, _ = await create("shop", [Scope.CODES_READ], OPERATOR, [REDIRECT_URI] * 2)
    assert shop.redirect_uris == (REDIRECT_URI,)
    assert shop.allows_redirect_to(REDIRECT_URI)
    assert not shop.allows_redirect_to(REDIRECT_URI + "/")


async def test_tokens_of_a_removed_client_are_inactive(
    service: InMemoryService, ann: User, app: Client
) -> None:
    """At once, for introspection; the sessions of others go on."""
    assert ann
    shop, _ = await service.get(CreateClient)("shop", [Scope.CODES_READ], OPERATOR)
    tokens = await exchange(service, app, await issue(service, app))
    introspect = service.get(IntrospectToken)
    assert await introspect(shop, tokens.access_token) is not None
    await service.get(RemoveClient)("app", OPERATOR)
    assert await introspect(shop, tokens.access_token) is None
    assert await introspect(shop, tokens.refresh_token) is None
    first_party = await service.log_in("ann@example.com", PASSWORD, CLIENT_IP)
    assert await introspect(shop, first_party.access_token) is not None
