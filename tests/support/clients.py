"""OAuth clients, for tests of what other services may do."""

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

from referral.core.entities.clients import Scope
from referral.core.ports.repositories import Database
from tests.support.api_client import API
from tests.support.api_client import create_client as create_any_client


@dataclass(frozen=True)
class ClientCaller:
    """A client with an access token."""

    client: httpx.AsyncClient
    id: str
    secret: str
    headers: dict[str, str]

    @property
    def credentials(self) -> tuple[str, str]:
        """The id and the secret, for HTTP Basic."""
        return self.id, self.secret

    async def request(self, method: str, path: str, **rest: Any) -> httpx.Response:
        """Send a request with the access token."""
        return await self.client.request(method, path, headers=self.headers, **rest)

    async def send_raw(self, method: str, path: str, **rest: Any) -> httpx.Response:
        """Send a request to a path that httpx would normalize."""
        url = httpx.URL(self.client.base_url, raw_path=path.encode())
        request = self.client.build_request(method, url, headers=self.headers, **rest)
        request.url = url
        return await self.client.send(request)


async def create_client(
    client: httpx.AsyncClient, database: Database, *scopes: Scope
) -> ClientCaller:
    """Create a client with these scopes, and get a token for it."""
    created, secret = await create_any_client(database, f"shop {uuid4()}", scopes)
    tokens = await client.post(
        f"{API}/auth/token",
        data={"grant_type": "client_credentials"},
        auth=(str(created.id), secret),
    )
    assert tokens.status_code == 200, tokens.text
    headers = {"Authorization": f"Bearer {tokens.json()['access_token']}"}
    return ClientCaller(client, str(created.id), secret, headers)
