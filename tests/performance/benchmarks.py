"""Each operation and the limit of the machine beside it, measured in turns."""

import asyncio
import os
import statistics
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
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


def compare(testbed: Testbed) -> Iterator[Row]:
    """Yield each operation's name, its target ratio or None, and both measurements."""
    service, baseline, path = testbed.service, testbed.baseline, f"{API}/codes/lookup"

    def request(service: Server, path: str, script: str = "") -> Measure:
        return lambda: run_wrk(f"{service.url}{path}", script)

    hot = "?email=b1@bench.example"
    limit = with_cpu(baseline, request(baseline, f"/same{hot}"))
    yield "lookup, one hot address", 0.75, *alternate(request(service, path + hot), limit, service)
    limit = with_cpu(baseline, request(baseline, "", spread_script("/redis")))
    measure = request(service, "", spread_script(path))
    yield "lookup, 10,000 addresses in Redis", 0.5, *alternate(measure, limit, service)
    limit = with_cpu(baseline, request(baseline, "", spread_script("/database")))
    measure = request(testbed.small.uncached, "", spread_script(path))
    yield "lookup, not cached", 0.6, *alternate(measure, limit, testbed.small.uncached)
    script = AUTHORIZED_SCRIPT.format(token=testbed.token(1))
    limit = with_cpu(baseline, request(baseline, "/me", script))
    yield "`GET /me`", 0.5, *alternate(request(service, f"{API}/me", script), limit, service)
    limit = lambda: in_this_process(baseline_codes(testbed))  # noqa: E731 - as those above
    yield (
        "`POST /me/codes`, `DELETE`",
        0.5,
        *alternate(lambda: create_and_delete_codes(testbed), limit, service),
    )
    limit = with_cpu(baseline, lambda: create_and_delete_codes(testbed, baseline, path="/codes"))
    name = "the same, beside a bare handler"
    yield name, None, *alternate(lambda: create_and_delete_codes(testbed), limit, service)
    limit = lambda: in_this_process(baseline_hashes())  # noqa: E731
    measure = lambda: run_wrk(service.url, register_script(), connections=8)  # noqa: E731
    yield "registration with a code", 0.85, *alternate(measure, limit, service)


def alternate(
    operation: Measure, limit: Measure, service: Server
) -> tuple[Measurement, Measurement]:
    """Measure both in turns, so that other load affects both alike; return the medians."""
    measure = with_cpu(service, operation)
    measure()  # warms up, and fills the caches
    rounds = [(measure(), limit()) for _ in range(ROUNDS)]
    measured, limits = zip(*rounds, strict=True)
    return median_measurement(measured), median_measurement(limits)


def median_measurement(measurements: Iterable[Measurement]) -> Measurement:
    """Return the median of each figure."""
    columns = zip(
        *(
            (measurement.rate, measurement.p50, measurement.p99, measurement.cpu)
            for measurement in measurements
        ),
        strict=True,
    )
    return Measurement(*(statistics.median(column) for column in columns))


def with_cpu(service: Server, measure: Measure) -> Measure:
    """Add the CPU time of the service's process to the measurement."""

    def measured() -> Measurement:
        process = service.process_id()
        before, started = cpu_seconds(process), time.perf_counter()
        measurement = measure()
        spent, seconds = cpu_seconds(process) - before, time.perf_counter() - started
        return replace(measurement, cpu=spent * 1000 / (measurement.rate * seconds))

    return measured


def in_this_process(measure: Awaitable[Measurement]) -> Measurement:
    """Measure work of this process on the service's kind of event loop."""

    async def measured() -> Measurement:
        before, started = time.process_time(), time.perf_counter()
        measurement = await measure
        spent, seconds = time.process_time() - before, time.perf_counter() - started
        return replace(measurement, cpu=spent * 1000 / (measurement.rate * seconds))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measured())


def spread_script(path: str, step: int = 1) -> str:
    """Return a script that requests one e-mail after the other, `step` apart."""
    return SPREAD_SCRIPT.format(path=path, addresses=ADDRESSES, step=step)


def register_script() -> str:
    """Return a script that registers new e-mails."""
    path = f"{API}/auth/register"
    return REGISTER_SCRIPT.format(path=path, password=PASSWORD, run=uuid.uuid4().hex)


def create_and_delete_codes(
    testbed: Testbed,
    service: Server | None = None,
    seconds: float = SECONDS,
    path: str = f"{API}/me/codes",
) -> Measurement:
    """Create and delete codes repeatedly as several users."""
    tokens = ", ".join(f'"{testbed.token(ADDRESSES + 1 + number)}"' for number in range(WRITERS))
    script = CODES_SCRIPT.format(tokens=tokens, path=path)
    url = (service or testbed.service).url
    return run_wrk(url, script, threads=WRITERS, connections=WRITERS, seconds=seconds)


async def baseline_codes(testbed: Testbed) -> Measurement:
    """Send the service's statements in transactions by asyncpg, with one connection per writer."""

    async def write(
        connection: asyncpg.Connection, owner: uuid.UUID, created: list[uuid.UUID]
    ) -> None:
        await connection.execute("BEGIN")
        await connection.fetchrow(user_statements.LOCK.sql, owner)
        if created:
            await connection.fetchrow(code_statements.LOCK.sql, created[-1], owner)
            await connection.fetch(code_statements.DELETE.sql, *DISABLED, NOW, created.pop())
        else:
            await connection.fetch(code_statements.RETIRE.sql, *DISABLED, owner)
            created.append(uuid.uuid4())
            text = created[-1].hex[:30].upper()
            row = (created[-1], owner, text, text, NOW, END, None, 0, True)
            await connection.fetch(code_statements.ADD.sql, *row)
        await connection.execute("COMMIT")

    def writer(connection: asyncpg.Connection, number: int) -> Callable[[], Awaitable[None]]:
        owner, created = user_id(ADDRESSES + 1 + number), list[uuid.UUID]()
        return lambda: write(connection, owner, created)

    connections = [await asyncpg.connect(testbed.small.database) for _ in range(WRITERS)]
    measurement = await _repeat(
        [writer(connection, number) for number, connection in enumerate(connections)]
    )
    for connection in connections:
        await connection.close()
    return measurement


async def baseline_hashes() -> Measurement:
    """Hash passwords in as many threads as the service does."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(HASH_THREADS, initializer=lower_thread_priority) as pool:
        return await _repeat(
            [lambda: loop.run_in_executor(pool, ARGON2.hash, PASSWORD)] * HASH_THREADS
        )


async def _repeat(workers: list[Callable[[], Awaitable[object]]]) -> Measurement:
    durations: list[float] = []
    end = time.perf_counter() + SECONDS

    async def repeat(work: Callable[[], Awaitable[object]]) -> None:
        while (started := time.perf_counter()) < end:
            await work()
            durations.append((time.perf_counter() - started) * 1000)

    started = time.perf_counter()
    await asyncio.gather(*(repeat(work) for work in workers))
    return summarize(durations, time.perf_counter() - started)
