"""The port `OneTimeTokenRepository`."""

import asyncio

from referral.core.entities.email_links import OneTimeToken, TokenPurpose
from referral.core.entities.users import User
from referral.core.ports.repositories import Database
from tests.contracts.rows import (
    HOUR,
    ID_GENERATOR,
    NOW,
    store_user,
)


def make_one_time_token(user: User, purpose: TokenPurpose = TokenPurpose.CONFIRM) -> OneTimeToken:
    """Return a new token that is valid for an hour."""
    return OneTimeToken(ID_GENERATOR.new().bytes * 2, user.id, purpose, NOW + HOUR)


async def test_token_use_consumes_all_tokens_of_its_purpose(store: Database) -> None:
    """A token is valid for its purpose until it expires; tokens of other purposes stay."""
    ann = await store_user(store)
    one, two, other = (
        make_one_time_token(ann),
        make_one_time_token(ann),
        make_one_time_token(ann, TokenPurpose.RESET),
    )
    async with store.begin() as repositories:
        tokens = repositories.one_time_tokens
        for token in (one, two, other):
            await tokens.add(token)
        assert await tokens.find_user_id(one.digest, TokenPurpose.CONFIRM, NOW) == ann.id
        assert await tokens.consume(one.digest, TokenPurpose.RESET, NOW) is None
        assert await tokens.consume(one.digest, TokenPurpose.CONFIRM, NOW + HOUR) is None
        assert await tokens.consume(one.digest, TokenPurpose.CONFIRM, NOW) == ann.id
        assert await tokens.consume(two.digest, TokenPurpose.CONFIRM, NOW) is None
        assert await tokens.find_user_id(other.digest, TokenPurpose.RESET, NOW) == ann.id
        await tokens.delete(ann.id)
        assert await tokens.find_user_id(other.digest, TokenPurpose.RESET, NOW) is None


async def test_token_lock_is_exclusive(store: Database) -> None:
    """Until it is released or times out; it does not consume the token, and needs a valid one."""
    ann = await store_user(store)
    token = make_one_time_token(ann, TokenPurpose.RESET)
    later, latest = NOW + HOUR / 4, NOW + HOUR / 2
    async with store.begin() as repositories:
        tokens = repositories.one_time_tokens
        await tokens.add(token)
        assert not await tokens.acquire(token.digest, TokenPurpose.CONFIRM, NOW, later)
        assert not await tokens.acquire(
            token.digest, TokenPurpose.RESET, NOW + HOUR, NOW + 2 * HOUR
        )
        assert await tokens.acquire(token.digest, TokenPurpose.RESET, NOW, later)
        assert not await tokens.acquire(token.digest, TokenPurpose.RESET, NOW, later)
        assert await tokens.find_user_id(token.digest, TokenPurpose.RESET, NOW) == ann.id
        await tokens.release(token.digest, later)
        assert await tokens.acquire(token.digest, TokenPurpose.RESET, NOW, later)
        assert await tokens.acquire(token.digest, TokenPurpose.RESET, later, latest)
        await tokens.release(token.digest, later)
        assert not await tokens.acquire(token.digest, TokenPurpose.RESET, later, latest)
        assert await tokens.consume(token.digest, TokenPurpose.RESET, NOW) == ann.id
        assert not await tokens.acquire(token.digest, TokenPurpose.RESET, latest, NOW + HOUR)


async def test_concurrent_token_locks(store: Database) -> None:
    """Of twenty concurrent callers, one acquires the lock."""
    token = make_one_time_token(await store_user(store), TokenPurpose.RESET)
    async with store.begin() as repositories:
        await repositories.one_time_tokens.add(token)

    async def acquire() -> bool:
        async with store.begin() as repositories:
            tokens = repositories.one_time_tokens
            return await tokens.acquire(token.digest, TokenPurpose.RESET, NOW, NOW + HOUR)

    assert sum(await asyncio.gather(*(acquire() for _ in range(20)))) == 1


async def test_expired_tokens_are_pruned(store: Database) -> None:
    """Valid ones stay."""
    token = make_one_time_token(await store_user(store))
    async with store.begin() as repositories:
        tokens = repositories.one_time_tokens
        await tokens.add(token)
        assert await tokens.prune(NOW) is False
        assert await tokens.find_user_id(token.digest, token.purpose, NOW) is not None
        await tokens.prune(NOW + HOUR)
        assert await tokens.find_user_id(token.digest, token.purpose, NOW) is None
