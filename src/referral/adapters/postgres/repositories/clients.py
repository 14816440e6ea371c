"""Client services in PostgreSQL."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import bindparam, select

from referral.adapters.postgres.connection import (
    DatabaseConnection,
    Statement,
    insert_entity,
    values_of,
)
from referral.adapters.postgres.tables import clients
from referral.core.entities.clients import Client

ADD = insert_entity(clients, Client)
FIND = Statement(select(clients).where(clients.c.id == bindparam("client_id")))


@dataclass(frozen=True, slots=True)
class PostgresClientRepository:
    """The table of clients."""

    connection: DatabaseConnection

    async def add(self, client: Client) -> None:
        values = values_of(client) | {"scopes": sorted(client.scopes)}
        await self.connection.execute(ADD, **values)

    async def find(self, client_id: UUID) -> Client | None:
        return await self.connection.fetch_entity(Client, FIND, client_id=client_id)
