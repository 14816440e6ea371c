"""Client services in PostgreSQL."""

from dataclasses import dataclass
from uuid import UUID

from asyncpg import UniqueViolationError
from sqlalchemy import bindparam, delete, select, update

from referral.adapters.postgres.connection import (
    DatabaseConnection,
    Statement,
    insert_entity,
    values_of,
)
from referral.adapters.postgres.tables import clients
from referral.core.entities.clients import Client
from referral.core.errors import ClientNameTaken

BY_ID = clients.c.id == bindparam("client_id")

ADD = insert_entity(clients, Client)
FIND = Statement(select(clients).where(BY_ID))
FIND_BY_NAME = Statement(select(clients).where(clients.c.name == bindparam("name")))
LIST_ALL = Statement(select(clients).order_by(clients.c.name.collate("C")))
PAGE = select(clients).order_by(clients.c.id.desc()).limit(bindparam("limit"))
LIST_FIRST_PAGE = Statement(PAGE)
LIST_PAGE = Statement(PAGE.where(clients.c.id < bindparam("after")))
REPLACE_SECRET = Statement(
    update(clients)
    .where(BY_ID)
    .values(secret_digest=bindparam("secret_digest"))
    .returning(clients.c.id)
)
REMOVE = Statement(delete(clients).where(BY_ID).returning(clients.c.id))


@dataclass(frozen=True, slots=True)
class PostgresClientRepository:
    """The table of clients."""

    connection: DatabaseConnection

    async def add(self, client: Client) -> None:
        values = values_of(client) | {"scopes": sorted(client.scopes)}
        try:
            await self.connection.execute(ADD, **values)
        except UniqueViolationError as error:
            if error.constraint_name != "uq_clients_name":
                raise
            message = f"A client with the name '{client.name}' exists already. Choose another name."
            raise ClientNameTaken(message, field="name") from error

    async def find(self, client_id: UUID) -> Client | None:
        return await self.connection.fetch_entity(Client, FIND, client_id=client_id)

    async def find_by_name(self, name: str) -> Client | None:
        return await self.connection.fetch_entity(Client, FIND_BY_NAME, name=name)

    async def list_all(self) -> list[Client]:
        return await self.connection.fetch_entities(Client, LIST_ALL)

    async def list_page(self, *, after: UUID | None, limit: int) -> list[Client]:
        statement = LIST_FIRST_PAGE if after is None else LIST_PAGE
        return await self.connection.fetch_entities(Client, statement, after=after, limit=limit)

    async def replace_secret(self, client_id: UUID, secret_digest: bytes) -> bool:
        values = {"client_id": client_id, "secret_digest": secret_digest}
        return await self.connection.fetch_one(REPLACE_SECRET, **values) is not None

    async def remove(self, client_id: UUID) -> bool:
        return await self.connection.fetch_one(REMOVE, client_id=client_id) is not None
