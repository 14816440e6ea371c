"""Clients and answered requests in memory."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from referral.core.errors import IdempotencyKeyReused
from referral.core.model import Answer, Attempt, Client
from tests.fake_tables import KeptAttempt, Tables


@dataclass(frozen=True)
class FakeClients:
    """Clients in a dict."""

    tables: Tables

    async def add(self, client: Client) -> None:
        self.tables.clients[client.id] = client

    async def get(self, client_id: UUID) -> Client | None:
        return self.tables.clients.get(client_id)


@dataclass(frozen=True)
class FakeAttempts:
    """Answered requests in a dict; transactions in memory follow each other, so none is held."""

    tables: Tables

    async def claim(self, attempt: Attempt[Any], since: datetime) -> Answer | None:
        kept = self.tables.attempts.get(attempt.key)
        if kept is None or kept.created_at < since:
            return None
        if kept.fingerprint not in attempt.fingerprints:
            self.tables.refuse(IdempotencyKeyReused())
        return kept.answer

    async def keep(
        self, attempt: Attempt[Any], answer: Answer, user_id: UUID | None, now: datetime
    ) -> None:
        kept = KeptAttempt(attempt.fingerprints[0], answer, user_id, now)
        self.tables.attempts[attempt.key] = kept

    async def forget(self, *, user_id: UUID | None = None, before: datetime | None = None) -> None:
        for key, kept in list(self.tables.attempts.items()):
            old = before is not None and kept.created_at < before
            if old or (user_id is not None and kept.user_id == user_id):
                del self.tables.attempts[key]
