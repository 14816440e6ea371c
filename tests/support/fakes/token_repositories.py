"""Fakes of the repositories of clients, idempotent responses and one-time tokens."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from referral.core.entities.clients import Client
from referral.core.entities.email_links import OneTimeToken, TokenPurpose
from referral.core.entities.idempotency import IdempotentRequest, StoredResponse
from referral.core.errors import ClientNameTaken, IdempotencyKeyReused
from tests.support.fakes.tables import StoredIdempotentResponse, Tables


@dataclass(frozen=True)
class FakeClientRepository:
    """Clients in a dict."""

    tables: Tables

    async def add(self, client: Client) -> None:
        if await self.find_by_name(client.name):
            raise ClientNameTaken(f"A client with the name '{client.name}' exists.", field="name")
        self.tables.clients[client.id] = client

    async def find(self, client_id: UUID) -> Client | None:
        return self.tables.clients.get(client_id)

    async def find_by_name(self, name: str) -> Client | None:
        return next((client for client in await self.list_all() if client.name == name), None)

    async def list_all(self) -> list[Client]:
        return sorted(self.tables.clients.values(), key=lambda client: client.name)

    async def list_page(self, *, after: UUID | None, limit: int) -> list[Client]:
        clients = [
            each for each in self.tables.clients.values() if after is None or each.id < after
        ]
        return sorted(clients, key=lambda client: client.id, reverse=True)[:limit]

    async def replace_secret(self, client_id: UUID, secret_digest: bytes) -> bool:
        client = self.tables.clients.get(client_id)
        if client is None:
            return False
        self.tables.clients[client_id] = replace(client, secret_digest=secret_digest)
        return True

    async def remove(self, client_id: UUID) -> bool:
        return self.tables.clients.pop(client_id, None) is not None


@dataclass(frozen=True)
class FakeIdempotencyRepository:
    """Stored responses in a dict; keys need no lock, because the transactions are serial."""

    tables: Tables

    async def find(
        self, key: bytes, request_digests: tuple[bytes, ...], since: datetime
    ) -> StoredResponse | None:
        stored = self.tables.idempotent_responses.get(key)
        if stored is None or stored.created_at < since:
            return None
        if stored.request_digest not in request_digests:
            raise IdempotencyKeyReused
        return stored.response

    async def acquire(
        self, request: IdempotentRequest[Any], since: datetime
    ) -> StoredResponse | None:
        return await self.find(request.key, request.request_digests, since)

    async def save(
        self,
        request: IdempotentRequest[Any],
        response: StoredResponse,
        user_id: UUID | None,
        now: datetime,
    ) -> None:
        stored = StoredIdempotentResponse(request.request_digests[0], response, user_id, now)
        self.tables.idempotent_responses[request.key] = stored

    async def delete(self, user_id: UUID) -> None:
        self._delete(
            key
            for key, stored in self.tables.idempotent_responses.items()
            if stored.user_id == user_id
        )

    async def prune(self, before: datetime) -> bool:
        self._delete(
            key
            for key, stored in self.tables.idempotent_responses.items()
            if stored.created_at < before
        )
        return False

    def _delete(self, keys: Iterable[bytes]) -> None:
        for key in list(keys):
            del self.tables.idempotent_responses[key]


@dataclass(frozen=True)
class FakeOneTimeTokenRepository:
    """One-time tokens in a dict."""

    tables: Tables

    async def add(self, token: OneTimeToken) -> None:
        self.tables.one_time_tokens[token.digest] = token

    async def find_user_id(
        self, digest: bytes, purpose: TokenPurpose, now: datetime
    ) -> UUID | None:
        token = self.tables.one_time_tokens.get(digest)
        is_valid = token is not None and token.purpose is purpose and token.expires_at > now
        return token.user_id if token and is_valid else None

    async def acquire(
        self, digest: bytes, purpose: TokenPurpose, now: datetime, until: datetime
    ) -> bool:
        taken_until = self.tables.token_reservations.get(digest)
        if taken_until is not None and taken_until > now:
            return False
        if await self.find_user_id(digest, purpose, now) is None:
            return False
        self.tables.token_reservations[digest] = until
        return True

    async def release(self, digest: bytes, until: datetime) -> None:
        if self.tables.token_reservations.get(digest) == until:
            del self.tables.token_reservations[digest]

    async def consume(self, digest: bytes, purpose: TokenPurpose, now: datetime) -> UUID | None:
        user_id = await self.find_user_id(digest, purpose, now)
        if user_id is not None:
            await self.delete(user_id, purpose)
        return user_id

    async def delete(self, user_id: UUID, purpose: TokenPurpose | None = None) -> None:
        self._retain(lambda one: one.user_id != user_id or purpose not in {None, one.purpose})

    async def prune(self, now: datetime) -> bool:
        self._retain(lambda one: one.expires_at > now)
        return False

    def _retain(self, wanted: Callable[[OneTimeToken], bool]) -> None:
        for digest, token in list(self.tables.one_time_tokens.items()):
            if not wanted(token):
                del self.tables.one_time_tokens[digest]
