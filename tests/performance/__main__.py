"""Measure the service as a process, each number beside the limit of the machine.

`make bench` prints the tables, `make bench-report` also writes them to docs/performance.md.
"""

import argparse
import asyncio
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg

from referral.web.requests import make_cursor
from tests.journey import API
from tests.performance.fill import fill, user_id
from tests.performance.load import SECONDS, Measured, load, paced
from tests.performance.measures import SIGNED_IN, codes, compare, register, spread
from tests.performance.stage import Stage, stage

SMALL = 10_100
"""A few more than are looked up: those make and delete codes."""
RATE = 500
PAGE = 20

TARGETS = """\
| operation | a second | limit a second | ratio | target | p50 | p99 |
|---|---|---|---|---|---|---|
"""
GROWTH = """\
| operation, one at a time | p50 at {small:,} | p50 at {large:,} | ratio |
|---|---|---|---|
"""


def main() -> None:
    """Measure, print, and write the report where one is asked for."""
    arguments = argparse.ArgumentParser(description="Measure the service.")
    arguments.add_argument("--report", type=Path, help="the file whose tables are to be replaced")
    arguments.add_argument("--scale", type=int, default=0, help="users of the second table")
    given = arguments.parse_args()
    tables = measure(given.scale)
    print(tables)  # noqa: T201 - what the command is for
    if given.report:
        kept = given.report.read_text().partition("<!-- measured -->")
        given.report.write_text(f"{kept[0]}{kept[1]}\n\n{tables}")


def measure(scale: int) -> str:
    """Run every measurement and return the tables."""
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {SECONDS} s each."
    with tempfile.TemporaryDirectory(prefix="referral-") as home, stage(Path(home)) as staged:
        asyncio.run(fill(staged.database, 1, SMALL))
        parts = [machine, TARGETS + "".join(_row(*row) for row in compare(staged))]
        parts += [_flood(staged)]
        if scale > SMALL:
            parts += [_growth(staged, scale)]
        return "\n\n".join(parts) + "\n"


def _row(name: str, target: float, ours: Measured, limit: Measured) -> str:
    return (
        f"| {name} | {ours.rate:,.0f} | {limit.rate:,.0f} | {ours.rate / limit.rate:.2f} "
        f"| {target} | {ours.p50:.1f} ms | {ours.p99:.1f} ms |\n"
    )


def _flood(staged: Stage) -> str:
    """Compare hot look-ups in peace with those during a flood of registrations."""
    port = int(staged.service.url.rpartition(":")[2])
    path = f"{API}/codes/lookup?email=b1@bench.example"
    asyncio.run(paced(port, path, RATE, 1))
    idle = asyncio.run(paced(port, path, RATE, SECONDS))
    flood = threading.Thread(target=lambda: load(staged.service.url, register(), connections=64))
    flood.start()
    time.sleep(0.5)  # until the queue of hashes is full
    flooded = asyncio.run(paced(port, path, RATE, SECONDS - 1))
    flood.join()
    return (
        f"Hot look-ups at {RATE}/s: p50 {idle.p50:.1f} ms and p99 {idle.p99:.1f} ms in peace, "
        f"p50 {flooded.p50:.1f} ms and p99 {flooded.p99:.1f} ms while 64 register at once, no "
        f"error. The worker then takes {staged.memory():.0f} MB."
    )


def _growth(staged: Stage, scale: int) -> str:
    small = {name: one() for name, one in _single(staged).items()}
    asyncio.run(fill(staged.database, SMALL + 1, scale))
    large = {name: one() for name, one in _single(staged).items()}
    rows = [
        f"| {name} | {small[name]:.2f} ms | {large[name]:.2f} ms "
        f"| {large[name] / small[name]:.2f} |\n"
        for name in small
    ]
    first, deep = _pages(staged)
    depth = f"Page 1 of the referrals takes {first:.2f} ms, page {_depth(scale):,} {deep:.2f} ms."
    return GROWTH.format(small=SMALL, large=scale) + "".join(rows) + f"\n{depth}"


def _single(staged: Stage) -> dict[str, Callable[[], float]]:
    """Return what tells the median of each operation, one at a time."""
    ours, script = staged.service.url, SIGNED_IN.format(token=staged.token(1))

    def median(url: str, script: str = "") -> Callable[[], float]:
        return lambda: load(url, script, connections=1).p50

    return {
        "look-up, hot": median(f"{ours}{API}/codes/lookup?email=b1@bench.example"),
        "look-up, not cached": median(staged.uncached.url, spread(f"{API}/codes/lookup")),
        "`GET /me`": median(f"{ours}{API}/me", script),
        "`GET /me/referrals`": median(f"{ours}{API}/me/referrals", script),
        "`GET /me/codes`": median(f"{ours}{API}/me/codes", script),
        "`GET /codes/{code}/validity`": median(f"{ours}{API}/codes/BENCH-1/validity"),
        "registration with a code": median(ours, register()),
        "`POST /me/codes`, `DELETE`, 8 at a time": lambda: codes(staged).p50,
    }


def _depth(scale: int) -> int:
    return min(10_000, scale // PAGE)


def _pages(staged: Stage) -> tuple[float, float]:
    script = SIGNED_IN.format(token=staged.token(1))
    url = f"{staged.service.url}{API}/me/referrals?limit={PAGE}"
    cursor = asyncio.run(_cursor(staged))
    first = load(url, script, connections=1).p50
    return first, load(f"{url}&cursor={cursor}", script, connections=1).p50


async def _cursor(staged: Stage) -> str | None:
    connection = await asyncpg.connect(staged.database)
    owner = user_id(1)
    total = await connection.fetchval("SELECT count(*) FROM referrals WHERE referrer_id=$1", owner)
    place = await connection.fetchval(
        "SELECT id FROM referrals WHERE referrer_id = $1 ORDER BY id DESC OFFSET $2 LIMIT 1",
        owner,
        (_depth(total) - 1) * PAGE - 1,
    )
    await connection.close()
    return make_cursor(place, "referrals", owner, None)


if __name__ == "__main__":
    main()
