"""Measure the service as a process, each number beside the limit of the machine.

`make bench` prints the tables, `make bench-report` also writes them to docs/performance.md.
"""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

from referral.adapters.security.passwords import ARGON2
from tests.performance.benchmarks import ROUNDS, compare
from tests.performance.floods import MINUTES, RATE, SAMPLE_SECONDS, floods, memory_under_load
from tests.performance.load import SECONDS, Measurement
from tests.performance.scaling import growth, pages
from tests.performance.seed import fill
from tests.performance.testbed import Testbed, make_testbed
from tests.support.api_client import PASSWORD

SMALL = 10_100
"""A few more than are looked up: those make and delete codes."""
SCALE = 1_000_000
MEGABYTES = 150
TIMES = 3.0

TARGETS = """\
| operation | a second | limit a second | ratio | target | CPU, ms | limit's | p50, ms | p99, ms |
|---|---|---|---|---|---|---|---|---|
"""
FLOODS = """\
| hot look-ups at {rate}/s beside | p50, ms | in peace | p99, ms | in peace | times | target |
|---|---|---|---|---|---|---|
"""
GROWTH = """\
| operation, one at a time | p50 at {small:,}, ms | p50 at {large:,}, ms | ratio | target |
|---|---|---|---|---|
"""


def main() -> None:
    """Measure, print, and write the report where one is asked for."""
    arguments = argparse.ArgumentParser(description="Measure the service.")
    arguments.add_argument("--report", type=Path, help="the file whose tables are to be replaced")
    arguments.add_argument("--scale", type=int, default=SCALE, help="users of the last table")
    given = arguments.parse_args()
    tables = measure(given.scale)
    sys.stdout.write(tables)
    if given.report:
        kept = given.report.read_text().partition("<!-- measured -->")
        given.report.write_text(f"{kept[0]}{kept[1]}\n\n{tables}")


def measure(scale: int) -> str:
    """Run every measurement and return the tables."""
    machine = (
        f"{os.cpu_count()} cores, Python {platform.python_version()}; medians of {ROUNDS} rounds "
        f"of {SECONDS} s, the service and its limit by turns.\n"
    )
    with (
        tempfile.TemporaryDirectory(prefix="referral-") as home,
        make_testbed(Path(home), SMALL) as staged,
    ):
        asyncio.run(fill(staged.small.database, 1, SMALL, ARGON2.hash(PASSWORD)))
        parts = [machine, TARGETS + "".join(_row(*row) for row in compare(staged))]
        parts += [FLOODS.format(rate=RATE) + "".join(_flood(*row) for row in floods(staged))]
        parts += [*_growth(staged, scale), _memory(staged)]
    return "\n".join(parts) + "\n"


def _row(name: str, target: float | None, ours: Measurement, limit: Measurement) -> str:
    return _tell(
        f"| {name} | {ours.rate:,.0f} | {limit.rate:,.0f} | {ours.rate / limit.rate:.2f} "
        f"| {target or ''} | {ours.cpu:.2f} | {limit.cpu:.2f} | {ours.p50:.1f} | {ours.p99:.1f} |\n"
    )


def _flood(name: str, idle: Measurement, flooded: Measurement) -> str:
    return _tell(
        f"| {name} | {flooded.p50:.1f} | {idle.p50:.1f} | {flooded.p99:.1f} | {idle.p99:.1f} "
        f"| {flooded.p99 / idle.p99:.1f} | {TIMES:.0f} |\n"
    )


def _growth(staged: Testbed, scale: int) -> list[str]:
    with staged.open_dataset(scale) as large:
        seconds = asyncio.run(fill(large.database, 1, scale, ARGON2.hash(PASSWORD)))
        _tell(f"{scale:,} users after {seconds:.0f} s\n")
        rows = [
            _tell(f"| {name} | {few.p50:.2f} | {many.p50:.2f} | {many.p50 / few.p50:.2f} | 1.2 |\n")
            for name, (few, many) in growth(staged, staged.small, large).items()
        ]
        depth, first, deep = pages(staged, large)
    table = GROWTH.format(small=SMALL, large=scale) + "".join(rows)
    depths = (
        f"Page 1 of the referrals takes {first.p50:.2f} ms, page {depth:,} {deep.p50:.2f} ms: "
        f"{deep.p50 / first.p50:.2f} times as long, where 1.2 is the target. Making the "
        f"{scale:,} users took {seconds:.0f} s.\n"
    )
    return [table, depths]


def _memory(staged: Testbed) -> str:
    found = memory_under_load(staged)
    a_minute = 60 // SAMPLE_SECONDS
    early, late = found[:a_minute][-1], found[-1]
    highest = max(one.rss_mb for one in found)
    return (
        f"Memory of the worker during {MINUTES:g} minutes of registrations, look-ups, `GET /me` "
        f"and codes at once: {early.rss_mb:.0f} MB after the first minute, "
        f"{late.rss_mb:.0f} MB at the end, {highest:.0f} MB at most; the target is "
        f"{MEGABYTES} MB. With what it shares with other processes divided among them: "
        f"{early.pss_mb:.0f} and {late.pss_mb:.0f} MB."
    )


def _tell(line: str) -> str:
    """Show how far it has come."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}")
    return line


if __name__ == "__main__":
    main()
