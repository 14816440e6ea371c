"""What the system knows of a service's processes: memory, time on a core, open files."""

import os
from dataclasses import dataclass
from pathlib import Path

from tests.support.service_process import Service

CLOCK_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class MemoryUsage:
    """In MB: all that is resident, and that with what others share divided among them."""

    rss_mb: float
    pss_mb: float


def find_worker(service: Service) -> int:
    """Return the process that answers requests, a child of the one that was started."""
    parent = service.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    ours = [int(child) for child in children if _name(int(child)) != "postgres"]
    return max(ours, key=lambda child: memory_usage(child).rss_mb)


def memory_usage(process: int) -> MemoryUsage:
    """Return how much it takes now."""
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    resident, share = (
        int(rollup.partition(f"\n{name}:")[2].split()[0]) / 1000 for name in ("Rss", "Pss")
    )
    return MemoryUsage(resident, share)


def cpu_seconds(process: int) -> float:
    """Return how long it has been on a core, in all its threads, and the system for it."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS_PER_SECOND


def open_file_count(process: int) -> int:
    """Count its file handles, of which connections are some."""
    return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())


def _name(process: int) -> str:
    return Path(f"/proc/{process}/comm").read_text().strip()
