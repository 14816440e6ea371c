"""Other services in PostgreSQL."""

from dataclasses import asdict
from uuid import UUID

import msgspec
from sqlalchemy import insert, select

from referral.adapters.postgres.connection import DatabaseSession
from referral.adapters.postgres.tables import clients
from referral.core.entities.clients import Client


class PostgresClientRepository:
    """The table of clients."""

    def __init__(self, session: DatabaseSession) -> None:
        """Work within a session."""
        self._session = session

    async def add(self, client: Client) -> None:
        """See the port."""
        values = asdict(client) | {"scopes": sorted(client.scopes)}
        await self._session.execute(insert(clients).values(**values))

    async def find(self, client_id: UUID) -> Client | None:
        """See the port."""
        found = await self._session.execute(select(clients).where(clients.c.id == client_id))
        row = found.mappings().one_or_none()
        return None if row is None else msgspec.convert(row, Client)
