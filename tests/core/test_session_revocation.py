"""Ended sessions: revocation by a token, and changes by tokens that outlive their session."""

import pytest

from referral.core.entities.audit import OPERATOR
from referral.core.entities.clients import Scope
from referral.core.entities.users import User
from referral.core.errors import InvalidGrant, Unauthenticated
from referral.core.policies.session_tokens import TokenPair
from referral.core.use_cases.clients import CreateClient, IssueClientToken
from referral.core.use_cases.sessions import CheckSession, RevokeSession
from tests.core.service import CLIENT_IP, PASSWORD, InMemoryService


@pytest.fixture
async def ann(service: InMemoryService) -> User:
    """A user."""
    return await service.create_account("ann@example.com")


@pytest.fixture
async def tokens(service: InMemoryService, ann: User) -> TokenPair:
    """The tokens of Ann's login."""
    return await service.log_in(ann.email, PASSWORD, CLIENT_IP)


async def check(service: InMemoryService, ann: User, tokens: TokenPair) -> None:
    """Check the session of an access token."""
    session_id = service.access_tokens.verify(tokens.access_token).caller.session_id
    assert session_id is not None
    await service.get(CheckSession)(ann.id, session_id)


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_either_token_revokes_its_session(
    service: InMemoryService, ann: User, tokens: TokenPair, kind: str
) -> None:
    """No token of the session is renewed or changes anything; other sessions stay."""
    other = await service.log_in(ann.email, PASSWORD, CLIENT_IP)
    await service.get(RevokeSession)(getattr(tokens, kind))
    with pytest.raises(InvalidGrant):
        await service.refresh(tokens.refresh_token)
    with pytest.raises(Unauthenticated) as raised:
        await check(service, ann, tokens)
    assert raised.value.detail == "This session has ended. Log in again."
    assert await service.refresh(other.refresh_token)
    await check(service, ann, other)


async def test_tokens_without_a_session_revoke_nothing(
    service: InMemoryService, tokens: TokenPair
) -> None:
    """RFC 7009: an unknown token is no error. The token of a client has no session to revoke."""
    client, _ = await service.get(CreateClient)("shop", [Scope.CODES_READ], OPERATOR)
    issued = await service.get(IssueClientToken)(client, "")
    for token in ("", "unknown", issued.access_token):
        await service.get(RevokeSession)(token)
    assert await service.refresh(tokens.refresh_token)


async def test_blocked_user_passes_the_session_check(
    service: InMemoryService, ann: User, tokens: TokenPair
) -> None:
    """The lock on the account then reports the block, which explains more than an ended session."""
    await service.block_account(ann.email)
    await check(service, ann, tokens)
