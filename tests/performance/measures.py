"""Each operation, and the limit of the machine beside it, measured right after."""

import asyncio
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import asyncpg

from referral.adapters.passwords import HASHER, THREADS
from tests.journey import API, PASSWORD
from tests.performance.fill import user_id
from tests.performance.load import SECONDS, Measured, load
from tests.performance.stage import Stage

ADDRESSES = 10_000
WRITERS = 8

SPREAD = """
local number = 0
request = function()
    number = number % {addresses} + 1
    return wrk.format("GET", "{path}?email=b" .. number .. "@bench.example")
end
"""

SIGNED_IN = 'wrk.headers["Authorization"] = "Bearer {token}"'

CODES = """
local tokens = {{ {tokens} }}
local threads, last = 0, nil
setup = function(thread)
    threads = threads + 1
    thread:set("token", tokens[threads])
end
request = function()
    local headers = {{ ["Authorization"] = "Bearer " .. token,
        ["Content-Type"] = "application/json" }}
    if last then
        local path = "{path}/" .. last
        last = nil
        return wrk.format("DELETE", path, headers)
    end
    return wrk.format("POST", "{path}", headers, '{{"lifetime_minutes": 60, "replace": true}}')
end
response = function(status, _, body)
    if status == 201 then last = body:match('"id":"([^"]+)"') end
end
"""

REGISTER = """
local number = 0
request = function()
    number = number + 1
    local body = '{{"email": "{run}-' .. number .. '@bench.example",' ..
        ' "password": "{password}", "referral_code": "BENCH-1"}}'
    return wrk.format("POST", "{path}", {{ ["Content-Type"] = "application/json" }}, body)
end
"""

LOCK_USER = "SELECT * FROM users WHERE id = $1 FOR NO KEY UPDATE"
RETIRE = "UPDATE codes SET enabled = false WHERE user_id = $1 AND enabled"
INSERT = """INSERT INTO codes (id, user_id, text, text_key, created_at, expires_at, uses, enabled)
VALUES ($1, $2, $3, $3, now(), now() + interval '1 hour', 0, true)"""
LOCK_CODE = "SELECT * FROM codes WHERE id = $1 AND user_id = $2 FOR UPDATE"
DELETE = "UPDATE codes SET enabled = false, deleted_at = now() WHERE id = $1"

Row = tuple[str, float, Measured, Measured]


def compare(stage: Stage) -> Iterator[Row]:
    """Yield the name of each operation, the ratio that it is to reach, and both measurements."""
    ours, bare, path = stage.service.url, stage.bare.url, f"{API}/codes/lookup"
    hot, same = f"{ours}{path}?email=b1@bench.example", f"{bare}/same?email=b1@bench.example"
    yield "look-up, one hot address", 0.75, load(hot), load(same)
    load(ours, spread(path))
    limit = load(bare, spread("/redis"))
    yield "look-up, 10,000 addresses in Redis", 0.5, load(ours, spread(path)), limit
    limit = load(bare, spread("/database"))
    yield "look-up, not cached", 0.6, load(stage.uncached.url, spread(path)), limit
    script = SIGNED_IN.format(token=stage.token(1))
    yield "`GET /me`", 0.5, load(f"{ours}{API}/me", script), load(f"{bare}/me", script)
    yield "`POST /me/codes`, `DELETE`", 0.5, codes(stage), asyncio.run(bare_codes(stage))
    yield "registration with a code", 0.85, load(ours, register(), connections=8), hashes()


def spread(path: str) -> str:
    """Return a script that asks for one address after the other."""
    return SPREAD.format(path=path, addresses=ADDRESSES)


def register() -> str:
    """Return a script that registers addresses which nobody has."""
    path = f"{API}/auth/register"
    return REGISTER.format(path=path, password=PASSWORD, run=uuid.uuid4().hex)


def codes(stage: Stage) -> Measured:
    """Create a code and delete it, over and over, as several users."""
    tokens = ", ".join(f'"{stage.token(ADDRESSES + 1 + number)}"' for number in range(WRITERS))
    script = CODES.format(tokens=tokens, path=f"{API}/me/codes")
    return load(stage.service.url, script, threads=WRITERS, connections=WRITERS)


async def bare_codes(stage: Stage) -> Measured:
    """Send the same statements, in transactions, by asyncpg alone."""
    pool = await asyncpg.create_pool(stage.database, min_size=WRITERS, max_size=WRITERS)
    owners = iter(range(ADDRESSES + 1, ADDRESSES + 1 + WRITERS))

    async def one(owner: uuid.UUID, made: list[uuid.UUID]) -> None:
        async with pool.acquire() as connection, connection.transaction():
            await connection.fetchrow(LOCK_USER, owner)
            if made:
                await connection.fetchrow(LOCK_CODE, made[-1], owner)
                await connection.execute(DELETE, made.pop())
                return
            made.append(uuid.uuid4())
            await connection.execute(RETIRE, owner)
            await connection.execute(INSERT, made[-1], owner, made[-1].hex[:30].upper())

    def writer() -> Callable[[], Awaitable[None]]:
        owner, made = user_id(next(owners)), list[uuid.UUID]()
        return lambda: one(owner, made)

    async with pool:
        return await _repeat([writer() for _ in range(WRITERS)])


def hashes() -> Measured:
    """Hash passwords in as many threads as the service does, and do nothing else."""

    async def measure() -> Measured:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(THREADS) as pool:
            one = lambda: loop.run_in_executor(pool, HASHER.hash, PASSWORD)  # noqa: E731
            return await _repeat([one] * THREADS)

    return asyncio.run(measure())


async def _repeat(workers: list[Callable[[], Awaitable[object]]]) -> Measured:
    took: list[float] = []
    end = time.perf_counter() + SECONDS

    async def again(one: Callable[[], Awaitable[object]]) -> None:
        while (began := time.perf_counter()) < end:
            await one()
            took.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(again(one) for one in workers))
    cuts = statistics.quantiles(took, n=100)
    return Measured(len(took) / (time.perf_counter() - began), cuts[49], cuts[98])
