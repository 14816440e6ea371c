"""Calls of the HTTP API that many tests share."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import httpx

from referral.adapters.email_addresses import ValidatingEmailParser
from referral.adapters.memory_cache import MemoryLookupCache
from referral.adapters.system import RandomTokenGenerator, SystemClock, SystemIdGenerator
from referral.core.entities.audit import OPERATOR
from referral.core.entities.clients import Client, Scope
from referral.core.entities.rate_limits import UNLIMITED
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.event_recording import RecordEvents
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.ports.repositories import Database
from referral.core.ports.system import Clock
from referral.core.use_cases.accounts import BlockAccount, FindAccount
from referral.core.use_cases.clients import CreateClient, CreatePublicClient

API = "/api/v1"
LIMITED_GROUPS = ("register", "token", "lookup", "codes")
UNLIMITED_SETTINGS: dict[str, Any] = {f"limit_{group}": UNLIMITED for group in LIMITED_GROUPS}
"""Settings that switch off the rate limits."""

UNLIMITED_ENV = dict.fromkeys(UNLIMITED_SETTINGS, "off")
"""The same as text, for environment variables."""
PASSWORD = "correct horse battery"
NEW_PASSWORD = "staple battery horse"


@dataclass(frozen=True)
class Member:
    """A logged-in user."""

    client: httpx.AsyncClient
    id: str
    email: str
    headers: dict[str, str]

    async def request(self, method: str, path: str, **rest: Any) -> httpx.Response:
        """Send a request with the user's access token."""
        return await self.client.request(method, f"{API}{path}", headers=self.headers, **rest)

    async def issue_code(self, **fields: Any) -> dict[str, Any]:
        """Issue a code; by default it expires in an hour."""
        body = {"lifetime_minutes": 60} | fields
        response = await self.request("POST", "/me/codes", json=body)
        assert response.status_code == 201, response.text
        code: dict[str, Any] = response.json()
        return code

    async def log_in_again(self) -> "Member":
        """Log in again, for a new access token."""
        return replace(self, headers=await _auth_headers(self.client, self.email))


def new_email() -> str:
    """Return a new e-mail address."""
    return f"u{uuid4().hex}@example.com"


async def register(
    client: httpx.AsyncClient, email: str | None = None, **rest: Any
) -> httpx.Response:
    """Send a registration."""
    body = {"email": email or new_email(), "password": PASSWORD} | rest
    return await client.post(f"{API}/auth/register", json=body)


async def log_in(client: httpx.AsyncClient, email: str, password: str = PASSWORD) -> httpx.Response:
    """Send a token request with a password."""
    form = {"grant_type": "password", "username": email, "password": password}
    return await client.post(f"{API}/auth/token", data=form)


async def block_account(database: Database, email: str, *, undo: bool = False) -> None:
    """Block or unblock an account, as an operator does."""
    invalidate_lookup = InvalidateLookup(MemoryLookupCache(), database)
    clock = SystemClock()
    block = BlockAccount(
        invalidate_lookup,
        clock,
        database,
        RecordAudit(clock, SystemIdGenerator()),
        RecordEvents(SystemIdGenerator()),
    )
    user = await FindAccount(database, ValidatingEmailParser())(email)
    await block(user.id, OPERATOR, undo=undo)


async def create_client(
    database: Database,
    name: str,
    scopes: Iterable[Scope],
    redirect_uris: Iterable[str] = (),
    *,
    clock: Clock | None = None,
) -> tuple[Client, str]:
    """Create a client, as an operator does; return its secret too."""
    clock, id_generator = clock or SystemClock(), SystemIdGenerator()
    record_audit = RecordAudit(clock, id_generator)
    create = CreateClient(clock, database, id_generator, record_audit, RandomTokenGenerator())
    return await create(name, scopes, OPERATOR, redirect_uris)


async def create_public_client(database: Database, name: str, *redirect_uris: str) -> Client:
    """Create a client without a secret, as an operator does."""
    clock, id_generator = SystemClock(), SystemIdGenerator()
    record_audit = RecordAudit(clock, id_generator)
    create = CreatePublicClient(clock, database, id_generator, record_audit)
    return await create(name, redirect_uris, OPERATOR)


async def join(client: httpx.AsyncClient, email: str | None = None, **rest: Any) -> Member:
    """Register and log in."""
    email = email or new_email()
    user = await register(client, email, **rest)
    assert user.status_code == 201, user.text
    return Member(client, user.json()["id"], email, await _auth_headers(client, email))


async def _auth_headers(client: httpx.AsyncClient, email: str) -> dict[str, str]:
    tokens = await log_in(client, email)
    assert tokens.status_code == 200, tokens.text
    return {"Authorization": f"Bearer {tokens.json()['access_token']}"}


async def client_headers(
    client: httpx.AsyncClient, database: Database, *scopes: Scope
) -> dict[str, str]:
    """Create a client of the service with some scopes, and return the header of its token."""
    created, secret = await create_client(database, f"shop {uuid4()}", scopes)
    tokens = await client.post(
        f"{API}/auth/token",
        data={"grant_type": "client_credentials"},
        auth=(str(created.id), secret),
    )
    return {"Authorization": f"Bearer {tokens.json()['access_token']}"}
