"""Clients, answered requests and links in memory."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from referral.core.entities.clients import Client
from referral.core.entities.email_links import OneTimeToken, Purpose
from referral.core.entities.idempotency import IdempotentRequest, KeptResponse
from referral.core.errors import IdempotencyKeyReused
from tests.support.fake_tables import KeptAttempt, Tables


@dataclass(frozen=True)
class FakeClients:
    """Clients in a dict."""

    tables: Tables

    async def add(self, client: Client) -> None:
        self.tables.clients[client.id] = client

    async def get(self, client_id: UUID) -> Client | None:
        return self.tables.clients.get(client_id)


@dataclass(frozen=True)
class FakeIdempotencyRecords:
    """Answered requests in a dict; transactions in memory follow each other, so none is held."""

    tables: Tables

    async def find(
        self, key: bytes, fingerprints: tuple[bytes, ...], since: datetime
    ) -> KeptResponse | None:
        kept = self.tables.attempts.get(key)
        if kept is None or kept.created_at < since:
            return None
        if kept.fingerprint not in fingerprints:
            raise IdempotencyKeyReused
        return kept.answer

    async def claim(self, attempt: IdempotentRequest[Any], since: datetime) -> KeptResponse | None:
        return await self.find(attempt.key, attempt.fingerprints, since)

    async def keep(
        self,
        attempt: IdempotentRequest[Any],
        answer: KeptResponse,
        user_id: UUID | None,
        now: datetime,
    ) -> None:
        kept = KeptAttempt(attempt.fingerprints[0], answer, user_id, now)
        self.tables.attempts[attempt.key] = kept

    async def forget(self, user_id: UUID) -> None:
        self._drop(key for key, kept in self.tables.attempts.items() if kept.user_id == user_id)

    async def prune(self, before: datetime) -> bool:
        self._drop(key for key, kept in self.tables.attempts.items() if kept.created_at < before)
        return False

    def _drop(self, keys: Iterable[bytes]) -> None:
        for key in list(keys):
            del self.tables.attempts[key]


@dataclass(frozen=True)
class FakeOneTimeTokens:
    """What links prove, in a dict."""

    tables: Tables

    async def add(self, token: OneTimeToken) -> None:
        self.tables.one_time_tokens[token.digest] = token

    async def find(self, digest: bytes, purpose: Purpose, now: datetime) -> UUID | None:
        token = self.tables.one_time_tokens.get(digest)
        good = token is not None and token.purpose is purpose and token.expires_at > now
        return token.user_id if token and good else None

    async def claim(self, digest: bytes, purpose: Purpose, now: datetime, until: datetime) -> bool:
        taken_until = self.tables.claims.get(digest)
        if taken_until is not None and taken_until > now:
            return False
        if await self.find(digest, purpose, now) is None:
            return False
        self.tables.claims[digest] = until
        return True

    async def release(self, digest: bytes, until: datetime) -> None:
        if self.tables.claims.get(digest) == until:
            del self.tables.claims[digest]

    async def use(self, digest: bytes, purpose: Purpose, now: datetime) -> UUID | None:
        user_id = await self.find(digest, purpose, now)
        if user_id is not None:
            await self.forget(user_id, purpose)
        return user_id

    async def forget(self, user_id: UUID, purpose: Purpose | None = None) -> None:
        self._keep(lambda one: one.user_id != user_id or purpose not in {None, one.purpose})

    async def prune(self, now: datetime) -> bool:
        self._keep(lambda one: one.expires_at > now)
        return False

    def _keep(self, wanted: Callable[[OneTimeToken], bool]) -> None:
        for digest, token in list(self.tables.one_time_tokens.items()):
            if not wanted(token):
                del self.tables.one_time_tokens[digest]
