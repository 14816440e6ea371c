"""The service in its own process, with a data folder and a port."""

import errno
import fcntl
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from referral.settings import Settings
from tests.support.api_client import UNLIMITED_ENV
from tests.support.forked_commands import run_forked

COMMAND = (sys.executable, "-m", "referral")
START_SECONDS = 180
STOP_SECONDS = 60
"""Timeouts that a busy machine does not reach."""

POLL_SECONDS = 0.05
NO_DRAIN = ("--drain", "0")

MAX_START_TRIES = 3
PORT_IN_USE = os.strerror(errno.EADDRINUSE)
"""The log message for a port that is in use."""

PORT_LOCKS = os.open(
    Path(tempfile.gettempdir(), f"referral-test-ports-{os.getuid()}"), os.O_RDWR | os.O_CREAT, 0o600
)
"""A file in which a test run locks the byte at the offset of each port that it uses."""


@dataclass(frozen=True)
class Service:
    """A running service."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def wait_until_ready(self) -> None:
        """Wait until it is ready; fail with its log if it exits before."""
        deadline = time.monotonic() + START_SECONDS
        while not _is_ready(f"{self.url}/health/ready"):
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(POLL_SECONDS)
            assert self.process.returncode is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()

    def stop(self) -> int:
        """Send SIGTERM, and return the exit code."""
        self.process.terminate()
        return self.process.wait(STOP_SECONDS)

    def close(self) -> None:
        """Stop it, unless it has exited."""
        if self.process.poll() is None:
            self.stop()


@contextmanager
def running_service(
    folder: Path,
    *options: str,
    port: int | str | None = None,
    command: Sequence[str] = COMMAND,
    **settings: str,
) -> Iterator[Service]:
    """Run the service, or the one of another command, on a data folder until the block ends.

    Without a given port, it tries another one if the chosen port was taken meanwhile.
    """
    service = _start(folder, port, (*command, "run", *NO_DRAIN, *options), settings)
    try:
        yield service
    finally:
        service.close()


def _start(
    folder: Path,
    port: int | str | None,
    command: Sequence[str],
    settings: dict[str, str],
) -> Service:
    tries_left = 1 if port else MAX_START_TRIES
    while True:
        service = _launch(folder, int(port or free_port()), command, settings)
        try:
            service.wait_until_ready()
        except AssertionError:
            service.close()
            tries_left -= 1
            if not tries_left or PORT_IN_USE not in service.log.read_text():
                raise
        except BaseException:
            service.close()
            raise
        else:
            return service


def _launch(folder: Path, port: int, command: Sequence[str], settings: dict[str, str]) -> Service:
    log = folder.with_name(f"{folder.name}.log")
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [*command, "--port", str(port)],
            env=environment(folder, **settings),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return Service(process, f"http://127.0.0.1:{port}", log)


def run_command(
    folder: Path, *arguments: str, stdin: str | None = None, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of the service until it exits."""
    return run_forked(arguments, environment(folder, **settings), stdin, START_SECONDS)


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """Return the environment with these settings only."""
    # Without bytecode files a start takes twice as long.
    left_out = ("REFERRAL_", "PYTHONDONTWRITEBYTECODE")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    # Services on several ports accept each other's tokens if they have the same issuer.
    defaults = {"data_dir": str(folder), "public_url": Settings().public_url}
    overrides = defaults | UNLIMITED_ENV | settings
    return inherited | {f"REFERRAL_{name.upper()}": value for name, value in overrides.items()}


def free_port() -> int:
    """Return a free port below the ephemeral range, reserved until this test run ends."""
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311 - no secret
        with suppress(OSError):
            fcntl.lockf(PORT_LOCKS, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            with socket.create_server(("127.0.0.1", port)):
                return port


def _is_ready(url: str) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(url, timeout=5).is_success
    return False
