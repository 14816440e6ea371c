"""Doing once what was asked for twice: requests with an idempotency key.

The key is held, and the answer kept, in the transaction of the effect, so that there is never
one without the other. Only what succeeded is kept: a refusal changed nothing, and is made anew.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from referral.core.entities.idempotency import IdempotentRequest, KeptResponse
from referral.core.ports.repositories import Database, Repositories
from referral.core.ports.system import Clock

T = TypeVar("T")

RETENTION = timedelta(hours=24)


class AnsweredBefore(Exception):
    """The request was done before; `answer` is what it was answered."""

    def __init__(self, answer: KeptResponse) -> None:
        """Take the answer to give again."""
        super().__init__()
        self.answer = answer


@dataclass(frozen=True, slots=True)
class RecallAnswer:
    """Look an idempotency key up, before anything of the request is judged or worked out.

    It holds nothing: of requests at the same time, `begin_once` decides which one is done.
    """

    clock: Clock
    database: Database

    async def __call__(self, key: bytes, fingerprints: tuple[bytes, ...]) -> None:
        """Return if the key is new; raises `AnsweredBefore` or `IdempotencyKeyReused`."""
        async with self.database.read() as records:
            since = self.clock.now() - RETENTION
            answer = await records.idempotency.find(key, fingerprints, since)
        if answer is not None:
            raise AnsweredBefore(answer)


async def begin_once(
    records: Repositories, clock: Clock, attempt: IdempotentRequest[T] | None
) -> None:
    """Hold the key until the end of the transaction; raises `AnsweredBefore`."""
    if attempt is None:
        return
    answer = await records.idempotency.claim(attempt, clock.now() - RETENTION)
    if answer is not None:
        raise AnsweredBefore(answer)


async def finish_once(
    records: Repositories,
    clock: Clock,
    attempt: IdempotentRequest[T] | None,
    result: T,
    user_id: UUID | None = None,
) -> None:
    """Keep the answer that follows from a result."""
    if attempt is not None:
        await records.idempotency.keep(attempt, attempt.respond(result), user_id, clock.now())
