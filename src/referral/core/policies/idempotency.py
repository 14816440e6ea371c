"""Doing once what was asked for twice: requests with an idempotency key.

The key is held, and the answer kept, in the transaction of the effect, so that there is never
one without the other. Only what succeeded is kept: a refusal changed nothing, and is made anew.
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
    """The request was done before; `answer` is what it was answered."""

    def __init__(self, response: StoredResponse) -> None:
        """Take the answer to give again."""
        super().__init__()
        self.response = response


@dataclass(frozen=True, slots=True)
class FindStoredResponse:
    """Look an idempotency key up, before anything of the request is judged or worked out.

    It holds nothing: of requests at the same time, `begin_once` decides which one is done.
    """

    clock: Clock
    database: Database

    async def __call__(self, key: bytes, fingerprints: tuple[bytes, ...]) -> None:
        """Return if the key is new; raises `AnsweredBefore` or `IdempotencyKeyReused`."""
        async with self.database.read() as repositories:
            since = self.clock.now() - IDEMPOTENCY_RETENTION
            response = await repositories.idempotency.find(key, fingerprints, since)
        if response is not None:
            raise IdempotentReplay(response)


async def acquire_idempotency_key(
    repositories: Repositories, clock: Clock, idempotent_request: IdempotentRequest[T] | None
) -> None:
    """Hold the key until the end of the transaction; raises `AnsweredBefore`."""
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
    """Keep the answer that follows from a result."""
    if idempotent_request is not None:
        await repositories.idempotency.save(
            idempotent_request, idempotent_request.build_response(result), user_id, clock.now()
        )
