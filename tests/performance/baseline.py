"""The limits of the machine: handlers on the same server that do one thing only.

Each uses its library in the plainest way of its documentation.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from granian import Granian
from granian.constants import Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from litestar import Litestar, MediaType, Request, delete, get, post
from litestar.datastructures import State
from msgspec import Struct
from redis.asyncio import Redis

from referral.adapters.postgres.repositories import codes as code_statements
from referral.adapters.postgres.repositories import users as user_statements

DISABLED = (False,)
BODY = os.environ.get("BARE_BODY", "")
LOOK_UP = """
SELECT c.text, c.expires_at FROM users u JOIN codes c ON c.user_id = u.id AND c.enabled
WHERE u.email_key = $1
"""


@get("/same", media_type=MediaType.JSON)
async def static_response(email: str) -> str:  # noqa: ARG001 - read, as in the service
    """Return the service's response without any work."""
    return BODY


@get("/redis", media_type=MediaType.JSON)
async def from_redis(email: str, state: State) -> str:
    """Respond after one GET."""
    await state.redis.get(email)
    return BODY


@get("/database", media_type=MediaType.JSON)
async def from_database(email: str, state: State) -> str:
    """Respond after one SELECT on the same index, as a prepared statement."""
    await state.pool.fetchrow(LOOK_UP, email)
    return BODY


@get("/me", media_type=MediaType.JSON)
async def me(request: Request[None, None, State], state: State) -> str:
    """Respond after the verification of an RS256 signature and one SELECT, as the service does."""
    token = request.headers["authorization"].partition(" ")[2]
    claims = jwt.decode(token, state.key, algorithms=["RS256"], options={"verify_aud": False})
    await state.pool.fetchrow("SELECT * FROM users WHERE id = $1", UUID(claims["sub"]))
    return BODY


class CreateCodeRequest(Struct):
    """The request body of the load generator."""

    lifetime_minutes: int
    replace: bool


class CodeResponse(Struct):
    """A response of the service's size."""

    id: UUID
    code: str
    status: str
    expires_at: datetime
    created_at: datetime
    uses: int
    max_uses: int | None
    url: str


@post("/codes")
async def create_code(
    request: Request[None, None, State], data: CreateCodeRequest, state: State
) -> CodeResponse:
    """Respond after the service's statements in a transaction, and one SET."""
    owner, number, now = _owner(request), uuid4(), datetime.now(UTC)
    text, expires_at = number.hex[:30].upper(), now + timedelta(minutes=data.lifetime_minutes)
    async with state.pool.acquire() as connection, connection.transaction():
        await connection.fetchrow(user_statements.LOCK.sql, owner)
        await connection.fetch(code_statements.RETIRE.sql, *DISABLED, owner)
        row = (number, owner, text, text, now, expires_at, None, 0, True)
        await connection.fetch(code_statements.ADD.sql, *row)
    await state.redis.set(owner.bytes, b"", ex=60)
    return CodeResponse(number, text, "active", expires_at, now, 0, None, text)


@delete("/codes/{code_id:uuid}")
async def delete_code(request: Request[None, None, State], code_id: UUID, state: State) -> None:
    """Respond after the service's statements in a transaction, and one SET."""
    owner = _owner(request)
    async with state.pool.acquire() as connection, connection.transaction():
        await connection.fetchrow(user_statements.LOCK.sql, owner)
        await connection.fetchrow(code_statements.LOCK.sql, code_id, owner)
        await connection.fetch(code_statements.DELETE.sql, *DISABLED, datetime.now(UTC), code_id)
    await state.redis.set(owner.bytes, b"", ex=60)


def _owner(request: Request[None, None, State]) -> UUID:
    """Return the user's id of an unverified token: the service caches verified tokens."""
    token = request.headers["authorization"].partition(" ")[2]
    return UUID(jwt.decode(token, options={"verify_signature": False})["sub"])


@get("/health/ready")
async def ready() -> None:
    """Readiness probe."""


@asynccontextmanager
async def connections(app: Litestar) -> AsyncIterator[None]:
    """Connect to Redis and PostgreSQL."""
    app.state.redis = Redis.from_url(os.environ["BARE_REDIS"])
    async with asyncpg.create_pool(os.environ["BARE_DATABASE"]) as app.state.pool:
        yield


def make_app() -> Litestar:
    """Make the app of a server process."""
    private = load_pem_private_key(Path(os.environ["BARE_KEY"]).read_bytes(), None)
    return Litestar(
        [static_response, from_redis, from_database, me, create_code, delete_code, ready],
        openapi_config=None,
        logging_config=None,
        lifespan=[connections],
        state=State({"key": private.public_key()}),
    )


def main(port: int) -> None:
    """Serve with the settings of `referral run`."""
    Granian(
        "tests.performance.baseline:make_app",
        port=port,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        factory=True,
        websockets=False,
        log_level=LogLevels.warning,
        http1_settings=HTTP1Settings(header_read_timeout=10_000),
    ).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]))
