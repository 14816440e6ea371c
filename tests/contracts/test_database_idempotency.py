"""The port `IdempotencyRepository`."""

from dataclasses import replace
from datetime import timedelta

import pytest

from referral.core.entities.idempotency import IdempotentRequest
from referral.core.errors import IdempotencyKeyReused
from referral.core.ports.repositories import Database
from tests.contracts.rows import (
    HOUR,
    ID_GENERATOR,
    NOW,
    store_user,
)

STORED_RESPONSE = {"status": 201, "body": b'{"id": 1}', "location": "/here"}


def make_request(fingerprint: bytes = b"f" * 32) -> IdempotentRequest[None]:
    """Return a request with a new idempotency key."""
    return IdempotentRequest(
        ID_GENERATOR.new().bytes * 2, (fingerprint,), lambda _: STORED_RESPONSE
    )


async def test_idempotency_key_returns_its_stored_response(store: Database) -> None:
    """For one of its request digests, until it expires or is deleted."""
    ann, request = await store_user(store), make_request()
    async with store.begin() as repositories:
        assert await repositories.idempotency.acquire(request, NOW) is None
        await repositories.idempotency.save(request, STORED_RESPONSE, ann.id, NOW)
    rotated = replace(request, request_digests=(b"n" * 32, *request.request_digests))
    async with store.begin() as repositories:
        assert await repositories.idempotency.acquire(rotated, NOW) == STORED_RESPONSE
        assert (
            await repositories.idempotency.find(rotated.key, rotated.request_digests, NOW)
            == STORED_RESPONSE
        )
        await repositories.idempotency.delete(ann.id)
        assert await repositories.idempotency.acquire(request, NOW) is None


async def test_idempotency_key_with_another_body_is_rejected(store: Database) -> None:
    """The first response stays."""
    request = make_request()
    async with store.begin() as repositories:
        await repositories.idempotency.save(request, STORED_RESPONSE, None, NOW)
    with pytest.raises(IdempotencyKeyReused):
        async with store.begin() as repositories:
            await repositories.idempotency.acquire(
                replace(request, request_digests=(b"x" * 32,)), NOW
            )
    async with store.read() as repositories:
        with pytest.raises(IdempotencyKeyReused):
            await repositories.idempotency.find(request.key, (b"x" * 32,), NOW)


async def test_stored_response_is_found_until_it_expires(store: Database) -> None:
    """Without a lock; afterwards the key is free."""
    request = make_request()
    async with store.begin() as repositories:
        await repositories.idempotency.save(request, STORED_RESPONSE, None, NOW)
    async with store.read() as repositories:
        assert (
            await repositories.idempotency.find(request.key, request.request_digests, NOW)
            == STORED_RESPONSE
        )
        later = NOW + timedelta(microseconds=1)
        assert await repositories.idempotency.find(request.key, (b"x" * 32,), later) is None
        assert (
            await repositories.idempotency.find(b"new" * 10, request.request_digests, NOW) is None
        )


async def test_old_responses_are_pruned(store: Database) -> None:
    """Current ones stay."""
    user, request = await store_user(store), make_request()
    async with store.begin() as repositories:
        await repositories.idempotency.save(request, STORED_RESPONSE, user.id, NOW)
        assert await repositories.idempotency.prune(NOW) is False
        assert await repositories.idempotency.acquire(request, NOW) == STORED_RESPONSE
        await repositories.idempotency.prune(NOW + HOUR)
        assert await repositories.idempotency.acquire(request, NOW) is None
