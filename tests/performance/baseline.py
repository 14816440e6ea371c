"""The limits of the machine: handlers on the same server that do one thing, and nothing around it.

Each uses its library in the plainest way that its documentation shows.
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
    """Answer what the service answered."""
    return BODY


@get("/redis", media_type=MediaType.JSON)
async def from_redis(email: str, state: State) -> str:
    """Answer after one GET."""
    await state.redis.get(email)
    return BODY


@get("/database", media_type=MediaType.JSON)
async def from_database(email: str, state: State) -> str:
    """Answer after one SELECT by the same index, which asyncpg has prepared."""
    await state.pool.fetchrow(LOOK_UP, email)
    return BODY


@get("/me", media_type=MediaType.JSON)
async def me(request: Request[None, None, State], state: State) -> str:
    """Answer after one RS256 signature was verified, and one SELECT, as in the service."""
    token = request.headers["authorization"].partition(" ")[2]
    claims = jwt.decode(token, state.key, algorithms=["RS256"], options={"verify_aud": False})
    await state.pool.fetchrow("SELECT * FROM users WHERE id = $1", UUID(claims["sub"]))
    return BODY


class NewCode(Struct):
    """What the load generator sends."""

    lifetime_minutes: int
    replace: bool


class Code(Struct):
    """As much as the service answers."""

    id: UUID
    code: str
    status: str
    expires_at: datetime
    created_at: datetime
    uses: int
    max_uses: int | None
    url: str


@post("/codes")
async def create_code(request: Request[None, None, State], data: NewCode, state: State) -> Code:
    """Answer after the statements of the service, in a transaction, and one SET."""
    owner, number, now = _owner(request), uuid4(), datetime.now(UTC)
    text, ends = number.hex[:30].upper(), now + timedelta(minutes=data.lifetime_minutes)
    async with state.pool.acquire() as connection, connection.transaction():
        await connection.fetchrow(user_statements.LOCK.text, owner)
        await connection.fetch(code_statements.RETIRE.text, *DISABLED, owner)
        row = (number, owner, text, text, now, ends, None, 0, True)
        await connection.fetch(code_statements.ADD.text, *row)
    await state.redis.set(owner.bytes, b"", ex=60)
    return Code(number, text, "active", ends, now, 0, None, text)


@delete("/codes/{code_id:uuid}")
async def delete_code(request: Request[None, None, State], code_id: UUID, state: State) -> None:
    """Likewise."""
    owner = _owner(request)
    async with state.pool.acquire() as connection, connection.transaction():
        await connection.fetchrow(user_statements.LOCK.text, owner)
        await connection.fetchrow(code_statements.LOCK.text, code_id, owner)
        await connection.fetch(code_statements.DELETE.text, *DISABLED, datetime.now(UTC), code_id)
    await state.redis.set(owner.bytes, b"", ex=60)


def _owner(request: Request[None, None, State]) -> UUID:
    """Return whose token it is, unverified, as the service verifies each but once."""
    token = request.headers["authorization"].partition(" ")[2]
    return UUID(jwt.decode(token, options={"verify_signature": False})["sub"])


@get("/health/ready")
async def ready() -> None:
    """Tell that the process answers."""


@asynccontextmanager
async def parts(app: Litestar) -> AsyncIterator[None]:
    """Connect."""
    app.state.redis = Redis.from_url(os.environ["BARE_REDIS"])
    async with asyncpg.create_pool(os.environ["BARE_DATABASE"]) as app.state.pool:
        yield


def make() -> Litestar:
    """Make the app: what a worker process of the server calls."""
    private = load_pem_private_key(Path(os.environ["BARE_KEY"]).read_bytes(), None)
    return Litestar(
        [static_response, from_redis, from_database, me, create_code, delete_code, ready],
        openapi_config=None,
        logging_config=None,
        lifespan=[parts],
        state=State({"key": private.public_key()}),
    )


def main(port: int) -> None:
    """Serve with the settings of `referral run`."""
    Granian(
        "tests.performance.baseline:make",
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
