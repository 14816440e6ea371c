"""The cost of reading the feed of events: `python -m tests.performance.event_feed`.

It reads a page of 1,000 stored events, and of `--scale` (10 million): from the beginning, the
middle and the end, all types and the rarest type. The pages that PostgreSQL touches mean more than
the times: they depend neither on the machine nor on its load.
"""

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import AsyncIterator

import asyncpg

from referral.adapters.postgres.repositories.events import LIST_ALL, LIST_BY_TYPE
from tests.performance.seed import TIMEOUT
from tests.support.worker_process import temporary_settings

SMALL = 1000
LIMIT = 100
REPETITIONS = 9

# Ids grow with the time, as UUIDv7 ids do. Nine types are frequent, and one is rare.
FILL = """
INSERT INTO events (id, position, type, occurred_at, data)
SELECT lpad(to_hex(number), 32, '0')::uuid, number,
    CASE WHEN number % 5000 = 0 THEN 'user.erased' ELSE (ARRAY['user.registered', 'user.verified',
        'code.created', 'code.activated', 'code.deactivated', 'code.expired', 'code.deleted',
        'referral.created', 'referral.confirmed'])[1 + number % 9] END,
    now() - interval '30 days' * (1 - number::float8 / $2),
    json_build_object('code_id', gen_random_uuid(), 'user_id', gen_random_uuid(),
        'code', 'SPRING-' || number, 'status', 'active', 'expires_at', '2026-12-31T00:00:00Z',
        'uses', 0, 'max_uses', null)
FROM generate_series($1::bigint, $2::bigint) AS number
"""


async def measure(url: str, scale: int) -> dict[str, str]:
    """Fill the table in two steps, and read pages after each."""
    connection = await asyncpg.connect(url, server_settings={"synchronous_commit": "off"})
    rows, first = dict[str, str](), 1
    for last in (SMALL, scale):
        await connection.execute(FILL, first, last, timeout=TIMEOUT)
        await connection.execute("VACUUM ANALYZE events", timeout=TIMEOUT)
        first = last + 1
        rows |= {f"{name}, {last:,} events": cost async for name, cost in _pages(connection, last)}
    await connection.close()
    return rows


async def _pages(connection: asyncpg.Connection, last: int) -> AsyncIterator[tuple[str, str]]:
    for place, after in {"first": 0, "middle": last // 2, "last": last - LIMIT}.items():
        yield f"{place} page", await _cost(connection, LIST_ALL, after, LIMIT)
        rare = await _cost(connection, LIST_BY_TYPE, after, LIMIT, ["user.erased"])
        yield f"{place} page of a rare type", rare


async def _cost(connection: asyncpg.Connection, sql: str, *arguments: object) -> str:
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}"
    plans = [
        json.loads(await connection.fetchval(explain, *arguments))[0] for _ in range(REPETITIONS)
    ]
    pages = statistics.median(
        plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] for plan in plans
    )
    return (
        f"{pages:.0f} pages, {statistics.median(plan['Execution Time'] for plan in plans):.2f} ms"
    )


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=10_000_000)
    scale = parser.parse_args().scale
    with temporary_settings() as settings:
        figures = asyncio.run(measure(settings.database_url or "", scale))
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
