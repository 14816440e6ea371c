"""The server's processes: one that listens and starts workers, and what runs in each."""

import gc
import multiprocessing
import os
import signal
import socket
import threading

import click
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import MPServer
from litestar.types import ASGIApp

from referral.app import create_app_from_environment
from referral.container.configuration import PROCESS_COUNT_ENV
from referral.web.middleware.draining import DRAIN_SECONDS_ENV, DRAIN_SIGNAL

KILL_TIMEOUT_SECONDS = 10
"""How long a worker process may take to finish its requests before it is killed."""

LOGGING_CONFIG = {"loggers": {"_granian": {"propagate": True}}}
"""What the server itself has to say goes the way of all other lines, as JSON where those are."""

MAX_REQUEST_HEAD_BYTES = 32 * 1024
"""How long a request's line and headers may be; each slow connection can hold so many bytes."""


def make_app() -> ASGIApp:
    """Make the service within a worker process, which goes when its parent is killed."""
    threading.Thread(target=_exit_with_parent, name="follow-parent", daemon=True).start()
    app = create_app_from_environment()
    gc.freeze()
    return app


def _exit_with_parent() -> None:
    # Left behind by a kill -9, a worker would keep the port and the data folder from the next.
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)


class Server(MPServer):
    """The server, which goes on for a while after SIGTERM, and ends at once on Ctrl-C."""

    drain_seconds = 0

    def signal_handler_interrupt(self, number: int, *rest: object) -> None:
        """End, or begin to; a second signal ends it at once."""
        seconds, self.drain_seconds = self.drain_seconds, 0
        if number != signal.SIGTERM or not seconds:
            super().signal_handler_interrupt(number, *rest)  # type: ignore[no-untyped-call]
            return
        for process in multiprocessing.active_children():
            if process.pid:  # 0 would be the whole process group
                os.kill(process.pid, DRAIN_SIGNAL)
        end = threading.Timer(seconds, super().signal_handler_interrupt, (number, *rest))
        end.daemon = True
        end.start()


def run_server(host: str, port: int, workers: int, drain_seconds: int) -> None:
    """Serve until SIGTERM and `drain` more seconds, or Ctrl-C."""
    os.environ[PROCESS_COUNT_ENV] = str(workers)
    os.environ[DRAIN_SECONDS_ENV] = str(drain_seconds)
    # Until a worker listens to it, the signal must not end it.
    signal.signal(DRAIN_SIGNAL, signal.SIG_IGN)
    # What was imported stays. A collector that never looks at it leaves its pages to be shared by
    # the worker processes, and does not hold requests up for as long.
    gc.collect()
    gc.freeze()
    server = Server(
        "referral.server:make_app",
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        workers=workers,
        loop=Loops.uvloop,
        factory=True,
        websockets=False,
        log_level=LogLevels.warning,
        log_dictconfig=LOGGING_CONFIG,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=10_000, max_buffer_size=MAX_REQUEST_HEAD_BYTES
        ),
        respawn_failed_workers=True,
        workers_kill_timeout=KILL_TIMEOUT_SECONDS,
    )
    server.drain_seconds = drain_seconds
    server.serve()


def resolve_listen_ip(host: str, port: int) -> str:
    """Return the host's IP address, or say in words that there is none or the port is taken."""
    if "%" in host:
        raise _cannot_listen(host, port, "an address with a zone is not supported")
    try:
        # IPv4 where a name has both, as the default of `REFERRAL_PUBLIC_URL`.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, *_, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        # Only bound: a balancer that came while it listened would lose the request it sent.
        with socket.socket(family, kind) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            return str(address[0])
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, str(getattr(error, "strerror", error))) from error


def _cannot_listen(host: str, port: int, cause: str) -> click.ClickException:
    fault = f"Cannot listen on {host}:{port}: {cause}. Choose another with --host or --port."
    return click.ClickException(fault)
