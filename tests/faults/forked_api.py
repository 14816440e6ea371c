"""The API in a process that starts fast, to be killed hundreds of times.

`referral run` takes over a second to import its modules. Here a fork server imports them once,
and each process is a fork of it; server, app and settings are the same.
"""

import multiprocessing
from contextlib import suppress
from datetime import datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx
import uvloop
from dishka import Provider, Scope
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

from referral.adapters.observability.logs import configure_logging
from referral.adapters.system import SystemClock
from referral.app import create_app
from referral.core.ports.system import Clock
from referral.settings import read_settings
from tests.support.waiting import wait_for_value

START_SECONDS = 20.0

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.faults.forked_api"])


class MovedClock:
    """The system's clock plus the seconds in a file."""

    def __init__(self, file: Path) -> None:
        """Read this file, which may change at any time."""
        self._file = file
        self._clock = SystemClock()

    def now(self) -> datetime:
        """Return the moved time."""
        return self._clock.now() + timedelta(seconds=float(self._file.read_text()))


async def start(environment: dict[str, str], port: int, clock: Path | None = None) -> BaseProcess:
    """Start the API, optionally with a moved clock; return its process when it is ready."""
    process = _processes.Process(target=_serve, args=(environment, port, clock))
    process.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

        async def is_ready() -> bool:
            assert process.is_alive(), "the API ended during its start"
            with suppress(httpx.TransportError):
                return (await client.get("/health/ready")).is_success
            return False

        await wait_for_value(is_ready, START_SECONDS)
    return process


def _serve(environment: dict[str, str], port: int, clock: Path | None) -> None:
    uvloop.run(_run(environment, port, clock))


async def _run(environment: dict[str, str], port: int, clock: Path | None) -> None:
    settings = read_settings(environment)
    configure_logging("json", settings.log_level)
    moved = Provider(scope=Scope.APP)
    if clock is not None:
        moved.provide(lambda: MovedClock(clock), provides=Clock, override=True)
    app = create_app(settings, *([moved] if clock else []))
    server = Server(
        app,
        port=port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        websockets=False,
        log_level=LogLevels.error,
    )
    await server.serve()
