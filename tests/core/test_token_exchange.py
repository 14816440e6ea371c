"""Token exchange: which user a client gets a token for."""

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest

from referral.core.entities.audit import OPERATOR
from referral.core.entities.clients import Scope
from referral.core.entities.rate_limits import RateLimitGroup
from referral.core.entities.subject_tokens import Identity, SubjectTokenType
from referral.core.entities.users import NO_PASSWORD, User
from referral.core.errors import InvalidSubjectToken, TooManyRequests, UnauthorizedClient
from referral.core.use_cases.clients import (
    CreateClient,
    IntrospectToken,
    RemoveClient,
)
from referral.core.use_cases.token_exchange import ExchangeToken
from tests.core.test_external_users import ShopService

ISSUER = "https://id.example"
JWT = "ann"
BY_ID, BY_EXTERNAL_ID = SubjectTokenType.USER_ID, SubjectTokenType.EXTERNAL_ID


class ExchangingService(ShopService):
    """A service with a client that may act for users."""

    async def start(self) -> None:
        """Create the client."""
        create = self.get(CreateClient)
        scopes = [Scope.USERS_ACT, Scope.USERS_READ]
        self.client, _ = await create("shop", scopes, OPERATOR)

    def know(self, email: str | None, token: str = JWT) -> None:
        """Make a subject token valid."""
        self.subject_tokens.identities[token] = Identity(ISSUER, token, email)

    async def issue(self, token: str, token_type: SubjectTokenType = SubjectTokenType.JWT) -> str:
        """Exchange a token."""
        issued = await self.get(ExchangeToken)(self.client, token_type, token)
        assert issued.scope == "account"
        return issued.access_token

    async def exchange(
        self, token: str = JWT, token_type: SubjectTokenType = SubjectTokenType.JWT
    ) -> User:
        """Exchange a token; return its user."""
        caller = self.access_tokens.verify(await self.issue(token, token_type)).caller
        assert (caller.acting_client, caller.session_id) == (str(self.client.id), None)
        assert caller.user_id is not None
        details = await self.find(caller.user_id)
        assert details is not None
        return details.user

    async def is_active(self, access_token: str) -> bool:
        """Return whether introspection finds the token active."""
        return await self.get(IntrospectToken)(self.client, access_token) is not None


@pytest.fixture
async def shop() -> ExchangingService:
    """A new service."""
    service = ExchangingService(email_verification="on")
    await service.start()
    return service


async def test_client_needs_the_scope(shop: ExchangingService) -> None:
    """Also for its own users; `admin` includes it."""
    ann, _ = await shop.put("7", "ann@example.com")
    for scopes, allowed in (({Scope.USERS_WRITE}, False), ({Scope.ADMIN}, True)):
        shop.client = replace(shop.client, scopes=frozenset(scopes))
        if allowed:
            assert await shop.exchange("7", BY_EXTERNAL_ID) == ann
        else:
            with pytest.raises(UnauthorizedClient):
                await shop.exchange("7", BY_EXTERNAL_ID)


async def test_user_is_found_by_id(shop: ExchangingService) -> None:
    """By either id, however the user came here."""
    ann, _ = await shop.put("7", "ann@example.com")
    bob = await shop.create_account("bob@example.com")
    assert await shop.exchange("7", BY_EXTERNAL_ID) == ann
    assert await shop.exchange(str(ann.id), BY_ID) == ann
    assert await shop.exchange(str(bob.id), BY_ID) == bob


@pytest.mark.parametrize(
    ("token", "token_type"),
    [("8", BY_EXTERNAL_ID), ("", BY_EXTERNAL_ID), ("\0", BY_EXTERNAL_ID),
     ("x" * 256, BY_EXTERNAL_ID),
     ("7", BY_ID), ("ann@example.com", BY_ID), (str(UUID(int=7)), BY_ID), ("\0", BY_ID),
     ("unknown", SubjectTokenType.JWT)],
)  # fmt: skip
async def test_unknown_subject_is_refused(
    shop: ExchangingService, token: str, token_type: SubjectTokenType
) -> None:
    """As an invalid request."""
    with pytest.raises(InvalidSubjectToken):
        await shop.issue(token, token_type)


async def test_user_is_created_at_first_sight(shop: ExchangingService) -> None:
    """With the address of the issuer, which counts as confirmed; later tokens need none."""
    shop.know("Ann@example.com")
    ann = await shop.exchange()
    assert (ann.email, ann.email_verified, ann.password_hash) == (
        *("Ann@example.com", True, NO_PASSWORD),
    )
    assert ann.confirm_by is None
    shop.know(None)
    assert await shop.exchange() == ann
    shop.know("other@example.com")
    assert await shop.exchange() == ann


@pytest.mark.parametrize("email", [None, "", "nobody"])
async def test_new_user_needs_a_confirmed_address(
    shop: ExchangingService, email: str | None
) -> None:
    """A valid one."""
    shop.know(email)
    with pytest.raises(InvalidSubjectToken, match="email"):
        await shop.exchange()


@pytest.mark.parametrize("subject", ["a b", "x" * 255, "\u200b", "a\n"])
async def test_subject_must_fit_into_an_external_id(shop: ExchangingService, subject: str) -> None:
    """The issuer is a part of the external id."""
    shop.know("ann@example.com", subject)
    with pytest.raises(InvalidSubjectToken, match="sub"):
        await shop.exchange(subject)


async def test_confirmed_account_is_joined(shop: ExchangingService) -> None:
    """It keeps its password and everything else."""
    bob = await shop.confirmed("bob@example.com")
    shop.know("BOB@example.com")
    joined = await shop.exchange()
    assert joined == replace(
        bob, external_id=joined.external_id, email_verified=True, confirm_by=None
    )
    assert joined.external_id


async def test_unconfirmed_account_is_erased(shop: ExchangingService) -> None:
    """Somebody else may have registered with the address."""
    squatter = await shop.create_account("ann@example.com")
    shop.know("ann@example.com")
    assert (await shop.exchange()).id != squatter.id
    assert await shop.find(squatter.id) is None


async def test_unconfirmed_admin_is_not_erased(shop: ExchangingService) -> None:
    """An imported one, for example."""
    root = await shop.create_admin("root@example.com")
    shop.know(root.email)
    with pytest.raises(InvalidSubjectToken, match="another external id"):
        await shop.exchange()
    assert await shop.find(root.id) is not None


@pytest.mark.parametrize("vouched", [False, True])
async def test_external_id_is_not_overwritten(shop: ExchangingService, *, vouched: bool) -> None:
    """The user of a product, confirmed or not, is not joined to another identity."""
    ann, _ = await shop.put("7", "ann@example.com", email_verified=vouched)
    shop.know("ann@example.com")
    with pytest.raises(InvalidSubjectToken, match="another external id"):
        await shop.exchange()
    details = await shop.find(ann.id)
    assert details is not None
    assert details.user == ann


@pytest.mark.parametrize("confirmed", [False, True])
async def test_blocked_user_gets_no_token(shop: ExchangingService, *, confirmed: bool) -> None:
    """By no type of token, and nobody else gets the address."""
    bob = await (shop.confirmed if confirmed else shop.create_account)("bob@example.com")
    ann, _ = await shop.put("7", "ann@example.com")
    for email in (bob.email, ann.email):
        await shop.block_account(email)
    shop.know("bob@example.com")
    for token, token_type in (
        (JWT, SubjectTokenType.JWT),
        (str(bob.id), BY_ID),
        ("7", BY_EXTERNAL_ID),
    ):
        with pytest.raises(InvalidSubjectToken):
            await shop.issue(token, token_type)


async def test_concurrent_exchanges_create_one_user(shop: ExchangingService) -> None:
    """All twenty get a token for the same user."""
    shop.know("ann@example.com")
    users = await asyncio.gather(*(shop.exchange() for _ in range(20)))
    assert len({user.id for user in users}) == 1


async def test_token_ends_with_user_and_client(shop: ExchangingService) -> None:
    """For introspection at once: it has no session that could be ended."""
    ann, _ = await shop.put("7", "ann@example.com")
    token = await shop.issue("7", BY_EXTERNAL_ID)
    assert await shop.is_active(token)
    await shop.block_account(ann.email)
    assert not await shop.is_active(token)
    await shop.block_account(ann.email, undo=True)
    other, _ = await shop.get(CreateClient)("other", [Scope.USERS_READ], OPERATOR)
    await shop.get(RemoveClient)(str(shop.client.id), OPERATOR)
    shop.client = other
    assert not await shop.is_active(token)


async def test_exchanges_are_limited_by_user(shop: ExchangingService) -> None:
    """A product with many users is not."""
    shop.limits.limits[RateLimitGroup.TOKEN] = 2
    for number in range(5):
        await shop.put(str(number), f"u{number}@example.com")
        await shop.exchange(str(number), BY_EXTERNAL_ID)
    await shop.exchange("0", BY_EXTERNAL_ID)
    with pytest.raises(TooManyRequests):
        await shop.exchange("0", BY_EXTERNAL_ID)
