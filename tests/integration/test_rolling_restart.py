"""A rolling restart: one replica after the other, while clients send requests."""

import asyncio
import errno
import socket
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

import httpx
import pytest

from referral.server import resolve_listen_ip
from tests.support.api_client import API
from tests.support.nginx import run_nginx
from tests.support.service_process import STOP_SECONDS, Service, free_port, running_service
from tests.support.steady_load import steady_load
from tests.support.waiting import wait_until

PROBLEM = "application/problem+json"
DRAIN = ("--drain", "1")
PATIENCE = 60


@pytest.fixture
def shared(database_url: str, key_file: Path) -> dict[str, str]:
    """Settings of two services on one database."""
    return {
        "database_url": database_url,
        "signing_key_file": str(key_file),
        "email_verification": "off",
        "trusted_proxies": "127.0.0.1",
    }


def test_readiness_fails_first(tmp_path: Path, shared: dict[str, str]) -> None:
    """After SIGTERM `/health/ready` is 503, and other requests are still served."""
    with running_service(tmp_path / "data", "--drain", "3", **shared) as service:
        service.process.terminate()
        with httpx.Client(base_url=service.url) as client:
            asyncio.run(wait_until(lambda: client.get("/health/ready").status_code == 503))
            assert client.get("/health/ready").headers["Content-Type"] == PROBLEM
            response = client.get(f"{API}/codes/NONE/validity")
        assert response.status_code == 200
        assert response.headers["Connection"] == "close"
        assert service.process.wait(STOP_SECONDS) == 0


def test_shutdown_breaks_no_connection(tmp_path: Path, shared: dict[str, str]) -> None:
    """A new connection is refused, and an open connection is served."""
    with running_service(tmp_path / "data", *DRAIN, **shared) as service:
        port = httpx.URL(service.url).port or 0
        connection = socket.create_connection(("127.0.0.1", port), timeout=5)
        service.process.terminate()
        asyncio.run(wait_until(lambda: not _connects(port)))
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        connection.close()
        assert service.process.wait(STOP_SECONDS) == 0


def test_port_check_accepts_no_connection() -> None:
    """The check for a free port never accepts a connection."""
    port = free_port()
    process = get_context("fork").Process(target=_check_port_often, args=(port,))
    process.start()
    results = set()
    while process.is_alive():
        with socket.socket() as client:
            results.add(client.connect_ex(("127.0.0.1", port)))
    assert process.exitcode == 0
    assert results == {errno.ECONNREFUSED}


def _check_port_often(port: int) -> None:
    for _ in range(10_000):
        assert resolve_listen_ip("127.0.0.1", port) == "127.0.0.1"


def test_second_signal_skips_the_drain(tmp_path: Path, shared: dict[str, str]) -> None:
    """A second SIGTERM ends the service without waiting for load balancers."""
    with running_service(tmp_path / "data", "--drain", "60", **shared) as service:
        service.process.terminate()
        asyncio.run(wait_until(lambda: httpx.get(f"{service.url}/health/ready").status_code == 503))
        assert service.stop() == 0


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.1).close()
    except OSError:
        return False
    return True


def test_rolling_restart_loses_no_request(tmp_path: Path, shared: dict[str, str]) -> None:
    """Behind nginx two services restart in turn, and every request succeeds."""
    ports = [free_port(), free_port()]
    with ExitStack() as stack:
        services = [
            stack.enter_context(running_service(tmp_path / str(port), *DRAIN, port=port, **shared))
            for port in ports
        ]
        url = stack.enter_context(run_nginx(tmp_path / "nginx", ports))

        def restart(service: Service, port: int) -> None:
            assert service.stop() == 0
            stack.enter_context(running_service(tmp_path / str(port), *DRAIN, port=port, **shared))

        async def restart_all() -> None:
            async with steady_load(url) as tally:
                await wait_until(lambda: tally.responses.total() > 200, PATIENCE)
                for service, port in zip(services, ports, strict=True):
                    await asyncio.to_thread(restart, service, port)
                before = tally.responses.total()
                await wait_until(lambda: tally.responses.total() > before + 200, PATIENCE)
            assert tally.failures == {}

        asyncio.run(restart_all())
