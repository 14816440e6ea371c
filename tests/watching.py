"""What the system knows of a service's processes: memory, open files, connections."""

from pathlib import Path

from tests.processes import Service


def worker_of(service: Service) -> int:
    """Return the process that answers requests, a child of the one that was started."""
    parent = service.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return max(
        (int(child) for child in children if "postgres" not in _status(int(child))["Name"]),
        key=memory,
    )


def memory(process: int) -> float:
    """Return its resident memory in MB."""
    return int(_status(process)["VmRSS"].split()[0]) / 1000


def open_files(process: int) -> int:
    """Count its file handles, of which connections are some."""
    return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())


def _status(process: int) -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
