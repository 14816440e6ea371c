"""Which client a request names, with or without a secret."""

from dataclasses import dataclass
from typing import NewType
from uuid import UUID

from referral.core.entities.clients import Client
from referral.core.entities.sessions import FIRST_PARTY_CLIENT_ID
from referral.core.errors import InvalidClient
from referral.core.ports.repositories import Database, Repositories

DOCS_CLIENT_ID = UUID("00000000-0000-7000-8000-000000000001")

BUILT_IN_CLIENT_IDS = {FIRST_PARTY_CLIENT_ID, str(DOCS_CLIENT_ID)}
"""The ids of clients that are in no table."""

DocsClient = NewType("DocsClient", Client)
"""The public client of the API documentation, which is in no table."""


@dataclass(frozen=True, slots=True)
class FindClient:
    """Find a client by its id, also the one of the API documentation."""

    database: Database
    docs_client: DocsClient

    async def __call__(self, client_id: str) -> Client | None:
        """Return the client, if any."""
        if client_id == str(self.docs_client.id):
            return self.docs_client
        async with self.database.read() as repositories:
            return await find_client(repositories, client_id)


@dataclass(frozen=True, slots=True)
class IdentifyPublicClient:
    """Accept the id of a client that has no secret to authenticate with."""

    find_client: FindClient

    async def __call__(self, client_id: str) -> Client:
        """Return the client (RFC 6749, section 3.2.1).

        Raises `InvalidClient`, also for a client that has a secret and must authenticate.
        """
        client = await self.find_client(client_id)
        if client is None or not client.is_public:
            raise InvalidClient
        return client


async def find_client(repositories: Repositories, client_id: str) -> Client | None:
    """Return the client with this id, if any."""
    try:
        return await repositories.clients.find(UUID(client_id))
    except ValueError:
        return None


async def client_exists(repositories: Repositories, client_id: str) -> bool:
    """Return whether a client exists, built in or not."""
    if client_id in BUILT_IN_CLIENT_IDS:
        return True
    return await find_client(repositories, client_id) is not None
