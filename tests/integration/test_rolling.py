"""A new release taken in one replica after the other, while clients ask without a pause."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.balancer import balancing
from tests.processes import Service, free_port, running
from tests.steady_load import steady_load
from tests.waiting import until

DRAIN = ("--drain", "2")


@pytest.fixture
def shared(database_url: str, key_file: Path) -> dict[str, str]:
    """Settings of two services over one database."""
    return {
        "database_url": database_url,
        "signing_key_file": str(key_file),
        "email_verification": "off",
        "trusted_proxies": "127.0.0.1",
    }


def test_a_rolling_restart_loses_no_request(tmp_path: Path, shared: dict[str, str]) -> None:
    """Behind nginx each of two services is ended and started anew, and every request succeeds."""
    ports = [free_port(), free_port()]
    with ExitStack() as stack:
        services = [
            stack.enter_context(running(tmp_path / str(port), *DRAIN, port=port, **shared))
            for port in ports
        ]
        url = stack.enter_context(balancing(tmp_path / "nginx", ports))

        def restart(service: Service, port: int) -> None:
            assert service.stop() == 0
            stack.enter_context(running(tmp_path / str(port), *DRAIN, port=port, **shared))

        async def roll() -> None:
            async with steady_load(url) as tally:
                await until(lambda: tally.answers.total() > 200)
                for service, port in zip(services, ports, strict=True):
                    await asyncio.to_thread(restart, service, port)
                restarted = tally.answers.total()
                await until(lambda: tally.answers.total() > restarted + 200)
            assert tally.failures == {}
            assert tally.answers.total() > 1000
            print(tally.answers)

        asyncio.run(roll())
