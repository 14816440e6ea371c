"""How the cost of an operation grows with the number of users, in turns over two databases."""

import asyncio
from collections.abc import Callable

import asyncpg

from referral.web.parsing import make_cursor
from tests.performance.benchmarks import (
    ADDRESSES,
    AUTHORIZED_SCRIPT,
    ROUNDS,
    codes,
    median_measurement,
    register,
    spread,
)
from tests.performance.load import SECONDS, Measurement, run_wrk
from tests.performance.seed import FIRST, user_id
from tests.performance.testbed import Dataset, Testbed
from tests.support.api_client import API

PAGE = 20
DEPTH = 10_000
SHORT_SECONDS = max(SECONDS // 2, 1)

Pair = tuple[Measurement, Measurement]


def growth(stage: Testbed, small: Dataset, large: Dataset) -> dict[str, Pair]:
    """Return what each operation takes with few and with many users, one request at a time."""
    few, many = (_operations(stage, place) for place in (small, large))
    return {name: in_pairs(few[name], many[name]) for name in few}


def in_pairs(one: Callable[[], Measurement], other: Callable[[], Measurement]) -> Pair:
    """Measure one and the other by turns; return the medians."""
    one(), other()
    rounds = [(one(), other()) for _ in range(ROUNDS)]
    return median_measurement([first for first, _ in rounds]), median_measurement(
        [second for _, second in rounds]
    )


def _operations(stage: Testbed, place: Dataset) -> dict[str, Callable[[], Measurement]]:
    ours, script = place.service.url, AUTHORIZED_SCRIPT.format(token=stage.token(FIRST))
    many = spread(f"{API}/codes/lookup", place.users // ADDRESSES)

    def ask(url: str, script: str = "") -> Callable[[], Measurement]:
        return lambda: run_wrk(url, script, connections=1, seconds=SHORT_SECONDS)

    return {
        "look-up, hot": ask(f"{ours}{API}/codes/lookup?email=b1@bench.example"),
        "look-up, not cached": ask(place.uncached.url, many),
        "`GET /me`": ask(f"{ours}{API}/me", script),
        "`GET /me/referrals`": ask(f"{ours}{API}/me/referrals", script),
        "`GET /me/codes`": ask(f"{ours}{API}/me/codes", script),
        "`GET /codes/{code}/validity`": ask(f"{ours}{API}/codes/BENCH-1/validity"),
        "registration with a code": lambda: run_wrk(
            ours, register(), connections=1, seconds=SHORT_SECONDS
        ),
        "`POST /me/codes`, `DELETE`, 8 at a time": lambda: codes(
            stage, place.service, SHORT_SECONDS
        ),
    }


def pages(stage: Testbed, place: Dataset) -> tuple[int, Measurement, Measurement]:
    """Return how many pages in the second one is, and what it and the first take."""
    script = AUTHORIZED_SCRIPT.format(token=stage.token(FIRST))
    url = f"{place.service.url}{API}/me/referrals?limit={PAGE}"
    depth, cursor = asyncio.run(_cursor(place.database))
    first, deep = in_pairs(
        lambda: run_wrk(url, script, connections=1),
        lambda: run_wrk(f"{url}&cursor={cursor}", script, connections=1),
    )
    return depth, first, deep


async def _cursor(database: str) -> tuple[int, str | None]:
    connection, owner = await asyncpg.connect(database), user_id(FIRST)
    total = await connection.fetchval("SELECT count(*) FROM referrals WHERE referrer_id=$1", owner)
    depth = min(DEPTH, total // PAGE)
    place = await connection.fetchval(
        "SELECT id FROM referrals WHERE referrer_id = $1 ORDER BY id DESC OFFSET $2 LIMIT 1",
        owner,
        (depth - 1) * PAGE - 1,
    )
    await connection.close()
    return depth, make_cursor(place, "referrals", owner, None)
