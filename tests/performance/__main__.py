"""Benchmarks of the service as a process, each figure beside the limit of the machine.

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
from tests.performance.scaling import compare_sizes, pages
from tests.performance.seed import seed
from tests.performance.testbed import Testbed, make_testbed
from tests.support.api_client import PASSWORD

SMALL = 10_100
"""The users that are looked up, and a few that create and delete codes."""
SCALE = 1_000_000
MEGABYTES = 150
TIMES = 3.0

TARGETS = """\
| operation | a second | limit a second | ratio | target | CPU, ms | limit's | p50, ms | p99, ms |
|---|---|---|---|---|---|---|---|---|
"""
FLOODS = """\
| hot lookups at {rate}/s beside | p50, ms | idle | p99, ms | idle | times | target |
|---|---|---|---|---|---|---|
"""
GROWTH = """\
| operation, one at a time | p50 at {small:,}, ms | p50 at {large:,}, ms | ratio | target |
|---|---|---|---|---|
"""


def main() -> None:
    """Run the benchmarks; print the tables and write the report if requested."""
    arguments = argparse.ArgumentParser(description="Measure the service.")
    arguments.add_argument("--report", type=Path, help="the file whose tables are replaced")
    arguments.add_argument("--scale", type=int, default=SCALE, help="users of the last table")
    options = arguments.parse_args()
    tables = measure(options.scale)
    sys.stdout.write(tables)
    if options.report:
        text = options.report.read_text().partition("<!-- measured -->")
        options.report.write_text(f"{text[0]}{text[1]}\n\n{tables}")


def measure(scale: int) -> str:
    """Run every benchmark and return the tables."""
    machine = (
        f"{os.cpu_count()} cores, Python {platform.python_version()}; medians of {ROUNDS} rounds "
        f"of {SECONDS} s, the service and its limit by turns.\n"
    )
    with (
        tempfile.TemporaryDirectory(prefix="referral-") as home,
        make_testbed(Path(home), SMALL) as testbed,
    ):
        asyncio.run(seed(testbed.small.database, 1, SMALL, ARGON2.hash(PASSWORD)))
        parts = [machine, TARGETS + "".join(_row(*row) for row in compare(testbed))]
        parts += [FLOODS.format(rate=RATE) + "".join(_flood(*row) for row in floods(testbed))]
        parts += [*_growth(testbed, scale), _memory(testbed)]
    return "\n".join(parts) + "\n"


def _row(name: str, target: float | None, measured: Measurement, limit: Measurement) -> str:
    return _tell(
        f"| {name} | {measured.rate:,.0f} | {limit.rate:,.0f} | {measured.rate / limit.rate:.2f} "
        f"| {target or ''} | {measured.cpu:.2f} | {limit.cpu:.2f} "
        f"| {measured.p50:.1f} | {measured.p99:.1f} |\n"
    )


def _flood(name: str, idle: Measurement, flooded: Measurement) -> str:
    return _tell(
        f"| {name} | {flooded.p50:.1f} | {idle.p50:.1f} | {flooded.p99:.1f} | {idle.p99:.1f} "
        f"| {flooded.p99 / idle.p99:.1f} | {TIMES:.0f} |\n"
    )


def _growth(testbed: Testbed, scale: int) -> list[str]:
    with testbed.open_dataset(scale) as large:
        seconds = asyncio.run(seed(large.database, 1, scale, ARGON2.hash(PASSWORD)))
        _tell(f"{scale:,} users after {seconds:.0f} s\n")
        rows = [
            _tell(f"| {name} | {few.p50:.2f} | {many.p50:.2f} | {many.p50 / few.p50:.2f} | 1.2 |\n")
            for name, (few, many) in compare_sizes(testbed, testbed.small, large).items()
        ]
        depth, first, deep = pages(testbed, large)
    table = GROWTH.format(small=SMALL, large=scale) + "".join(rows)
    depths = (
        f"Page 1 of the referrals takes {first.p50:.2f} ms, page {depth:,} {deep.p50:.2f} ms: "
        f"{deep.p50 / first.p50:.2f} times as long, where 1.2 is the target. Making the "
        f"{scale:,} users took {seconds:.0f} s.\n"
    )
    return [table, depths]


def _memory(testbed: Testbed) -> str:
    samples = memory_under_load(testbed)
    a_minute = 60 // SAMPLE_SECONDS
    early, late = samples[:a_minute][-1], samples[-1]
    highest = max(sample.rss_mb for sample in samples)
    return (
        f"Memory of the worker during {MINUTES:g} minutes of registrations, lookups, `GET /me` "
        f"and codes at once: {early.rss_mb:.0f} MB after the first minute, "
        f"{late.rss_mb:.0f} MB at the end, {highest:.0f} MB at most; the target is "
        f"{MEGABYTES} MB. With what it shares with other processes divided among them: "
        f"{early.pss_mb:.0f} and {late.pss_mb:.0f} MB."
    )


def _tell(line: str) -> str:
    """Log a line to standard error and return it."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}")
    return line


if __name__ == "__main__":
    main()
