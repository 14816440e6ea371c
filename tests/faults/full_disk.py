"""A full disk (row 30): a small tmpfs, or a limit on file sizes if mounting is not permitted."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from referral.adapters.postgres.embedded import EmbeddedPostgres
from tests.faults.report import ScenarioReport
from tests.faults.testbed import Testbed, make_testbed
from tests.faults.workload import Workload, count_statuses, percentile, run_workload
from tests.support.waiting import wait_until

MEGABYTES = 160
FULL_SECONDS = 12.0
MAX_RECOVERY_SECONDS = 5.0
FILE, NONE = "1048576", "unlimited"
EXPECTED_STATUSES = {200, 201, 204, 503}
SMALL_SEGMENTS = ("-c max_wal_size=32MB", "-c min_wal_size=32MB", "-c checkpoint_timeout=30s")


class Disk(NamedTuple):
    """The folder for the data, and functions that fill the disk and free space."""

    kind: str
    folder: Path
    fill: Callable[[], None]
    free: Callable[[], None]


def run() -> ScenarioReport:
    """Fill the disk under a workload, free space, and check the data."""
    report = ScenarioReport()
    with _disk() as disk, make_testbed(disk.folder, *SMALL_SEGMENTS) as testbed:
        report.record(disk=disk.kind)
        with testbed.service() as service:
            asyncio.run(_fill(report, testbed, disk, service.url))
    return report


async def _fill(report: ScenarioReport, testbed: Testbed, disk: Disk, url: str) -> None:
    async with run_workload(url, size=6, registering=0.3) as workload:
        await workload.warm_up()
        started = time.monotonic()
        await asyncio.to_thread(disk.fill)
        await asyncio.sleep(FULL_SECONDS)
        while_full = workload.between(started)
        await asyncio.to_thread(disk.free)
        supervisor = EmbeddedPostgres(disk.folder)
        # PostgreSQL may have stopped; a supervisor would restart it.
        await asyncio.to_thread(supervisor.start)
        freed = time.monotonic()
        await asyncio.to_thread(supervisor.stop)
        recovery_seconds = await _wait_until_written(workload, freed)
    report.record(
        while_full=count_statuses(while_full),
        worst_wait_while_full=percentile(while_full, 1),
        writes_again_after_seconds=recovery_seconds,
        requests=len(workload.requests),
        statuses=count_statuses(workload.requests),
    )
    report.check(holds=503 in count_statuses(while_full), promise="the disk was full")
    report.check(
        holds={request.status for request in workload.requests} <= EXPECTED_STATUSES,
        promise="every request gets a success or 503",
    )
    report.check(
        holds=recovery_seconds < MAX_RECOVERY_SECONDS, promise="writes work again within 5 s"
    )
    async with testbed.connection() as connection:
        lost = await workload.count_lost_writes(connection)
    report.record(
        acknowledged=workload.acknowledged_writes,
        found=workload.acknowledged_writes - lost,
        lost=lost,
    )
    report.check(holds=lost == 0, promise="every acknowledged write is stored")


async def _wait_until_written(workload: Workload, since: float) -> float:
    """Wait for a write that started after space was freed; return the seconds it took."""

    def seconds_to_writes() -> list[float]:
        return [
            request.started_at + request.seconds - since
            for request in workload.between(since)
            if request.kind in {"issue", "register"} and request.status == 201
        ]

    with suppress(AssertionError):
        await wait_until(seconds_to_writes, 3 * MAX_RECOVERY_SECONDS)
    return min(seconds_to_writes(), default=time.monotonic() - since)


@contextmanager
def _disk() -> Iterator[Disk]:
    mount = Path(tempfile.mkdtemp(prefix="referral-disk-"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "referral", str(mount)]
    mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0  # noqa: S603
    folder, ballast = mount / "postgres", mount / "ballast"
    try:
        if mounted:
            yield Disk("a tmpfs", folder, partial(_fill_up, ballast), ballast.unlink)
        else:
            kind = "a limit on file sizes, as mounting is not permitted"
            yield Disk(kind, folder, partial(_limit, folder, FILE), partial(_limit, folder, NONE))
    finally:
        if mounted:
            subprocess.run(["umount", str(mount)], check=True)  # noqa: S603, S607
        shutil.rmtree(mount)


def _fill_up(ballast: Path) -> None:
    """Fill the disk to the last byte."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass


def _limit(folder: Path, size: str) -> None:
    """Limit the size of files that the server's processes may write."""
    data = folder / "data"
    postmaster = (data / "postmaster.pid").read_text().split()[0]
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    # prlimit may be forbidden to root, but not to the owner.
    owner, group = (data.owner(), data.group()) if os.geteuid() == 0 else (None, None)
    for process in (postmaster, *children):
        command = ["prlimit", f"--pid={process}", f"--fsize={size}:"]
        # A process may have ended in the meantime.
        subprocess.run(command, check=False, capture_output=True, user=owner, group=group)  # noqa: S603
