"""A disk that is full (row 30): a small tmpfs, or a limit on files where mounting is refused."""

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

MEGABYTES = 160
FULL_SECONDS = 12.0
MAX_RECOVERY_SECONDS = 5.0
FILE, NONE = "1048576", "unlimited"
EXPECTED_STATUSES = {200, 201, 204, 503}
SMALL_SEGMENTS = ("-c max_wal_size=32MB", "-c min_wal_size=32MB", "-c checkpoint_timeout=30s")


class Disk(NamedTuple):
    """Where the data is, and how it comes to be full and has room again."""

    kind: str
    folder: Path
    fill: Callable[[], None]
    free: Callable[[], None]


def run() -> ScenarioReport:
    """Fill the disk under a crowd, make room, and see what is left."""
    figures = ScenarioReport()
    with _disk() as disk, make_testbed(disk.folder, *SMALL_SEGMENTS) as place:
        figures.record(disk=disk.kind)
        with place.service() as service:
            asyncio.run(_fill(figures, place, disk, service.url))
    return figures


async def _fill(figures: ScenarioReport, place: Testbed, disk: Disk, url: str) -> None:
    async with run_workload(url, size=6, joining=0.3) as people:
        await asyncio.sleep(2)
        began = time.monotonic()
        await asyncio.to_thread(disk.fill)
        await asyncio.sleep(FULL_SECONDS)
        full = people.between(began)
        await asyncio.to_thread(disk.free)
        watcher = EmbeddedPostgres(disk.folder)
        await asyncio.to_thread(watcher.start)  # it may have given up; whoever watches starts it
        freed = time.monotonic()
        await asyncio.to_thread(watcher.stop)
        back = await _until_written(people, freed)
    figures.record(
        while_full=count_statuses(full),
        worst_wait_while_full=percentile(full, 1),
        writes_again_after_seconds=back,
        requests=len(people.requests),
        statuses=count_statuses(people.requests),
    )
    figures.check(holds=503 in count_statuses(full), promise="the disk was full")
    figures.check(
        holds={each.status for each in people.requests} <= EXPECTED_STATUSES,
        promise="503 and nothing else, and an answer to every request",
    )
    figures.check(holds=back < MAX_RECOVERY_SECONDS, promise="writes work again within 5 s")
    async with place.connection() as connection:
        lost = await people.find_lost_writes(connection)
    figures.record(
        acknowledged=people.count_acknowledged, found=people.count_acknowledged - lost, lost=lost
    )
    figures.check(holds=lost == 0, promise="every acknowledged write is there")


async def _until_written(people: Workload, since: float) -> float:
    """Wait for a write that began after the disk had room again; return how long that took."""
    deadline = since + 3 * MAX_RECOVERY_SECONDS
    while time.monotonic() < deadline:
        for each in people.between(since):
            if each.kind in {"issue", "register"} and each.status == 201:
                return each.started_at + each.seconds - since
        await asyncio.sleep(0.05)
    return time.monotonic() - since


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
            kind = "none may be mounted here, so files may not grow instead"
            yield Disk(kind, folder, partial(_limit, folder, FILE), partial(_limit, folder, NONE))
    finally:
        if mounted:
            subprocess.run(["umount", str(mount)], check=True)  # noqa: S603, S607
        shutil.rmtree(mount)


def _fill_up(ballast: Path) -> None:
    """Take all the room there is, to the last byte."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass


def _limit(folder: Path, size: str) -> None:
    """Let no process of the server write beyond a size of file."""
    data = folder / "data"
    first = (data / "postmaster.pid").read_text().split()[0]
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    # Root may be refused, the owner is not.
    owner, group = (data.owner(), data.group()) if os.geteuid() == 0 else (None, None)
    for process in (first, *children):
        command = ["prlimit", f"--pid={process}", f"--fsize={size}:"]
        # One of them may just have ended, which is no fault.
        subprocess.run(command, check=False, capture_output=True, user=owner, group=group)  # noqa: S603
