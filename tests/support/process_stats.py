"""Statistics of a service's processes from /proc: memory, CPU time, open files."""

import os
from dataclasses import dataclass
from pathlib import Path

from tests.support.service_process import Service

CLOCK_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class MemoryUsage:
    """Resident memory and proportional set size, in MB."""

    rss_mb: float
    pss_mb: float


def find_worker(service: Service) -> int:
    """Return the id of the process that serves requests, a child of the started one."""
    parent = service.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    ours = [int(child) for child in children if _name(int(child)) != "postgres"]
    return max(ours, key=lambda child: memory_usage(child).rss_mb)


def memory_usage(process: int) -> MemoryUsage:
    """Return the current memory usage of a process."""
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    resident, share = (
        int(rollup.partition(f"\n{name}:")[2].split()[0]) / 1000 for name in ("Rss", "Pss")
    )
    return MemoryUsage(resident, share)


def cpu_seconds(process: int) -> float:
    """Return the user and system CPU time of a process, over all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS_PER_SECOND


def open_file_count(process: int) -> int:
    """Count the open file descriptors of a process, including sockets."""
    return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())


def _name(process: int) -> str:
    return Path(f"/proc/{process}/comm").read_text().strip()
