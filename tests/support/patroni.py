"""A cluster of PostgreSQL servers that Patroni manages, with etcd; both are Debian's packages."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.postgres_servers import process_owner, server_folder, signal_server
from tests.support.service_process import free_port
from tests.support.waiting import wait_for_port

PROGRAMS = ("patroni", "etcd")
POSTGRES = Path("/usr/lib/postgresql")
NODES = 3
STOP_SECONDS = 30
ANSWER_SECONDS = 2.0
PASSWORD = "secret"
AUTHENTICATION = {"username": "postgres", "password": PASSWORD}

DYNAMIC_CONFIGURATION = {
    "ttl": 8,
    "loop_wait": 1,
    "retry_timeout": 3,
    "primary_start_timeout": 0,  # a killed primary is replaced and not started again
    "synchronous_mode": True,
    "postgresql": {
        "use_pg_rewind": True,
        "parameters": {"fsync": "off", "max_connections": 100, "wal_keep_size": "64MB"},
    },
}


def missing_programs() -> list[str]:
    """Return the programs that are not installed, or nothing if all of them are."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return missing if any(POSTGRES.glob("*/bin")) else ["postgresql", *missing]


@dataclass(frozen=True)
class PatroniNode:
    """A server and its Patroni."""

    name: str
    port: int
    api: str
    data: Path
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> str:
        """The host and port of the server."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"postgresql://postgres:{PASSWORD}@{self.address}/postgres"

    def has_role(self, role: str) -> bool:
        """Return whether Patroni says that it is the `primary`, or a `synchronous` standby."""
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.api}/{role}", timeout=ANSWER_SECONDS).is_success
        return False

    def signal_server(self, number: signal.Signals) -> None:
        """Send a signal to the processes of PostgreSQL."""
        with suppress(FileNotFoundError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            signal_server(int(lines[0]), number)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to Patroni and to PostgreSQL: SIGSTOP freezes the machine."""
        self.process.send_signal(number)
        self.signal_server(number)

    def switch_over(self, candidate: str) -> None:
        """Make another node the primary."""
        body = {"leader": self.name, "candidate": candidate}
        response = httpx.post(f"{self.api}/switchover", json=body, timeout=STOP_SECONDS)
        assert response.is_success, response.text


@contextmanager
def run_patroni() -> Iterator[list[PatroniNode]]:
    """Run etcd and the nodes until the block ends; the cluster may still be starting."""
    with ExitStack() as stack:
        folder = stack.enter_context(server_folder())
        etcd = stack.enter_context(_run_etcd(folder))
        ports = [(free_port(), free_port()) for _ in range(NODES)]
        yield [
            stack.enter_context(_run_node(folder, f"node-{port}", etcd, port, api_port))
            for port, api_port in ports
        ]


@contextmanager
def _run_etcd(folder: Path) -> Iterator[str]:
    port, peers = free_port(), f"http://127.0.0.1:{free_port()}"
    clients = f"http://127.0.0.1:{port}"
    options = {
        "data-dir": str(folder / "etcd"),
        "listen-client-urls": clients,
        "advertise-client-urls": clients,
        "listen-peer-urls": peers,
        "initial-advertise-peer-urls": peers,
        "initial-cluster": f"default={peers}",
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    with _run(folder / "etcd.log", "etcd", "--unsafe-no-fsync", *arguments):
        wait_for_port(port)
        yield f"127.0.0.1:{port}"


@contextmanager
def _run_node(
    folder: Path, name: str, etcd: str, port: int, api_port: int
) -> Iterator[PatroniNode]:
    api, data = f"127.0.0.1:{api_port}", folder / name
    configuration = {
        "scope": "referral",
        "name": name,
        "restapi": {"listen": api, "connect_address": api},
        "etcd3": {"hosts": etcd},
        "bootstrap": {
            "dcs": DYNAMIC_CONFIGURATION,
            "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"],
        },
        "postgresql": {
            "listen": f"127.0.0.1:{port}",
            "connect_address": f"127.0.0.1:{port}",
            "data_dir": str(data),
            "bin_dir": str(_binaries()),
            "pgpass": str(folder / f"{name}.pgpass"),
            "authentication": {"superuser": AUTHENTICATION, "replication": AUTHENTICATION},
            "parameters": {"unix_socket_directories": str(folder)},
            "pg_hba": [
                "local all all trust",
                "host all all 127.0.0.1/32 scram-sha-256",
                "host replication all 127.0.0.1/32 scram-sha-256",
            ],
        },
    }
    file = folder / f"{name}.yml"
    file.write_text(json.dumps(configuration))
    with _run(folder / f"{name}.log", "patroni", str(file)) as process:
        node = PatroniNode(name, port, f"http://{api}", data, process)
        try:
            yield node
        finally:
            node.signal_server(signal.SIGKILL)


@contextmanager
def _run(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - programs of Debian
            command, stdout=output, stderr=output, **process_owner()
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(STOP_SECONDS)


def _binaries() -> Path:
    """Return the programs of Debian's PostgreSQL, which its Patroni knows."""
    return max(POSTGRES.glob("*/bin"), key=lambda path: int(path.parent.name))
