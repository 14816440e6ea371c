"""The cost of an operation by the number of users, measured in turns on two databases."""

import asyncio
from collections.abc import Callable

import asyncpg

from referral.web.pagination import make_cursor
from tests.performance.benchmarks import (
    ADDRESSES,
    AUTHORIZED_SCRIPT,
    ROUNDS,
    create_and_delete_codes,
    median_measurement,
    register_script,
    spread_script,
)
from tests.performance.load import SECONDS, Measurement, run_wrk
from tests.performance.seed import FIRST, user_id
from tests.performance.testbed import Dataset, Testbed
from tests.support.api_client import API

PAGE = 20
DEPTH = 10_000
SHORT_SECONDS = max(SECONDS // 2, 1)

MeasurementPair = tuple[Measurement, Measurement]


def compare_sizes(testbed: Testbed, small: Dataset, large: Dataset) -> dict[str, MeasurementPair]:
    """Measure each operation with few and with many users, one request at a time."""
    few, many = (_operations(testbed, dataset) for dataset in (small, large))
    return {name: alternate_pair(few[name], many[name]) for name in few}


def alternate_pair(
    one: Callable[[], Measurement], other: Callable[[], Measurement]
) -> MeasurementPair:
    """Measure two operations in turns; return the medians."""
    one(), other()
    rounds = [(one(), other()) for _ in range(ROUNDS)]
    return median_measurement([first for first, _ in rounds]), median_measurement(
        [second for _, second in rounds]
    )


def _operations(testbed: Testbed, dataset: Dataset) -> dict[str, Callable[[], Measurement]]:
    url, script = dataset.service.url, AUTHORIZED_SCRIPT.format(token=testbed.token(FIRST))
    lookups = spread_script(f"{API}/codes/lookup", dataset.users // ADDRESSES)

    def request(url: str, script: str = "") -> Callable[[], Measurement]:
        return lambda: run_wrk(url, script, connections=1, seconds=SHORT_SECONDS)

    return {
        "lookup, hot": request(f"{url}{API}/codes/lookup?email=b1@bench.example"),
        "lookup, not cached": request(dataset.uncached.url, lookups),
        "`GET /me`": request(f"{url}{API}/me", script),
        "`GET /me/referrals`": request(f"{url}{API}/me/referrals", script),
        "`GET /me/codes`": request(f"{url}{API}/me/codes", script),
        "`GET /codes/{code}/validity`": request(f"{url}{API}/codes/BENCH-1/validity"),
        "registration with a code": lambda: run_wrk(
            url, register_script(), connections=1, seconds=SHORT_SECONDS
        ),
        "`POST /me/codes`, `DELETE`, 8 at a time": lambda: create_and_delete_codes(
            testbed, dataset.service, SHORT_SECONDS
        ),
    }


def pages(testbed: Testbed, dataset: Dataset) -> tuple[int, Measurement, Measurement]:
    """Return the number of a deep page, and measure the first page and that page."""
    script = AUTHORIZED_SCRIPT.format(token=testbed.token(FIRST))
    url = f"{dataset.service.url}{API}/me/referrals?limit={PAGE}"
    depth, cursor = asyncio.run(_deep_cursor(dataset.database))
    first, deep = alternate_pair(
        lambda: run_wrk(url, script, connections=1),
        lambda: run_wrk(f"{url}&cursor={cursor}", script, connections=1),
    )
    return depth, first, deep


async def _deep_cursor(database: str) -> tuple[int, str | None]:
    connection, owner = await asyncpg.connect(database), user_id(FIRST)
    total = await connection.fetchval("SELECT count(*) FROM referrals WHERE referrer_id=$1", owner)
    depth = min(DEPTH, total // PAGE)
    last_id = await connection.fetchval(
        "SELECT id FROM referrals WHERE referrer_id = $1 ORDER BY id DESC OFFSET $2 LIMIT 1",
        owner,
        (depth - 1) * PAGE - 1,
    )
    await connection.close()
    return depth, make_cursor(last_id, "referrals", owner, None)
