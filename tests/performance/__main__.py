"""Measure the service as a process, each number beside the limit of the machine.

`make bench` prints the table, `make bench-report` also writes it to docs/performance.md.
"""

import argparse
import asyncio
import os
import platform
import tempfile
from pathlib import Path

from tests.performance.measures import (
    CONNECTIONS,
    REGISTERING,
    SECONDS,
    Measured,
    bare,
    hashes,
    load,
    prepare,
    registrations,
)
from tests.processes import running

HEAD = """\
| operation | a second | limit a second | ratio | p50 | p99 |
|---|---|---|---|---|---|
"""

REPORT = """\
# Performance

What `make bench-report` measured: one worker with its embedded database, load generator and
service on one machine of {cores} cores, Python {python}, {seconds} s each. The numbers mean little
elsewhere; the ratio to the limit of the same machine, taken right after, means more.

{table}
- **Look-up**: `GET /api/v1/codes/lookup?email=`, {connections} connections. Its limit is a bare
  Litestar handler on the same server, which answers the same body and asks no database.
- **Registration**: `POST /api/v1/auth/register` of new addresses, {registering} at a time. Its
  limit is the rate of argon2id alone, with the same parameters and threads.
"""


def main() -> None:
    """Measure, print, and write the report where one is asked for."""
    arguments = argparse.ArgumentParser(description="Measure the service.")
    arguments.add_argument("--report", type=Path, help="where to write the report")
    report: Path | None = arguments.parse_args().report
    table = measure()
    print(table)  # noqa: T201 - what the command is for
    if report:
        report.write_text(_report(table))


def measure() -> str:
    """Run every measurement and return the table."""
    with (
        tempfile.TemporaryDirectory(prefix="referral-") as home,
        running(Path(home) / "var") as service,
    ):
        path, body = asyncio.run(prepare(service))
        look_ups = load(f"{service.url}{path}")
        with bare(body, Path(home) / "bare.log") as limit:
            look_ups_limit = load(f"{limit.url}{path}")
        registered = asyncio.run(registrations(service))
        registered_limit = asyncio.run(hashes())
    return (
        HEAD
        + _row("look-up", look_ups, look_ups_limit)
        + _row("registration", registered, registered_limit)
    )


def _row(name: str, ours: Measured, limit: Measured) -> str:
    ratio = ours.rate / limit.rate
    return (
        f"| {name} | {ours.rate:,.0f} | {limit.rate:,.0f} | {ratio:.0%} "
        f"| {ours.p50:.1f} ms | {ours.p99:.1f} ms |\n"
    )


def _report(table: str) -> str:
    return REPORT.format(
        cores=os.cpu_count(),
        python=platform.python_version(),
        seconds=SECONDS,
        table=table,
        connections=CONNECTIONS,
        registering=REGISTERING,
    )


if __name__ == "__main__":
    main()
