"""Each operation, and the limit of the machine beside it, in turns."""

import asyncio
import os
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import asyncpg
import uvloop

from referral.adapters.postgres.repositories import codes as code_statements
from referral.adapters.postgres.repositories import users as user_statements
from referral.adapters.security.passwords import ARGON2, HASH_THREADS, lower_thread_priority
from tests.performance.baseline import DISABLED
from tests.performance.load import SECONDS, Measurement, run_wrk, summarize
from tests.performance.seed import END, NOW, user_id
from tests.performance.testbed import Server, Testbed
from tests.support.api_client import API, PASSWORD
from tests.support.process_stats import cpu_seconds

ADDRESSES = 10_000
WRITERS = 8
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))

SPREAD_SCRIPT = """
local number = 0
request = function()
    number = number % {addresses} + 1
    return wrk.format("GET", "{path}?email=b" .. number * {step} .. "@bench.example")
end
"""

AUTHORIZED_SCRIPT = 'wrk.headers["Authorization"] = "Bearer {token}"'

CODES_SCRIPT = """
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

REGISTER_SCRIPT = """
local number = 0
request = function()
    number = number + 1
    local body = '{{"email": "{run}-' .. number .. '@bench.example",' ..
        ' "password": "{password}", "referral_code": "BENCH-1"}}'
    return wrk.format("POST", "{path}", {{ ["Content-Type"] = "application/json" }}, body)
end
"""

Row = tuple[str, float | None, Measurement, Measurement]
Measure = Callable[[], Measurement]


def compare(stage: Testbed) -> Iterator[Row]:
    """Yield each operation's name, the ratio that it is to reach, if any, and both measurements."""
    ours, bare, path = stage.service, stage.bare, f"{API}/codes/lookup"

    def asked(service: Server, path: str, script: str = "") -> Measure:
        return lambda: run_wrk(f"{service.url}{path}", script)

    hot = "?email=b1@bench.example"
    limit = with_cpu(bare, asked(bare, f"/same{hot}"))
    yield "look-up, one hot address", 0.75, *alternate(asked(ours, path + hot), limit, ours)
    limit = with_cpu(bare, asked(bare, "", spread("/redis")))
    one = asked(ours, "", spread(path))
    yield "look-up, 10,000 addresses in Redis", 0.5, *alternate(one, limit, ours)
    limit = with_cpu(bare, asked(bare, "", spread("/database")))
    one = asked(stage.small.uncached, "", spread(path))
    yield "look-up, not cached", 0.6, *alternate(one, limit, stage.small.uncached)
    script = AUTHORIZED_SCRIPT.format(token=stage.token(1))
    limit = with_cpu(bare, asked(bare, "/me", script))
    yield "`GET /me`", 0.5, *alternate(asked(ours, f"{API}/me", script), limit, ours)
    limit = lambda: in_this_process(bare_codes(stage))  # noqa: E731 - as those above
    yield "`POST /me/codes`, `DELETE`", 0.5, *alternate(lambda: codes(stage), limit, ours)
    limit = with_cpu(bare, lambda: codes(stage, bare, path="/codes"))
    name = "the same, beside a bare handler"
    yield name, None, *alternate(lambda: codes(stage), limit, ours)
    limit = lambda: in_this_process(bare_hashes())  # noqa: E731
    one = lambda: run_wrk(ours.url, register(), connections=8)  # noqa: E731
    yield "registration with a code", 0.85, *alternate(one, limit, ours)


def alternate(ours: Measure, limit: Measure, service: Server) -> tuple[Measurement, Measurement]:
    """Measure both, one after the other and again, so that what else the machine does at the time
    concerns both; return the medians.
    """
    one = with_cpu(service, ours)
    one()  # warms up, and fills the caches
    rounds = [(one(), limit()) for _ in range(ROUNDS)]
    return median_measurement([ours for ours, _ in rounds]), median_measurement(
        [limit for _, limit in rounds]
    )


def median_measurement(found: list[Measurement]) -> Measurement:
    """Return the median of each figure."""
    columns = zip(*((one.rate, one.p50, one.p99, one.cpu) for one in found), strict=True)
    return Measurement(*(statistics.median(column) for column in columns))


def with_cpu(service: Server, measure: Measure) -> Measure:
    """Measure the CPU time of the service's process as well."""

    def measured() -> Measurement:
        process = service.worker()
        before, began = cpu_seconds(process), time.perf_counter()
        found = measure()
        spent, seconds = cpu_seconds(process) - before, time.perf_counter() - began
        return replace(found, cpu=spent * 1000 / (found.rate * seconds))

    return measured


def in_this_process(measure: Awaitable[Measurement]) -> Measurement:
    """Measure what this process does itself, on the event loop that the service has."""

    async def measured() -> Measurement:
        before, began = time.process_time(), time.perf_counter()
        found = await measure
        spent, seconds = time.process_time() - before, time.perf_counter() - began
        return replace(found, cpu=spent * 1000 / (found.rate * seconds))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measured())


def spread(path: str, step: int = 1) -> str:
    """Return a script that asks for one address after the other, `step` apart."""
    return SPREAD_SCRIPT.format(path=path, addresses=ADDRESSES, step=step)


def register() -> str:
    """Return a script that registers addresses which nobody has."""
    path = f"{API}/auth/register"
    return REGISTER_SCRIPT.format(path=path, password=PASSWORD, run=uuid.uuid4().hex)


def codes(
    stage: Testbed,
    service: Server | None = None,
    seconds: float = SECONDS,
    path: str = f"{API}/me/codes",
) -> Measurement:
    """Create a code and delete it, over and over, as several users."""
    tokens = ", ".join(f'"{stage.token(ADDRESSES + 1 + number)}"' for number in range(WRITERS))
    script = CODES_SCRIPT.format(tokens=tokens, path=path)
    url = (service or stage.service).url
    return run_wrk(url, script, threads=WRITERS, connections=WRITERS, seconds=seconds)


async def bare_codes(stage: Testbed) -> Measurement:
    """Send the very same statements, in transactions, by asyncpg alone: one connection a writer."""

    async def one(connection: asyncpg.Connection, owner: uuid.UUID, made: list[uuid.UUID]) -> None:
        await connection.execute("BEGIN")
        await connection.fetchrow(user_statements.LOCK.text, owner)
        if made:
            await connection.fetchrow(code_statements.LOCK.text, made[-1], owner)
            await connection.fetch(code_statements.DELETE.text, *DISABLED, NOW, made.pop())
        else:
            await connection.fetch(code_statements.RETIRE.text, *DISABLED, owner)
            made.append(uuid.uuid4())
            text = made[-1].hex[:30].upper()
            row = (made[-1], owner, text, text, NOW, END, None, 0, True)
            await connection.fetch(code_statements.ADD.text, *row)
        await connection.execute("COMMIT")

    def writer(connection: asyncpg.Connection, number: int) -> Callable[[], Awaitable[None]]:
        owner, made = user_id(ADDRESSES + 1 + number), list[uuid.UUID]()
        return lambda: one(connection, owner, made)

    connections = [await asyncpg.connect(stage.small.database) for _ in range(WRITERS)]
    found = await _repeat([writer(each, number) for number, each in enumerate(connections)])
    for each in connections:
        await each.close()
    return found


async def bare_hashes() -> Measurement:
    """Hash passwords in as many threads as the service does, and do nothing else."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(HASH_THREADS, initializer=lower_thread_priority) as pool:
        return await _repeat(
            [lambda: loop.run_in_executor(pool, ARGON2.hash, PASSWORD)] * HASH_THREADS
        )


async def _repeat(workers: list[Callable[[], Awaitable[object]]]) -> Measurement:
    took: list[float] = []
    end = time.perf_counter() + SECONDS

    async def again(one: Callable[[], Awaitable[object]]) -> None:
        while (began := time.perf_counter()) < end:
            await one()
            took.append((time.perf_counter() - began) * 1000)

    began = time.perf_counter()
    await asyncio.gather(*(again(one) for one in workers))
    return summarize(took, time.perf_counter() - began)
