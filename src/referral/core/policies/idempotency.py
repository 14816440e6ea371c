"""Idempotency keys.

The key is locked and the response stored in the transaction of the request, so that both are
committed or neither is. Errors are not stored: a failed request changed nothing and runs again.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from referral.core.entities.idempotency import IdempotentRequest, StoredResponse
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.system import Clock

T = TypeVar("T")

IDEMPOTENCY_RETENTION = timedelta(hours=24)


class IdempotentReplay(Exception):
    """The request was processed before; `response` is the stored response to send again."""

    def __init__(self, response: StoredResponse) -> None:
        """Take the stored response."""
        super().__init__()
        self.response = response


@dataclass(frozen=True, slots=True)
class FindStoredResponse:
    """Look up an idempotency key before the request is validated.

    The key is not locked: among concurrent requests `acquire_idempotency_key` selects one.
    """

    clock: Clock
    database: Database

    async def __call__(self, key: bytes, request_digests: tuple[bytes, ...]) -> None:
        """Return if the key is new; raises `IdempotentReplay` or `IdempotencyKeyReused`."""
        async with self.database.read() as repositories:
            since = self.clock.now() - IDEMPOTENCY_RETENTION
            response = await repositories.idempotency.find(key, request_digests, since)
        if response is not None:
            raise IdempotentReplay(response)


async def acquire_idempotency_key(
    repositories: Repositories, clock: Clock, idempotent_request: IdempotentRequest[T] | None
) -> None:
    """Lock the key until the end of the transaction; raises `IdempotentReplay`."""
    if idempotent_request is None:
        return
    response = await repositories.idempotency.acquire(
        idempotent_request, clock.now() - IDEMPOTENCY_RETENTION
    )
    if response is not None:
        raise IdempotentReplay(response)


async def save_idempotent_response(
    repositories: Repositories,
    clock: Clock,
    idempotent_request: IdempotentRequest[T] | None,
    result: T,
    user_id: UUID | None = None,
) -> None:
    """Store the response for a result; `user_id` is the user whose data it may contain."""
    if idempotent_request is not None:
        await repositories.idempotency.save(
            idempotent_request, idempotent_request.build_response(result), user_id, clock.now()
        )
